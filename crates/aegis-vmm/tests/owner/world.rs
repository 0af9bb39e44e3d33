//! A VM under test: everything of aegis-vmm but the machine, in this process.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aegis_core::control::{
    Answer, AttachRequest, Call, CallFrame, CommandExit, ExecEvent, ExecInput, ExecRequest,
    OwnerFrame, StartMark, VmStatus,
};
use aegis_core::credential::Credential;
use aegis_core::fault::Fault;
use aegis_core::idle::{Activity, IdlePolicy, Lease};
use aegis_core::lifecycle::VmState;
use aegis_core::network::Network;
use aegis_core::platform::Platform;
use aegis_core::restart::RestartPolicy;
use aegis_core::spec::Accel;
use aegis_core::vm_spec::VmSpec;
use aegis_vmm::activation::{Listeners, PortListener};
use aegis_vmm::hypervisor::fake::{Fake, FakeMachine};
use aegis_vmm::hypervisor::{LaunchError, MachinePlan};
use aegis_vmm::owner::Verdict;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::fake_guest::{self, MachineEnder, Script, Seen};

/// Generous: the machine that runs the tests may be loaded.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) dir: TempDir,
    stop: watch::Sender<bool>,
    /// How often the owner was started.
    lives: Arc<AtomicU32>,
    vm: Option<JoinHandle<Verdict>>,
    seen: Receiver<Seen>,
    /// Of the newest machine.
    machine: Arc<Mutex<Option<MachineEnder>>>,
    work: Arc<Mutex<Option<watch::Sender<Activity>>>>,
    pub(crate) ports: Vec<SocketAddr>,
}

