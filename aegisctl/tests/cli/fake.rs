//! A fake aegisd for tests of the client: the D-Bus contract without VMs.
//!
//! The instance `web` exists. Instances whose handle begins with `broken` fail to
//! start; `flaky` loses aegisd at the first `Stop`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write, pipe};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use aegis_bus::dict::Dict;
use aegis_bus::error::BusFault;
use aegis_bus::instance::{
    DaemonEntry, DaemonState, DeleteOptions, ExecOptions, LastExit, StopOptions,
};
use aegis_bus::job::{JobOutcome, JobState};
use aegis_bus::manager::{CheckRow, CheckStatus, CreateOptions, SpecRequest};
use aegis_bus::names;
use aegis_core::control::{ExecEvent, ExecInput};
use aegis_core::fault::{Fault, Symbol};
use aegis_core::handle::Handle;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use zbus::fdo::ObjectManager;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, ObjectServer, OwnedFd, OwnedObjectPath, interface};

/// What a test shares with the fake.
#[derive(Clone, Default)]
pub(crate) struct Handles {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    instances: BTreeMap<String, Record>,
    jobs: u64,
    /// Every call that changes something, in words.
    calls: Vec<String>,
    logs: Vec<PathBuf>,
    lingering: bool,
    flaked: bool,
}

#[derive(Clone)]
struct Record {
    spec: SpecRequest,
    state: &'static str,
}

impl Handles {
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    pub(crate) fn handles(&self) -> Vec<String> {
        self.state
            .lock()
            .unwrap()
            .instances
            .keys()
            .cloned()
            .collect()
    }

    /// The files `OpenLogs` opens.
    pub(crate) fn set_logs(&self, logs: Vec<PathBuf>) {
        self.state.lock().unwrap().logs = logs;
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap())
    }
}

/// The server.
pub(crate) struct Fake;

impl Fake {
    /// Serves on a bus from now on, in a thread of its own.
    pub(crate) fn serve(address: &str, handles: Handles) {
        let address = address.to_owned();
        let (ready, served) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let connection = zbus::connection::Builder::address(address.as_str())
                    .serve_at(names::ROOT_PATH, ObjectManager)
                    .serve_at(
                        names::ROOT_PATH,
                        Manager {
                            handles: handles.clone(),
                        },
                    )
                    .build()
                    .await
                    .unwrap();
                let web = SpecRequest {
                    kit: Some("agent".into()),
                    ports: vec!["8080:80".parse().unwrap()],
                    ..Default::default()
                };
                for handle in ["web", "flaky"] {
                    add(&connection, &handles, handle, web.clone(), "running").await;
                }
                connection.request_name(names::BUS_NAME).await.unwrap();
                ready.send(()).unwrap();
                std::future::pending::<()>().await;
            });
        });
        served.recv().unwrap();
    }
}

struct Manager {
    handles: Handles,
}

