//! Kits as strangers write and install them, found, refused, replaced and removed.

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::Seat;
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result};

/// Writes a manifest of the user's own.
fn manifest(seat: Seat<'_>, name: &str, text: &str) -> Result<()> {
    let path = format!("{}/{name}.json", seat.kits());
    seat.machine()
        .write_file(seat.user(), &path, text.as_bytes())
}

/// The line of `kit list` about a kit.
fn listed(list: &str, name: &str) -> Result<String> {
    let line = list
        .lines()
        .find(|line| line.split_whitespace().next() == Some(name));
    line.map(str::to_owned)
        .with_context(|| format!("{name} is not in:\n{list}"))
}

#[test]
fn kits_are_listed_with_what_is_wrong_with_them() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    manifest(
        seat,
        "kit-odd",
        r#"{"version": "1.2", "image": {"tag": "x"}}"#,
    )?;
    manifest(seat, "kit-wrong", r#"{"defaults": {"command": "sh"}}"#)?;
    manifest(
        seat,
        "kit-lacking",
        r#"{"instance_daemons": [{"binary": "nowhere"}]}"#,
    )?;
    let shared = "/etc/aegis/kits/kit-odd.json";
    machine.write_file(User::Root, shared, b"{}")?;
    machine
        .run(
            User::Root,
            &format!("chmod -R a+rX /etc/aegis && ls -l {shared}"),
        )?
        .success()?;

    let output = seat.aegis("kit list")?;
    let list = output.success()?;
    let odd: Vec<_> = list
        .lines()
        .filter(|line| line.starts_with("kit-odd "))
        .collect();
    assert!(
        odd.iter()
            .any(|line| line.contains("1.2") && line.contains(" ok ")),
        "{list}"
    );
    let shadowed = format!("shadowed by {}/kit-odd.json", seat.kits());
    assert!(odd.iter().any(|line| line.contains(&shadowed)), "{list}");
    let warning = "kit-odd.json: the key \"image.tag\" is not known";
    assert!(
        output.error_text().contains(warning),
        "{}",
        output.error_text()
    );
    let wrong = listed(&list, "kit-wrong")?;
    for words in [
        "broken",
        "kit-wrong.json",
        "defaults.command",
        "expected a sequence",
    ] {
        assert!(wrong.contains(words), "no {words} in {wrong}");
    }
    assert!(
        listed(&list, "kit-lacking")?.contains("broken (missing: nowhere)"),
        "{list}"
    );

    for (kit, words) in [
        ("kit-wrong", "defaults.command"),
        ("kit-lacking", "nowhere"),
    ] {
        let refused = seat.aegis(&format!("instance start --kit {kit} --name kit-refused"))?;
        assert!(
            refused.error_text().contains("KitBroken"),
            "{}",
            refused.error_text()
        );
        assert!(
            refused.error_text().contains(words),
            "{}",
            refused.error_text()
        );
    }
    let unknown = seat.aegis("kit info kit-od")?;
    assert!(
        unknown.error_text().contains("KitNotFound"),
        "{}",
        unknown.error_text()
    );
    machine
        .run(User::Root, &format!("rm {shared}"))?
        .success()?;
    for kit in ["kit-odd", "kit-wrong", "kit-lacking"] {
        seat.run(&format!("rm {}/{kit}.json", seat.kits()))?
            .success()?;
    }
    Ok(())
}

/// A folder with a kit in it, as an author has it.
fn folder(seat: Seat<'_>, version: &str) -> Result<String> {
    let folder = match seat.user() {
        User::Alice => "/home/alice/walkie-src",
        User::Root => "/root/walkie-src",
    };
    let manifest = format!(
        r#"{{"version": "{version}", "description": "Walks", "usage": "Take it for a walk",
            "instance_daemons": [{{"binary": "walkie", "config": {{"path": "walkie.json", "label": "Walker", "default": {{}}}}}}]}}"#
    );
    let program = format!(
        "#!/bin/sh\necho version {version} \"$(cat \"$(dirname \"$0\")/../words\")\"\nwhile :; do sleep 3600 & wait $!; done\n"
    );
    let machine = seat.machine();
    machine.write_file(
        seat.user(),
        &format!("{folder}/walkie.json"),
        manifest.as_bytes(),
    )?;
    machine.write_file(
        seat.user(),
        &format!("{folder}/bin/walkie"),
        program.as_bytes(),
    )?;
    machine.write_file(seat.user(), &format!("{folder}/words"), b"of the author\n")?;
    seat.run(&format!("chmod 755 {folder}/bin/walkie"))?
        .success()?;
    Ok(folder.to_owned())
}

