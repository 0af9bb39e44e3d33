//! A guest booted directly by QEMU, the link on a socketpair: what aegis-vmm
//! does, without it.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aegis_link::message::{
    Boot, Event, GENERATION, Hello, Program, Root, Share, SharePlace, Upper,
};
use aegis_link::{Handle, Incoming, Received, Role};
use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use tokio::time::timeout;

/// Longer than anything takes, also on a busy machine without KVM.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Which of the two ways a guest is booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machine {
    /// Our own kernel on microvm.
    Own,
    /// Debian's kernel on q35.
    Fallback,
}

/// What a guest is given beside kernel and base image.
#[derive(Debug, Default)]
pub(crate) struct Hardware {
    /// An ext4 disk with the serial "upper".
    pub(crate) disk: Option<PathBuf>,
    /// A folder shared by 9p under the tag "share", at its places.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) places: Vec<SharePlace>,
}

#[derive(Debug)]
pub(crate) struct Guest {
    qemu: Child,
    console: tempfile::NamedTempFile,
    pub(crate) link: Handle,
    pub(crate) incoming: Incoming,
}

/// What this machine lacks for booting a guest, if anything.
pub(crate) fn missing(machine: Machine) -> Option<String> {
    if Command::new("qemu-system-x86_64")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        return Some("qemu-system-x86_64 is not installed".to_owned());
    }
    let files = kernel(machine);
    let missing = files.iter().find(|path| !path.exists())?;
    Some(format!("{} is missing; run guest/build", missing.display()))
}

fn directory() -> PathBuf {
    std::env::var_os("AEGIS_GUEST_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest"),
        PathBuf::from,
    )
}

/// Kernel, initramfs and base image.
fn kernel(machine: Machine) -> [PathBuf; 3] {
    let directory = directory();
    let base = directory.join("base.squashfs");
    match machine {
        Machine::Own => [directory.join("vmlinux"), directory.join("initramfs"), base],
        Machine::Fallback => {
            let fallback = directory.join("fallback");
            [fallback.join("vmlinuz"), fallback.join("initramfs"), base]
        }
    }
}

