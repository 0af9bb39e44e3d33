//! aegisctl with no bus: it speaks to aegisd on the socket that is aegisd's own.

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::machine::{Machine, Systemd, Temporary, User};
use aegis_tests::seat::Seat;
use aegis_tests::wait::wait_until;
use anyhow::{Result, ensure};

/// Callers that come at the same time: more than aegisd takes, and it has others.
const STORM: u32 = 150;

/// A seat, and aegisctl on aegisd's own socket.
struct Peer<'a>(Seat<'a>);

impl Peer<'_> {
    /// A command line without any bus.
    fn line(&self, arguments: &str) -> String {
        let (runtime, scope) = (self.0.runtime(), self.0.scope());
        format!(
            "env -u DBUS_SESSION_BUS_ADDRESS -u XDG_RUNTIME_DIR \
             AEGIS_PEER_ADDRESS=unix:path={runtime}/bus.sock aegisctl {scope} {arguments}"
        )
    }

    fn ok(&self, arguments: &str) -> Result<String> {
        self.0.run(&self.line(arguments))?.success()
    }
}

fn everything_works(seat: Seat<'_>, handle: &str) -> Result<()> {
    seat.aegis_ok("up")?;
    let peer = Peer(seat);
    let instance = Instance::expected(seat, handle)?;
    let followed = format!("/tmp/{handle}.events");
    let follow = peer.line("events --json");
    seat.run(&format!(
        "(timeout 100 {follow} >{followed} 2>&1 & echo $! >{followed}.pid); sleep 1"
    ))?
    .success()?;

    peer.ok(&format!(
        "instance start --name {handle} -d -- sleep infinity"
    ))?;
    let said = peer.ok(&format!("exec {handle} -- sh -c 'echo hello; exit 0'"))?;
    assert_eq!(said, "hello");
    let code = seat.run(&peer.line(&format!("exec {handle} -- sh -c 'exit 7'")))?;
    assert_eq!(code.code(), 7, "{}", code.text());
    let fresh = seat.run(&peer.line("run -- cat /proc/sys/kernel/ostype"))?;
    assert_eq!(fresh.success()?, "Linux");
    let status = peer.ok("status")?;
    assert!(status.contains("aegisd:      running"), "{status}");
    assert!(!status.contains("Units:"), "{status}");
    let refused = seat.run(&peer.line("down"))?;
    assert!(
        refused.error_text().contains("there is no bus"),
        "{}",
        refused.error_text()
    );

    // The next aegisd is found, and followed from where it is.
    seat.kill_aegisd()?;
    seat.wait_for_aegisd()?;
    peer.ok(&format!("instance delete {handle}"))?;
    let events = || -> Result<String> { Ok(seat.run(&format!("cat {followed}"))?.text()) };
    let gone = format!(r#""event":"deleted","name":"{handle}""#);
    wait_until(DEADLINE, "the events of the second aegisd", || {
        Ok(events()?.contains(&gone))
    })?;
    let text = events()?;
    for word in ["\"created\"", "\"ended\"", "\"started\""] {
        ensure!(text.contains(word), "no {word} in {text}");
    }
    seat.run(&format!("kill $(cat {followed}.pid); rm {followed}*"))?;
    drop(instance);
    Ok(())
}

/// A machine where aegisd may be killed.
fn machine(name: &str) -> Result<Temporary> {
    Machine::temporary(name, Systemd::V257)
}

#[test]
fn everything_but_aegisds_own_unit_works() -> Result<()> {
    let machine = machine("test-no-bus")?;
    everything_works(Seat::alice(&machine), "no-bus")?;
    machine.stop()
}

#[test]
fn everything_but_aegisds_own_unit_works_in_system_mode() -> Result<()> {
    let machine = machine("test-no-system-bus")?;
    everything_works(Seat::root(&machine), "no-bus")?;
    machine.stop()
}

#[test]
fn a_storm_of_callers_is_answered() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    seat.aegis_ok("up")?;
    let version = Peer(seat).line("version --json");
    let storm =
        format!("for n in $(seq {STORM}); do {version} & done | grep -c '\"aegisd\":\"'; wait");
    let answered = seat.run(&storm)?.success()?;
    assert_eq!(answered.trim(), STORM.to_string());
    Ok(())
}

#[test]
fn nobody_else_comes_in() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let user = Seat::alice(&machine);
    user.aegis_ok("up")?;
    // Root may open the socket; aegisd sees whose it is.
    let line = Peer(user).line("instance list");
    let refused = machine.run(User::Root, &line)?;
    ensure!(
        refused.code() != 0,
        "root is let in: {}",
        refused.error_text()
    );
    wait_until(DEADLINE, "the word about root", || {
        let log = user.journal("aegisd.service", "cat")?;
        Ok(log.contains("the user 0 runs it"))
    })?;
    let root = Seat::root(&machine);
    root.aegis_ok("up")?;
    let line = Peer(root).line("instance list");
    let refused = machine.run(User::Alice, &line)?;
    ensure!(
        refused.code() != 0,
        "alice is let in: {}",
        refused.error_text()
    );
    assert!(
        refused.error_text().contains("(PermissionDenied)"),
        "{}",
        refused.error_text()
    );
    Ok(())
}
