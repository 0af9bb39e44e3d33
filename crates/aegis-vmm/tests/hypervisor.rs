//! Real QEMU, real kernel: launches, the jail, pausing, and every kind of end.
//!
//! The guests here have no init, so they panic and reset once the kernel is up;
//! what a guest's program answers is tested where the owner of a VM is.
//!
//! Needs QEMU and the guest kernel (`make kernel`). Without them the tests fail,
//! unless `AEGIS_TEST_SKIP_VM` is set; then they say why they do nothing.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a helper of a test fails and speaks as the test does"
)]

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aegis_core::fault::Symbol;
use aegis_core::platform::Platform;
use aegis_core::spec::Accel;
use aegis_vmm::egress::NetworkPlan;
use aegis_vmm::hypervisor::binary::Binary;
use aegis_vmm::hypervisor::kernel::KernelKind;
use aegis_vmm::hypervisor::probe::{ProbeError, Trial};
use aegis_vmm::hypervisor::qemu::{Qemu, QemuMachine};
use aegis_vmm::hypervisor::{
    DiskImage, DiskPlan, DiskSerial, EndCause, GuestKernel, Hypervisor, LaunchError, Machine,
    MachinePlan, MachineType, ShareKind, SharePlan,
};
use tempfile::TempDir;

/// A guest boots in a second or two; this is for a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The folder of a test and what a guest needs in it.
struct Bench {
    dir: TempDir,
}

impl Bench {
    /// `None` where there is nothing to launch and the environment says to skip.
    fn ready() -> Option<Self> {
        if let Some(lacking) = Self::lacking() {
            let skip = std::env::var_os("AEGIS_TEST_SKIP_VM").is_some();
            assert!(skip, "{lacking}; set AEGIS_TEST_SKIP_VM to skip");
            println!("skipped: {lacking}");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("scratch")).unwrap();
        fs::create_dir(dir.path().join("guest")).unwrap();
        for platform in Platform::ALL {
            let kernel = dir.path().join("guest").join(platform.kernel());
            std::os::unix::fs::symlink(kernel_path(platform), kernel).unwrap();
        }
        fs::write(dir.path().join("guest/initramfs"), b"").unwrap();
        Some(Self { dir })
    }

