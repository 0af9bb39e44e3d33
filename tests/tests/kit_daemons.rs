//! Instance daemons as strangers write them: what becomes of their ends, their
//! children, their noise and their config.

use std::time::{Duration, Instant};

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::Seat;
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result};

/// Installs a kit of the tests and makes an instance of it without a guest.
fn made<'a>(seat: Seat<'a>, handle: &str, kit: &str, program: &str) -> Result<Instance<'a>> {
    kit::install(seat, kit, &[program])?;
    kit::make_at_rest(seat, handle, kit)
}

/// Waits until a daemon's journal has a line this often.
fn says(seat: Seat<'_>, unit: &str, words: &str, count: usize) -> Result<()> {
    wait_until(DEADLINE, words, || {
        Ok(seat.journal(unit, "cat")?.matches(words).count() >= count)
    })
    .with_context(|| seat.journal(unit, "cat").unwrap_or_default())
}

fn write(seat: Seat<'_>, path: &str, text: &str) -> Result<()> {
    seat.machine()
        .write_file(seat.user(), path, text.as_bytes())
}

#[test]
fn a_daemon_that_will_not_stop_is_killed_with_all_its_children() -> Result<()> {
    stopped_with_all_its_children(Systemd::V257)
}

#[test]
fn a_daemon_that_will_not_stop_is_killed_with_all_its_children_on_systemd_252() -> Result<()> {
    stopped_with_all_its_children(Systemd::V252)
}

fn stopped_with_all_its_children(systemd: Systemd) -> Result<()> {
    let machine = Machine::shared(systemd)?;
    let seat = Seat::alice(&machine);
    for (handle, kit, words) in [
        ("dae-stubborn", "stubborn", "here to stay"),
        ("dae-forking", "forking", "forked"),
    ] {
        let instance = made(seat, handle, kit, &format!("{kit}-daemon"))?;
        let unit = instance.daemon_unit("daemon");
        says(seat, &unit, words, 1)?;
        let group = seat.unit_property(&unit, "ControlGroup")?;
        let begin = Instant::now();
        instance.act("disable")?;
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{kit} held up the stop"
        );
        assert_eq!(seat.active_state(&unit)?, "inactive");
        let left = machine.run(
            User::Root,
            &format!("cat '/sys/fs/cgroup{group}/cgroup.procs' 2>/dev/null"),
        )?;
        assert_eq!(left.text().trim(), "", "{kit} left processes");
    }
    Ok(())
}

#[test]
fn a_daemon_that_floods_its_log_and_ends_well_is_started_again() -> Result<()> {
    // Of its own: journald's limit is one for all units of a user's manager, so the
    // lines of other tests would be lost beside this.
    let machine = Machine::temporary("test-flood", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = made(seat, "dae-flood", "flooding", "flooding-daemon")?;
    wait_until(DEADLINE, "restarts after ends with success", || {
        let restarts = seat.unit_property(&instance.daemon_unit("daemon"), "NRestarts")?;
        Ok(restarts.parse::<u32>().unwrap_or(0) >= 2)
    })?;
    assert!(instance.info()?.contains("restarts: "));
    Ok(())
}

#[test]
fn no_line_of_a_script_is_lost_when_its_programs_end_at_once() -> Result<()> {
    no_line_is_lost(Seat::alice(&Machine::shared(Systemd::V257)?))
}

#[test]
fn no_line_of_a_script_is_lost_when_its_programs_end_at_once_on_systemd_252() -> Result<()> {
    no_line_is_lost(Seat::alice(&Machine::shared(Systemd::V252)?))
}

#[test]
fn no_line_of_a_script_is_lost_when_its_programs_end_at_once_in_system_mode() -> Result<()> {
    no_line_is_lost(Seat::root(&Machine::shared(Systemd::V257)?))
}

fn no_line_is_lost(seat: Seat<'_>) -> Result<()> {
    let instance = made(seat, "dae-brief", "brief", "brief-daemon")?;
    let mut said = String::new();
    wait_until(DEADLINE, "all lines of a script", || {
        said = seat.aegis_ok("instance logs dae-brief --daemon daemon")?;
        Ok(said.matches("line ").count() == 40)
    })
    .with_context(|| format!("{} says: {said}", instance.daemon_unit("daemon")))
}

#[test]
fn a_daemon_in_a_virtual_environment_of_the_home_runs() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    write(seat, "/home/alice/secret", "x")?;
    seat.run("python3 -m venv --without-pip project/venv && mkdir -p .aegis/kits .local/bin")?
        .success()?;
    write(
        seat,
        "/home/alice/project/venv/bin/venv-daemon",
        "#!/home/alice/project/venv/bin/python3\nimport os, signal, sys\n\
         print('prefix', sys.prefix, flush=True)\n\
         print('home', sorted(os.listdir('/home/alice')), flush=True)\nsignal.pause()\n",
    )?;
    seat.run("chmod 755 project/venv/bin/venv-daemon && ln -sf ~/project/venv/bin/venv-daemon .local/bin/venv-daemon")?
        .success()?;
    let manifest = r#"{"instance_daemons": [{"binary": "venv-daemon", "name": "daemon"}]}"#;
    write(seat, "/home/alice/.aegis/kits/venv.json", manifest)?;

    let instance = kit::make_at_rest(seat, "dae-venv", "venv")?;
    let unit = instance.daemon_unit("daemon");
    says(seat, &unit, "home [", 1)?;
    let said = seat.journal(&unit, "cat")?;
    assert!(said.contains("prefix /home/alice/project/venv"), "{said}");
    assert!(!said.contains("secret"), "{said}");
    assert!(instance.info()?.contains("/home/alice/project/venv (read)"));
    Ok(())
}

