//! What follows the end of the command.

use std::io::Read;
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use aegis_core::control::{CommandExit, FollowUp, StartMark};
use aegis_core::lifecycle::VmState;
use aegis_core::restart::RestartPolicy;
use aegis_link::message::ProcessEnd;
use aegis_vmm::hypervisor::{EndCause, MachineEnd};
use aegis_vmm::owner::Verdict;

use crate::fake_guest::Script;
use crate::world::{PATIENCE, Plan, World, argv};

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

/// A command that ends at once.
fn ends(code: i32, restart: RestartPolicy, before: FollowUp) -> Plan {
    Plan {
        command: vec!["service".into()],
        restart,
        script: Script {
            command_end: Some(ProcessEnd::Exited { code }),
            ..Script::default()
        },
        ports: vec![80],
        exit: Some(exit(before)),
        ..Plan::default()
    }
}

fn exit(follow_up: FollowUp) -> CommandExit {
    CommandExit {
        code: Some(1),
        signal: None,
        fault: None,
        at: now_us(),
        oom: false,
        follow_up,
    }
}

#[test]
fn the_policy_decides_how_the_owner_ends() {
    let twice = RestartPolicy::OnFailure { most: Some(2) };
    let no = RestartPolicy::No;
    let always = RestartPolicy::Always;
    for (policy, code, before, restarts, restart, gave_up) in [
        (no, 1, 0, 0, false, false),
        (twice, 0, 0, 0, false, false),
        (twice, 1, 0, 1, true, false),
        (twice, 1, 1, 2, true, false),
        (twice, 1, 2, 2, false, true),
        (always, 0, 5, 6, true, false),
        (RestartPolicy::UnlessStopped, 1, 0, 1, true, false),
    ] {
        let earlier = FollowUp {
            restarts: before,
            ..FollowUp::default()
        };
        let mut world = World::new(ends(code, policy, earlier));
        let verdict = world.verdict();
        let words = format!("{policy} {code} after {before}: {verdict:?}");
        assert_eq!(matches!(verdict, Verdict::Restart), restart, "{words}");
        let exit = world.exit();
        assert_eq!(exit.code, Some(code), "{words}");
        assert_eq!(exit.follow_up.restarts, restarts, "{words}");
        assert_eq!(exit.follow_up.gave_up, gave_up, "{words}");
    }
}

#[test]
fn a_start_by_name_counts_anew() {
    let earlier = FollowUp {
        restarts: 2,
        gave_up: true,
        rests_until: Some(u64::MAX),
        ..FollowUp::default()
    };
    let policy = RestartPolicy::OnFailure { most: Some(2) };
    let mut world = World::new(Plan {
        start: Some(StartMark {
            at: now_us() + 60_000_000,
        }),
        ..ends(1, policy, earlier)
    });
    assert!(matches!(world.verdict(), Verdict::Restart));
    assert_eq!(world.exit().follow_up.restarts, 1);
}

#[test]
fn connections_are_reset_while_it_rests_and_an_exec_wakes_it() {
    let until = now_us() + 3_600_000_000;
    let earlier = FollowUp {
        quick_ends: 20,
        rests_until: Some(until),
        ..FollowUp::default()
    };
    let world = World::new(Plan {
        script: Script::default(),
        ..ends(0, RestartPolicy::No, earlier)
    });
    let status = world.connect().until_state(VmState::Resting);
    assert_eq!(status.rests_until, Some(until));
    let mut client = TcpStream::connect(world.ports[0]).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(client.read(&mut [0]).is_err(), "not reset");
    assert_eq!(world.connect().status().state, VmState::Resting);
    let exec = world.connect().exec(argv(&["cat"])).unwrap();
    let status = world.connect().until_state(VmState::Running);
    assert_eq!(status.rests_until, None);
    drop(exec);
}

#[test]
fn after_the_rest_the_owner_ends_where_nobody_waits() {
    let earlier = FollowUp {
        rests_until: Some(now_us() + 300_000),
        ..FollowUp::default()
    };
    let mut world = World::new(ends(0, RestartPolicy::No, earlier));
    assert!(matches!(world.verdict(), Verdict::Finished));
}

#[test]
fn a_vm_that_is_lost_counts_as_a_failure_of_its_command() {
    let once = RestartPolicy::OnFailure { most: Some(0) };
    let mut world = World::new(Plan {
        command: vec!["service".into()],
        restart: once,
        ..Plan::default()
    });
    world.connect().until_state(VmState::Running);
    world.machine().send_replace(Some(MachineEnd {
        cause: EndCause::Guest,
        last_words: "boom".into(),
    }));
    assert!(matches!(world.verdict(), Verdict::Finished), "given up");
    let exit = world.exit();
    assert!(exit.fault.is_some() && exit.follow_up.gave_up);
}

#[test]
fn want_of_memory_is_noted_with_the_end() {
    let mut plan = ends(137, RestartPolicy::No, FollowUp::default());
    plan.script.oom_kills = 1;
    let mut world = World::new(plan);
    world.verdict();
    assert!(world.exit().oom);
}
