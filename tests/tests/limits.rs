//! Limits that act, and how it is shown when they do. Only a kernel of its own gives a
//! machine control groups with controllers; a user's manager has those for memory,
//! CPU time and tasks.

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::Seat;
use aegis_tests::wait::{wait_for, wait_until};
use anyhow::{Context, Result};
use serde_json::Value;

#[test]
fn daemons_meet_their_limits_on_own_kernel_257() -> Result<()> {
    let machine = Machine::shared_with_own_kernel(Systemd::V257)?;
    daemons_meet_their_limits(Seat::alice(&machine), "limits-kit")
}

#[test]
fn daemons_meet_their_limits_on_own_kernel_252() -> Result<()> {
    let machine = Machine::shared_with_own_kernel(Systemd::V252)?;
    daemons_meet_their_limits(Seat::alice(&machine), "limits-kit")
}

#[test]
fn system_daemons_meet_their_limits_on_own_kernel_257() -> Result<()> {
    let machine = Machine::shared_with_own_kernel(Systemd::V257)?;
    daemons_meet_their_limits(Seat::root(&machine), "limits-kit-system")
}

#[test]
fn a_vm_meets_its_limits_on_own_kernel_257() -> Result<()> {
    let machine = Machine::shared_with_own_kernel(Systemd::V257)?;
    a_vm_meets_its_limits(Seat::alice(&machine), "limits-vm")
}

#[test]
fn a_vm_meets_its_limits_on_own_kernel_252() -> Result<()> {
    let machine = Machine::shared_with_own_kernel(Systemd::V252)?;
    a_vm_meets_its_limits(Seat::alice(&machine), "limits-vm")
}

/// A kit whose daemons take all they can get.
fn daemons_meet_their_limits(seat: Seat<'_>, handle: &str) -> Result<()> {
    kit::install(seat, "greedy", &["greedy-daemon"])?;
    let instance = kit::make_at_rest(seat, handle, "greedy")?;
    a_hog_gets_its_share(seat, &instance)?;
    a_fork_bomb_is_stopped(seat, &instance)?;
    an_eater_of_memory_is_killed(seat, &instance)
}

fn a_hog_gets_its_share(seat: Seat<'_>, instance: &Instance<'_>) -> Result<()> {
    let unit = instance.daemon_unit("cpu");
    instance.daemon_pid("cpu")?;
    assert_eq!(control(seat, &unit, "memory.max")?, (64 << 20).to_string());
    assert_eq!(control(seat, &unit, "cpu.max")?, "20000 100000");
    assert_eq!(control(seat, &unit, "pids.max")?, "16");

    // The kernel holds it to 20 %, however busy the machine is.
    let uptime = || {
        let text = seat.run("cut -d' ' -f1 /proc/uptime")?.success()?;
        text.parse::<f64>().context("an uptime")
    };
    let (begin, used_before) = (uptime()?, counter(seat, &unit, "cpu.stat", "usage_usec")?);
    wait_until(DEADLINE, "the hog to be throttled for some time", || {
        let throttled = counter(seat, &unit, "cpu.stat", "nr_throttled")?;
        Ok(throttled > 0.0 && uptime()? - begin > 3.0)
    })?;
    let used = counter(seat, &unit, "cpu.stat", "usage_usec")? - used_before;
    let share = used / 1e6 / (uptime()? - begin);
    assert!(share < 0.25, "it got {share} of a CPU");
    Ok(())
}

fn a_fork_bomb_is_stopped(seat: Seat<'_>, instance: &Instance<'_>) -> Result<()> {
    let unit = instance.daemon_unit("tasks");
    let pid = instance.daemon_pid("tasks")?;
    wait_until(DEADLINE, "a fork to be refused", || {
        Ok(seat.journal(&unit, "cat")?.contains("refused after 23"))
    })?;
    assert_eq!(control(seat, &unit, "pids.max")?, "24");
    assert_eq!(control(seat, &unit, "pids.current")?, "24");
    assert!(counter(seat, &unit, "pids.events", "max")? > 0.0);
    assert_eq!(
        seat.main_pid(&unit)?,
        Some(pid),
        "it goes on with what it has"
    );
    Ok(())
}

fn an_eater_of_memory_is_killed(seat: Seat<'_>, instance: &Instance<'_>) -> Result<()> {
    let words = on_the_host(48);
    wait_until(DEADLINE, "the eater to be killed", || {
        Ok(instance.info()?.contains(&words))
    })
    .with_context(|| instance.info().unwrap_or_default())?;
    let shown = json(seat, instance)?;
    let daemon = |name: &str| {
        let mut daemons = shown["daemons"].as_array().into_iter().flatten();
        daemons
            .find(|daemon| daemon["name"] == name)
            .context("a daemon")
    };
    assert_eq!(daemon("memory")?["state"], "failed");
    assert_eq!(daemon("memory")?["oom"], true);
    assert_eq!(daemon("cpu")?["oom"], false);
    let property = property(seat, instance, "Daemons")?;
    assert!(property.contains("\"oom\" b true"), "{property}");
    Ok(())
}

