//! Guests that do not do their part, played: what they cost is a deadline.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use aegis_core::control::CommandState;
use aegis_core::platform::Platform;
use aegis_core::vm_spec::VmSpec;
use aegis_link::message::{Booted, Call, Event, Fault, Hello, Reply, Symbol};
use aegis_link::{Handle, Received, Role};
use aegis_vmm::hypervisor::MachinePlan;
use aegis_vmm::hypervisor::fake::{Fake, FakeMachine};
use aegis_vmm::owner::bring_up::bring_up;
use aegis_vmm::owner::up::{Beginning, SaveError, Saved, Up};
use aegis_vmm::status::StatusDoor;
use tokio::net::UnixStream;

/// What a guest does of its part.
#[derive(Clone, Copy, Debug, Default)]
struct Script {
    /// Never answers a suspend.
    deaf: bool,
    /// Refuses a suspend.
    busy: bool,
    /// Says nothing once it was restored.
    mute: bool,
}

fn say_hello(link: &Handle) {
    link.send_event(Event::Hello(Hello {
        generation: 1,
        harness: "played".into(),
        kernel: "none".into(),
    }));
}

async fn play(link: StdUnixStream, script: Script) {
    link.set_nonblocking(true).unwrap();
    let channel = UnixStream::from_std(link).unwrap();
    let (link, mut incoming) = aegis_link::start(channel, Role::Guest);
    say_hello(&link);
    let mut unanswered = Vec::new();
    while let Ok(received) = incoming.next().await {
        match received {
            Received::Call {
                call, responder, ..
            } => match call {
                Call::Boot(_) => responder.reply(Ok(Reply::Booted(Booted { uptime_ms: 1 }))),
                Call::Suspend if script.deaf => unanswered.push(responder),
                Call::Suspend if script.busy => {
                    let fault = Fault::new(Symbol::Busy, "a program does not read");
                    responder.reply(Err(fault));
                }
                _ => responder.reply(Ok(Reply::Done)),
            },
            Received::Resynced if !script.mute => say_hello(&link),
            Received::Resynced | Received::Event { .. } => {}
        }
    }
}

/// A folder with the files of a guest, which nothing reads.
struct Nowhere {
    dir: tempfile::TempDir,
}

impl Nowhere {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in [Platform::HOST.kernel(), "initramfs", "base.squashfs"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        Self { dir }
    }

    fn spec(&self) -> VmSpec {
        VmSpec {
            guest_dir: self.dir.path().to_owned(),
            disk: None,
            command: Vec::new(),
            ..crate::vm::Bench::of(self.dir.path().to_owned()).spec("")
        }
    }

    /// Starts guests that follow these scripts, one each.
    async fn begin(&self, scripts: &[Script]) -> Up<FakeMachine> {
        let scripts = Mutex::new(scripts.to_vec());
        let hypervisor = Fake::new(move |plan: MachinePlan| {
            let script = scripts.lock().unwrap().remove(0);
            tokio::spawn(play(StdUnixStream::from(plan.link), script));
            Ok(FakeMachine::default())
        });
        let status = Arc::new(StatusDoor::new(0));
        let began = bring_up(Arc::new(self.spec()), Arc::new(hypervisor), status);
        Box::pin(began).await.unwrap()
    }

    fn is_empty(&self) -> bool {
        let left = |name| self.dir.path().join(name).exists();
        !left("snapshot") && !left("snapshot.partial")
    }
}

async fn save(up: &mut Up<FakeMachine>) -> Result<Saved, SaveError> {
    let save = up.hibernate(true, CommandState::None);
    tokio::select! {
        saved = save => saved,
        event = up.next(false) => panic!("{event:?}"),
    }
}

#[tokio::test]
async fn a_guest_that_does_not_suspend_costs_a_deadline() {
    let nowhere = Nowhere::new();
    let script = Script {
        deaf: true,
        ..Script::default()
    };
    let mut up = nowhere.begin(&[script]).await;
    tokio::time::pause();
    let error = save(&mut up).await.unwrap_err();
    assert!(matches!(error, SaveError::Silent { .. }), "{error}");
    up.unsuspend().await.unwrap();
    assert!(nowhere.is_empty() && !up.machine.is_paused());
    // It may find its ears again.
    up.link.ping().await.unwrap();
}

#[tokio::test]
async fn a_guest_that_refuses_runs_on() {
    let nowhere = Nowhere::new();
    let script = Script {
        busy: true,
        ..Script::default()
    };
    let mut up = nowhere.begin(&[script]).await;
    let error = save(&mut up).await.unwrap_err();
    let fault = aegis_core::fault::Fault::from(error);
    assert_eq!(fault.symbol, aegis_core::fault::Symbol::Busy);
    assert_eq!(
        fault.message,
        "the guest could not suspend itself: The other side of the link refused the call: \
         a program does not read"
    );
    up.unsuspend().await.unwrap();
    assert!(nowhere.is_empty() && !up.machine.is_paused());
}

#[tokio::test]
async fn a_guest_that_does_not_find_back_is_booted() {
    let nowhere = Nowhere::new();
    let mute = Script {
        mute: true,
        ..Script::default()
    };
    let mut up = nowhere.begin(&[Script::default()]).await;
    save(&mut up).await.unwrap();
    assert!(!nowhere.is_empty());
    up.end_saved().await;
    let began = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tokio::time::pause();
        std::future::pending::<()>().await;
    };
    let scripts = [mute, Script::default()];
    let up = tokio::select! {
        up = nowhere.begin(&scripts) => up,
        () = began => unreachable!(),
    };
    match &up.beginning {
        Beginning::Booted {
            refused: Some(fault),
        } => assert_eq!(
            fault.message,
            "the VM was booted instead of restored: the restored guest did not answer within 60 s"
        ),
        other => panic!("{other:?}"),
    }
    assert!(nowhere.is_empty());
}

#[tokio::test]
async fn a_played_guest_is_restored() {
    let nowhere = Nowhere::new();
    let mut up = nowhere.begin(&[Script::default()]).await;
    for _ in 0..3 {
        save(&mut up).await.unwrap();
        assert!(up.machine.is_paused());
        up.end_saved().await;
        up = nowhere.begin(&[Script::default()]).await;
        assert!(matches!(up.beginning, Beginning::Restored(_)));
        assert!(nowhere.is_empty() && !up.machine.is_paused());
    }
}