#[test]
fn a_daemon_that_is_a_static_binary_runs_and_ends_in_order() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    kit::install_compiled(seat, "static", "static-daemon")?;
    let instance = kit::make_at_rest(seat, "dae-static", "static")?;
    let unit = instance.daemon_unit("daemon");
    says(seat, &unit, "static for dae-static", 1)?;
    instance.act("disable")?;
    says(seat, &unit, "ended in order", 1)
}

#[test]
fn a_program_in_a_folder_with_a_space_finds_what_lies_beside_it() -> Result<()> {
    in_a_folder_with_a_space(Systemd::V257)
}

#[test]
fn a_program_in_a_folder_with_a_space_finds_what_lies_beside_it_on_systemd_252() -> Result<()> {
    in_a_folder_with_a_space(Systemd::V252)
}

fn in_a_folder_with_a_space(systemd: Systemd) -> Result<()> {
    let machine = Machine::shared(systemd)?;
    let seat = Seat::alice(&machine);
    seat.run("python3 -m venv --without-pip space/venv && mkdir -p .aegis/kits .local/bin")?
        .success()?;
    let folder = "/home/alice/My Tools";
    write(
        seat,
        &format!("{folder}/spaced-daemon"),
        "#!/home/alice/space/venv/bin/python3\nimport os, signal, sys\n\
         print('prefix', sys.prefix, flush=True)\n\
         folder = os.path.dirname(__file__)\n\
         print('beside it', open(folder + '/words').read(), flush=True)\nsignal.pause()\n",
    )?;
    write(seat, &format!("{folder}/words"), "of wisdom")?;
    seat.run(&format!(
        "chmod 755 '{folder}/spaced-daemon' && ln -sf '{folder}/spaced-daemon' .local/bin/"
    ))?
    .success()?;
    let manifest = r#"{"instance_daemons": [{"binary": "spaced-daemon", "name": "daemon"}]}"#;
    write(seat, "/home/alice/.aegis/kits/spaced.json", manifest)?;

    let instance = kit::make_at_rest(seat, "dae-spaced", "spaced")?;
    let unit = instance.daemon_unit("daemon");
    says(seat, &unit, "beside it of wisdom", 1)?;
    let said = seat.journal(&unit, "cat")?;
    assert!(said.contains("prefix /home/alice/space/venv"), "{said}");
    assert!(instance.info()?.contains(&format!("{folder} (read)")));
    Ok(())
}

#[test]
fn a_config_is_applied_by_a_signal_where_the_kit_says_so() -> Result<()> {
    applied_by_a_signal(Systemd::V257)
}

#[test]
fn a_config_is_applied_by_a_signal_where_the_kit_says_so_on_systemd_252() -> Result<()> {
    applied_by_a_signal(Systemd::V252)
}

