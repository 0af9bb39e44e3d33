//! Images from a real registry, a layout and an archive: pulled, kept, booted, removed.

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::layout::Layout;
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::registry::Registry;
use aegis_tests::seat::Seat;
use aegis_tests::wait::wait_until;
use anyhow::Result;

/// Ends when it gets the image's STOPSIGNAL, not by SIGTERM.
const ASKED: &str = "trap \"echo asked by its own signal; exit 0\" USR1; trap : TERM; \
     while :; do sleep 0.2; done";

/// Three layers: one takes a file away that the one below it has.
fn app() -> Result<Layout> {
    Layout::make(
        &[
            "echo two >etc/two; echo gone >etc/gone; echo 'www:x:33:33::/srv:/bin/sh' >>etc/passwd",
            "rm etc/gone; printf '#!/bin/sh\\necho entry \"$@\"; exec \"$@\"\\n' >entry; chmod 755 entry",
        ],
        "--config.entrypoint /entry --config.cmd id --config.env GREETING=hi \
         --config.workingdir /data/x --config.user www --config.stopsignal SIGUSR1",
    )
}

#[test]
fn an_image_of_a_registry_is_pulled_booted_kept_and_removed() -> Result<()> {
    life(Systemd::V257, |machine| Seat::alice(machine), 5057)
}

#[test]
fn an_image_of_a_registry_has_the_same_life_on_252() -> Result<()> {
    life(Systemd::V252, |machine| Seat::alice(machine), 5052)
}

#[test]
fn an_image_of_a_registry_has_the_same_life_in_system_mode() -> Result<()> {
    life(Systemd::V257, |machine| Seat::root(machine), 5000)
}

fn life(systemd: Systemd, seat: impl Fn(&Machine) -> Seat<'_>, port: u16) -> Result<()> {
    let machine = Machine::temporary(&format!("images-{port}"), systemd)?;
    let seat = seat(&machine);
    let registry = Registry::start(Seat::alice(&machine), port, &app()?, &["app:v1", "app:v2"])?;
    let host = registry.host();
    let insecure = format!("--insecure-registry {host}");

    // The docker run of it: entry point, command, variables, folder, user.
    let plain = seat.aegis_ok(&format!("run --image {host}/app:v1 {insecure}"))?;
    assert_eq!(plain, "entry id\nuid=33(www) gid=33 groups=33");
    let told = "sh -c 'pwd; echo $GREETING $HOME; cat /etc/two; ls /etc/gone; true'";
    let told = seat.aegis_ok(&format!("run --image {host}/app:v1 -- {told}"))?;
    assert!(told.ends_with("/data/x\nhi /srv\ntwo"), "{told}");
    let bare = seat.aegis_ok(&format!(
        "run --image {host}/app:v1 --entrypoint '' -- echo bare"
    ))?;
    assert_eq!(bare, "bare");

    // From the cache, without the registry.
    registry.stop()?;
    seat.aegis_ok(&format!("run --image {host}/app:v1 -- true"))?;
    let again = seat.aegis(&format!(
        "run --image {host}/app:v1 --pull always {insecure} -- true"
    ))?;
    assert_eq!(again.code(), 125, "{again:?}");
    assert!(
        again.error_text().contains("RegistryUnreachable"),
        "{again:?}"
    );
    let absent = seat.aegis(&format!("run --image {host}/app:v3 --pull never -- true"))?;
    assert!(
        absent.error_text().contains("ImageUnavailable"),
        "{absent:?}"
    );
    registry.resume()?;
    let absent = seat.aegis(&format!("image pull {host}/app:v3 {insecure}"))?;
    assert!(absent.error_text().contains("ImageNotFound"), "{absent:?}");

    // Two names of one image; what an instance uses stays.
    seat.aegis_ok(&format!("image pull {host}/app:v2 {insecure}"))?;
    let list = seat.aegis_ok("image list")?;
    assert_eq!(list.lines().count(), 3, "{list}");
    let instance = Instance::start(
        seat,
        "img",
        &format!("--image {host}/app:v1 --disk 64M -- sh -c '{ASKED}'"),
    )?;
    seat.aegis_ok(&format!("image rm {host}/app:v2"))?;
    let used = seat.aegis(&format!("image rm {host}/app:v1"))?;
    assert_eq!(used.code(), 1, "{used:?}");
    assert!(used.error_text().contains("used by img"), "{used:?}");
    seat.aegis_ok("image prune --all")?;
    assert_eq!(instance.exec_ok("cat /etc/two")?, "two");
    instance.act("stop")?;
    let log = seat.aegis_ok("logs img")?;
    assert!(log.ends_with("asked by its own signal"), "{log}");
    assert_eq!(instance.exec_ok("cat /etc/two")?, "two");
    instance.delete()?;
    seat.aegis_ok("image prune --all")?;
    let list = seat.aegis_ok("image list --quiet")?;
    assert_eq!(list, "");
    let left = seat.run(&format!(
        "ls {}/.aegis/images/layers /var/lib/aegis/images/layers 2>/dev/null | grep squashfs",
        seat.home()
    ))?;
    assert_eq!(left.text(), "");
    Ok(())
}