#[test]
fn a_kit_is_validated_installed_replaced_and_removed() -> Result<()> {
    validated_installed_replaced_and_removed(Seat::alice(&Machine::shared(Systemd::V257)?))
}

#[test]
fn a_kit_is_validated_installed_replaced_and_removed_in_system_mode() -> Result<()> {
    validated_installed_replaced_and_removed(Seat::root(&Machine::shared(Systemd::V257)?))
}

#[test]
fn a_kit_is_validated_installed_replaced_and_removed_on_systemd_252() -> Result<()> {
    validated_installed_replaced_and_removed(Seat::alice(&Machine::shared(Systemd::V252)?))
}

fn validated_installed_replaced_and_removed(seat: Seat<'_>) -> Result<()> {
    seat.aegis("instance delete --purge kit-user")?;
    seat.aegis("kit remove --force walkie")?;
    let source = folder(seat, "1")?;
    let valid = seat.aegis_ok(&format!("kit validate {source}"))?;
    assert!(valid.contains("walkie.json is a valid kit"), "{valid}");
    assert!(
        !seat.aegis_ok("kit list")?.contains("walkie"),
        "validating installs nothing"
    );

    seat.run(&format!("chmod 644 {source}/bin/walkie"))?
        .success()?;
    let refused = seat.aegis(&format!("kit install {source}"))?;
    assert!(
        refused.error_text().contains("lacks programs: walkie"),
        "{}",
        refused.error_text()
    );
    assert!(
        !seat.aegis_ok("kit list")?.contains("walkie"),
        "a failure changes nothing"
    );
    seat.run(&format!("chmod 755 {source}/bin/walkie"))?
        .success()?;
    seat.aegis_ok(&format!("kit install {source}"))?;
    let info = seat.aegis_ok("kit info walkie")?;
    for words in [
        "Status:      ok",
        "Take it for a walk",
        "/installed/walkie-",
        "bin/walkie",
        "may use the network",
    ] {
        assert!(info.contains(words), "no {words} in\n{info}");
    }

    let instance = kit::make_at_rest(seat, "kit-user", "walkie")?;
    let unit = instance.daemon_unit("walkie");
    let says = |words: &str| {
        wait_until(DEADLINE, words, || {
            Ok(seat.journal(&unit, "cat")?.contains(words))
        })
        .with_context(|| seat.journal(&unit, "cat").unwrap_or_default())
    };
    says("version 1 of the author")?;
    let first = instance.daemon_pid("walkie")?;

    folder(seat, "2")?;
    seat.aegis_ok(&format!("kit install {source}"))?;
    assert!(listed(&seat.aegis_ok("kit list")?, "walkie")?.contains(" 2 "));
    seat.systemctl(&format!("restart '{unit}'"))?.success()?;
    assert_ne!(instance.daemon_pid("walkie")?, first);
    let lines = seat.journal(&unit, "cat")?;
    assert!(
        !lines.contains("version 2"),
        "an instance keeps its programs: {lines}"
    );

    let used = seat.aegis("kit remove walkie")?;
    assert!(
        used.error_text().contains("is used by: kit-user"),
        "{}",
        used.error_text()
    );
    seat.aegis_ok("kit remove --force walkie")?;
    let info = instance.info()?;
    assert!(
        info.contains("Kit:         walkie (not installed)"),
        "{info}"
    );
    assert!(
        seat.aegis_ok("instance list")?
            .contains("walkie (not installed)")
    );
    instance.act("disable")?;
    instance.act("enable")?;
    assert_eq!(instance.info_value("Walker")?.as_deref(), Some("running"));
    instance.act("delete --purge")?;
    let left = format!("{}/installed", seat.home());
    wait_until(DEADLINE, "the programs to be swept", || {
        Ok(seat.run(&format!("ls -A {left}"))?.text().trim().is_empty())
    })
}

