//! What a confined unit cannot do, tried from inside.

use std::collections::BTreeMap;
use std::path::Path;

use aegis_core::layout::Mode;
use aegisd::supervisor::plan::{Confinement, Program};
use aegisd::supervisor::{SupervisorError, UnitId};

use crate::world::{PATIENCE, World};

/// Each line tries one thing and says `yes` or `no`.
const TRIES: &str = r#"
try() { name=$1; shift; if "$@" >/dev/null 2>&1; then echo "$name yes"; else echo "$name no"; fi >> tries; }
try own-folder touch inside
try home-file cat "$SECRET"
try neighbour-socket test -e "$NEIGHBOUR"
try write-usr touch /usr/x
try write-etc touch /etc/x
try user-bus test -e "/run/user/$OUTSIDE_UID/bus"
try user-manager test -e "/run/user/$OUTSIDE_UID/systemd/private"
try system-bus test -e /run/dbus/system_bus_socket
try call-user-bus busctl --address="unix:path=/run/user/$OUTSIDE_UID/bus" list
try call-system-bus busctl --system list
try notify test -S "$NOTIFY_SOCKET"
try journal test -S /run/systemd/journal/socket
try environ-outside cat "/proc/$OUTSIDE_PID/environ"
try root-outside ls "/proc/$OUTSIDE_PID/root/"
try signal-outside kill -0 "$OUTSIDE_PID"
try tmp-outside test -e "$TMP"
try new-namespace unshare -U -r true
try device test -e /dev/kmsg
try setuid-gain grep -q 'NoNewPrivs:.0' /proc/self/status
try core-dumps sh -c '[ "$(ulimit -c)" != 0 ]'
echo done >> tries
exec sleep 1000
"#;

fn tries(lines: &[String]) -> BTreeMap<&str, bool> {
    let pairs = lines.iter().filter_map(|line| line.split_once(' '));
    pairs
        .map(|(name, answer)| (name, answer == "yes"))
        .collect()
}

/// Landlock's signal scope needs this kernel (landlock(7)).
fn kernel_scopes_signals() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel release");
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(12))
}

