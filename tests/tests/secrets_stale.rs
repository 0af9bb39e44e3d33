//! A secret that is set anew: who has the older value, and who is started anew for it.

use aegis_tests::canary::found;
use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use aegis_tests::wait::wait_until;
use anyhow::{Result, ensure};

/// Values that occur nowhere by chance.
const FIRST: &str = "zq7-first-of-stale";
const SECOND: &str = "zq7-second-of-stale";
const THIRD: &str = "zq7-third-of-stale";

/// Sets the secret; what the client says beside its data.
fn set(seat: Seat<'_>, value: &str, flags: &str) -> Result<String> {
    let line = format!("aegisctl secret set API_KEY {flags}");
    let machine = seat.machine();
    let set = machine.run_with_input(seat.user(), &line, value.as_bytes())?;
    let said = set.error_text();
    set.success()?;
    Ok(said)
}

/// Waits until `info` says that of who has an older value.
fn wait_for_stale(instance: &Instance<'_>, words: Option<&str>) -> Result<()> {
    let what = format!("{words:?} to be said");
    wait_until(DEADLINE, &what, || {
        let said = instance.info_value("Stale")?;
        Ok(match words {
            None => said.is_none(),
            Some(words) => said.is_some_and(|said| said.starts_with(words)),
        })
    })
}

/// The value of the guest's own command. A session that begins later may have another.
fn of_guest(instance: &Instance<'_>) -> Result<String> {
    let environ = "tr '\\0' '\\n' </proc/$(pidof sleep)/environ";
    instance.exec_ok(&format!("{environ} | sed -n s/^API_KEY=//p"))
}

fn an_older_value_is_told_and_replaced(seat: Seat<'_>) -> Result<()> {
    kit::install(seat, "secret", &["secret-daemon"])?;
    set(seat, FIRST, "")?;
    let flags = "--kit secret --env API_KEY --idle-pause never --idle-hibernate never -d";
    let instance = Instance::start(seat, "stale", flags)?;
    kit::wait_until_given(seat, &instance, "API_KEY", FIRST)?;
    wait_for_stale(&instance, None)?;
    // The same value again is no other one.
    let said = set(seat, FIRST, "")?;
    ensure!(!said.contains("stale until"), "{said}");
    let said = set(seat, SECOND, "")?;
    let told = "note: stale until the next start in stale (keeper, guest); \
                at once: aegisctl secret set API_KEY --apply";
    ensure!(said.contains(told), "{said}");
    let both = "API_KEY in keeper, guest (set ";
    wait_for_stale(&instance, Some(both))?;
    seat.kill_aegisd()?;
    seat.wait_for_aegisd()?;
    wait_for_stale(&instance, Some(both))?;
    let unit = instance.daemon_unit("keeper");
    seat.systemctl(&format!("restart {unit}"))?.success()?;
    kit::wait_until_given(seat, &instance, "API_KEY", SECOND)?;
    wait_for_stale(&instance, Some("API_KEY in guest (set "))?;
    ensure!(of_guest(&instance)? == FIRST, "the guest was left as it is");
    // What has the value already is not started anew.
    let daemon = instance.daemon_pid("keeper")?;
    let said = set(seat, SECOND, "--apply")?;
    ensure!(said.contains("\n  stale: guest\n"), "{said}");
    wait_for_stale(&instance, None)?;
    ensure!(
        of_guest(&instance)? == SECOND,
        "the guest has an older value"
    );
    ensure!(
        instance.daemon_pid("keeper")? == daemon,
        "the daemon was started anew"
    );
    let said = set(seat, THIRD, "--apply")?;
    ensure!(said.contains("\n  stale: keeper, guest\n"), "{said}");
    wait_for_stale(&instance, None)?;
    kit::wait_until_given(seat, &instance, "API_KEY", THIRD)?;
    ensure!(
        of_guest(&instance)? == THIRD,
        "the guest has an older value"
    );
    a_machine_on_the_disk_has_what_it_had(seat, &instance)?;
    what_is_gone_is_told(seat, &instance)?;
    for value in [FIRST, SECOND, THIRD] {
        let found = found(seat, value)?;
        ensure!(found.is_empty(), "the value is in {found}");
    }
    instance.delete()
}

fn a_machine_on_the_disk_has_what_it_had(seat: Seat<'_>, instance: &Instance<'_>) -> Result<()> {
    instance.act("hibernate")?;
    instance.wait_for_state("hibernated")?;
    set(seat, FIRST, "")?;
    wait_for_stale(instance, Some("API_KEY in keeper, guest (set "))?;
    // Its unit is given the new value, and its memory has the old one.
    ensure!(of_guest(instance)? == THIRD, "the guest was booted");
    wait_for_stale(instance, Some("API_KEY in keeper, guest (set "))?;
    instance.act("hibernate")?;
    instance.wait_for_state("hibernated")?;
    let said = set(seat, FIRST, "--apply")?;
    let listed = "  stale: keeper, guest (hibernated: stopped, boots at its next use)";
    ensure!(said.contains(listed), "{said}");
    wait_for_stale(instance, None)?;
    instance.wait_for_state("stopped")?;
    ensure!(of_guest(instance)? == FIRST, "the guest has an older value");
    wait_for_stale(instance, None)
}

fn what_is_gone_is_told(seat: Seat<'_>, instance: &Instance<'_>) -> Result<()> {
    seat.aegis_ok("secret delete --force API_KEY")?;
    wait_for_stale(instance, Some("API_KEY in keeper, guest (removed)"))?;
    // Nothing of one that is disabled runs.
    instance.act("disable")?;
    wait_for_stale(instance, None)
}

#[test]
fn an_older_value_of_a_user() -> Result<()> {
    let machine = Machine::temporary("test-stale", Systemd::V257)?;
    an_older_value_is_told_and_replaced(Seat::alice(&machine))
}

#[test]
fn an_older_value_of_a_user_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-stale-252", Systemd::V252)?;
    an_older_value_is_told_and_replaced(Seat::alice(&machine))
}

#[test]
fn an_older_value_of_the_system_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-stale-root-252", Systemd::V252)?;
    an_older_value_is_told_and_replaced(Seat::root(&machine))
}
