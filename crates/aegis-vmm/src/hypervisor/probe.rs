//! The trial of an accelerator: a real start of the real kernel.
//!
//! A device that opens proves nothing: where virtualization is nested, KVM may
//! create machines in which kernels hang. So the guest's kernel is booted into a
//! program of a few instructions ([`program`]) that writes a line to the console; what
//! the line proves is everything up to and including user mode. Silence until the
//! deadline, an end without the line and a start that fails are all "does not work".

mod program;

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
use super::system::System;
use crate::jail::{Access, Confinement, JailError, Program, View};
use program::{LINE, archive};

/// How long the guest may take to write its line. A working accelerator needs
/// 0.3 s; the rest is for a host that is busy.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Memory of the guest in MiB, enough for a distribution's kernel.
const MEMORY_MIB: u32 = 256;

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
        fs::write(&initramfs, archive(self.kernel.platform())).map_err(ProbeError::Prepare)?;
        let result = self.boot(accel, initramfs.clone()).await;
        fs::remove_file(&initramfs).map_err(ProbeError::Prepare)?;
        result
    }

    async fn boot(&self, accel: Accel, initramfs: PathBuf) -> Result<(), ProbeError> {
        let (reader, writer) = io::pipe().map_err(ProbeError::Prepare)?;
        let console = pipe::Receiver::from_file(File::from(OwnedFd::from(reader)))
            .map_err(ProbeError::Prepare)?;
        let cmdline = cmdline(Conditions {
            platform: self.kernel.platform(),
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
            system: System::HERE,
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

#[cfg(test)]
mod tests {
    use super::*;

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
