//! A service manager that others keep busy: it reads its units again without a
//! pause, and starts and ends foreign ones.

use std::process::Child;

use aegis_tests::instance::Instance;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::Seat;
use anyhow::{Context, Result};

/// Lives of an instance. Where anything can be waited for in vain, few are enough.
const ROUNDS: u32 = 4;

/// What keeps the manager busy until it is dropped.
struct Busy(Child);

impl Busy {
    fn begin(machine: &Machine) -> Result<Self> {
        let line = "while :; do
            systemctl --user daemon-reload
            systemd-run --user --quiet --wait true
        done";
        let child = machine.command(User::Alice, line).spawn();
        Ok(Self(child.context("keeping the manager busy")?))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // It may have ended with its machine.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn lives_go_on(machine: &Machine) -> Result<()> {
    let seat = Seat::alice(machine);
    let busy = Busy::begin(machine)?;
    for round in 0..ROUNDS {
        let instance = Instance::start(seat, &format!("busy-{round}"), "--workspace busy")?;
        instance.exec_ok("echo first >/workspace/file")?;
        instance.act("stop")?;
        assert_eq!(instance.exec_ok("cat /workspace/file")?, "first");
        assert_eq!(seat.aegis_ok("run -- echo hello")?, "hello");
        instance.delete()?;
    }
    drop(busy);
    Ok(())
}

#[test]
fn lives_go_on_while_the_manager_reloads_without_a_pause() -> Result<()> {
    lives_go_on(&*Machine::temporary("test-reloads-257", Systemd::V257)?)
}

#[test]
fn lives_go_on_while_the_manager_reloads_without_a_pause_on_systemd_252() -> Result<()> {
    lives_go_on(&*Machine::temporary("test-reloads-252", Systemd::V252)?)
}
