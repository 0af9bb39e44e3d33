//! The terminal of an instance's command, and what becomes of it without anybody.

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use aegis_tests::wait::wait_until;
use anyhow::Result;

const CLIENT: &[u8] = include_bytes!("../clients/attach.py");

#[test]
fn a_shell_is_left_and_found_again() -> Result<()> {
    let machine = Machine::temporary("test-attach", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::expected(seat, "attach-shell")?;
    machine.write_file(seat.user(), "/home/alice/clients/attach.py", CLIENT)?;
    let output = seat.run("python3 clients/attach.py attach-shell")?;
    assert_eq!(
        output.code(),
        0,
        "{}\n{}",
        output.text(),
        output.error_text()
    );
    instance.wait_for_state("stopped")?;
    assert_eq!(instance.info_value("Last exit")?.as_deref(), Some("code 7"));
    // There is nothing to return to, and attaching starts nothing.
    let refused = seat.aegis("attach attach-shell </dev/null")?;
    assert!(
        refused.error_text().contains("WrongState"),
        "{}",
        refused.error_text()
    );
    assert_eq!(instance.state()?, "stopped");
    Ok(())
}

#[test]
fn without_a_terminal_a_shell_stays_and_can_be_typed_to() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "attach-detached", "-- sh")?;
    let typed =
        seat.run("(sleep 1; echo 'echo a''b; exit 4'; sleep 5) | aegisctl attach attach-detached")?;
    assert_eq!(typed.code(), 4, "{}", typed.error_text());
    assert!(typed.text().contains("ab"), "{}", typed.text());
    instance.wait_for_state("stopped")?;
    Ok(())
}

#[test]
fn a_kits_command_and_one_without_a_terminal_are_not_attached_to() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "attach-plain", "--no-terminal -- sleep 1000")?;
    let refused = seat.aegis("attach attach-plain </dev/null")?;
    assert_eq!(refused.code(), 125, "{}", refused.text());
    assert!(
        refused.error_text().contains("without a terminal"),
        "{}",
        refused.error_text()
    );
    drop(instance);
    kit::install(seat, "shell", &["shell-gateway"])?;
    let _of_kit = Instance::start(seat, "attach-kit", "--kit shell")?;
    let refused = seat.aegis("attach attach-kit </dev/null")?;
    assert!(
        refused.error_text().contains("WrongState"),
        "{}",
        refused.error_text()
    );
    Ok(())
}

#[test]
fn other_settings_are_refused_with_the_differences_and_replaced_on_request() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let flags = "--env KEY=secret-one --restart no --no-terminal -- sleep 1000";
    let instance = Instance::start(seat, "attach-differs", flags)?;
    instance.exec_ok("echo kept > /root/file")?;
    let again = |flags: &str| seat.aegis(&format!("instance start --name attach-differs {flags}"));
    again(flags)?.success()?;

    let refused = again("--memory 300M --env KEY=secret-two --env NEW=x -d -- sleep 2000")?;
    let text = refused.error_text();
    assert_eq!(refused.code(), 1, "{text}");
    for part in [
        "command: have sleep 1000, asked sleep 2000",
        "terminal: have no, asked yes",
        "env KEY: have set, asked another value",
        "env NEW: have none, asked set",
        "memory: have 256 MiB, asked 300 MiB",
        "--replace",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(instance.exec_ok("cat /root/file")?, "kept");

    again("--memory 300M --replace -d -- sleep 2000")?.success()?;
    assert_eq!(instance.info_value("Memory")?.as_deref(), Some("300 MiB"));
    assert_eq!(instance.exec_ok("ls /root")?, "");
    Ok(())
}

#[test]
fn the_console_is_shown_and_followed() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "attach-console", "")?;
    instance.exec_ok("echo first words > /dev/console")?;
    wait_until(DEADLINE, "the words on the console", || {
        Ok(seat
            .aegis_ok("console attach-console")?
            .contains("first words"))
    })?;
    let last = seat.aegis_ok("console --tail 1 attach-console")?;
    assert_eq!(last.trim(), "first words");
    let mut follow = aegis_tests::session::Session::start(
        seat,
        "aegisctl console --tail 0 --follow attach-console",
    )?;
    // It follows from the moment it has printed what was there.
    std::thread::sleep(std::time::Duration::from_secs(1));
    instance.exec_ok("echo second words > /dev/console")?;
    follow.wait_for_line("second words\r")?;
    follow.signal("INT")?;
    assert_eq!(follow.wait()?.code, 0);
    Ok(())
}
