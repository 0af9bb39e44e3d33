//! The API socket of an instance's daemons, used by a daemon that a stranger wrote:
//! Python with `http.client`, on the path in `AEGIS_SOCKET`.

use std::time::Duration;

use aegis_tests::api_daemon::Daemon;
use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::Seat;
use aegis_tests::wait::{wait_for, wait_until};
use anyhow::{Context, Result};
use serde_json::{Value, json};

fn lines(body: &str) -> Result<Vec<Value>> {
    body.lines()
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}

fn every_route_serves_a_strangers_daemon(machine: &Machine, seat: Seat<'_>) -> Result<()> {
    kit::install(seat, "api", &["api-daemon"])?;
    let instance = Instance::start(seat, "api", "--kit api --workspace shared --env A=b")?;
    let other = Instance::start(seat, "neighbour", "")?;
    let daemon = Daemon::of(seat, &instance);
    let own = "/v1/instances/api";

    let shown = daemon.json(own)?;
    for (key, value) in [
        ("id", json!("api")),
        ("handle", json!("api")),
        ("state", json!("running")),
        ("enabled", json!(true)),
        ("kit", json!("api")),
        ("gateway_running", json!(true)),
    ] {
        assert_eq!(shown[key], value, "{key} of {shown}");
    }
    assert!(shown.get("env").is_none(), "{shown}");
    // A moment moves on between two answers.
    let timeless = |mut shown: Value| {
        shown["last_active_at"] = Value::Null;
        shown
    };
    let listed = daemon.json("/v1/instances")?;
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!(timeless(listed[0].clone()), timeless(daemon.json(own)?));
    assert_eq!(daemon.json("/v1/status")?["status"], "running");

    let exec = json!({"command": ["sh", "-c", "echo out; echo err >&2; echo $A$C; exit 3"], "env": {"C": "d"}});
    let (status, body) = daemon.post(&format!("{own}/exec"), &exec.to_string())?;
    assert_eq!(status, 200, "{body}");
    let said = lines(&body)?;
    let id = said[0]["exec_id"].clone();
    assert!(said[0]["started_at"].is_string(), "{body}");
    let texts: Vec<_> = said
        .iter()
        .filter_map(|line| line["line"].as_str())
        .collect();
    for text in ["out", "err", "bd"] {
        assert!(texts.contains(&text), "{body}");
    }
    let last = said.last().context("a last line")?;
    assert_eq!(*last, json!({"exec_id": id, "exit_code": 3, "done": true}));

    the_workspace_is_read_and_written(&daemon, &instance, own)?;
    the_config_is_read_and_written(&daemon, own)?;
    the_log_is_read_and_followed(&daemon, own)?;
    nobody_else_is_there(&daemon, other.handle())?;
    the_door_is_the_kernels_to_tell(machine, seat)?;
    other.delete()?;
    instance.delete()
}

