//! A VM as the service manager starts it: `aegis-vmm` with a spec, and what it
//! leaves in the instance's folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aegis_core::control::CommandExit;
use aegis_core::credential::Credential;
use aegis_core::idle::IdlePolicy;
use aegis_core::platform::Platform;
use aegis_core::restart::RestartPolicy;
use aegis_core::spec::Accel;
use aegis_core::vm_spec::VmSpec;
use aegis_vmm::hypervisor::binary::Binary;
use tempfile::TempDir;

/// A guest boots in a second or two; this is for a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Where the guest's files are: `$AEGIS_GUEST_DIR`, else where guest/build puts them.
fn guest_dir() -> PathBuf {
    std::env::var_os("AEGIS_GUEST_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest"),
        PathBuf::from,
    )
}

/// The folder of a test.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
}

impl Bench {
    /// `None` where no guest can be started and the environment says to skip.
    pub(crate) fn ready() -> Option<Self> {
        let lacking = match Binary::find(Platform::HOST) {
            Err(error) => Some(error.to_string()),
            Ok(_) => [Platform::HOST.kernel(), "initramfs", "base.squashfs"]
                .map(|name| guest_dir().join(name))
                .into_iter()
                .find(|path| !path.is_file())
                .map(|path| format!("{} is missing; run guest/build", path.display())),
        };
        if let Some(lacking) = lacking {
            let skip = std::env::var_os("AEGIS_TEST_SKIP_VM").is_some();
            assert!(skip, "{lacking}; set AEGIS_TEST_SKIP_VM to skip");
            println!("skipped: {lacking}");
            return None;
        }
        Some(Self {
            dir: tempfile::tempdir().unwrap(),
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The built-in base image: the programs of the test images.
    pub(crate) fn programs(&self) -> PathBuf {
        guest_dir().join("base.squashfs")
    }

    /// The spec of an instance with these layers that runs a script.
    pub(crate) fn spec(&self, layers: Vec<PathBuf>, script: &str) -> VmSpec {
        VmSpec {
            network: aegis_core::network::Network::None,
            allowed_hosts: Vec::new(),
            handle: "image".parse().unwrap(),
            memory_mib: 256,
            cpus: 1,
            accel: Accel::Tcg,
            platform: Platform::HOST,
            guest_dir: guest_dir(),
            layers,
            read_only_root: false,
            disk: None,
            inject: Vec::new(),
            workspace: None,
            volumes: Vec::new(),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            stop_signal: None,
            terminal: false,
            restart: RestartPolicy::No,
            env: [].into(),
            needs_secrets: false,
            credential: Credential::default(),
            workdir: None,
            user: None,
            ports: Vec::new(),
            idle: IdlePolicy::default(),
            leases: Vec::new(),
            ephemeral: false,
            aegisd: None,
            insecure: false,
            dir: self.dir.path().to_owned(),
            templates: None,
            accel_cache: None,
            revision: 0,
            grace_secs: 20,
        }
    }

    /// Starts a VM.
    pub(crate) fn start(&self, spec: &VmSpec) -> Vm {
        let dir = self.dir.path().to_owned();
        fs::create_dir_all(dir.join("log")).unwrap();
        for name in ["exit.json", "log/command.log", "log/console.log"] {
            // The first VM of a test finds none.
            fs::remove_file(dir.join(name)).ok();
        }
        fs::write(dir.join("vm.json"), serde_json::to_vec(spec).unwrap()).unwrap();
        let owner = Command::new(env!("CARGO_BIN_EXE_aegis-vmm"))
            .arg("--spec")
            .arg(dir.join("vm.json"))
            .arg("--listen")
            .arg(dir.join("control.sock"))
            .stdin(Stdio::null())
            .stderr(File::create(dir.join("owner.log")).unwrap())
            .spawn()
            .unwrap();
        Vm { dir, owner }
    }

    /// Runs a VM until its command has ended; the lines that it wrote, sorted by
    /// nothing but time.
    pub(crate) fn run(&self, spec: &VmSpec) -> String {
        let vm = self.start(spec);
        let exit = vm.exit();
        let lines = vm.stop();
        assert_eq!(exit.code, Some(0), "{exit:?}\n{lines}");
        lines
    }
}

pub(crate) struct Vm {
    dir: PathBuf,
    owner: Child,
}

impl Vm {
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    /// Waits until something is so.
    pub(crate) fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            assert!(
                Instant::now() < deadline,
                "nothing came of it: {}\n{}\n{}",
                self.lines(),
                self.read("owner.log"),
                self.read("log/console.log")
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How the command ended, when it has.
    pub(crate) fn exit(&self) -> CommandExit {
        self.until(|| serde_json::from_str(&self.read("exit.json")).ok())
    }

    /// What the command has written so far.
    pub(crate) fn lines(&self) -> String {
        let text = self.read("log/command.log");
        let line = |line: &str| -> Option<String> {
            let record: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(record.get("line")?.as_str()?.to_owned())
        };
        text.lines().filter_map(line).collect::<Vec<_>>().join("\n")
    }

    /// What the owner says for itself.
    pub(crate) fn words(&self) -> String {
        self.read("owner.log")
    }

    /// Stops the VM as the service manager does; what the command wrote.
    pub(crate) fn stop(mut self) -> String {
        let pid = nix::unistd::Pid::from_raw(self.owner.id().cast_signed());
        // It may have ended by itself.
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        let deadline = Instant::now() + DEADLINE;
        while self.owner.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{}", self.words());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.lines()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // It has been stopped, unless a test failed.
        self.owner.kill().ok();
        self.owner.wait().ok();
    }
}