/// What is special about a VM under test.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) script: Script,
    pub(crate) ephemeral: bool,
    pub(crate) command: Vec<String>,
    pub(crate) terminal: bool,
    pub(crate) restart: RestartPolicy,
    /// How the command ended before.
    pub(crate) exit: Option<CommandExit>,
    /// When somebody last started it.
    pub(crate) start: Option<StartMark>,
    /// Guest ports to expose.
    pub(crate) ports: Vec<u16>,
    /// What the service manager passed.
    pub(crate) credential: Credential,
    /// So many launches fail before one succeeds.
    pub(crate) failures: u32,
    pub(crate) idle: IdlePolicy,
    pub(crate) leases: Vec<Lease>,
    /// Each use starts it again, as the service manager does, until it is stopped.
    pub(crate) activated: bool,
    /// Files of the image.
    pub(crate) layers: Vec<std::path::PathBuf>,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keep = |name: &str, json: String| std::fs::write(dir.path().join(name), json).unwrap();
        if let Some(exit) = &plan.exit {
            keep("exit.json", serde_json::to_string(exit).unwrap());
        }
        if let Some(start) = &plan.start {
            keep("start.json", serde_json::to_string(start).unwrap());
        }
        let spec = VmSpec {
            layers: plan.layers,
            command: plan.command,
            terminal: plan.terminal,
            restart: plan.restart,
            credential: plan.credential,
            idle: plan.idle,
            leases: plan.leases,
            ephemeral: plan.ephemeral,
            ..spec(dir.path())
        };
        let mut listeners = Listeners::listen(&dir.path().join("control.sock"), &[]).unwrap();
        let mut ports = Vec::new();
        for guest in plan.ports {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let address = listener.local_addr().unwrap();
            ports.push(address);
            listeners.ports.push(PortListener {
                listener,
                address,
                guest,
            });
        }
        let (seen_sender, seen) = channel();
        let machine = Arc::new(Mutex::new(None));
        let newest = Arc::clone(&machine);
        let work = Arc::new(Mutex::new(None));
        let its_work = Arc::clone(&work);
        let failures = Mutex::new(plan.failures);
        let script = plan.script;
        let launch = Arc::new(move |plan: MachinePlan| {
            let mut failures = failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err(LaunchError::QemuMissing {
                    platform: Platform::HOST,
                    searched: "nowhere".into(),
                });
            }
            let machine = FakeMachine::default();
            *newest.lock().unwrap() = Some(machine.ender());
            *its_work.lock().unwrap() = Some(machine.worker());
            let asleep = machine.pauses();
            let (ender, mut script) = (machine.ender(), script.clone());
            let seen = seen_sender.clone();
            script.restored = plan.incoming.is_some();
            std::thread::spawn(move || {
                fake_guest::play(UnixStream::from(plan.link), ender, script, seen, asleep);
            });
            Ok(machine)
        });
        let stop = watch::Sender::new(false);
        let stopped = stop.subscribe();
        let lives = Arc::new(AtomicU32::new(0));
        let (activated, counted) = (plan.activated, Arc::clone(&lives));
        let vm = std::thread::spawn(move || {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                let launch = Arc::clone(&launch);
                let hypervisor = Fake::new(move |plan: MachinePlan| launch(plan));
                let passed = clone(&listeners);
                let mut stopping = stopped.clone();
                let stop = async move { drop(stopping.wait_for(|stop| *stop).await.unwrap()) };
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let run = aegis_vmm::runtime::run(spec.clone(), passed, hypervisor, stop);
                let verdict = runtime.block_on(run).unwrap();
                // As the process does, which ends with it.
                runtime.shutdown_background();
                let goes_on = activated && matches!(verdict, Verdict::Finished);
                if !goes_on || !knocked(&listeners, &stopped) {
                    return verdict;
                }
            }
        });
        Self {
            dir,
            stop,
            lives,
            vm: Some(vm),
            seen,
            machine,
            work,
            ports,
        }
    }

    /// What the guest did so far.
    pub(crate) fn has_done(&self, activity: Activity) {
        let work = self.work.lock().unwrap();
        work.as_ref().unwrap().send_replace(activity);
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    pub(crate) fn connect(&self) -> Client {
        Client::of(&self.control())
    }

    /// The next thing the guest noticed that `pick` wants.
    pub(crate) fn seen<T>(&self, mut pick: impl FnMut(Seen) -> Option<T>) -> T {
        loop {
            let seen = self
                .seen
                .recv_timeout(PATIENCE)
                .expect("the guest noticed nothing");
            if let Some(picked) = pick(seen) {
                return picked;
            }
        }
    }

    /// Whether the guest has been asked for anything while it was paused.
    pub(crate) fn was_disturbed(&self) -> bool {
        self.seen
            .try_iter()
            .any(|seen| matches!(seen, Seen::Asleep))
    }

    /// How often the owner was started.
    pub(crate) fn lives(&self) -> u32 {
        self.lives.load(Ordering::Relaxed)
    }

    /// What is written about the command's end.
    pub(crate) fn exit(&self) -> CommandExit {
        let json = std::fs::read(self.dir.path().join("exit.json")).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    pub(crate) fn machine(&self) -> MachineEnder {
        self.machine.lock().unwrap().clone().unwrap()
    }

    /// As SIGTERM does.
    pub(crate) fn stop(&mut self) {
        self.stop.send_replace(true);
    }

    pub(crate) fn verdict(&mut self) -> Verdict {
        let vm = self.vm.take().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !vm.is_finished() {
            assert!(Instant::now() < deadline, "the VM's owner did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        vm.join().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
        if let Some(vm) = self.vm.take() {
            // Its panic, if it had one, was printed.
            let _panicked = vm.join();
        }
    }
}

fn clone(listeners: &Listeners) -> Listeners {
    let ports = listeners.ports.iter().map(|port| PortListener {
        listener: port.listener.try_clone().unwrap(),
        ..*port
    });
    Listeners {
        control: listeners.control.try_clone().unwrap(),
        ports: ports.collect(),
    }
}

/// Waits until somebody connects; false when a stop comes first.
fn knocked(listeners: &Listeners, stopped: &watch::Receiver<bool>) -> bool {
    let sockets = listeners.ports.iter().map(|port| port.listener.as_fd());
    let sockets = sockets.chain([listeners.control.as_fd()]);
    let mut polled: Vec<_> = sockets
        .map(|socket| PollFd::new(socket, PollFlags::POLLIN))
        .collect();
    while !*stopped.borrow() {
        if poll(&mut polled, PollTimeout::from(10u8)).unwrap() > 0 {
            return true;
        }
    }
    false
}

/// A spec of a VM whose files are in a folder, where the guest's are made.
pub(crate) fn spec(dir: &Path) -> VmSpec {
    let guest_dir = dir.join("guest");
    std::fs::create_dir(&guest_dir).unwrap();
    for name in [Platform::HOST.kernel(), "initramfs", "base.squashfs"] {
        std::fs::write(guest_dir.join(name), b"").unwrap();
    }
    VmSpec {
        handle: "test".parse().unwrap(),
        memory_mib: 128,
        cpus: 1,
        accel: Accel::Tcg,
        platform: Platform::HOST,
        guest_dir,
        layers: Vec::new(),
        read_only_root: false,
        disk: None,
        inject: Vec::new(),
        workspace: None,
        volumes: Vec::new(),
        command: Vec::new(),
        stop_signal: None,
        terminal: false,
        restart: RestartPolicy::No,
        env: [("FROM".to_owned(), "spec".to_owned())].into(),
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
        dir: dir.to_owned(),
        templates: None,
        accel_cache: None,
        revision: 4,
        grace_secs: 2,
    }
}

/// A client of the control socket.
pub(crate) struct Client {
    socket: UnixStream,
    buffer: Vec<u8>,
    fds: Vec<OwnedFd>,
    next_id: u64,
}

impl Client {
    pub(crate) fn of(control: &Path) -> Self {
        Self::new(UnixStream::connect(control).unwrap())
    }

    pub(crate) fn new(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            buffer: Vec::new(),
            fds: Vec::new(),
            next_id: 1,
        }
    }

    pub(crate) fn send(&mut self, call: Call) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let mut frame = serde_json::to_vec(&CallFrame { id, call }).unwrap();
        frame.push(b'\n');
        self.send_raw(&frame).unwrap();
        id
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) fn receive(&mut self) -> Option<OwnerFrame> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let mut bytes = [0; 4096];
            let (length, fds) = receive_with_fds(&self.socket, &mut bytes)?;
            self.fds.extend(fds);
            self.buffer.extend_from_slice(&bytes[..length]);
        }
    }

    pub(crate) fn ask(&mut self, call: Call) -> Result<Answer, Fault> {
        let asked = self.send(call);
        match self.receive().expect("the connection ended") {
            OwnerFrame::Answer { id, ok, fds } => {
                assert_eq!(id, asked);
                assert_eq!(fds, self.fds.len());
                Ok(ok)
            }
            OwnerFrame::Fault { id, fault } => {
                assert_eq!(id, asked);
                Err(fault)
            }
            OwnerFrame::Event { .. } => panic!("an event instead of an answer"),
        }
    }

    pub(crate) fn status(&mut self) -> VmStatus {
        match self.ask(Call::Status) {
            Ok(Answer::Status(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// The status, unless the VM ends instead.
    pub(crate) fn try_status(mut self) -> Option<VmStatus> {
        let frame = CallFrame {
            id: 1,
            call: Call::Status,
        };
        let mut frame = serde_json::to_vec(&frame).unwrap();
        frame.push(b'\n');
        self.send_raw(&frame).ok()?;
        match self.receive()? {
            OwnerFrame::Answer {
                ok: Answer::Status(status),
                ..
            } => Some(*status),
            _ => None,
        }
    }

    /// Watches on a connection of its own until `wanted`.
    pub(crate) fn watch_until(mut self, wanted: impl Fn(&VmStatus) -> bool) -> VmStatus {
        self.send(Call::Watch);
        loop {
            let status = match self.receive().expect("the VM ended") {
                OwnerFrame::Answer {
                    ok: Answer::Status(status),
                    ..
                } => status,
                OwnerFrame::Event { event } => event,
                other => panic!("{other:?}"),
            };
            if wanted(&status) {
                return *status;
            }
        }
    }

    pub(crate) fn until_state(self, state: VmState) -> VmStatus {
        self.watch_until(|status| status.state == state)
    }

    pub(crate) fn exec(mut self, request: ExecRequest) -> Result<Exec, Fault> {
        match self.ask(Call::Exec(request))? {
            Answer::Exec => Ok(self.into_session()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn attach(mut self, request: AttachRequest) -> Result<Exec, Fault> {
        match self.ask(Call::Attach(request))? {
            Answer::Attach => Ok(self.into_session()),
            other => panic!("{other:?}"),
        }
    }

    fn into_session(self) -> Exec {
        let [stdin, stdout, stderr, control] = <[OwnedFd; 4]>::try_from(self.fds).unwrap();
        let control = UnixStream::from(control);
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        Exec {
            stdin: stdin.into(),
            stdout: stdout.into(),
            stderr: stderr.into(),
            events: BufReader::new(control),
        }
    }
}

pub(crate) fn argv(words: &[&str]) -> ExecRequest {
    ExecRequest {
        argv: words.iter().map(|word| (*word).to_owned()).collect(),
        ..ExecRequest::default()
    }
}

/// A client's ends of an exec session.
pub(crate) struct Exec {
    pub(crate) stdin: File,
    pub(crate) stdout: File,
    pub(crate) stderr: File,
    events: BufReader<UnixStream>,
}

impl Exec {
    pub(crate) fn event(&mut self) -> ExecEvent {
        let mut line = String::new();
        self.events.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    pub(crate) fn tell(&mut self, input: &ExecInput) {
        let mut line = serde_json::to_vec(input).unwrap();
        line.push(b'\n');
        self.events.get_mut().write_all(&line).unwrap();
    }

    pub(crate) fn split(self) -> (File, File, File, BufReader<UnixStream>) {
        (self.stdin, self.stdout, self.stderr, self.events)
    }
}

pub(crate) fn read_all(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[allow(unsafe_code, reason = "no safe crate receives several descriptors")]
fn receive_with_fds(socket: &UnixStream, bytes: &mut [u8]) -> Option<(usize, Vec<OwnedFd>)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    use std::os::fd::AsRawFd;
    let mut space = nix::cmsg_space!([i32; 8]);
    let mut iov = [std::io::IoSliceMut::new(bytes)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut iov,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )
    .ok()?;
    let mut fds = Vec::new();
    for control in message.cmsgs().unwrap() {
        if let ControlMessageOwned::ScmRights(received) = control {
            for fd in received {
                // SAFETY: the kernel made this descriptor for this process just now.
                fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    (message.bytes > 0).then_some((message.bytes, fds))
}
