//! A machine with a kernel of its own: the same Debian tree under QEMU, with the
//! project's guest kernel, for what namespaces do not have. Its control groups
//! have all controllers, so limits act.
//!
//! Nothing is there to enter, so commands go through doors: virtio-serial ports
//! behind which `own_kernel/doors.py` runs them.
//!
//! ```text
//!  enter.sh ─► doors/N.in  ─► QEMU ─► /dev/vport..pN ─► doors.py ─► command
//!           ◄─ doors/N.out ◄─      ◄─                ◄─
//! ```

mod disk;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::leader::Leader;
use super::{Ground, Machine, Root, boot, directory_of, software};
use crate::install::{Content, Plan};

/// How long a boot may take: 20 s on two idle cores.
const BOOT_DEADLINE: Duration = Duration::from_secs(300);

/// Commands that can run at the same time: more than tests do.
const DOORS: u32 = 4;

/// The folder of the doors in a machine's directory, which a machine in namespaces
/// does not have.
const FOLDER: &str = "doors";

/// The kernel's command line: what our guests get, and why, is in
/// `crates/aegis-vmm/src/hypervisor/cmdline.rs`.
const CMDLINE: &str = "console=ttyS0 quiet reboot=t panic=-1 rcupdate.rcu_expedited=1 \
                       noreplace-smp no_timer_check nolapic_timer acpi=off pci=off";

const ENTER: &str = include_str!("own_kernel/enter.sh");

/// What the initramfs holds beside busybox and the machine's name.
const FILES: [(&str, &str); 3] = [
    ("init", include_str!("own_kernel/init.sh")),
    ("doors.py", include_str!("own_kernel/doors.py")),
    ("doors.service", include_str!("own_kernel/doors.service")),
];

/// The way into a machine with a kernel of its own.
#[derive(Debug)]
pub(super) struct Doors {
    folder: PathBuf,
}

impl Doors {
    /// Those of the machine with this directory, if it has any.
    pub(super) fn of(directory: &Path) -> Option<Self> {
        let folder = directory.join(FOLDER);
        folder.exists().then_some(Self { folder })
    }

    /// Makes those of a machine that boots.
    fn create(directory: &Path) -> Result<Self> {
        let folder = directory.join(FOLDER);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let mut mkfifo = Command::new("mkfifo");
        let ends = (1..=DOORS).flat_map(|door| [format!("{door}.in"), format!("{door}.out")]);
        succeed(mkfifo.args(ends).current_dir(&folder))?;
        Ok(Self { folder })
    }

    /// The command that runs `argv` in the machine.
    pub(super) fn command(&self, qemu: Leader, argv: &[String]) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", ENTER, "enter"])
            .arg(qemu.pid().to_string())
            .arg(&self.folder)
            .arg(DOORS.to_string())
            .args(argv);
        command
    }
}

/// Boots the machine; the caller holds its lock and knows that it does not run.
pub(super) fn boot(name: &str, root: &Root) -> Result<Machine> {
    let tree = disk::of_root(root)?;
    let directory = directory_of(name)?;
    let doors = Doors::create(&directory)?;
    let installed = directory.join("software");
    software::install(&directory, &installed)?;
    let software = disk::make(&installed, &directory.join("software.ext4"))?;
    fs::write(directory.join("systemd"), root.systemd().number())
        .with_context(|| format!("writing into {}", directory.display()))?;
    let initramfs = initramfs(&directory, name)?;
    let console = directory.join("console.log");
    let mut qemu = qemu(&directory, &doors);
    qemu.arg("-kernel").arg(kernel()?);
    qemu.arg("-initrd").arg(initramfs);
    for (serial, disk) in [("tree", tree), ("software", software)] {
        let file = disk.display();
        qemu.arg("-drive").arg(format!(
            "file={file},format=raw,snapshot=on,if=none,id={serial}"
        ));
        let device = format!("virtio-blk-device,drive={serial},serial={serial}");
        qemu.arg("-device").arg(device);
    }
    let errors = fs::File::create(directory.join("qemu.log")).context("creating qemu.log")?;
    let mut qemu = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .context("running setsid (apt-get install util-linux)")?;
    let leader = Leader::of(qemu.id()).context("QEMU ended at once")?;
    // Whoever started it has to take its exit status, however long it runs.
    std::thread::spawn(move || qemu.wait());
    leader.save(&directory.join("leader"))?;

    let machine = Machine {
        name: name.to_owned(),
        systemd: root.systemd(),
        ground: Ground::OwnKernel(doors),
        directory,
        leader,
    };
    boot::wait_until_up(&machine, BOOT_DEADLINE).with_context(|| {
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        format!(
            "machine {name} did not boot; its console ({}): {}{}",
            console.display(),
            read(&machine.directory.join("qemu.log")),
            read(&console)
        )
    })?;
    Ok(machine)
}