/// While its guest boots, for which a guest in an emulated machine takes too long.
fn a_vm_meets_its_limits(seat: Seat<'_>, handle: &str) -> Result<()> {
    let spec = "3 memory-max u 400 cpu-quota u 150 tasks-max u 200";
    let instance = kit::make_at_rest_of(seat, handle, spec)?;
    let unit = instance.vm_unit();
    seat.systemctl(&format!("start --no-block {unit}"))?
        .success()?;
    let owner = wait_for(DEADLINE, "an owner", || seat.main_pid(&unit))?;
    has_limits(seat, &unit, 400, "150000 100000", 200)?;

    instance.act("update --memory-max 380M --cpu-quota 120 --tasks-max 180")?;
    has_limits(seat, &unit, 380, "120000 100000", 180)?;
    assert_eq!(seat.main_pid(&unit)?, Some(owner));
    assert_eq!(
        instance.info_value("Limits")?.as_deref(),
        Some("380 MiB, 120 % of a CPU, 180 tasks")
    );

    eat_all_memory(seat, &unit)?;
    instance.wait_for_state("failed")?;
    let shown = json(seat, &instance)?;
    assert_eq!(shown["last_exit"]["oom_host"], true, "{shown}");
    assert_eq!(shown["last_exit"]["oom"], false, "{shown}");
    let info = instance.info()?;
    assert!(info.contains(&on_the_host(380)), "{info}");
    let property = property(seat, &instance, "LastExit")?;
    assert!(property.contains("\"oom-host\" b true"), "{property}");

    instance.act("update --memory-max 64M")?;
    let refused = std::thread::scope(|scope| {
        scope.spawn(|| eat_all_memory(seat, &unit));
        seat.aegis(&format!("--json instance start --name {handle}"))
    })?;
    let error = refused.error_text();
    assert!(error.contains(&on_the_host(64)), "{error}");
    assert!(error.contains("\"OutOfMemory\""), "{error}");
    Ok(())
}

/// Eats memory in a unit that starts until it is killed with all of that unit, as by a
/// guest that needs more than QEMU may have.
fn eat_all_memory(seat: Seat<'_>, unit: &str) -> Result<()> {
    let starting = || seat.main_pid(unit);
    wait_for(DEADLINE, "the unit to have processes", starting)?;
    let group = seat.unit_property(unit, "ControlGroup")?;
    let eat = format!("echo $$ >'/sys/fs/cgroup{group}/cgroup.procs' && exec tail /dev/zero");
    let eater = seat.machine().run(User::Root, &eat)?;
    assert_eq!(eater.code(), 137, "{eater:?}");
    Ok(())
}

/// How a want of memory on the host reads.
fn on_the_host(mib: u32) -> String {
    format!("out of memory on the host, where its limit is {mib} MiB")
}

fn has_limits(seat: Seat<'_>, unit: &str, mib: u64, cpu: &str, tasks: u32) -> Result<()> {
    assert_eq!(control(seat, unit, "memory.max")?, (mib << 20).to_string());
    assert_eq!(control(seat, unit, "cpu.max")?, cpu);
    assert_eq!(control(seat, unit, "pids.max")?, tasks.to_string());
    Ok(())
}

/// A file of a unit's control group.
fn control(seat: Seat<'_>, unit: &str, file: &str) -> Result<String> {
    let group = seat.unit_property(unit, "ControlGroup")?;
    let path = format!("/sys/fs/cgroup{group}/{file}");
    seat.machine()
        .run(User::Root, &format!("cat '{path}'"))?
        .success()
}

/// A number in such a file that has one in each line.
fn counter(seat: Seat<'_>, unit: &str, file: &str, name: &str) -> Result<f64> {
    let text = control(seat, unit, file)?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let (_, number) = lines
        .find(|(key, _)| *key == name)
        .with_context(|| text.clone())?;
    number.parse().context("a number")
}

fn json(seat: Seat<'_>, instance: &Instance<'_>) -> Result<Value> {
    let text = seat.aegis_ok(&format!("--json instance info {}", instance.handle()))?;
    let mut document: Value = serde_json::from_str(&text)?;
    Ok(document["instance"].take())
}

/// A property of the instance on D-Bus as `busctl` prints it.
fn property(seat: Seat<'_>, instance: &Instance<'_>, name: &str) -> Result<String> {
    let path = instance.handle().replace('-', "_2d");
    seat.run(&format!(
        "busctl {} get-property org.aegisvm.Aegis1 /org/aegisvm/Aegis1/instance/{path} \
         org.aegisvm.Aegis1.Instance {name}",
        seat.scope()
    ))?
    .success()
}
