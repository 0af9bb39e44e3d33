//! System mode with several users: what polkit lets each of them do, and what there is
//! for each of them. The polkit is a real one, asked by aegisd over the system bus.

use aegis_tests::instance::DEADLINE;
use aegis_tests::machine::{Machine, Output, Systemd, Temporary, User};
use aegis_tests::seat::{Seat, quote};
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result};

/// The exit code of a refused command.
const REFUSED: i32 = 1;

const GROUP_HINT: &str = "members of the group aegis may";

#[test]
fn users_of_the_system_mode_do_what_polkit_lets_them() -> Result<()> {
    verbs(Systemd::V257)
}

#[test]
fn users_of_the_system_mode_do_what_polkit_lets_them_on_systemd_252() -> Result<()> {
    verbs(Systemd::V252)
}

#[test]
fn users_of_the_system_mode_see_what_is_theirs() -> Result<()> {
    sight(Systemd::V257)
}

#[test]
fn users_of_the_system_mode_see_what_is_theirs_on_systemd_252() -> Result<()> {
    sight(Systemd::V252)
}

/// A machine where bob and carol use the system mode, dave is an administrator, and
/// alice is neither.
fn machine(name: &str, systemd: Systemd) -> Result<Temporary> {
    let machine = Machine::temporary(name, systemd)?;
    let line = "useradd --create-home --groups aegis bob && \
                useradd --create-home --groups aegis carol && \
                useradd --create-home --groups sudo dave && \
                echo dave:open-sesame | chpasswd";
    machine.run(User::Root, line)?.success()?;
    Ok(machine)
}

/// Runs a shell line as a user.
fn run(machine: &Machine, user: &str, line: &str) -> Result<Output> {
    let line = format!(
        "cd / && exec setpriv --reuid={user} --regid={user} --init-groups \
         env HOME=/home/{user} USER={user} sh -c {}",
        quote(line)
    );
    machine.run(User::Root, &line)
}

/// Runs the client as a user.
fn aegis(machine: &Machine, user: &str, arguments: &str) -> Result<Output> {
    run(machine, user, &format!("aegisctl --system {arguments}"))
}

fn aegis_ok(machine: &Machine, user: &str, arguments: &str) -> Result<String> {
    aegis(machine, user, arguments)?
        .success()
        .with_context(|| format!("aegisctl --system {arguments} as {user}"))
}

/// The client fails with these words on stderr.
fn refused(machine: &Machine, user: &str, arguments: &str, words: &[&str]) -> Result<()> {
    let output = aegis(machine, user, arguments)?;
    let stderr = output.error_text();
    assert_eq!(output.code(), REFUSED, "{user}: {arguments}: {stderr}");
    for words in words {
        assert!(stderr.contains(words), "{user}: {arguments}: {stderr}");
    }
    Ok(())
}

