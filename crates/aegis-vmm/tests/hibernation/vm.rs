//! A real guest that hibernates and wakes in this process, without an owner.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aegis_core::control::CommandState;
use aegis_core::credential::Credential;
use aegis_core::fault::Fault;
use aegis_core::idle::IdlePolicy;
use aegis_core::network::Network;
use aegis_core::platform::Platform;
use aegis_core::restart::RestartPolicy;
use aegis_core::spec::Accel;
use aegis_core::vm_spec::{Disk, VmSpec};
use aegis_link::message::{CommandEnd, Program};
use aegis_vmm::hypervisor::Machine;
use aegis_vmm::hypervisor::binary::Binary;
use aegis_vmm::hypervisor::qemu::{Qemu, QemuMachine};
use aegis_vmm::owner::bring_up::{StartError, bring_up};
use aegis_vmm::owner::up::{Beginning, SaveError, Saved, Up, UpEvent};
use aegis_vmm::status::StatusDoor;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

/// A guest boots in a second or two; this is for a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Where the guest's files are: `$AEGIS_GUEST_DIR`, else where guest/build puts them.
fn guest_dir() -> PathBuf {
    std::env::var_os("AEGIS_GUEST_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest"),
        PathBuf::from,
    )
}

/// The folder of a test.
pub(crate) struct Bench {
    folder: PathBuf,
    _dir: Option<TempDir>,
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
        let dir = tempfile::tempdir().unwrap();
        Some(Self {
            folder: dir.path().to_owned(),
            _dir: Some(dir),
        })
    }

    /// The folder of a test of another process.
    pub(crate) fn of(folder: PathBuf) -> Self {
        Self { folder, _dir: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The spec of an instance that runs a script.
    pub(crate) fn spec(&self, script: &str) -> VmSpec {
        VmSpec {
            handle: "sleeper".parse().unwrap(),
            memory_mib: 256,
            cpus: 1,
            accel: Accel::Tcg,
            platform: Platform::HOST,
            guest_dir: guest_dir(),
            layers: Vec::new(),
            read_only_root: false,
            disk: Some(Disk {
                path: self.path("disk.img"),
                size: 256 << 20,
            }),
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
            network: Network::None,
            allowed_hosts: Vec::new(),
            idle: IdlePolicy::default(),
            leases: Vec::new(),
            ephemeral: false,
            aegisd: None,
            insecure: false,
            dir: self.folder.clone(),
            templates: None,
            accel_cache: None,
            revision: 0,
            grace_secs: 20,
        }
    }

    /// The lines of the command's log with their numbers.
    pub(crate) fn lines(&self) -> Vec<(u64, String)> {
        let text = fs::read_to_string(self.path("log/command.log")).unwrap_or_default();
        text.lines()
            .map(|line| {
                let record: serde_json::Value = serde_json::from_str(line).unwrap();
                let text = record["line"].as_str().unwrap().to_owned();
                (record["seq"].as_u64().unwrap(), text)
            })
            .collect()
    }
}

/// A VM that runs.
pub(crate) struct Vm {
    pub(crate) up: Up<QemuMachine>,
    pub(crate) command: CommandState,
    /// What the command's end was, each time it was told.
    pub(crate) ends: Vec<CommandEnd>,
}

impl Vm {
    /// Boots or restores it.
    pub(crate) async fn begin(spec: &VmSpec) -> Self {
        Self::try_begin(spec).await.unwrap()
    }

    /// The same where that may fail.
    pub(crate) async fn try_begin(spec: &VmSpec) -> Result<Self, StartError> {
        let status = Arc::new(StatusDoor::new(0));
        let began = bring_up(Arc::new(spec.clone()), Arc::new(Qemu::new(None)), status);
        let mut up = timeout(DEADLINE, Box::pin(began)).await.unwrap()?;
        if spec.terminal {
            up.start_terminal(spec, None);
        }
        let command = match &up.beginning {
            Beginning::Booted { .. } => CommandState::None,
            Beginning::Restored(memory) => memory.command.clone(),
        };
        let ends = Vec::new();
        Ok(Self { up, command, ends })
    }

    fn told(&mut self, event: UpEvent) {
        match event {
            UpEvent::CommandStarted { pid } => self.command = CommandState::Running { pid },
            UpEvent::CommandEnded { end, .. } => self.ends.push(end),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn is_restored(&self) -> bool {
        matches!(self.up.beginning, Beginning::Restored(_))
    }

    /// Why it was booted though there was a snapshot.
    pub(crate) fn refused(&self) -> &Fault {
        match &self.up.beginning {
            Beginning::Booted {
                refused: Some(fault),
            } => fault,
            other => panic!("{other:?}"),
        }
    }

    /// Lives until something else is over.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                event = self.up.next(true) => self.told(event),
            }
        }
    }

    /// Lives until something is so.
    pub(crate) async fn until(&mut self, what: &str, mut is_so: impl FnMut() -> bool) {
        let waited = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = timeout(DEADLINE, self.during(waited)).await;
        assert!(waited.is_ok(), "{what}");
    }

    /// What a program in the guest writes; it has to succeed.
    pub(crate) async fn run(&mut self, script: &str) -> String {
        let link = self.up.link.clone();
        let script = script.to_owned();
        self.during(async move {
            let program = Program {
                argv: ["sh", "-c", &script].map(str::to_owned).to_vec(),
                ..Program::default()
            };
            let mut running = link.exec(program, None).await.unwrap();
            let mut output = String::new();
            running.stdio.read_to_string(&mut output).await.unwrap();
            let end = link.wait(running.session).await.unwrap();
            assert_eq!(
                end,
                aegis_link::message::ProcessEnd::Exited { code: 0 },
                "{script}: {output}"
            );
            output.trim_end().to_owned()
        })
        .await
    }

    /// Saves it, as its owner does.
    pub(crate) async fn save(&mut self, cpus_run: bool) -> Result<Saved, SaveError> {
        let save = self.up.hibernate(cpus_run, self.command.clone());
        tokio::pin!(save);
        loop {
            tokio::select! {
                saved = &mut save => return saved,
                event = self.up.next(false) => match event {
                    // The save fails with it.
                    UpEvent::MachineEnded(_) | UpEvent::LinkOver(_) => return save.await,
                    event => self.told(event),
                },
            }
        }
    }

    /// Takes the save back.
    pub(crate) async fn unsuspend(&mut self) {
        let back = self.up.unsuspend();
        self.during(back).await.unwrap();
    }

    /// Ends it after a save.
    pub(crate) async fn end(self) {
        self.up.end_saved().await;
    }

    /// Saves it and ends it.
    pub(crate) async fn hibernate(mut self) -> Saved {
        let began = Instant::now();
        let saved = self.save(true).await.unwrap();
        println!("saved {} bytes in {:?}", saved.bytes, began.elapsed());
        self.end().await;
        saved
    }

    /// Ends it in order.
    pub(crate) async fn stop(self) {
        self.up.orderly_stop(true, Duration::from_secs(5)).await;
        self.up.close().await;
    }

    /// Ends it as a crash does.
    pub(crate) async fn crash(self) {
        self.up.machine.quit().await;
        self.up.close().await;
    }
}
