//! The trial of an accelerator: a real start of the real kernel.
//!
//! A device that opens proves nothing: where virtualization is nested, KVM may
//! create machines in which kernels hang. So the guest's kernel is booted into a
//! program of 180 bytes that writes a line to the console; what the line proves is
//! everything up to and including user mode. Silence until the deadline, an end
//! without the line and a start that fails are all "does not work".

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aegis_core::spec::Accel;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::argv::{Board, Invocation};
use super::binary::Binary;
use super::cmdline::{Conditions, cmdline};
use super::kernel::GuestKernel;
use super::process::{Child, Exit, ExitStatus};
use super::qemu::{JAILED_INITRAMFS, JAILED_KERNEL};
use crate::jail::{Access, Confinement, JailError, Program, View};

/// How long the guest may take to write its line. A working accelerator needs
/// 0.3 s; the rest is for a host that is busy.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Memory of the guest in MiB, enough for a distribution's kernel.
const MEMORY_MIB: u32 = 256;

/// What the program in the guest writes.
const LINE: &[u8] = b"aegis-probe\n";

/// Most console output that is looked at, in bytes: a boot without `quiet` is 30 KiB.
const MAX_CONSOLE: usize = 256 * 1024;

/// Why an accelerator does not work.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("cannot open {path}")]
    Device {
        path: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot prepare a trial start")]
    Prepare(#[source] io::Error),
    #[error("cannot start QEMU for a trial")]
    Start(#[source] JailError),
    #[error("QEMU ended in a trial start, {}", describe(.0))]
    Ended(Exit),
    #[error("the guest of a trial start was silent for {} s", after.as_secs())]
    Silent { after: Duration },
    #[error("a trial start failed earlier: {0}")]
    Remembered(String),
}

fn describe(exit: &Exit) -> String {
    let how = match exit.status {
        ExitStatus::Exited(code) => format!("exit code {code}"),
        ExitStatus::Signaled(signal) => format!("signal {signal}"),
    };
    match exit.last_words.lines().last() {
        Some(line) => format!("{how}: {line}"),
        None => how,
    }
}

/// A trial start.
#[derive(Debug)]
pub struct Trial<'a> {
    pub binary: &'a Binary,
    pub kernel: &'a GuestKernel,
    /// A private directory for the guest's files.
    pub scratch: &'a Path,
    /// A directory to mount the jail's root on; `None` runs without a jail.
    pub jail_root: Option<&'a Path>,
    pub deadline: Duration,
}

impl Trial<'_> {
    /// Boots a guest and waits for its line.
    ///
    /// # Errors
    /// Why the accelerator does not work, or why that could not be tried.
    pub async fn run(&self, accel: Accel) -> Result<(), ProbeError> {
        let initramfs = self.scratch.join("probe.cpio");
        fs::write(&initramfs, archive()).map_err(ProbeError::Prepare)?;
        let result = self.boot(accel, initramfs.clone()).await;
        fs::remove_file(&initramfs).map_err(ProbeError::Prepare)?;
        result
    }

    async fn boot(&self, accel: Accel, initramfs: PathBuf) -> Result<(), ProbeError> {
        let (reader, writer) = io::pipe().map_err(ProbeError::Prepare)?;
        let console = pipe::Receiver::from_file(File::from(OwnedFd::from(reader)))
            .map_err(ProbeError::Prepare)?;
        let cmdline = cmdline(Conditions {
            kernel: self.kernel.kind(),
            accel,
            cpus: 1,
            tsc_khz: None,
            quiet: true,
        });
        let jailed = self.jail_root.is_some();
        let (kernel_path, initramfs_path) = if jailed {
            (Path::new(JAILED_KERNEL), Path::new(JAILED_INITRAMFS))
        } else {
            (self.kernel.image(), initramfs.as_path())
        };
        let mut invocation = Invocation::new(&Board {
            machine: self.kernel.machine(),
            accel,
            memory_mib: MEMORY_MIB,
            cpus: 1,
            shared_memory: false,
            kernel: kernel_path,
            initramfs: initramfs_path,
            cmdline: &cmdline,
        });
        invocation.console(writer.into());
        let confinement = match self.jail_root {
            Some(root) => {
                let mut view = View::of(self.binary.path(), root);
                view.bind(self.kernel.image(), kernel_path, Access::Read);
                view.bind(&initramfs, initramfs_path, Access::Read);
                if accel == Accel::Kvm {
                    view.bind(
                        Path::new(super::accel::KVM),
                        Path::new(super::accel::KVM),
                        Access::Device,
                    );
                }
                Confinement::Jailed(view)
            }
            None => Confinement::Open,
        };
        let program = |output| Program {
            path: self.binary.path().to_owned(),
            args: invocation.args,
            input: None,
            descriptors: invocation.descriptors,
            output,
            capabilities: 0,
        };
        let child = Child::spawn("trial", program, confinement)
            .await
            .map_err(ProbeError::Start)?;
        let outcome = timeout(self.deadline, hear(console)).await;
        if let Ok(false) = outcome {
            // The console closed without the line, so QEMU ends or has ended.
            child.kill();
            return Err(ProbeError::Ended(child.wait().await));
        }
        child.kill();
        child.wait().await;
        match outcome {
            Ok(_) => Ok(()),
            Err(_) => Err(ProbeError::Silent {
                after: self.deadline,
            }),
        }
    }
}