fn verbs(systemd: Systemd) -> Result<()> {
    let machine = machine(&format!("test-verbs-{}", systemd.number()), systemd)?;
    let view = "this needs the authorization 'org.aegisvm.Aegis1.view'";
    let administer = "this needs the authorization 'org.aegisvm.Aegis1.administer'";

    // Who is in no group has nothing, and is told what to do.
    refused(&machine, "alice", "instance list", &[view, GROUP_HINT])?;
    refused(&machine, "alice", "instance start --name a", &[GROUP_HINT])?;
    refused(&machine, "dave", "instance list", &[view])?;

    // Members of the group view, use and manage.
    let line = "instance start --name bobs --detach -- sh -c 'echo up; sleep 600'";
    aegis_ok(&machine, "bob", line)?;
    let listed = aegis_ok(&machine, "bob", "instance list")?;
    assert!(listed.contains("bobs"), "{listed}");
    assert_eq!(aegis_ok(&machine, "bob", "exec bobs -- echo hi")?, "hi");
    wait_until(DEADLINE, "the command's words", || {
        Ok(aegis_ok(&machine, "bob", "logs bobs")?.contains("up"))
    })?;
    aegis_ok(&machine, "bob", "instance update bobs --label a=b")?;

    // What concerns everybody is the administrator's.
    refused(&machine, "bob", "image prune", &[administer])?;
    refused(&machine, "bob", "kit remove agent", &[administer])?;
    let secret = "secret set TOKEN --from-file /etc/hostname";
    refused(&machine, "bob", secret, &[administer])?;
    Seat::root(&machine).aegis_ok("secret set TOKEN --from-file /etc/hostname")?;
    let listed = aegis_ok(&machine, "bob", "secret list")?;
    assert!(!listed.contains("TOKEN"), "{listed}");
    let borrow = "instance start --name thief --env TOKEN=secret.TOKEN";
    refused(&machine, "bob", borrow, &["there is no secret 'TOKEN'"])?;
    let borrow = "exec --env TOKEN=secret.TOKEN bobs -- env";
    let output = aegis(&machine, "bob", borrow)?;
    assert!(
        output.error_text().contains("no secret"),
        "{}",
        output.error_text()
    );
    assert!(!output.text().contains("TOKEN"), "{}", output.text());

    // A rule of the administrator's own goes by the verb, and by the called method.
    let rule = "polkit.addRule(function (action, subject) {\n\
                if (subject.user != 'bob') { return; }\n\
                if (action.lookup('member') == 'Delete') { return polkit.Result.NO; }\n\
                if (action.id == 'org.aegisvm.Aegis1.administer') { return polkit.Result.YES; }\n\
                });\n";
    let path = "/etc/polkit-1/rules.d/10-bob.rules";
    machine.write_file(User::Root, path, rule.as_bytes())?;
    wait_until(DEADLINE, "polkit to read the rule", || {
        Ok(aegis(&machine, "bob", "image prune")?.code() == 0)
    })?;
    let manage = "this needs the authorization 'org.aegisvm.Aegis1.manage'";
    refused(&machine, "bob", "instance delete bobs", &[manage])?;
    machine.run(User::Root, &format!("rm {path}"))?.success()?;
    wait_until(DEADLINE, "polkit to forget the rule", || {
        Ok(aegis(&machine, "bob", "image prune")?.code() == REFUSED)
    })?;
    aegis_ok(&machine, "bob", "instance delete bobs")?;

    an_administrator_is_asked(&machine)?;
    without_polkit_the_group_counts(&machine)?;
    machine.stop()
}

/// On a terminal dave is asked for a password by polkit's agent; one that is wrong does
/// not do.
fn an_administrator_is_asked(machine: &Machine) -> Result<()> {
    let script = r#"
import os, pty, select, signal, sys, time
password, command = sys.argv[1], sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
seen, answered, end = b"", 0, time.time() + 60
while time.time() < end:
    if not select.select([terminal], [], [], 1)[0]:
        continue
    try:
        piece = os.read(terminal, 4096)
    except OSError:
        break
    if not piece:
        break
    seen += piece
    while seen.count(b"assword:") > answered:
        answered += 1
        # What is typed before the echo is off is thrown away (tcsetattr(3), TCSAFLUSH).
        time.sleep(1)
        os.write(terminal, password.encode() + b"\n")
else:
    os.kill(pid, signal.SIGKILL)
sys.stdout.buffer.write(seen)
sys.stdout.flush()
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"#;
    machine.write_file(User::Root, "/tmp/ask.py", script.as_bytes())?;
    let asked = |password: &str| {
        let line = format!("python3 /tmp/ask.py {password} aegisctl --system image prune");
        run(machine, "dave", &line)
    };
    let wrong = asked("guess")?;
    assert_eq!(wrong.code(), REFUSED, "{}", wrong.text());
    let right = asked("open-sesame")?;
    let shown = right.text();
    assert_eq!(right.code(), 0, "{shown}");
    assert!(shown.contains("Authentication is required"), "{shown}");
    assert!(!shown.contains("open-sesame"), "{shown}");
    // No agent is left behind.
    let left = machine.run(User::Root, "pgrep pkttyagent")?;
    assert_eq!(left.text(), "", "an agent outlives its client");
    Ok(())
}