/// QEMU without what it boots, in a session of its own, so that Ctrl-C at the
/// caller's terminal ends the caller and not the machine.
fn qemu(directory: &Path, doors: &Doors) -> Command {
    let mut qemu = Command::new("setsid");
    qemu.args([
        "qemu-system-x86_64",
        "-no-user-config",
        "-nodefaults",
        "-no-reboot",
    ]);
    // One CPU: with two, QEMU 7.2 may run code that the kernel is just patching (the
    // first CPU quota patches the scheduler), and the kernel panics.
    qemu.args(["-display", "none", "-cpu", "max", "-smp", "1", "-m", "2048"]);
    qemu.args(["-machine", "microvm,acpi=off,rtc=on,pit=on,pic=on"]);
    qemu.args(["-accel", "tcg,tb-size=512"]);
    qemu.args(["-append", CMDLINE]);
    qemu.args(["-global", "virtio-mmio.force-legacy=false"]);
    let console = directory.join("console.log");
    qemu.arg("-serial")
        .arg(format!("file:{}", console.display()));
    qemu.args([
        "-device",
        "virtio-rng-device",
        "-device",
        "virtio-serial-device",
    ]);
    for door in 1..=DOORS {
        let path = doors.folder.join(door.to_string());
        qemu.arg("-chardev")
            .arg(format!("pipe,id=door{door},path={}", path.display()));
        qemu.arg("-device")
            .arg(format!("virtserialport,nr={door},chardev=door{door}"));
    }
    qemu.current_dir("/");
    qemu
}

/// The project's kernel, which has all controllers.
fn kernel() -> Result<PathBuf> {
    let entries = Plan::read("/usr")?.entries.into_iter();
    let mut kernels = entries.filter(|entry| entry.destination.ends_with("/vmlinux"));
    match kernels.next().map(|entry| entry.content) {
        Some(Content::File(path)) if path.exists() => Ok(path),
        _ => bail!("the guest kernel is not built yet; run: make kernel"),
    }
}

/// Packs what starts the machine.
fn initramfs(directory: &Path, name: &str) -> Result<PathBuf> {
    let tree = directory.join("initramfs");
    let write = |path: &str, text: &str| {
        let path = tree.join(path);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    fs::create_dir_all(tree.join("bin")).with_context(|| format!("making {}", tree.display()))?;
    fs::copy("/bin/busybox", tree.join("bin/busybox"))
        .context("copying /bin/busybox (apt-get install busybox-static)")?;
    write("name", name)?;
    for (path, text) in FILES {
        write(path, text)?;
    }
    let archive = directory.join("initramfs.cpio");
    let pack = "chmod 755 init && find . | cpio --quiet --create --format=newc --owner=0:0 >\"$1\"";
    let mut sh = Command::new("sh");
    sh.args(["-c", pack, "pack"])
        .arg(&archive)
        .current_dir(&tree);
    succeed(&mut sh)?;
    Ok(archive)
}

/// Runs a tool of the host whose output nobody reads.
fn succeed(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{} failed ({}): {}",
            command.get_program().display(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
