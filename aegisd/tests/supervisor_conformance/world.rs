//! One instance with its folders, on the manager this process belongs to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aegis_core::daemon_spec::DaemonSpec;
use aegis_core::handle::Handle;
use aegis_core::layout::{Layout, Mode};
use aegis_core::port::PortMapping;
use aegisd::supervisor::plan::{
    Confinement, Limits, Listen, LogFields, Program, Reach, Readiness, Restarts,
};
use aegisd::supervisor::state::Active;
use aegisd::supervisor::{DaemonPlan, DoorPlan, InstancePlan, Supervisor, UnitId, UnitState};

use crate::managers::{Manager, shim};

/// How long anything here may take on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) supervisor: Box<dyn Supervisor>,
    pub(crate) manager: Manager,
    pub(crate) layout: Layout,
    pub(crate) handle: Handle,
    pub(crate) dir: PathBuf,
}

impl World {
    /// An instance of this name with empty folders.
    pub(crate) async fn new(name: &str) -> Self {
        let manager = Manager::of_this_process(name);
        let layout = manager.layout();
        let handle: Handle = name.parse().expect("a handle");
        let world = Self {
            supervisor: manager.connect(&layout).await,
            dir: layout.instance(&handle).dir().to_owned(),
            manager,
            layout,
            handle,
        };
        world.clean().await;
        world.make_folder(&world.dir);
        world
    }

    /// A folder the unit's user can write.
    pub(crate) fn make_folder(&self, path: &Path) {
        std::fs::create_dir_all(path).expect("make a folder");
        self.hand_over(path);
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        std::fs::write(&path, text).expect("write a file of the instance");
        self.hand_over(&path);
        path
    }

    fn hand_over(&self, path: &Path) {
        if self.layout.mode == Mode::System {
            let user = nix::unistd::User::from_name("aegis").expect("read the users");
            let user = user.expect("there is a user aegis");
            std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                .expect("give a file to aegis");
        }
    }

    /// Stops and removes everything of the instance.
    pub(crate) async fn clean(&self) {
        self.supervisor
            .stop(&UnitId::group(&self.handle))
            .await
            .expect("stop the group");
        assert_eq!(self.units().await, Vec::<UnitState>::new(), "units left");
        if self.dir.exists() {
            std::fs::remove_dir_all(&self.dir).expect("remove the instance's folder");
        }
    }

    pub(crate) async fn units(&self) -> Vec<UnitState> {
        self.supervisor
            .list(Some(&self.handle))
            .await
            .expect("list the units")
    }

    pub(crate) async fn unit(&self, unit: &UnitId) -> Option<UnitState> {
        self.units()
            .await
            .into_iter()
            .find(|state| state.unit == *unit)
    }

    /// Waits until a unit is as wanted.
    pub(crate) async fn wait_for(
        &self,
        unit: &UnitId,
        what: &str,
        wanted: impl Fn(&UnitState) -> bool,
    ) -> UnitState {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.unit(unit).await;
            if let Some(state) = state.as_ref().filter(|state| wanted(state)) {
                return state.clone();
            }
            assert!(
                Instant::now() < deadline,
                "{}: not {what}: {state:#?}",
                unit.name()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until no unit is active: the manager lets an empty group go a moment after
    /// its last unit.
    pub(crate) async fn wait_for_rest(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let units = self.units().await.into_iter();
            let active: Vec<_> = units
                .filter(|state| state.active == Active::Active)
                .collect();
            if active.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "something still runs: {active:#?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a file of the instance has this many lines.
    pub(crate) async fn wait_for_lines(&self, name: &str, count: usize) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(self.dir.join(name)).unwrap_or_default();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if lines.len() >= count {
                return lines;
            }
            let units = self.units().await;
            assert!(
                Instant::now() < deadline,
                "{name} has {} lines: {units:#?}",
                lines.len()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The instance at rest; behind its sockets `server.py`, which answers each
    /// connection with its process id.
    pub(crate) fn instance(&self, ports: &[Listen]) -> InstancePlan {
        let script = self.write("server.py", include_str!("server.py"));
        let mut listen = vec![Listen::Unix(self.layout.control_socket(&self.handle))];
        listen.extend_from_slice(ports);
        InstancePlan {
            handle: self.handle.clone(),
            program: Program {
                path: "/usr/bin/python3".into(),
                arguments: vec![script.display().to_string()],
            },
            listen,
            stop_timeout: Duration::from_secs(10),
            watchdog: Duration::from_secs(30),
            restart: aegis_core::restart::RestartPolicy::OnFailure { most: None },
            credentials: None,
            limits: Limits {
                memory_max: Some(256 << 20),
                tasks_max: Some(64),
                cpu_percent: Some(200),
            },
            confinement: self.reach(),
            log: LogFields {
                kit: Some("conformance".into()),
            },
        }
    }

    /// A port's socket, and behind it `server.py`.
    pub(crate) fn door(&self, port: PortMapping) -> DoorPlan {
        let script = self.write("server.py", include_str!("server.py"));
        DoorPlan {
            socket: UnitId::port_socket(&self.handle, port),
            door: UnitId::port_door(&self.handle, port),
            label: "Test door".into(),
            listen: Listen::Tcp(port.host),
            program: Program {
                path: "/usr/bin/python3".into(),
                arguments: vec![script.display().to_string()],
            },
            confinement: self.reach(),
        }
    }

    /// A daemon that runs a shell script in the instance's folder, through aegis-shim.
    pub(crate) fn daemon(&self, name: &str, script: &str) -> DaemonPlan {
        self.daemon_with(name, script, None)
    }

    /// The same, with secrets that it is given at this socket.
    pub(crate) fn daemon_with(
        &self,
        name: &str,
        script: &str,
        credentials: Option<PathBuf>,
    ) -> DaemonPlan {
        let spec = DaemonSpec {
            instance: self.handle.clone(),
            name: name.to_owned(),
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
            needs_secrets: credentials.is_some(),
            workdir: self.dir.clone(),
            state_dir: self.dir.clone(),
            restart_max_delay_ms: 1600,
            restart_reset_after_ms: 600_000,
        };
        let text = serde_json::to_string(&spec).expect("a spec is JSON");
        let file = self.write(&format!("daemon-{name}.json"), &text);
        DaemonPlan {
            handle: self.handle.clone(),
            daemon: name.to_owned(),
            label: "Test daemon".into(),
            program: Program {
                path: shim(),
                arguments: vec!["daemon".into(), "--spec".into(), file.display().to_string()],
            },
            ended: Program {
                path: shim(),
                arguments: vec!["ended".into()],
            },
            back_off: self.dir.join(format!("back-off-{name}.json")),
            readiness: Readiness::Started,
            restarts: Restarts::OnFailure,
            restart_max_delay: Duration::from_millis(spec.restart_max_delay_ms),
            stop_timeout: Duration::from_secs(10),
            credentials,
            limits: Limits::default(),
            confinement: self.reach(),
            log: LogFields {
                kit: Some("conformance".into()),
            },
        }
    }

    fn reach(&self) -> Confinement {
        Confinement::Reach(Reach {
            read_only: Vec::new(),
            writable: vec![self.dir.clone()],
            ..Reach::default()
        })
    }
}