    fn lacking() -> Option<String> {
        Platform::ALL.into_iter().find_map(|platform| {
            if let Err(error) = Binary::find(platform) {
                return Some(error.to_string());
            }
            let kernel = kernel_path(platform);
            (!kernel.is_file()).then(|| format!("there is no guest kernel at {}", kernel.display()))
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn kernel(&self, platform: Platform) -> GuestKernel {
        GuestKernel::find(&self.path("guest"), platform).unwrap()
    }

    /// A plan, our end of the link, and the console.
    fn plan(&self) -> (MachinePlan, UnixStream, io::PipeReader) {
        let (ours, link) = UnixStream::pair().unwrap();
        let (console, sink) = io::pipe().unwrap();
        let plan = MachinePlan {
            network: None,
            kernel: self.kernel(Platform::HOST),
            memory_mib: 128,
            cpus: 1,
            accel: Accel::Tcg,
            disks: Vec::new(),
            shares: Vec::new(),
            link: link.into(),
            console: OwnedFd::from(sink),
            scratch: self.path("scratch"),
            insecure: false,
            incoming: None,
        };
        (plan, ours, console)
    }
}

/// The kernel below `$AEGIS_GUEST_DIR`, else where the kernel's build puts it.
fn kernel_path(platform: Platform) -> PathBuf {
    if let Some(guest) = std::env::var_os("AEGIS_GUEST_DIR") {
        return platform
            .guest_dir(Path::new(&guest))
            .join(platform.kernel());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest/kernel/build");
    let output = Command::new(script)
        .args(["--path", platform.machine()])
        .output()
        .unwrap();
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

async fn launch(plan: MachinePlan) -> QemuMachine {
    tokio::time::timeout(DEADLINE, Qemu::new(None).launch(plan))
        .await
        .unwrap()
        .unwrap()
}

async fn refused(plan: MachinePlan) -> LaunchError {
    tokio::time::timeout(DEADLINE, Qemu::new(None).launch(plan))
        .await
        .unwrap()
        .unwrap_err()
}

/// A line of `/proc/PID/status`.
fn status(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_once(':').unwrap().1.trim().to_owned()
}

#[tokio::test]
async fn a_guest_boots_and_its_reset_is_its_end() {
    boots_and_ends(Platform::Amd64, MachineType::Microvm).await;
}

#[tokio::test]
async fn so_does_one_of_arm64_on_its_machine() {
    boots_and_ends(Platform::Arm64, MachineType::Virt).await;
}

async fn boots_and_ends(platform: Platform, on: MachineType) {
    let Some(bench) = Bench::ready() else { return };
    let (mut plan, _link, mut console) = bench.plan();
    plan.kernel = bench.kernel(platform);
    plan.network = Some(NetworkPlan {
        hardware: [2, 0xae, 0, 0, 0, 1],
        allowed: Vec::new(),
    });
    for (name, content) in [("base", b"base".as_slice()), ("upper", &[0; 4096])] {
        fs::write(bench.path(name), [content, &[0; 8192]].concat()).unwrap();
    }
    let disk = |name, serial, read_only| DiskPlan {
        image: DiskImage::Raw {
            path: bench.path(name),
            read_only,
        },
        serial,
    };
    plan.disks = vec![
        disk("base", DiskSerial::Base, true),
        disk("upper", DiskSerial::Upper, false),
    ];
    let machine = launch(plan).await;
    assert!(machine.network_state().is_some());
    assert_eq!(machine.activity().await.unwrap().network, 0);
    let facts = machine.facts().clone();
    assert_eq!((facts.machine, facts.kernel), (on, KernelKind::Own));
    assert_eq!(
        (facts.accel, facts.share, facts.jailed),
        (Accel::Tcg, None, true)
    );
    assert!(
        facts.version.starts_with(|c: char| c.is_ascii_digit()),
        "{}",
        facts.version
    );

    let end = tokio::time::timeout(DEADLINE, machine.wait())
        .await
        .unwrap();
    let mut text = String::new();
    console.read_to_string(&mut text).unwrap();
    assert_eq!(end.cause, EndCause::Guest, "{end}\n{text}");
    assert!(text.contains("Kernel panic"), "{text}");
    assert_eq!(machine.wait().await, end);
    assert!(machine.pause().await.is_err());
}

#[tokio::test]
async fn a_paused_machine_runs_on_and_both_are_idempotent() {
    let Some(bench) = Bench::ready() else { return };
    let (plan, _link, _console) = bench.plan();
    let machine = launch(plan).await;
    for _ in 0..2 {
        machine.pause().await.unwrap();
    }
    for _ in 0..2 {
        machine.resume().await.unwrap();
    }
    let end = tokio::time::timeout(DEADLINE, machine.wait())
        .await
        .unwrap();
    assert_eq!(end.cause, EndCause::Guest, "{end}");
}

#[tokio::test]
async fn quit_and_kill_are_told_apart() {
    let Some(bench) = Bench::ready() else { return };
    let (plan, _link, _console) = bench.plan();
    let machine = launch(plan).await;
    machine.pause().await.unwrap();
    assert_eq!(machine.quit().await.cause, EndCause::Quit);

    let (plan, _link, _console) = bench.plan();
    let machine = launch(plan).await;
    machine.pause().await.unwrap();
    let killed = Command::new("kill")
        .args(["-KILL", &machine.pid().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let end = tokio::time::timeout(DEADLINE, machine.wait())
        .await
        .unwrap();
    assert_eq!(end.cause, EndCause::Signaled(9), "{end}");
}

#[tokio::test]
async fn the_jail_holds_qemu_alone() {
    let Some(bench) = Bench::ready() else { return };
    let (plan, _link, _console) = bench.plan();
    let machine = launch(plan).await;
    machine.pause().await.unwrap();
    let pid = machine.pid();
    for namespace in ["user", "mnt", "pid", "net", "ipc", "uts"] {
        let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/{namespace}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&status(pid, set), 16), Ok(0), "{set}");
    }
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(status(pid, "Seccomp"), "2");
    assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");

    // Below the root: the system's libraries and firmware, and the guest's files.
    // A QEMU of another prefix ($AEGIS_QEMU) has its own libraries there too.
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let prefix = Binary::find(Platform::HOST).unwrap().path().to_owned();
    let mut names: Vec<String> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !["lib", "lib64", "gnu", "nix"].contains(&name.as_str()))
        .filter(|name| !prefix.starts_with(Path::new("/").join(name)) || name == "usr")
        .collect();
    names.sort();
    assert_eq!(names, ["boot", "etc", "usr"]);
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    for mount in mounts.lines() {
        let options = mount.split(' ').nth(5).unwrap();
        assert!(options.split(',').any(|option| option == "ro"), "{mount}");
        assert!(
            options.contains("nosuid") && options.contains("nodev"),
            "{mount}"
        );
    }

    // Null, pipes, sockets and QEMU's own, but no file of ours.
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let target = fs::read_link(entry.unwrap().path()).unwrap();
        let known = [
            "/dev/null",
            "pipe:",
            "socket:",
            "anon_inode:",
            "/memfd:",
            "/usr/",
            "/dev/zero",
        ];
        let target = target.to_str().unwrap();
        assert!(
            known.iter().any(|known| target.starts_with(known)),
            "{target}"
        );
    }
    let args = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!args.contains(bench.dir.path().to_str().unwrap()), "{args}");
}

#[tokio::test]
async fn a_share_comes_as_virtiofs_or_9p_and_a_missing_folder_is_named() {
    let Some(bench) = Bench::ready() else { return };
    fs::create_dir(bench.path("work")).unwrap();
    let (mut plan, _link, _console) = bench.plan();
    plan.shares = vec![SharePlan {
        path: bench.path("work"),
        read_only: false,
        symbol: Symbol::WorkspaceUnavailable,
    }];
    let machine = launch(plan).await;
    let kind = machine.facts().share;
    assert!(matches!(kind, Some(ShareKind::Virtiofs | ShareKind::NineP)));
    println!("shared by {kind:?}");
    machine.quit().await;

    let (mut plan, _link, _console) = bench.plan();
    plan.shares = vec![SharePlan {
        path: bench.path("missing"),
        read_only: false,
        symbol: Symbol::WorkspaceUnavailable,
    }];
    let error = refused(plan).await;
    assert_eq!(
        error.fault().symbol,
        Symbol::WorkspaceUnavailable,
        "{error}"
    );
    assert!(error.fault().message.contains("missing"), "{error}");
}

#[tokio::test]
async fn a_disk_that_is_missing_and_a_qemu_that_refuses_are_told() {
    let Some(bench) = Bench::ready() else { return };
    let (mut plan, _link, _console) = bench.plan();
    let path = bench.path("nodisk");
    plan.disks = vec![DiskPlan {
        image: DiskImage::Raw {
            path,
            read_only: true,
        },
        serial: DiskSerial::Base,
    }];
    let error = refused(plan).await;
    assert!(matches!(error, LaunchError::Disk { .. }), "{error}");

    let (mut plan, _link, _console) = bench.plan();
    plan.cpus = 100_000;
    let error = refused(plan).await;
    assert!(
        matches!(&error, LaunchError::Ended(end) if !end.last_words.is_empty()),
        "{error}"
    );
}

#[tokio::test]
async fn a_trial_proves_tcg_and_ends_at_its_deadline() {
    for platform in Platform::ALL {
        is_tried(platform).await;
    }
}

async fn is_tried(platform: Platform) {
    let Some(bench) = Bench::ready() else { return };
    let kernel = bench.kernel(platform);
    let binary = Binary::find(platform).unwrap();
    let scratch = bench.path("scratch");
    let root = bench.path("scratch/jail");
    fs::create_dir(&root).unwrap();
    let trial = |deadline| Trial {
        binary: &binary,
        kernel: &kernel,
        scratch: &scratch,
        jail_root: Some(&root),
        deadline,
    };
    trial(DEADLINE).run(Accel::Tcg).await.unwrap();
    let error = trial(Duration::from_millis(5))
        .run(Accel::Tcg)
        .await
        .unwrap_err();
    assert!(matches!(error, ProbeError::Silent { .. }), "{error}");
    assert!(!scratch.join("probe.cpio").exists());
}

#[tokio::test]
async fn auto_ends_with_an_accelerator_that_works() {
    let Some(bench) = Bench::ready() else { return };
    let memory = bench.path("accel.json");
    for _ in 0..2 {
        let (mut plan, _link, mut console) = bench.plan();
        plan.accel = Accel::Auto;
        let qemu = Qemu::new(Some(memory.clone()));
        let machine = tokio::time::timeout(DEADLINE, qemu.launch(plan))
            .await
            .unwrap()
            .unwrap();
        println!("auto is {} here", machine.facts().accel);
        let end = tokio::time::timeout(DEADLINE, machine.wait())
            .await
            .unwrap();
        let mut text = String::new();
        console.read_to_string(&mut text).unwrap();
        assert_eq!(end.cause, EndCause::Guest, "{end}\n{text}");
    }
}

/// Runs one of the ignored tests below in a process of its own.
fn helper(name: &str, prefix: &[&str]) -> Command {
    let exe = std::env::current_exe().unwrap();
    let words: Vec<&str> = prefix
        .iter()
        .copied()
        .chain([exe.to_str().unwrap()])
        .collect();
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .args(["--exact", name, "--ignored", "--nocapture"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

#[tokio::test]
#[ignore = "started by the_guest_dies_with_its_owner"]
async fn helper_holds_a_machine() {
    let Some(bench) = Bench::ready() else { return };
    let (plan, _link, _console) = bench.plan();
    let machine = launch(plan).await;
    machine.pause().await.unwrap();
    println!("\nqemu {}", machine.pid());
    machine.wait().await;
}

#[test]
fn the_guest_dies_with_its_owner() {
    if Bench::ready().is_none() {
        return;
    }
    let mut owner = helper("helper_holds_a_machine", &[]).spawn().unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let pid = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("qemu ").map(str::to_owned))
        .unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    let process = PathBuf::from(format!("/proc/{pid}"));
    let deadline = Instant::now() + DEADLINE;
    // A killed process that nobody has reaped yet is dead too.
    let alive = || {
        fs::read_to_string(process.join("status"))
            .is_ok_and(|text| !text.lines().any(|line| line.starts_with("State:\tZ")))
    };
    while alive() {
        assert!(Instant::now() < deadline, "QEMU outlived its owner");
        std::thread::yield_now();
    }
}

#[tokio::test]
#[ignore = "started by a_host_without_namespaces_needs_an_explicit_word"]
async fn helper_launches_without_namespaces() {
    let Some(bench) = Bench::ready() else { return };
    let (plan, _link, _console) = bench.plan();
    let error = refused(plan).await;
    assert_eq!(error.fault().symbol, Symbol::SandboxUnavailable, "{error}");

    let (mut plan, _link, _console) = bench.plan();
    plan.insecure = true;
    fs::create_dir(bench.path("work")).unwrap();
    plan.shares = vec![SharePlan {
        path: bench.path("work"),
        read_only: true,
        symbol: Symbol::WorkspaceUnavailable,
    }];
    let machine = launch(plan).await;
    assert!(!machine.facts().jailed);
    let end = tokio::time::timeout(DEADLINE, machine.wait())
        .await
        .unwrap();
    assert_eq!(end.cause, EndCause::Guest, "{end}");
    println!("\nlaunched without namespaces");
}

#[test]
fn a_host_without_namespaces_needs_an_explicit_word() {
    if Bench::ready().is_none() {
        return;
    }
    // In a user namespace that allows no further ones.
    let forbid = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
    let prefix = [
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        forbid,
        "sh",
    ];
    let output = helper("helper_launches_without_namespaces", &prefix)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("launched without namespaces"), "{text}");
}
