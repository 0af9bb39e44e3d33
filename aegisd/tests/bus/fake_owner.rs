//! A fake owner of a VM: speaks the control protocol and boots nothing.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use aegis_core::control::{
    Answer, Call, CallFrame, CommandState, Outcome, OwnerFrame, Process, VmStatus,
};
use aegis_core::fault::{Fault, Symbol};
use aegis_core::lifecycle::VmState;
use aegis_core::vm_spec::VmSpec;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;

/// What the fake does when it is to boot.
#[derive(Clone, Debug, Default)]
pub(crate) enum Boot {
    #[default]
    Succeed,
    Fail(Fault),
    /// Go on starting until told otherwise.
    Hang,
}

/// A VM that is not there.
#[derive(Clone, Debug)]
pub(crate) struct FakeOwner {
    status: Arc<watch::Sender<VmStatus>>,
    /// The last signal its command got.
    killed: Arc<AtomicI32>,
}

impl FakeOwner {
    pub(crate) fn boot(boot: &Boot, spec: &VmSpec) -> Self {
        let owner = Self {
            status: Arc::new(watch::Sender::new(status(spec))),
            killed: Arc::default(),
        };
        match boot {
            Boot::Succeed => owner.become_(VmState::Running, None),
            Boot::Fail(fault) => owner.become_(VmState::Failed, Some(fault.clone())),
            Boot::Hang => {}
        }
        owner
    }

    pub(crate) fn killed(&self) -> i32 {
        self.killed.load(Ordering::Relaxed)
    }

    fn become_(&self, state: VmState, fault: Option<Fault>) {
        self.status.send_modify(|status| {
            status.generation += 1;
            status.state = state;
            status.fault = fault;
        });
    }

    /// Waits until the fake has an answer to "is it ready".
    pub(crate) async fn settled(&self) {
        let mut status = self.status.subscribe();
        let settled = status.wait_for(|status| status.state != VmState::Starting);
        drop(settled.await.unwrap());
    }

    pub(crate) fn end(&self) {
        self.become_(VmState::Stopping, None);
    }

    /// Serves one connection to the control socket.
    pub(crate) async fn serve(self, stream: UnixStream) {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream
            .read_line(&mut line)
            .await
            .is_ok_and(|count| count > 0)
        {
            let CallFrame { id, call } = serde_json::from_str(&line).unwrap();
            line.clear();
            let answer = |ok| OwnerFrame::Answer { id, ok, fds: 0 };
            let frame = match call {
                Call::Status => answer(Answer::Status(Box::new(self.status.borrow().clone()))),
                Call::Watch => return self.watch(id, stream.into_inner()).await,
                Call::Listen { .. } | Call::Keep(_) => answer(Answer::Outcome(Outcome::Changed)),
                Call::Dial(_) => {
                    let message = "the fake owner has no guest to connect to";
                    let fault = Fault::new(Symbol::Unsupported, message);
                    OwnerFrame::Fault { id, fault }
                }
                Call::Hibernate => {
                    let message = "the fake owner has no machine to save";
                    let fault = Fault::new(Symbol::Unsupported, message);
                    OwnerFrame::Fault { id, fault }
                }
                Call::Pause => answer(Answer::Outcome(self.switch(VmState::Paused))),
                Call::Resume => answer(Answer::Outcome(self.switch(VmState::Running))),
                Call::Kill { signal } => {
                    self.killed.store(signal, Ordering::Relaxed);
                    answer(Answer::Outcome(Outcome::Changed))
                }
                Call::Processes => answer(Answer::Processes(vec![Process {
                    pid: 1,
                    command: "init".to_owned(),
                    ..Process::default()
                }])),
                Call::Exec(request) => {
                    self.settled().await;
                    exec(id, stream.get_ref(), &request.argv, Answer::Exec);
                    continue;
                }
                Call::Attach(_) => {
                    self.settled().await;
                    exec(id, stream.get_ref(), &["attached".into()], Answer::Attach);
                    continue;
                }
            };
            send(stream.get_mut(), &frame).await;
        }
    }

    fn switch(&self, state: VmState) -> Outcome {
        if self.status.borrow().state == state {
            return Outcome::Unchanged;
        }
        self.become_(state, None);
        Outcome::Changed
    }

    async fn watch(self, id: u64, mut stream: UnixStream) {
        let mut status = self.status.subscribe();
        let first = Box::new(status.borrow_and_update().clone());
        let ok = Answer::Status(first);
        send(&mut stream, &OwnerFrame::Answer { id, ok, fds: 0 }).await;
        while status.changed().await.is_ok() {
            let event = Box::new(status.borrow_and_update().clone());
            if event.state == VmState::Stopping {
                return;
            }
            send(&mut stream, &OwnerFrame::Event { event }).await;
        }
    }
}

fn status(spec: &VmSpec) -> VmStatus {
    VmStatus {
        generation: 1,
        state: VmState::Starting,
        since: 1,
        words: "pretending to boot".to_owned(),
        fault: None,
        machine: None,
        command: match spec.command.is_empty() {
            true => CommandState::None,
            false => CommandState::Running { pid: 7 },
        },
        execs: 0,
        attached: 0,
        connections: 0,
        revision: spec.revision,
        network_fault: None,
        awake_because: Vec::new(),
        sleeps: None,
        cannot_hibernate: None,
        not_restored: None,
        rests_until: None,
    }
}

async fn send(stream: &mut UnixStream, frame: &OwnerFrame) {
    let mut bytes = serde_json::to_vec(frame).unwrap();
    bytes.push(b'\n');
    // A client that left is no concern of the owner.
    drop(stream.write_all(&bytes).await);
}

/// Answers with four descriptors, as if the command echoed its words.
fn exec(id: u64, stream: &UnixStream, argv: &[String], ok: Answer) {
    let (_, stdin) = std::io::pipe().unwrap();
    let (stdout, mut output) = std::io::pipe().unwrap();
    let (stderr, _) = std::io::pipe().unwrap();
    let (control, mut events) = StdStream::pair().unwrap();
    output.write_all(argv.join(" ").as_bytes()).unwrap();
    events
        .write_all(b"{\"started\":{}}\n{\"exited\":{\"code\":0}}\n")
        .unwrap();
    let descriptors: [OwnedFd; 4] = [stdin.into(), stdout.into(), stderr.into(), control.into()];
    let borrowed = descriptors.each_ref().map(AsFd::as_fd);
    let frame = OwnerFrame::Answer { id, ok, fds: 4 };
    let mut bytes = serde_json::to_vec(&frame).unwrap();
    bytes.push(b'\n');
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)));
    let parts = [IoSlice::new(&bytes)];
    sendmsg(stream, &parts, &mut ancillary, SendFlags::empty()).unwrap();
}