/// A whole manifest as kits of others are written.
const AGENT_KIT: &str = r#"{"name":"agent","version":"0.1.0","description":"…","usage":"…",
 "config":[{"path":".aegis/agent.json","label":"Agent","default":{}}],
 "instance_daemons":[{"binary":"aegis-gateway","config":{"path":"gateway.json","label":"Gateway","default":{}}}],
 "image":{"base":"python:3.12-alpine","inject":["aegis-agent"]},
 "defaults":{"command":["aegis-agent"],"capabilities":{"spawn":true,"spawn_depth":2,"max_children":5,"allowed_images":["*"],
   "max_memory_mb":1024,"max_vcpus":2,"max_expose_ports":5,"allowed_secrets":["*"]}}}"#;

#[test]
fn a_pull_outlives_aegisd_and_a_kit_has_the_image_of_a_mirror() -> Result<()> {
    let machine = Machine::temporary("images-kit", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let layout = Layout::make(&["head -c 80000000 /dev/urandom >data"], "--config.cmd id")?;
    let names = ["library/python:3.12-alpine"];
    let registry = Registry::start(seat, 5001, &layout, &names)?;
    let mirror = format!(
        "[[registry]]\nlocation = 'docker.io'\n[[registry.mirror]]\nlocation = '{}'\ninsecure = true\n",
        registry.host()
    );
    let conf = ".config/containers/registries.conf";
    machine.write_file(seat.user(), conf, mirror.as_bytes())?;

    seat.run(
        "systemd-run --user --quiet --collect --unit puller aegisctl image pull python:3.12-alpine",
    )?
    .success()?;
    let pulls = || seat.run("systemctl --user list-units --plain --no-legend 'aegis-pull-*'");
    wait_until(DEADLINE, "the pull to be under way", || {
        Ok(!pulls()?.text().is_empty())
    })?;
    seat.kill_aegisd()?;
    wait_until(DEADLINE, "the pull to end", || {
        Ok(pulls()?.text().is_empty())
    })?;
    wait_until(DEADLINE, "the image to be listed", || {
        Ok(seat.aegis_ok("image list")?.contains("python:3.12-alpine"))
    })?;

    let kits = seat.kits();
    machine.write_file(
        seat.user(),
        &format!("{kits}/agent.json"),
        AGENT_KIT.as_bytes(),
    )?;
    let agent = "#!/bin/sh\necho agent with $(ls /data) and $(cat /workspace/.aegis/agent.json)\nsleep 100\n";
    let gateway = "#!/bin/sh\necho gateway up\nsleep 100\n";
    for (name, script) in [("aegis-agent", agent), ("aegis-gateway", gateway)] {
        let bin = format!(".local/bin/{name}");
        machine.write_file(seat.user(), &bin, script.as_bytes())?;
        seat.run(&format!("chmod 755 {bin}"))?.success()?;
    }
    seat.aegis_ok("image rm python:3.12-alpine")?;
    let instance = Instance::start(seat, "kitted", "--kit agent")?;
    for words in ["agent with /data and {}", "gateway up"] {
        wait_until(DEADLINE, words, || {
            Ok(seat.aegis_ok("logs kitted")?.contains(words))
        })?;
    }
    instance.delete()
}

#[test]
fn local_images_and_a_root_that_nobody_may_write() -> Result<()> {
    let machine = Machine::temporary("images-local", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let layout = app()?;
    let archive = std::process::Command::new("tar")
        .args(["-c", "-C"])
        .arg(layout.path().join(".."))
        .arg("layout")
        .output()?;
    machine
        .run_with_input(
            seat.user(),
            "mkdir 'my images' && tar -x --no-same-owner -C 'my images'",
            &archive.stdout,
        )?
        .success()?;
    let layout = "'oci:my images/layout:v1'";
    let read_only = "sh -c 'echo x >/etc/x; echo y >/tmp/y && cat /tmp/y'";
    let told = seat.aegis(&format!(
        "run --image {layout} --rootfs ro -u root -- {read_only}"
    ))?;
    assert!(told.text().ends_with('y'), "{told:?}");
    assert!(
        told.error_text().contains("Read-only file system"),
        "{told:?}"
    );
    let absent = seat.aegis("run --image oci:nowhere -- true")?;
    assert!(absent.error_text().contains("nowhere"), "{absent:?}");
    let odd = seat.aegis("run --image Upper/Case -- true")?;
    assert!(odd.error_text().contains("upper case"), "{odd:?}");
    Ok(())
}