impl Guest {
    /// Starts QEMU; nothing has been heard of the guest yet.
    pub(crate) fn start(machine: Machine, hardware: &Hardware) -> Result<Guest> {
        let [kernel, initramfs, base] = kernel(machine);
        let (mine, theirs) = UnixStream::pair()?;
        let console = tempfile::NamedTempFile::new()?;
        let bus = match machine {
            Machine::Own => "device",
            Machine::Fallback => "pci",
        };
        let mut qemu = Command::new("qemu-system-x86_64");
        // Emulated, the string instructions that these two make the guest use
        // are a loop over bytes.
        qemu.args(["-accel", "tcg", "-cpu", "max,-erms,-fsrm", "-m", "256"]);
        qemu.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ]);
        let mut append = "console=ttyS0 quiet panic=-1".to_owned();
        match machine {
            Machine::Own => {
                qemu.args(["-M", "microvm,acpi=off,rtc=on"]);
                append.push_str(
                    " reboot=t no_timer_check noreplace-smp nolapic_timer rcupdate.rcu_expedited=1",
                );
            }
            Machine::Fallback => {
                qemu.args(["-M", "q35"]);
            }
        }
        qemu.arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initramfs)
            .arg("-append")
            .arg(append);
        qemu.arg("-serial")
            .arg(format!("file:{}", console.path().display()));
        qemu.args(["-device", &format!("virtio-serial-{bus}")]);
        qemu.args([
            "-chardev",
            &format!("socket,id=link,fd={}", theirs.as_raw_fd()),
        ]);
        qemu.args([
            "-device",
            "virtserialport,chardev=link,name=org.aegisvm.link",
        ]);
        let mut drive = |serial: &str, path: &Path, read_only: &str| {
            let path = path.display();
            qemu.args([
                "-drive",
                &format!("if=none,id={serial},format=raw,readonly={read_only},file={path}"),
            ]);
            qemu.args([
                "-device",
                &format!("virtio-blk-{bus},drive={serial},serial={serial}"),
            ]);
        };
        if let Some(disk) = &hardware.disk {
            drive("upper", disk, "off");
        }
        drive("base", &base, "on");
        if let Some(folder) = &hardware.folder {
            let path = folder.display();
            qemu.args([
                "-fsdev",
                &format!("local,id=share,security_model=none,path={path}"),
            ]);
            qemu.args([
                "-device",
                &format!("virtio-9p-{bus},fsdev=share,mount_tag=share"),
            ]);
        }
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let qemu = qemu.stdin(Stdio::null()).spawn().context("starting QEMU")?;
        drop(OwnedFd::from(theirs));
        mine.set_nonblocking(true)?;
        let channel = tokio::net::UnixStream::from_std(mine)?;
        let (link, incoming) = aegis_link::start(channel, Role::Host);
        Ok(Guest {
            qemu,
            console,
            link,
            incoming,
        })
    }

    /// Starts a guest and boots it.
    pub(crate) async fn booted(
        machine: Machine,
        hardware: &Hardware,
        command: Option<Program>,
    ) -> Result<Guest> {
        let mut guest = Guest::start(machine, hardware)?;
        let hello = guest.hello().await?;
        assert_eq!(hello.generation, GENERATION);
        let boot = guest.boot_message(hardware, command);
        match timeout(DEADLINE, guest.link.boot(boot)).await? {
            Ok(_) => Ok(guest),
            Err(error) => Err(anyhow::Error::from(error).context(guest.console_text())),
        }
    }

    pub(crate) fn boot_message(&self, hardware: &Hardware, command: Option<Program>) -> Boot {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Boot {
            generation: GENERATION,
            hostname: "box".to_owned(),
            time_ns: u64::try_from(since.as_nanos()).unwrap_or(0),
            root: Root {
                layers: vec!["base".to_owned()],
                partitions: None,
                read_only: false,
                upper: match hardware.disk {
                    Some(_) => Upper::Disk {
                        serial: "upper".to_owned(),
                    },
                    None => Upper::Tmpfs,
                },
            },
            workdir: None,
            share: hardware.folder.as_ref().map(|_| Share {
                kind: aegis_link::message::ShareKind::NineP,
                tag: "share".to_owned(),
                places: hardware.places.clone(),
            }),
            network: None,
            api: None,
            command,
        }
    }

    pub(crate) async fn hello(&mut self) -> Result<Hello> {
        match self.event().await {
            Ok((Event::Hello(hello), _)) => Ok(hello),
            other => bail!(
                "{other:?} instead of a hello; console: {}",
                self.console_text()
            ),
        }
    }

    pub(crate) async fn event(&mut self) -> Result<(Event, Option<aegis_link::LinkStream>)> {
        match timeout(DEADLINE, self.incoming.next()).await?? {
            Received::Event { event, stream } => Ok((event, stream)),
            other => bail!("{other:?} instead of an event"),
        }
    }

    /// Stops the guest in order; the status of QEMU.
    pub(crate) async fn stop(mut self) -> Result<ExitStatus> {
        timeout(DEADLINE, self.link.stop(5_000)).await??;
        timeout(DEADLINE, self.link.closed()).await?;
        Ok(self.qemu.wait()?)
    }

    pub(crate) fn console_text(&self) -> String {
        std::fs::read_to_string(self.console.path()).unwrap_or_default()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.qemu.kill().ok();
        self.qemu.wait().ok();
    }
}

/// An empty ext4 disk.
pub(crate) fn make_disk(path: &Path) -> Result<()> {
    File::create(path)?.set_len(64 << 20)?;
    let status = Command::new("mkfs.ext4")
        .arg("-q")
        .arg(path)
        .status()
        .context("mkfs.ext4")?;
    anyhow::ensure!(status.success(), "mkfs.ext4 failed");
    Ok(())
}