#[test]
fn explicit_flags_win_over_a_kit_that_adds_programs_files_and_reach() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    kit::install(seat, "inject", &["injected-tool", "reader-daemon"])?;
    seat.run(
        "mkdir -p shared outbox && echo shared >shared/file && echo x >secret && rm -f outbox/file",
    )?
    .success()?;
    let instance = Instance::start(seat, "kit-inject", "--kit inject --env WORD=flag --cpus 2")?;
    assert_eq!(instance.exec_ok("injected-tool")?, "injected, with flag");
    assert_eq!(
        instance.exec_ok("command -v injected-tool")?,
        "/usr/bin/injected-tool"
    );
    assert_eq!(instance.exec_ok("nproc")?, "2");
    assert!(
        instance
            .exec_ok("cat /workspace/.tool/tool.json")?
            .contains("from")
    );
    let memory: u64 = instance
        .exec_ok("awk '/MemTotal/ { print $2 }' /proc/meminfo")?
        .parse()?;
    assert!(
        memory < 160 * 1024,
        "the kit's memory is not taken: {memory} KiB"
    );
    wait_until(DEADLINE, "the command's output", || {
        Ok(seat
            .aegis_ok("logs kit-inject")?
            .contains("injected, with flag"))
    })?;

    let unit = instance.daemon_unit("reader");
    wait_until(DEADLINE, "the daemon to have tried", || {
        Ok(seat.journal(&unit, "cat")?.contains("no network"))
    })
    .with_context(|| seat.journal(&unit, "cat").unwrap_or_default())?;
    let said = seat.journal(&unit, "cat")?;
    assert!(said.contains("reads: shared"), "{said}");
    assert!(said.contains("the secret stays one"), "{said}");
    assert_eq!(seat.run("cat outbox/file")?.success()?, "written");
    let info = instance.info()?;
    for words in ["/home/alice/shared (read)", "/home/alice/outbox (write)"] {
        assert!(info.contains(words), "no {words} in\n{info}");
    }

    // A program that changes is in the guest at the next start.
    let tool = format!("{}/injected-tool", seat.kits());
    machine.write_file(User::Alice, &tool, b"#!/bin/sh\necho changed\n")?;
    instance.act("stop")?;
    assert_eq!(instance.exec_ok("injected-tool")?, "changed");
    Ok(())
}

#[test]
fn another_command_for_a_kits_instance_is_a_shell_on_a_real_terminal() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    kit::install(seat, "shell", &["shell-gateway"])?;
    let instance = Instance::expected(seat, "kit-debug")?;
    let client = include_bytes!("../clients/terminal.py");
    machine.write_file(seat.user(), "/home/alice/clients/terminal.py", client)?;
    let output = seat
        .run("python3 clients/terminal.py aegis instance start --kit shell --name kit-debug --")?;
    assert_eq!(
        output.code(),
        0,
        "{}\n{}",
        output.text(),
        output.error_text()
    );
    assert_eq!(instance.info_value("Gateway")?.as_deref(), Some("running"));
    Ok(())
}

#[test]
fn a_kit_and_its_program_are_found_in_the_homebrew_prefix() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let prefix = "/home/linuxbrew/.linuxbrew";
    let manifest = r#"{"version": "7", "instance_daemons": [{"binary": "brewed-daemon"}]}"#;
    let files = [
        (
            format!("{prefix}/share/aegisvm/kits/kit-brewed.json"),
            manifest,
        ),
        (format!("{prefix}/bin/brewed-daemon"), "#!/bin/sh\n"),
    ];
    for (path, content) in &files {
        machine.write_file(User::Root, path, content.as_bytes())?;
    }
    let readable = format!("chmod -R a+rX {prefix} && chmod 755 {prefix}/bin/brewed-daemon");
    machine.run(User::Root, &readable)?.success()?;
    assert!(listed(&seat.aegis_ok("kit list")?, "kit-brewed")?.contains(" ok "));
    let info = seat.aegis_ok("kit info kit-brewed")?;
    for (path, _) in &files {
        assert!(info.contains(path), "no {path} in {info}");
    }
    let remove = format!("rm -r {prefix}");
    machine.run(User::Root, &remove)?.success()?;
    Ok(())
}

#[test]
fn a_new_instance_says_that_it_takes_over_the_config_of_another() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    kit::install(seat, "shell", &["shell-gateway"])?;
    let instance = Instance::expected(seat, "kit-heir")?;
    let start = "instance start --name kit-heir --kit shell";
    let first = seat.aegis(start)?;
    assert!(
        !first.error_text().contains("before"),
        "{}",
        first.error_text()
    );
    instance.act("delete")?;
    let second = seat.aegis(start)?;
    let note =
        "note: its daemons use what was in /home/alice/.aegis/kits/kit-heir before: gateway.json";
    assert!(
        second.error_text().contains(note),
        "{}",
        second.error_text()
    );
    instance.act("delete --purge")?;
    seat.run("test ! -e .aegis/kits/kit-heir")?.success()?;
    Ok(())
}