/// Nothing is possible from inside but what is meant to be.
fn check(lines: &[String], may_signal: bool) {
    let mut found = tries(lines);
    for allowed in ["own-folder", "notify", "journal"] {
        assert_eq!(found.remove(allowed), Some(true), "{allowed}: {lines:#?}");
    }
    if may_signal {
        found.remove("signal-outside");
    }
    found.retain(|_, possible| *possible);
    assert_eq!(found, BTreeMap::new(), "possible from inside");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_daemon_reaches_its_own_and_nothing_else() {
    let world = World::new("c-inside").await;
    let neighbour = World::new("c-neighbour").await;
    neighbour
        .supervisor
        .open(&neighbour.instance(&[]))
        .await
        .unwrap();
    let secret = world.layout.home.join("secret");
    std::fs::write(&secret, "not for daemons\n").unwrap();
    let tmp = tempfile::tempdir().unwrap();

    let uid = nix::unistd::geteuid();
    let script = format!(
        "SECRET={} NEIGHBOUR={} TMP={} OUTSIDE_UID={uid} OUTSIDE_PID={}\n{TRIES}",
        secret.display(),
        neighbour.layout.control_socket(&neighbour.handle).display(),
        tmp.path().display(),
        std::process::id(),
    );
    world
        .supervisor
        .launch(&world.daemon("d", &script))
        .await
        .unwrap();
    let lines = world.wait_for_lines("tries", 21).await;
    let may_signal = !kernel_scopes_signals() && world.layout.mode == Mode::User;
    if may_signal {
        println!("skipped: signals to the user's other processes, this kernel cannot prevent them");
    }
    check(&lines, may_signal);
    // The manager writes what it was asked for into a file, which it reads again.
    world.manager.reload();
    std::fs::remove_file(world.dir.join("tries")).unwrap();
    let unit = UnitId::daemon(&world.handle, "d");
    world.supervisor.restart(&unit).await.unwrap();
    let lines = world.wait_for_lines("tries", 21).await;
    check(&lines, may_signal);

    neighbour.clean().await;
    world.clean().await;
    std::fs::remove_file(secret).unwrap();
}

/// What aegis-vmm does to jail QEMU and virtiofsd, in the words of unshare(1).
const JAIL: &str = r"
exec > tries 2>&1
unshare -U -r -n -p -i -u -m --fork sh -c 'mount -t tmpfs none /mnt && touch /mnt/x' && echo jail yes
unshare -U -r -m sh -c 'mount --rbind . /mnt && ls /mnt/tries && chroot / true' && echo share yes
test -e /dev/kvm && echo kvm yes || echo kvm no
exec sleep 1000
";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_vm_unit_can_jail_its_children() {
    let world = World::new("c-jail").await;
    let script = world.write("jail.sh", JAIL);
    // Beside the sockets' own stand-in: this only tries and never gets ready.
    world.write("server.py", include_str!("server.py"));
    let mut plan = world.instance(&[]);
    plan.program = Program {
        path: "/bin/sh".into(),
        arguments: vec![script.display().to_string()],
    };
    let mut text = std::fs::read_to_string(&script).unwrap();
    text = format!("cd {}\n{text}", world.dir.display());
    std::fs::write(&script, text).unwrap();
    world.supervisor.open(&plan).await.unwrap();
    let control = world.layout.control_socket(&world.handle);
    let connection = std::os::unix::net::UnixStream::connect(control).unwrap();
    let lines = world.wait_for_lines("tries", 4).await;
    let found = tries(&lines);
    assert_eq!(
        (found.get("jail"), found.get("share")),
        (Some(&true), Some(&true)),
        "{lines:#?}"
    );
    assert_eq!(
        found.get("kvm"),
        Some(&std::path::Path::new("/dev/kvm").exists()),
        "{lines:#?}"
    );
    drop(connection);
    world
        .supervisor
        .stop(&UnitId::group(&world.handle))
        .await
        .unwrap();
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn what_cannot_be_confined_does_not_run() {
    let world = World::new("c-missing").await;
    let mut plan = world.daemon("d", "echo run >> runs; exec sleep 1000");
    let Confinement::Reach(reach) = &mut plan.confinement else {
        panic!("confined by default")
    };
    reach.writable.push(world.dir.join("does-not-exist"));
    let refused = world.supervisor.launch(&plan).await;
    assert!(
        matches!(refused, Err(SupervisorError::NotConfined { .. })),
        "{refused:?}"
    );
    assert_eq!(
        world.unit(&UnitId::daemon(&world.handle, "d")).await,
        None,
        "it is gone"
    );
    assert!(!world.dir.join("runs").exists());
    world.clean().await;
}

/// A daemon that can write one folder, before and after the manager read its unit
/// again from disk; `false` if the path was refused.
async fn writes_its_folder(world: &World, folder: &Path) -> Result<bool, SupervisorError> {
    let unit = UnitId::daemon(&world.handle, "d");
    let mut plan = world.daemon("d", "cd folder-*; echo run >> runs; exec sleep 1000");
    let Confinement::Reach(reach) = &mut plan.confinement else {
        panic!("confined by default")
    };
    reach.writable.push(folder.to_owned());
    // Not by its folder, or a path that was cut off would not be noticed.
    reach.writable.retain(|path| *path != world.dir);
    reach.read_only.push(world.dir.clone());
    let state = world.dir.join("state");
    world.make_folder(&state);
    plan.back_off = state.join("back-off.json");
    reach.writable.push(state);
    match world.supervisor.launch(&plan).await {
        Err(SupervisorError::Word { .. }) => return Ok(false),
        launched => launched?,
    };
    let runs = Path::new(folder.file_name().expect("it has a name")).join("runs");
    let runs = runs.to_str().expect("it is text").to_owned();
    world.wait_for_lines(&runs, 1).await;
    world.manager.reload();
    world.supervisor.restart(&unit).await?;
    world.wait_for_lines(&runs, 2).await;
    Ok(true)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn odd_paths_are_refused_or_survive_a_reload_of_the_manager() {
    let world = World::new("c-paths").await;
    let mut broken = Vec::new();
    for odd in " :;$%'\"\\,ü&#()[]*?!~`|<>=@+".chars() {
        let folder = world.dir.join(format!("folder-a{odd}b"));
        world.make_folder(&folder);
        let attempt = tokio::time::timeout(PATIENCE / 6, writes_its_folder(&world, &folder)).await;
        match attempt {
            Ok(Ok(passed)) => println!("{odd:?} {}", if passed { "passes" } else { "is refused" }),
            Ok(Err(error)) => broken.push((odd, error.to_string())),
            Err(_) => broken.push((odd, "does not see its folder".to_owned())),
        }
        world
            .supervisor
            .stop(&UnitId::group(&world.handle))
            .await
            .unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
    assert!(broken.is_empty(), "{broken:#?}");
    world.clean().await;
}