/// Whether the line comes before the end of the console.
async fn hear(mut console: pipe::Receiver) -> bool {
    let mut heard = Vec::new();
    let mut buffer = [0_u8; 4096];
    while heard.len() < MAX_CONSOLE {
        match console.read(&mut buffer).await {
            Ok(0) | Err(_) => return false,
            Ok(count) => heard.extend_from_slice(&buffer[..count]),
        }
        // A terminal ends lines with a carriage return too, so the text alone counts.
        let text = &LINE[..LINE.len() - 1];
        if heard.windows(text.len()).any(|window| window == text) {
            return true;
        }
    }
    false
}

/// The machine code of the program, position-independent, for x86-64:
///
/// ```text
///   mov eax, 1 (write);     mov edi, 1;           lea rsi, [rip+text]; mov edx, 12; syscall
///   mov eax, 169 (reboot);  mov edi, 0xfee1dead;  mov esi, 0x28121969; mov edx, 0x01234567; syscall
///   jmp itself
/// text: "aegis-probe\n"
/// ```
const CODE: [u8; 48] = [
    0xb8, 0x01, 0x00, 0x00, 0x00, 0xbf, 0x01, 0x00, 0x00, 0x00, 0x48, 0x8d, 0x35, 0x1f, 0x00, 0x00,
    0x00, 0xba, 0x0c, 0x00, 0x00, 0x00, 0x0f, 0x05, 0xb8, 0xa9, 0x00, 0x00, 0x00, 0xbf, 0xad, 0xde,
    0xe1, 0xfe, 0xbe, 0x69, 0x19, 0x12, 0x28, 0xba, 0x67, 0x45, 0x23, 0x01, 0x0f, 0x05, 0xeb, 0xfe,
];

/// Sizes of an ELF header and of one program header (elf(5), 64 bit).
const ELF_HEADERS: u16 = 64 + 56;
/// Where the program is loaded: below it nothing is mapped.
const LOAD_ADDRESS: u64 = 0x40_0000;

/// The program as an ELF executable (elf(5)) of one segment.
fn executable() -> Vec<u8> {
    let content = [&CODE[..], LINE].concat();
    let size = u64::from(ELF_HEADERS) + content.len() as u64;
    let entry = LOAD_ADDRESS + u64::from(ELF_HEADERS);
    // 64 bit, little endian, version 1.
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    for half in [2_u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    for address in [entry, 64, 0] {
        file.extend(address.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // PT_LOAD, readable and executable.
    for word in [1_u32, 5] {
        file.extend(word.to_le_bytes());
    }
    for value in [0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 0x1000] {
        file.extend(value.to_le_bytes());
    }
    file.extend(content);
    file
}

/// An initramfs with the program as `/init` and the console it writes to, in the
/// kernel's "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
fn archive() -> Vec<u8> {
    let mut archive = Vec::new();
    entry(&mut archive, "dev", 0o040_755, (0, 0), &[]);
    entry(&mut archive, "dev/console", 0o020_600, (5, 1), &[]);
    entry(&mut archive, "init", 0o100_755, (0, 0), &executable());
    entry(&mut archive, "TRAILER!!!", 0, (0, 0), &[]);
    archive
}

fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
    // inode, mode, uid, gid, links, mtime, size, device, special device, name size, checksum
    let fields: [usize; 13] = [
        archive.len(),
        mode as usize,
        0,
        0,
        1,
        0,
        content.len(),
        0,
        0,
        device.0 as usize,
        device.1 as usize,
        name.len() + 1,
        0,
    ];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    #[test]
    fn the_program_runs_and_writes_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("probe");
        // Run here it may not reboot the machine: the call is made invalid.
        let mut program = executable();
        let magic = program
            .windows(4)
            .position(|w| w == 0xfee1_dead_u32.to_le_bytes())
            .unwrap();
        program[magic..magic + 4].fill(0);
        // and the endless loop after it becomes an illegal instruction.
        let end = program.windows(2).position(|w| w == [0xeb, 0xfe]).unwrap();
        program[end..end + 2].copy_from_slice(&[0x0f, 0x0b]);
        fs::write(&path, &program).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let output = Command::new(&path).output().unwrap();
        assert_eq!(output.stdout, LINE);
        assert_eq!(executable().len(), 180);
    }

    #[tokio::test]
    async fn the_line_is_heard_in_pieces_and_an_end_without_it_too() {
        use std::io::Write;
        let console = || {
            let (reader, writer) = io::pipe().unwrap();
            (
                pipe::Receiver::from_file(File::from(OwnedFd::from(reader))).unwrap(),
                writer,
            )
        };
        let (receiver, mut writer) = console();
        let heard = tokio::spawn(hear(receiver));
        writer.write_all(b"[    0.1] booting\r\naegis-").unwrap();
        tokio::task::yield_now().await;
        writer.write_all(b"probe\r\n").unwrap();
        assert!(heard.await.unwrap());

        let (receiver, mut writer) = console();
        writer.write_all(b"Kernel panic\r\n").unwrap();
        drop(writer);
        assert!(!hear(receiver).await);
    }
}