#[interface(name = "org.aegisvm.Aegis1.Manager")]
impl Manager {
    #[zbus(out_args("instance", "job"))]
    async fn create_instance(
        &self,
        handle: String,
        spec: Dict,
        options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(OwnedObjectPath, OwnedObjectPath), BusFault> {
        let spec = SpecRequest::from_dict(spec).map_err(Fault::from)?;
        let options = CreateOptions::from_dict(options).map_err(Fault::from)?;
        let handle = if handle.is_empty() {
            "run-1".to_owned()
        } else {
            handle
        };
        let parsed: Handle = handle
            .parse()
            .map_err(|error| Fault::from_error(Symbol::InvalidHandle, &error))?;
        let broken = handle.starts_with("broken") || spec.memory_mib == Some(666);
        self.handles.with(|state| {
            state.calls.push(format!("create {handle}"));
            assert_eq!(options.foreground_owner, spec.ephemeral);
        });
        let state = if broken { "failed" } else { "running" };
        add(connection, &self.handles, &handle, spec, state).await;
        let job = if broken {
            let fault = Fault::new(Symbol::KernelMissing, "there is no kernel");
            failed_job(connection, &self.handles, fault.with_hint("make kernel")).await
        } else {
            job(connection, &self.handles, JobState::Done).await
        };
        Ok((names::instance_path(&parsed), job))
    }

    #[zbus(out_args("instance"))]
    async fn get_instance(&self, handle: String) -> Result<OwnedObjectPath, BusFault> {
        let known = self.handles.handles().contains(&handle);
        match handle.parse() {
            Ok(handle) if known => Ok(names::instance_path(&handle)),
            _ => Err(
                Fault::new(Symbol::NotFound, format!("there is no instance '{handle}'"))
                    .with_hint("aegisctl instance list shows all")
                    .into(),
            ),
        }
    }

    #[zbus(out_args("checks"))]
    async fn check(&self) -> Vec<CheckRow> {
        vec![
            CheckRow::new("qemu", CheckStatus::Ok, "QEMU 10.0", ""),
            CheckRow::new("kernel", CheckStatus::Fail, "no kernel", "make kernel"),
        ]
    }

    #[zbus(out_args("job"))]
    async fn stop_all(
        &self,
        _options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> OwnedObjectPath {
        self.handles
            .with(|state| state.calls.push("stop all".into()));
        job(connection, &self.handles, JobState::Done).await
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        "9.9".into()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn mode(&self) -> String {
        "user".into()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn home(&self) -> String {
        "/home/alice/.aegis".into()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn runtime_directory(&self) -> String {
        "/run/user/1000/aegis".into()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn supervisor(&self) -> String {
        "systemd 257".into()
    }

    #[zbus(property)]
    fn lingering(&self) -> bool {
        self.handles.with(|state| state.lingering)
    }

    #[zbus(property)]
    fn quarantined(&self) -> Vec<String> {
        Vec::new()
    }
}

struct Instance {
    handle: Handle,
    handles: Handles,
}

impl Instance {
    fn record(&self) -> Record {
        let record = self
            .handles
            .with(|state| state.instances.get(self.handle.as_str()).cloned());
        record.unwrap_or(Record {
            spec: SpecRequest::default(),
            state: "stopped",
        })
    }

    /// Notes the call, sets the state and says whether that was new.
    fn change(&self, call: &str, to: &'static str) -> JobState {
        self.handles.with(|state| {
            state.calls.push(format!("{call} {}", self.handle));
            match state.instances.get_mut(self.handle.as_str()) {
                Some(record) if record.state != to => {
                    record.state = to;
                    JobState::Done
                }
                _ => JobState::Unchanged,
            }
        })
    }
}

#[interface(name = "org.aegisvm.Aegis1.Instance")]
impl Instance {
    #[zbus(out_args("job"))]
    async fn start(
        &self,
        _options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, BusFault> {
        if self.record().state == "disabled" {
            return Err(Fault::new(Symbol::Disabled, "the instance is disabled").into());
        }
        let state = self.change("start", "running");
        Ok(job(connection, &self.handles, state).await)
    }

    #[zbus(out_args("job"))]
    async fn stop(
        &self,
        options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, BusFault> {
        StopOptions::from_dict(options).map_err(Fault::from)?;
        let flakes = self.handle.as_str() == "flaky"
            && !self
                .handles
                .with(|state| std::mem::replace(&mut state.flaked, true));
        if flakes {
            let running = running_job(connection, &self.handles).await;
            let connection = connection.clone();
            tokio::spawn(async move {
                connection.release_name(names::BUS_NAME).await.unwrap();
                connection.request_name(names::BUS_NAME).await.unwrap();
            });
            return Ok(running);
        }
        let state = self.change("stop", "stopped");
        Ok(job(connection, &self.handles, state).await)
    }

    #[zbus(out_args("job"))]
    async fn enable(&self, #[zbus(connection)] connection: &Connection) -> OwnedObjectPath {
        let state = self.change("enable", "stopped");
        job(connection, &self.handles, state).await
    }

    #[zbus(out_args("job"))]
    async fn disable(&self, #[zbus(connection)] connection: &Connection) -> OwnedObjectPath {
        let state = self.change("disable", "disabled");
        job(connection, &self.handles, state).await
    }

    #[zbus(out_args("job"))]
    async fn delete(
        &self,
        options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, BusFault> {
        DeleteOptions::from_dict(options).map_err(Fault::from)?;
        self.change("delete", "deleted");
        let done = job(connection, &self.handles, JobState::Done).await;
        remove(
            connection.clone(),
            self.handles.clone(),
            self.handle.clone(),
        );
        Ok(done)
    }

    #[zbus(out_args("outcome"))]
    async fn pause(&self, _options: Dict) -> String {
        match self.change("pause", "paused") {
            JobState::Done => "changed".into(),
            _ => "unchanged".into(),
        }
    }

    #[zbus(out_args("outcome"))]
    async fn resume(&self, _options: Dict) -> String {
        match self.change("resume", "running") {
            JobState::Done => "changed".into(),
            _ => "unchanged".into(),
        }
    }

    #[zbus(out_args("stdin", "stdout", "stderr", "control"))]
    async fn exec(
        &self,
        argv: Vec<String>,
        options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(OwnedFd, OwnedFd, OwnedFd, OwnedFd), BusFault> {
        let options = ExecOptions::from_dict(options).map_err(Fault::from)?;
        let (guest_stdin, stdin) = pipe().unwrap();
        let (stdout, guest_stdout) = pipe().unwrap();
        let (stderr, guest_stderr) = pipe().unwrap();
        let (control, guest_control) = UnixStream::pair().unwrap();
        let mut command = Command::new(&argv[0]);
        command
            .args(&argv[1..])
            .envs(options.env)
            .stdin(guest_stdin)
            .stdout(guest_stdout)
            .stderr(guest_stderr)
            .process_group(0);
        if let Some(user) = options.user {
            command.env("FAKE_USER", user);
        }
        if let Some(workdir) = options.workdir {
            command.current_dir(workdir);
        }
        if let Some(size) = options.tty {
            command.env("FAKE_TTY", format!("{}x{}", size.rows, size.cols));
        }
        let (connection, owner) = (connection.clone(), self.handles.clone());
        let handles = owner.clone();
        let ended = (self.record().spec.ephemeral).then(|| self.handle.clone());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        thread::spawn(move || {
            guest(command, guest_control, &handles);
            sender.send(()).ok();
        });
        tokio::spawn(async move {
            receiver.await.ok();
            if let Some(handle) = ended {
                remove(connection, owner, handle);
            }
        });
        let fd = |fd: std::os::fd::OwnedFd| OwnedFd::from(fd);
        Ok((
            fd(stdin.into()),
            fd(stdout.into()),
            fd(stderr.into()),
            fd(control.into()),
        ))
    }

    #[zbus(out_args("files"))]
    async fn open_logs(&self, _options: Dict) -> Vec<OwnedFd> {
        let logs = self.handles.with(|state| state.logs.clone());
        let open = |path: &PathBuf| {
            let file = File::open(path).ok()?;
            Some(OwnedFd::from(std::os::fd::OwnedFd::from(file)))
        };
        logs.iter().filter_map(open).collect()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn handle(&self) -> String {
        self.handle.to_string()
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.record().state.into()
    }

    #[zbus(property)]
    fn state_reason(&self) -> String {
        String::new()
    }

    #[zbus(property)]
    fn enabled(&self) -> bool {
        self.record().state != "disabled"
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn kit(&self) -> String {
        self.record().spec.kit.unwrap_or_default()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn kit_version(&self) -> String {
        "1.0".into()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn image(&self) -> String {
        String::new()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn command(&self) -> Vec<String> {
        self.record().spec.command.unwrap_or_default()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn memory(&self) -> u32 {
        256
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn cpus(&self) -> u32 {
        1
    }

    #[zbus(property)]
    fn accel(&self) -> String {
        "tcg".into()
    }

    #[zbus(property)]
    fn kernel(&self) -> String {
        "own".into()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn workspace(&self) -> String {
        String::new()
    }

    #[zbus(property)]
    fn ports(&self) -> Vec<String> {
        let ports = self.record().spec.ports;
        ports.iter().map(ToString::to_string).collect()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn ephemeral(&self) -> bool {
        self.record().spec.ephemeral
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn created_at(&self) -> u64 {
        0
    }

    #[zbus(property)]
    fn state_since(&self) -> u64 {
        0
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn unit(&self) -> String {
        aegis_core::units::vm(&self.handle)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn socket_unit(&self) -> String {
        aegis_core::units::socket(&self.handle)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn slice(&self) -> String {
        aegis_core::units::slice(&self.handle)
    }

    #[zbus(property)]
    fn qemu_pid(&self) -> u32 {
        0
    }

    #[zbus(property)]
    fn execs(&self) -> u32 {
        0
    }

    #[zbus(property)]
    fn last_exit(&self) -> Dict {
        let exit = LastExit {
            code: Some(3),
            signal: None,
            failure: String::new(),
            at_us: 0,
            oom: false,
        };
        exit.to_dict()
    }

    #[zbus(property)]
    fn daemons(&self) -> Vec<Dict> {
        let gateway = DaemonEntry {
            name: "gateway".into(),
            label: "Gateway".into(),
            unit: aegis_core::units::daemon(&self.handle, "gateway"),
            state: DaemonState::Running,
            restarts: 0,
            next_restart_in_us: 0,
            last_exit: String::new(),
            since_us: 0,
            pid: 1,
        };
        vec![gateway.to_dict()]
    }
}

struct Job {
    outcome: Arc<Mutex<JobOutcome>>,
}

#[interface(name = "org.aegisvm.Aegis1.Job")]
impl Job {
    fn cancel(&self) {}

    #[zbus(signal)]
    async fn completed(
        emitter: &SignalEmitter<'_>,
        state: &str,
        error_name: &str,
        message: &str,
        hint: &str,
    ) -> zbus::Result<()>;

    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> String {
        "test".into()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn instance(&self) -> OwnedObjectPath {
        OwnedObjectPath::try_from("/").unwrap()
    }

    #[zbus(property)]
    fn progress(&self) -> f64 {
        -1.0
    }

    #[zbus(property)]
    fn status(&self) -> String {
        "Working".into()
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.outcome.lock().unwrap().to_parts().0
    }

    #[zbus(property)]
    fn error_name(&self) -> String {
        self.outcome.lock().unwrap().to_parts().1
    }

    #[zbus(property)]
    fn error_message(&self) -> String {
        self.outcome.lock().unwrap().to_parts().2
    }

    #[zbus(property)]
    fn hint(&self) -> String {
        self.outcome.lock().unwrap().to_parts().3
    }
}

async fn add(
    connection: &Connection,
    handles: &Handles,
    handle: &str,
    spec: SpecRequest,
    state: &'static str,
) {
    let instance = Instance {
        handle: handle.parse().unwrap(),
        handles: handles.clone(),
    };
    let path = names::instance_path(&instance.handle);
    let record = Record { spec, state };
    handles.with(|state| state.instances.insert(handle.to_owned(), record));
    connection.object_server().at(path, instance).await.unwrap();
}

/// Removes an instance, from a task of its own: an object cannot be removed by a
/// method of its own.
fn remove(connection: Connection, handles: Handles, handle: Handle) {
    tokio::spawn(async move {
        handles.with(|state| state.instances.remove(handle.as_str()));
        let server: &ObjectServer = connection.object_server();
        let path = names::instance_path(&handle);
        server.remove::<Instance, _>(path).await.unwrap();
    });
}

async fn failed_job(connection: &Connection, handles: &Handles, fault: Fault) -> OwnedObjectPath {
    let outcome = JobOutcome {
        state: JobState::Failed,
        fault: Some(fault),
    };
    start_job(connection, handles, Some(outcome)).await
}

async fn job(connection: &Connection, handles: &Handles, state: JobState) -> OwnedObjectPath {
    let outcome = JobOutcome { state, fault: None };
    start_job(connection, handles, Some(outcome)).await
}

async fn running_job(connection: &Connection, handles: &Handles) -> OwnedObjectPath {
    start_job(connection, handles, None).await
}

/// A job that ends soon after its path was answered, or never.
async fn start_job(
    connection: &Connection,
    handles: &Handles,
    end: Option<JobOutcome>,
) -> OwnedObjectPath {
    let number = handles.with(|state| {
        state.jobs += 1;
        state.jobs
    });
    let path = names::job_path(number);
    let outcome = Arc::new(Mutex::new(JobOutcome {
        state: JobState::Running,
        fault: None,
    }));
    let job = Job {
        outcome: outcome.clone(),
    };
    let server = connection.object_server();
    server.at(path.clone(), job).await.unwrap();
    if let Some(end) = end {
        let (connection, path) = (connection.clone(), path.clone());
        tokio::spawn(async move {
            let (state, name, message, hint) = end.to_parts();
            *outcome.lock().unwrap() = end;
            let emitter = SignalEmitter::new(&connection, path).unwrap();
            Job::completed(&emitter, &state, &name, &message, &hint)
                .await
                .unwrap();
        });
    }
    path
}

/// Plays the guest: runs the command and tells the control stream about it.
fn guest(mut command: Command, control: UnixStream, handles: &Handles) {
    let mut events = control.try_clone().unwrap();
    let mut tell = move |event: &ExecEvent| {
        let mut line = serde_json::to_vec(event).unwrap();
        line.push(b'\n');
        events.write_all(&line).ok();
    };
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let symbol = match error.kind() {
                std::io::ErrorKind::NotFound => Symbol::CommandNotFound,
                _ => Symbol::CommandNotExecutable,
            };
            drop(command);
            return tell(&ExecEvent::Failed(Fault::new(symbol, error.to_string())));
        }
    };
    // Its copies of the streams would keep them open.
    drop(command);
    tell(&ExecEvent::Started {});
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let handles = handles.clone();
    thread::spawn(move || {
        for line in BufReader::new(control).lines() {
            let Ok(line) = line else { break };
            match serde_json::from_str(&line).unwrap() {
                ExecInput::Signal(signal) => {
                    killpg(group, Signal::try_from(signal).unwrap()).ok();
                }
                ExecInput::Resize(size) => {
                    let call = format!("resize {}x{}", size.rows, size.cols);
                    handles.with(|state| state.calls.push(call));
                    // So that a test can wait for it.
                    killpg(group, Signal::SIGUSR2).ok();
                }
            }
        }
        killpg(group, Signal::SIGHUP).ok();
    });
    let status = child.wait().unwrap();
    tell(&match status.signal() {
        Some(signal) => ExecEvent::Signaled { signal },
        None => ExecEvent::Exited {
            code: status.code().unwrap(),
        },
    });
}