fn applied_by_a_signal(systemd: Systemd) -> Result<()> {
    let machine = Machine::shared(systemd)?;
    let seat = Seat::alice(&machine);
    let instance = made(seat, "dae-signal", "notify", "notify-daemon")?;
    let unit = instance.daemon_unit("daemon");
    wait_until(DEADLINE, "the daemon to be ready", || {
        Ok(seat.active_state(&unit)? == "active")
    })?;
    assert_eq!(seat.unit_property(&unit, "Type")?, "notify");
    let pid = instance.daemon_pid("daemon")?;
    let path = "/home/alice/.aegis/kits/dae-signal/conf/notify.json";

    write(seat, path, r#"{"word": "second"}"#)?;
    says(seat, &unit, "word second", 1)?;
    // As editors do it: another file in its place.
    seat.run(&format!(
        "echo '{{\"word\": \"third\"}}' >{path}~ && mv {path}~ {path}"
    ))?
    .success()?;
    says(seat, &unit, "word third", 1)?;
    // The folder goes and comes back.
    seat.run(&format!("rm -r {path} $(dirname {path})"))?
        .success()?;
    wait_until(DEADLINE, "the loss to be told", || {
        Ok(instance
            .info()?
            .contains("config not applied: the file is missing"))
    })?;
    write(seat, path, r#"{"word": "fourth"}"#)?;
    says(seat, &unit, "word fourth", 1)?;
    assert_eq!(
        instance.daemon_pid("daemon")?,
        pid,
        "a signal restarts nothing"
    );
    Ok(())
}

#[test]
fn a_config_is_applied_within_a_second_and_never_when_it_is_not_valid() -> Result<()> {
    applied_within_a_second(Seat::alice(&Machine::shared(Systemd::V257)?))
}

#[test]
fn a_config_is_applied_within_a_second_and_never_when_it_is_not_valid_in_system_mode() -> Result<()>
{
    applied_within_a_second(Seat::root(&Machine::shared(Systemd::V257)?))
}

fn applied_within_a_second(seat: Seat<'_>) -> Result<()> {
    let instance = made(seat, "dae-config", "shell", "shell-gateway")?;
    let unit = instance.daemon_unit("gateway");
    let path = format!("{}/dae-config/gateway.json", seat.kits());
    says(seat, &unit, "\"hello\"", 1)?;
    let info = instance.info()?;
    assert!(info.contains(&format!("config: {path}")), "{info}");
    let hash = seat
        .run(&format!("sha256sum {path} | cut -c1-12"))?
        .success()?;
    wait_until(DEADLINE, "the config to be shown as applied", || {
        Ok(instance.info()?.contains(&format!("sha256 {hash}")))
    })?;

    let first = instance.daemon_pid("gateway")?;
    write(seat, &path, r#"{"greeting": "changed"}"#)?;
    let begin = Instant::now();
    says(seat, &unit, "\"changed\"", 1)?;
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?} until the daemon had its config",
        begin.elapsed()
    );
    // The journal may hold the words of an earlier try.
    wait_until(DEADLINE, "another process to have it", || {
        Ok(instance.daemon_pid("gateway")? != first)
    })?;
    let second = instance.daemon_pid("gateway")?;

    write(seat, &path, "{\n \"greeting\": }")?;
    wait_until(DEADLINE, "the mistake to be told", || {
        Ok(instance
            .info()?
            .contains("config not applied: it is not valid JSON: expected value at line 2"))
    })?;
    assert_eq!(
        instance.daemon_pid("gateway")?,
        second,
        "invalid JSON restarts nothing"
    );

    seat.run(&format!(
        "for i in $(seq 100); do echo \"{{\\\"greeting\\\": \\\"burst $i\\\"}}\" >{path}; done"
    ))?
    .success()?;
    says(seat, &unit, "burst 100", 1)?;
    let starts = seat.journal(&unit, "cat")?.matches("burst").count();
    assert!(starts <= 10, "a burst of 100 writes made {starts} restarts");
    wait_until(DEADLINE, "the mistake to be forgotten", || {
        Ok(!instance.info()?.contains("not applied"))
    })?;

    // A change while aegisd is away is applied when it is back.
    seat.systemctl("stop aegisd.service")?.success()?;
    write(seat, &path, r#"{"greeting": "meanwhile"}"#)?;
    seat.wait_for_aegisd()?;
    says(seat, &unit, "meanwhile", 1)?;
    let settled = instance.daemon_pid("gateway")?;
    seat.kill_aegisd()?;
    seat.wait_for_aegisd()?;
    assert_eq!(
        instance.daemon_pid("gateway")?,
        settled,
        "a new aegisd restarts nothing"
    );
    Ok(())
}