/// Members of the group go on, and nobody but root administers.
fn without_polkit_the_group_counts(machine: &Machine) -> Result<()> {
    let service = "/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service";
    let masked = "systemctl mask --now polkit";
    let removed = format!("rm {service} && systemctl reload dbus");
    let administer = "this needs the authorization 'org.aegisvm.Aegis1.administer'";
    for line in [masked, &removed] {
        machine.run(User::Root, line)?.success()?;
        aegis_ok(machine, "carol", "instance list")?;
        aegis_ok(machine, "carol", "volume create data")?;
        aegis_ok(machine, "carol", "volume remove data")?;
        refused(machine, "carol", "image prune", &[administer])?;
        refused(machine, "alice", "instance list", &[GROUP_HINT])?;
        Seat::root(machine).aegis_ok("image prune")?;
    }
    Ok(())
}

/// Writes down every signal that it is sent after it asked for all objects.
const LISTENER: &str = r#"
import dbus, sys, time
from dbus.mainloop.glib import DBusGMainLoop
from gi.repository import GLib
DBusGMainLoop(set_as_default=True)
bus = dbus.SystemBus()
def heard(*arguments, path=None, member=None, **rest):
    print(member, path, [str(argument) for argument in arguments], flush=True)
bus.add_signal_receiver(heard, bus_name="org.aegisvm.Aegis1", path_keyword="path", member_keyword="member")
root = bus.get_object("org.aegisvm.Aegis1", "/org/aegisvm/Aegis1", introspect=False)
objects = root.GetManagedObjects(dbus_interface="org.freedesktop.DBus.ObjectManager")
print("objects", sorted(objects), flush=True)
GLib.MainLoop().run()
"#;

/// What a listener of this user heard so far.
fn heard(machine: &Machine, user: &str) -> Result<String> {
    let read = machine.run(User::Root, &format!("cat /tmp/heard-{user}"))?;
    Ok(read.text())
}

