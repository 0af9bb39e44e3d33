//! Calls about what runs in the guest.

use aegis_core::control::{Answer, Call, CommandState, Outcome};
use aegis_core::fault::Symbol;
use aegis_core::lifecycle::VmState;

use crate::fake_guest::Seen;
use crate::world::{Plan, World};

#[test]
fn a_signal_reaches_the_command_and_processes_are_told() {
    let world = World::new(Plan {
        command: vec!["job".into()],
        ..Plan::default()
    });
    let runs = |command: &CommandState| matches!(command, CommandState::Running { .. });
    let status = world.connect().watch_until(|status| runs(&status.command));
    assert_eq!(status.revision, 4, "that of its spec");
    let killed = world.connect().ask(Call::Kill { signal: 15 }).unwrap();
    assert_eq!(killed, Answer::Outcome(Outcome::Changed));
    let signal = world.seen(|seen| match seen {
        Seen::Signal(signal) => Some(signal),
        _ => None,
    });
    assert_eq!(signal, 15);
    let Answer::Processes(processes) = world.connect().ask(Call::Processes).unwrap() else {
        panic!("no processes")
    };
    assert_eq!(processes[0].command, "job");
}

#[test]
fn a_paused_guest_is_woken_to_be_looked_at() {
    let world = World::new(Plan::default());
    world.connect().until_state(VmState::Running);
    world.connect().ask(Call::Pause).unwrap();
    world.connect().ask(Call::Processes).unwrap();
    assert_eq!(world.connect().status().state, VmState::Running);
    world.connect().ask(Call::Pause).unwrap();
    let fault = world.connect().ask(Call::Kill { signal: 9 }).unwrap_err();
    assert_eq!(fault.symbol, Symbol::WrongState);
    assert!(fault.message.contains("does not run"), "{fault}");
    assert_eq!(world.connect().status().state, VmState::Running);
}