fn the_workspace_is_read_and_written(
    daemon: &Daemon<'_>,
    instance: &Instance<'_>,
    own: &str,
) -> Result<()> {
    let workspace = format!("{own}/workspace");
    let written = daemon.post(&format!("{workspace}?path=sub/from%20host"), "h\u{e9}llo")?;
    assert_eq!(written, (200, r#"{"status":"ok"}"#.to_owned()));
    assert_eq!(
        instance
            .exec_ok("wc -c <'/workspace/sub/from host'")?
            .trim(),
        "5"
    );
    instance.exec_ok("echo guest >/workspace/from-guest; ln -s /etc/passwd /workspace/link; ln -s / /workspace/up")?;
    assert_eq!(
        daemon.get(&format!("{workspace}?path=from-guest"))?,
        (200, "guest\n".to_owned())
    );
    let tree = daemon.json(&format!("{workspace}/tree?path="))?;
    let names: Vec<_> = tree
        .as_array()
        .context("a list")?
        .iter()
        .map(|entry| &entry["name"])
        .collect();
    assert_eq!(names, ["sub", "from-guest", "link", "up"]);
    assert_eq!(tree[0], json!({"name": "sub", "is_dir": true, "size": 0}));
    // What the guest plants leads nowhere.
    for path in ["link", "up/etc/passwd"] {
        let (status, body) = daemon.get(&format!("{workspace}?path={path}"))?;
        assert!(matches!(status, 403 | 409), "{path}: {status} {body}");
    }
    let (status, body) = daemon.post(&format!("{workspace}?path=up/tmp/escaped"), "x")?;
    assert!(matches!(status, 403 | 409), "{status} {body}");
    for path in ["../secrets.key", "/etc/passwd", "sub/../../x"] {
        assert_eq!(
            daemon.get(&format!("{workspace}?path={path}"))?.0,
            400,
            "{path}"
        );
    }
    let big = "x".repeat((10 << 20) + 1);
    assert_eq!(daemon.post(&format!("{workspace}?path=big"), &big)?.0, 413);
    assert_eq!(daemon.get(&format!("{workspace}?path=big"))?.0, 404);
    Ok(())
}

fn the_config_is_read_and_written(daemon: &Daemon<'_>, own: &str) -> Result<()> {
    let config = format!("{own}/kit-config");
    let (status, text) = daemon.get(&format!("{config}?file=api.json"))?;
    assert_eq!(
        (status, serde_json::from_str::<Value>(&text)?),
        (200, json!({"a": 1}))
    );
    for (file, body, status) in [
        ("other.json", r#"{"b": 2}"#, 200),
        ("other.json", "{", 400),
        ("../api.json", "{}", 400),
        ("sub/x.json", "{}", 400),
    ] {
        assert_eq!(
            daemon.post(&format!("{config}?file={file}"), body)?.0,
            status,
            "{file} {body}"
        );
    }
    assert_eq!(
        daemon.get(&format!("{config}?file=other.json"))?.1,
        r#"{"b": 2}"#
    );
    assert_eq!(daemon.get(&format!("{config}?file=none.json"))?.0, 404);
    Ok(())
}

fn the_log_is_read_and_followed(daemon: &Daemon<'_>, own: &str) -> Result<()> {
    let logs = format!("{own}/logs");
    let all = wait_for(DEADLINE, "some lines", || {
        let all = lines(&daemon.get(&logs)?.1)?;
        Ok((all.len() >= 2).then_some(all))
    })?;
    for key in ["ts", "stream", "line", "source", "instance_id", "seq"] {
        assert!(!all[0][key].is_null(), "{key} of {}", all[0]);
    }
    assert_eq!(
        (&all[0]["line"], &all[0]["instance_id"]),
        (&json!("line 1"), &json!("api"))
    );
    assert_eq!(lines(&daemon.get(&format!("{logs}?tail=1"))?.1)?.len(), 1);
    // A client goes on after the last line it has seen, and waits for more.
    let after = &all[0]["seq"];
    let path = format!("{logs}?follow=1&after_seq={after}");
    let (_, body) = daemon.ask(&json!({"path": path, "lines": 4}))?;
    let followed = lines(&body)?;
    assert_eq!(followed[0], all[1]);
    assert_eq!(followed[3]["line"], json!("line 5"));
    assert_eq!(daemon.get(&format!("{logs}?since=yesterday"))?.0, 400);
    let none = daemon.get(&format!("{logs}?since=2999-01-01T00:00:00Z"))?;
    assert_eq!(none, (200, String::new()));
    Ok(())
}

fn nobody_else_is_there(daemon: &Daemon<'_>, other: &str) -> Result<()> {
    let unknown = (404, r#"{"error":"instance not found"}"#.to_owned());
    for name in [other, "nobody"] {
        for rest in ["", "/logs", "/workspace?path=x", "/kit-config?file=x"] {
            assert_eq!(daemon.get(&format!("/v1/instances/{name}{rest}"))?, unknown);
        }
        assert_eq!(
            daemon.post(&format!("/v1/instances/{name}/exec"), "{}")?,
            unknown
        );
    }
    assert_eq!(daemon.get("/v1/instances/api/tether/nothing")?.0, 404);
    assert_eq!(daemon.get("/v1/secrets")?.0, 404);
    assert_eq!(
        daemon
            .ask(&json!({"method": "DELETE", "path": "/v1/instances/api"}))?
            .0,
        405
    );
    Ok(())
}

/// A process that is no door is turned away, whatever it says.
fn the_door_is_the_kernels_to_tell(machine: &Machine, seat: Seat<'_>) -> Result<()> {
    let folder = seat.runtime();
    let line = format!(
        "python3 -c 'import socket
door = socket.socket(socket.AF_UNIX)
door.connect(\"{folder}/doors/aegisd.sock\")
api = socket.socket(socket.AF_UNIX)
api.bind(\"/tmp/api-of-nobody-$$.sock\")
api.listen()
socket.send_fds(door, [b\"{{\\\"door\\\":\\\"api\\\"}}\\n\"], [api.fileno()])
print(door.recv(1))'"
    );
    let refused = machine.run(User::Root, &line)?;
    let said = format!("{}{}", refused.text(), refused.error_text());
    // However far it got before the end.
    let ends = ["b''", "reset", "Broken pipe"];
    assert!(ends.iter().any(|end| said.contains(end)), "{said}");
    Ok(())
}

#[test]
fn every_route_in_user_mode() -> Result<()> {
    let machine = Machine::temporary("test-api", Systemd::V257)?;
    every_route_serves_a_strangers_daemon(&machine, Seat::alice(&machine))
}

#[test]
fn every_route_in_system_mode_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-api-root-252", Systemd::V252)?;
    every_route_serves_a_strangers_daemon(&machine, Seat::root(&machine))
}

/// The socket listens with aegisd dead, starts it, and a client that insists is
/// served though aegisd is killed under it again and again.
fn an_exec_wakes_the_vm_while_aegisd_dies(seat: Seat<'_>) -> Result<()> {
    kit::install(seat, "api", &["api-daemon"])?;
    let instance = Instance::start(seat, "waker", "--kit api")?;
    let daemon = Daemon::of(seat, &instance);
    let path = "/v1/instances/waker/exec";
    let exec = |command: &str| {
        json!({
            "method": "POST",
            "path": path,
            "body": json!({"command": ["sh", "-c", command]}).to_string(),
            "retry": true,
        })
    };
    instance.act("stop")?;
    seat.systemctl("stop aegisd.service")?.success()?;
    let answer = daemon.answer(daemon.begin(&exec("echo woken"))?)?;
    assert!(
        answer["body"]
            .as_str()
            .unwrap_or_default()
            .contains("woken"),
        "{answer}"
    );
    assert_eq!(seat.active_state("aegisd.service")?, "active");
    instance.wait_for_state("running")?;

    instance.act("stop")?;
    let question = daemon.begin(&exec("sleep 2; echo again"))?;
    for _ in 0..4 {
        // While it boots, while it runs, while aegisd itself starts.
        std::thread::sleep(Duration::from_millis(1200));
        wait_until(DEADLINE, "aegisd to be there for the kill", || {
            Ok(seat.kill_aegisd().is_ok())
        })?;
    }
    let answer = daemon.answer(question)?;
    assert!(
        answer["body"]
            .as_str()
            .unwrap_or_default()
            .contains("again"),
        "{answer}"
    );
    seat.wait_for_aegisd()?;
    instance.delete()
}

#[test]
fn an_exec_wakes_the_vm_while_aegisd_dies_in_user_mode() -> Result<()> {
    let machine = Machine::temporary("test-api-killed", Systemd::V257)?;
    an_exec_wakes_the_vm_while_aegisd_dies(Seat::alice(&machine))
}

#[test]
fn an_exec_wakes_the_vm_while_aegisd_dies_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-api-killed-252", Systemd::V252)?;
    an_exec_wakes_the_vm_while_aegisd_dies(Seat::alice(&machine))
}

/// The socket is there as long as the instance is enabled, and its door only while
/// somebody comes through it.
#[test]
fn the_socket_follows_the_instance() -> Result<()> {
    let machine = Machine::temporary("test-api-socket", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    kit::install(seat, "api", &["api-daemon"])?;
    let instance = Instance::start(seat, "door", "--kit api")?;
    let (socket, door) = ("aegis-api-door.socket", "aegis-api-door.service");
    assert_eq!(seat.active_state(socket)?, "active");
    assert_eq!(seat.active_state(door)?, "inactive");
    let daemon = Daemon::of(seat, &instance);
    assert_eq!(daemon.get("/v1/instances/door")?.0, 200);
    assert_eq!(seat.active_state(door)?, "active");
    let idle = Duration::from_secs(90);
    wait_until(idle, "the door to rest", || {
        Ok(seat.active_state(door)? == "inactive")
    })?;
    assert_eq!(daemon.get("/v1/instances/door")?.0, 200);
    instance.act("disable")?;
    assert_eq!(seat.active_state(socket)?, "inactive");
    instance.act("enable")?;
    assert_eq!(seat.active_state(socket)?, "active");
    instance.daemon_pid("api-daemon")?;
    assert_eq!(daemon.get("/v1/instances/door")?.0, 200);
    instance.delete()
}
