//! The Instance interface of the fake.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::pipe;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use aegis_bus::dict::Dict;
use aegis_bus::error::BusFault;
use aegis_bus::instance::{
    DaemonEntry, DaemonState, DeleteOptions, ExecOptions, GuestProcess, LastExit, LetSleepOptions,
    RefreshOptions, StaleSecret, StopOptions, UnitUsage, UpdateRequest, Usage, limits_to_dict,
};
use aegis_bus::job::JobState;
use aegis_bus::manager::SpecRequest;
use aegis_bus::names;
use aegis_core::fault::{Fault, Symbol};
use aegis_core::handle::Handle;
use aegis_core::limits::ResourceLimits;
use zbus::{Connection, OwnedFd, OwnedObjectPath, interface};

use super::guest::guest;
use super::job::{job, mute_job, running_job};
use super::secrets::values;
use super::{Handles, Record, remove};

pub(super) struct Instance {
    pub(super) handle: Handle,
    pub(super) handles: Handles,
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
            });
            return Ok(running);
        }
        let state = self.change("stop", "stopped");
        Ok(job(connection, &self.handles, state).await)
    }

    #[zbus(out_args("job"))]
    async fn restart(
        &self,
        options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, BusFault> {
        StopOptions::from_dict(options).map_err(Fault::from)?;
        self.change("restart", "running");
        Ok(job(connection, &self.handles, JobState::Done).await)
    }

    #[zbus(out_args("job"))]
    async fn update(
        &self,
        changes: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, BusFault> {
        let request = UpdateRequest::from_dict(changes).map_err(Fault::from)?;
        self.handles.with(|state| {
            state.calls.push(format!("update {}", self.handle));
            if let Some(record) = state.instances.get_mut(self.handle.as_str()) {
                record.spec.memory_mib = request.memory_mib.or(record.spec.memory_mib);
                record.spec.labels.extend(request.labels);
            }
        });
        Ok(job(connection, &self.handles, JobState::Done).await)
    }

    async fn kill(&self, signal: i32) -> Result<(), BusFault> {
        if self.record().state != "running" {
            let message = "there is no VM of the instance at the moment";
            return Err(Fault::new(Symbol::WrongState, message).into());
        }
        self.handles
            .with(|state| state.calls.push(format!("kill {} {signal}", self.handle)));
        Ok(())
    }

    #[zbus(out_args("processes"))]
    async fn processes(&self) -> Vec<Dict> {
        let process = GuestProcess {
            pid: 1,
            parent: 0,
            user: "root".into(),
            state: "S".into(),
            cpu_ms: 1230,
            memory_kib: 1536,
            age_ms: 61_000,
            command: "/init \x1b[2J".into(),
        };
        vec![process.to_dict()]
    }

    #[zbus(out_args("usage"))]
    async fn stats(&self) -> Dict {
        let at_us = self.handles.with(|state| {
            state.clock_us += 1_000_000;
            state.clock_us
        });
        let vm = UnitUsage {
            unit: aegis_core::units::vm(&self.handle),
            memory: Some(256 << 20),
            memory_max: Some(512 << 20),
            cpu_ns: Some(at_us * 500),
            tasks: (self.handle.as_str() == "web").then_some(9),
            tasks_max: Some(512),
        };
        let units = match self.record().state {
            "running" => vec![vm],
            _ => Vec::new(),
        };
        Usage { at_us, units }.to_dict()
    }

    #[zbus(out_args("job"))]
    async fn enable(&self, #[zbus(connection)] connection: &Connection) -> OwnedObjectPath {
        let state = self.change("enable", "stopped");
        job(connection, &self.handles, state).await
    }

    #[zbus(out_args("job"))]
    async fn disable(&self, #[zbus(connection)] connection: &Connection) -> OwnedObjectPath {
        let state = self.change("disable", "disabled");
        if self.handle.as_str() == "flaky" {
            return mute_job(connection, &self.handles, state).await;
        }
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

    #[zbus(out_args("job"))]
    async fn hibernate(
        &self,
        _options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, BusFault> {
        let state = self.change("hibernate", "hibernated");
        Ok(job(connection, &self.handles, state).await)
    }

    #[zbus(out_args("job"))]
    async fn wake(
        &self,
        _options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, BusFault> {
        let state = self.change("wake", "running");
        Ok(job(connection, &self.handles, state).await)
    }

    #[zbus(out_args("job"))]
    async fn refresh(
        &self,
        options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, BusFault> {
        let RefreshOptions { secrets } = RefreshOptions::from_dict(options).map_err(Fault::from)?;
        let call = format!("refresh {} {}", self.handle, secrets.join(" "));
        self.handles.with(|state| state.calls.push(call));
        if self.handle.as_str() == "flawed" {
            return Err(Fault::new(Symbol::GuestTimeout, "the guest does not answer").into());
        }
        Ok(job(connection, &self.handles, JobState::Done).await)
    }

    #[zbus(out_args("job"))]
    async fn keep_awake(
        &self,
        reason: String,
        seconds: u64,
        _options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, BusFault> {
        self.handles.with(|state| {
            let handle = &self.handle;
            state
                .calls
                .push(format!("keep-awake {handle} {reason} {seconds}"));
        });
        let state = JobState::Done;
        Ok(job(connection, &self.handles, state).await)
    }

    #[zbus(out_args("job"))]
    async fn let_sleep(
        &self,
        options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, BusFault> {
        let LetSleepOptions { reason } =
            LetSleepOptions::from_dict(options).map_err(Fault::from)?;
        let state = match reason.as_deref() {
            Some("backup") | None => JobState::Done,
            Some(_) => JobState::Unchanged,
        };
        Ok(job(connection, &self.handles, state).await)
    }

    #[zbus(out_args("stdin", "stdout", "stderr", "control"))]
    async fn exec(
        &self,
        argv: Vec<String>,
        mut options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(OwnedFd, OwnedFd, OwnedFd, OwnedFd), BusFault> {
        let values = values(&self.handles, &mut options);
        let options = ExecOptions::from_dict(options).map_err(Fault::from)?;
        let (guest_stdin, stdin) = pipe().unwrap();
        let (stdout, guest_stdout) = pipe().unwrap();
        let (stderr, guest_stderr) = pipe().unwrap();
        let (control, guest_control) = UnixStream::pair().unwrap();
        let mut command = Command::new(&argv[0]);
        command
            .args(&argv[1..])
            .envs(options.env)
            .envs(values(options.secrets))
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

    #[zbus(out_args("differences"))]
    async fn compare(&self, spec: Dict) -> Result<Vec<(String, String, String)>, BusFault> {
        let asked = SpecRequest::from_dict(spec).map_err(Fault::from)?;
        let memory = |mib: u32| format!("{mib} MiB");
        let have = self.record().spec.memory_mib.unwrap_or(256);
        let other = asked.memory_mib.filter(|mib| *mib != have);
        let differs = other.map(|mib| ("memory".into(), memory(have), memory(mib)));
        Ok(differs.into_iter().collect())
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
    fn owner(&self) -> u32 {
        nix::unistd::geteuid().as_raw()
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

    #[zbus(property)]
    fn memory(&self) -> u32 {
        self.record().spec.memory_mib.unwrap_or(256)
    }

    #[zbus(property)]
    fn cpus(&self) -> u32 {
        1
    }

    #[zbus(property)]
    fn platform(&self) -> String {
        "linux/amd64".to_owned()
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
    fn volumes(&self) -> Vec<String> {
        let volumes = self.record().spec.volumes;
        volumes.iter().map(ToString::to_string).collect()
    }

    #[zbus(property)]
    fn ports(&self) -> Vec<String> {
        let ports = self.record().spec.ports;
        ports.iter().map(ToString::to_string).collect()
    }

    #[zbus(property)]
    fn network(&self) -> String {
        self.record().spec.network.unwrap_or_default().to_string()
    }

    #[zbus(property)]
    fn allowed_hosts(&self) -> Vec<String> {
        let hosts = self.record().spec.allowed_hosts;
        hosts.iter().map(ToString::to_string).collect()
    }

    #[zbus(property)]
    fn network_problem(&self) -> String {
        String::new()
    }

    #[zbus(property)]
    fn labels(&self) -> BTreeMap<String, String> {
        self.record().spec.labels
    }

    #[zbus(property)]
    fn limits(&self) -> Dict {
        limits_to_dict(&ResourceLimits {
            memory_max_mib: Some(768),
            cpu_quota: Some(200),
            tasks_max: Some(512),
        })
    }

    #[zbus(property)]
    fn stale(&self) -> Vec<Dict> {
        let stale = StaleSecret {
            name: "STALE".to_owned(),
            own: false,
            daemons: vec!["gateway".to_owned()],
            guest: true,
            set_at_us: 0,
        };
        vec![stale.to_dict()]
    }

    #[zbus(property)]
    fn pending(&self) -> Vec<String> {
        let memory = self.record().spec.memory_mib;
        memory.map(|_| "memory".to_owned()).into_iter().collect()
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
            oom_host: false,
            gave_up: false,
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
            oom: false,
            since_us: 0,
            pid: 1,
            config: None,
            reads: Vec::new(),
            writes: Vec::new(),
        };
        vec![gateway.to_dict()]
    }
}
