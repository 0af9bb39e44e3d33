//! Deciding to sleep and accepting work, in any order: whoever was let in finds CPUs
//! that run for as long as the visit lasts.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aegis_core::control::Keep;
use aegis_core::idle::{Delay, IdlePolicy, Lease};
use aegis_link::message::{Booted, Call, Event, Hello, Reply};
use aegis_link::{Received, Role};
use aegis_vmm::activation::{Listeners, Queues};
use aegis_vmm::doorway::{Doorway, Visit};
use aegis_vmm::hypervisor::MachinePlan;
use aegis_vmm::hypervisor::fake::{Fake, FakeMachine};
use aegis_vmm::owner::{Owner, OwnerHandle};
use aegis_vmm::status::StatusDoor;
use proptest::prelude::*;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::world::spec;

/// What somebody does, after so many milliseconds.
#[derive(Clone, Debug)]
struct Step {
    after: u64,
    deed: Deed,
}

#[derive(Clone, Debug)]
enum Deed {
    /// A visit that asks for the guest this long after it was let in, and stays this
    /// long after it was given it.
    Visit {
        hesitates: u64,
        stays: u64,
    },
    Pause,
    Resume,
    Lease(u64),
    NoLease,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let deed = prop_oneof![
        6 => (0..4u64, 0..12u64).prop_map(|(hesitates, stays)| Deed::Visit { hesitates, stays }),
        1 => Just(Deed::Pause),
        1 => Just(Deed::Resume),
        1 => (1..20u64).prop_map(Deed::Lease),
        1 => Just(Deed::NoLease),
    ];
    let step = (0..9u64, deed).prop_map(|(after, deed)| Step { after, deed });
    prop::collection::vec(step, 1..40)
}

struct Setting {
    owner: OwnerHandle,
    doorway: Arc<Doorway>,
    paused: watch::Receiver<bool>,
}

impl Setting {
    fn assert_awake(&self, when: &str) {
        assert!(!*self.paused.borrow(), "the CPUs are stopped {when}");
    }

    async fn visit(self: Rc<Self>, visit: Visit, hesitates: u64, stays: u64) {
        sleep(Duration::from_millis(hesitates)).await;
        let link = self.owner.use_guest().await.unwrap();
        self.assert_awake("for who was given the guest");
        link.ping().await.unwrap();
        self.assert_awake("after its answer");
        sleep(Duration::from_millis(stays)).await;
        self.assert_awake("at the end of a visit");
        drop(visit);
    }
}

fn policy(pause: u64) -> IdlePolicy {
    IdlePolicy {
        pause: Delay::After(Duration::from_millis(pause)),
        hibernate: Delay::Never,
    }
}

/// Plays a history, in a time of its own; returns how often the VM fell asleep.
fn play(pause: u64, steps: &[Step]) -> u32 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = spec(dir.path());
        spec.idle = policy(pause);
        let made = Arc::new(Mutex::new(None));
        let newest = Arc::clone(&made);
        let hypervisor = Fake::new(move |plan: MachinePlan| {
            let machine = FakeMachine::default();
            let link = StdUnixStream::from(plan.link);
            *newest.lock().unwrap() = Some((machine.pauses(), link));
            Ok(machine)
        });
        let listeners = Listeners::listen(&dir.path().join("control.sock"), &[]).unwrap();
        let status = Arc::new(StatusDoor::new(0));
        let doorway = Doorway::new();
        let (owner, handle) = Owner::new(
            Arc::new(spec),
            Arc::new(hypervisor),
            Arc::clone(&status),
            Arc::clone(&doorway),
            Queues::of(&listeners.control).unwrap(),
        );
        let mut state = status.watch();
        let life = tokio::task::spawn_local(owner.run(std::future::pending()));
        let (paused, link) = loop {
            if let Some(made) = made.lock().unwrap().take() {
                break made;
            }
            sleep(Duration::from_millis(1)).await;
        };
        tokio::task::spawn_local(guest(link));
        let up = state.wait_for(|status| status.machine.is_some());
        drop(up.await.unwrap());
        let mut naps = paused.clone();
        let counted = tokio::task::spawn_local(async move {
            let mut count = 0;
            while naps.changed().await.is_ok() {
                count += u32::from(*naps.borrow_and_update());
            }
            count
        });
        let setting = Rc::new(Setting {
            owner: handle,
            doorway,
            paused,
        });
        let mut visits = Vec::new();
        for step in steps {
            sleep(Duration::from_millis(step.after)).await;
            let keep = |leases| Keep {
                idle: policy(pause),
                leases,
            };
            match step.deed {
                Deed::Visit { hesitates, stays } => {
                    let visit = setting.doorway.enter_exec();
                    let setting = Rc::clone(&setting);
                    visits.push(tokio::task::spawn_local(
                        setting.visit(visit, hesitates, stays),
                    ));
                }
                // Somebody's own hands may stop the CPUs under a visit.
                Deed::Pause if setting.doorway.visits().nobody() => {
                    setting.owner.pause().await.unwrap();
                    setting.owner.resume().await.unwrap();
                }
                Deed::Pause => {}
                Deed::Resume => drop(setting.owner.resume().await.unwrap()),
                Deed::Lease(millis) => {
                    let until = now_us() + millis * 1000;
                    let lease = Lease {
                        reason: "test".into(),
                        until,
                    };
                    setting.owner.keep(keep(vec![lease])).await.unwrap();
                    setting.assert_awake("under a lease");
                }
                Deed::NoLease => drop(setting.owner.keep(keep(Vec::new())).await.unwrap()),
            }
        }
        for visit in visits {
            visit.await.unwrap();
        }
        let last = Keep {
            idle: policy(pause),
            leases: Vec::new(),
        };
        setting.owner.keep(last).await.unwrap();
        sleep(Duration::from_secs(2)).await;
        assert!(*setting.paused.borrow(), "nobody's VM is asleep");
        life.abort();
        drop(life.await);
        drop(setting);
        counted.await.unwrap()
    })
}

fn now_us() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(now.unwrap().as_micros()).unwrap()
}

async fn guest(link: StdUnixStream) {
    link.set_nonblocking(true).unwrap();
    let channel = UnixStream::from_std(link).unwrap();
    let (handle, mut incoming) = aegis_link::start(channel, Role::Guest);
    handle.send_event(Event::Hello(Hello {
        generation: 1,
        harness: "fake".into(),
        kernel: "none".into(),
    }));
    while let Ok(received) = incoming.next().await {
        if let Received::Call {
            call, responder, ..
        } = received
        {
            responder.reply(Ok(match call {
                Call::Boot(_) => Reply::Booted(Booted { uptime_ms: 1 }),
                _ => Reply::Done,
            }));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn no_visitor_ever_meets_a_sleeping_guest(pause in 1..8u64, steps in steps()) {
        play(pause, &steps);
    }
}

#[test]
fn it_does_fall_asleep_in_between() {
    let visit = Deed::Visit {
        hesitates: 1,
        stays: 1,
    };
    let steps = vec![
        Step {
            after: 8,
            deed: visit
        };
        20
    ];
    assert!(play(3, &steps) > 10);
}