fn sight(systemd: Systemd) -> Result<()> {
    let machine = machine(&format!("test-sight-{}", systemd.number()), systemd)?;
    let root = Seat::root(&machine);
    aegis_ok(
        &machine,
        "bob",
        "instance start --name bobs --detach -- sleep 600",
    )?;
    machine.write_file(User::Root, "/tmp/listen.py", LISTENER.as_bytes())?;
    for user in ["bob", "carol", "root"] {
        let listen = format!(
            "systemd-run --quiet --uid={user} --unit=listen-{user} \
             --property=StandardOutput=file:/tmp/heard-{user} python3 /tmp/listen.py"
        );
        machine.run(User::Root, &listen)?.success()?;
        wait_until(DEADLINE, "the listener to be there", || {
            Ok(heard(&machine, user)?.contains("objects"))
        })?;
    }
    assert!(heard(&machine, "bob")?.contains("/instance/bobs"));
    assert!(heard(&machine, "root")?.contains("/instance/bobs"));

    // For carol it is as if it were not there, by whatever way she asks.
    let listed = aegis_ok(&machine, "carol", "instance list")?;
    assert!(!listed.contains("bobs"), "{listed}");
    for arguments in [
        "instance info bobs",
        "instance stop bobs",
        "instance delete bobs",
        "instance update bobs --label a=b",
        "logs bobs",
        "tether read bobs",
    ] {
        refused(
            &machine,
            "carol",
            arguments,
            &["there is no instance 'bobs'"],
        )?;
    }
    let missing = aegis(&machine, "carol", "exec bobs -- true")?;
    assert!(
        missing.error_text().contains("no instance"),
        "{}",
        missing.error_text()
    );
    let object = "org.aegisvm.Aegis1 /org/aegisvm/Aegis1/instance/bobs";
    for call in [
        format!("busctl get-property {object} org.aegisvm.Aegis1.Instance State"),
        format!("busctl call {object} org.aegisvm.Aegis1.Instance Stop 'a{{sv}}' 0"),
    ] {
        let output = run(&machine, "carol", &call)?;
        assert_ne!(output.code(), 0, "{call}");
        assert!(
            output.error_text().contains("Unknown object"),
            "{}",
            output.error_text()
        );
    }
    for path in ["/", "/org/aegisvm/Aegis1", "/org/aegisvm/Aegis1/instance"] {
        let call = format!(
            "busctl call org.aegisvm.Aegis1 {path} org.freedesktop.DBus.Introspectable Introspect"
        );
        let output = run(&machine, "carol", &call)?;
        assert!(!output.text().contains("bobs"), "{path}: {}", output.text());
    }
    let tree = run(
        &machine,
        "bob",
        "busctl introspect org.aegisvm.Aegis1 /org/aegisvm/Aegis1",
    )?;
    assert!(tree.text().contains("CreateInstance"), "{}", tree.text());

    // A name is taken for everybody, and says no more than that.
    let taken = "instance start --name bobs --detach -- true";
    let output = aegis(&machine, "carol", taken)?;
    assert_ne!(output.code(), 0, "{}", output.text());

    // Each hears of their own, root of all.
    aegis_ok(&machine, "bob", "instance pause bobs")?;
    let path = "/org/aegisvm/Aegis1/instance/bobs";
    for user in ["bob", "root"] {
        wait_until(DEADLINE, "the news", || {
            let heard = heard(&machine, user)?;
            Ok(heard.contains(&format!("PropertiesChanged {path}")))
        })
        .with_context(|| heard(&machine, user).unwrap_or_default())?;
    }
    aegis_ok(
        &machine,
        "carol",
        "instance start --name carols --detach -- sleep 600",
    )?;
    wait_until(DEADLINE, "carol to hear of hers", || {
        Ok(heard(&machine, "carol")?.contains("/instance/carols"))
    })?;
    wait_until(DEADLINE, "root to hear of hers", || {
        Ok(heard(&machine, "root")?.contains("/instance/carols"))
    })?;
    assert!(!heard(&machine, "carol")?.contains("bobs"));
    assert!(!heard(&machine, "bob")?.contains("carols"));

    // What has a name belongs to its user, and no other way leads there.
    for user in ["bob", "carol"] {
        aegis_ok(&machine, user, "volume create data")?;
        let listed = aegis_ok(&machine, user, "volume list --quiet")?;
        assert_eq!(listed, "data");
    }
    assert_eq!(root.aegis_ok("volume list --quiet")?, "");
    let bobs = machine.run(
        User::Root,
        "echo /var/lib/aegis/users/$(id -u bob)/volumes/data",
    )?;
    let volume = format!(
        "instance start --name peek --volume {}:/data --detach -- true",
        bobs.success()?
    );
    refused(&machine, "carol", &volume, &["AegisVM"])?;
    aegis_ok(&machine, "carol", "volume remove data")?;
    assert_eq!(aegis_ok(&machine, "bob", "volume list --quiet")?, "data");

    who_administers_sees_all(&machine)?;

    // Pruning leaves those of others.
    aegis_ok(&machine, "carol", "instance prune --force --stopped")?;
    assert!(aegis_ok(&machine, "bob", "instance list")?.contains("bobs"));
    assert!(root.aegis_ok("instance list")?.contains("bobs"));
    machine.stop()
}

/// Whoever may administer sees all from the moment that a rule says so until it does not,
/// with the connection that they have.
fn who_administers_sees_all(machine: &Machine) -> Result<()> {
    let rule = "polkit.addRule(function (action, subject) {\n\
                if (subject.user == 'carol' && action.id == 'org.aegisvm.Aegis1.administer') {\n\
                return polkit.Result.YES; } });\n";
    let path = "/etc/polkit-1/rules.d/10-carol.rules";
    machine.write_file(User::Root, path, rule.as_bytes())?;
    wait_until(DEADLINE, "carol to hear of what bob does", || {
        aegis_ok(machine, "bob", "instance resume bobs")?;
        aegis_ok(machine, "bob", "instance pause bobs")?;
        Ok(heard(machine, "carol")?.contains("bobs"))
    })?;
    assert!(aegis_ok(machine, "carol", "instance list")?.contains("bobs"));
    machine.run(User::Root, &format!("rm {path}"))?.success()?;
    wait_until(DEADLINE, "carol to hear no more of what bob does", || {
        let before = heard(machine, "carol")?.matches("bobs").count();
        aegis_ok(machine, "bob", "instance resume bobs")?;
        aegis_ok(machine, "bob", "instance pause bobs")?;
        Ok(heard(machine, "carol")?.matches("bobs").count() == before)
    })
}
