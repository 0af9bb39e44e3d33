//! Messages between the host and a program in the guest that takes them
//! (`tests/kits/echo-agent.c`), and the API that the program has of its instance.

use std::time::Duration;

use aegis_tests::api_daemon::Daemon;
use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::{Seat, quote};
use aegis_tests::stand_in::StandIn;
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

fn echoing<'a>(seat: Seat<'a>, handle: &str, flags: &str) -> Result<Instance<'a>> {
    kit::install_compiled(seat, "echoing", "echo-agent")?;
    kit::install(seat, "echoing", &["api-daemon"])?;
    Instance::start(seat, handle, &format!("--kit echoing {flags}"))
}

/// The answer to a message.
fn ask(seat: Seat<'_>, handle: &str, text: &str) -> Result<String> {
    let sent = seat.aegis_ok(&format!("tether send --wait {handle} {}", quote(text)))?;
    Ok(sent.trim_end().to_owned())
}

/// Status and body of a request that the program in the guest makes.
fn guest_asks(seat: Seat<'_>, handle: &str, request: &str) -> Result<(u16, Value)> {
    let answer = ask(seat, handle, &format!("api {request}"))?;
    let (status, body) = answer.split_once(' ').context("a status and a body")?;
    let body = serde_json::from_str(body).with_context(|| format!("{request}: {answer}"))?;
    Ok((status.parse()?, body))
}

/// The messages that are kept, of these types.
fn kept(seat: Seat<'_>, handle: &str, flags: &str) -> Result<Vec<Value>> {
    let read = seat.aegis_ok(&format!("--json tether read {handle} {flags}"))?;
    let read: Value = serde_json::from_str(&read)?;
    Ok(read["frames"].as_array().context("frames")?.clone())
}

/// Each message that was sent was taken in order, and none is missing.
fn all_are_taken_in_order(seat: Seat<'_>, instance: &Instance<'_>) -> Result<()> {
    let handle = instance.handle();
    let name = |frame: &Value| frame["msg_id"].as_str().unwrap_or_default().to_owned();
    let sent = kept(seat, handle, "--type user.message")?;
    let sent: Vec<String> = sent.iter().map(name).collect();
    wait_until(DEADLINE, "every message to be told as taken", || {
        let acks = kept(seat, handle, "--type event.ack")?;
        Ok(acks.iter().map(name).collect::<Vec<_>>() == sent)
    })?;
    let taken = instance.exec_ok("cat /var/taken")?;
    let mut taken: Vec<&str> = taken.lines().collect();
    // One whose word was lost comes again, at once.
    taken.dedup();
    ensure!(taken == sent, "sent {sent:?}, taken {taken:?}");
    Ok(())
}

fn a_message_is_kept_delivered_and_answered(seat: Seat<'_>) -> Result<()> {
    let instance = echoing(seat, "echo", "")?;
    assert_eq!(ask(seat, "echo", "hello\n\"you\"")?, "echo: hello\n\"you\"");
    let types: Vec<Value> = kept(seat, "echo", "")?
        .into_iter()
        .map(|frame| frame["type"].clone())
        .collect();
    let expected = [
        "user.message",
        "event.ack",
        "status.presence",
        "assistant.done",
    ];
    assert_eq!(types, expected, "pieces are not kept");

    for _ in 0..3 {
        let sent = seat.aegis_ok("--json tether send --msg-id one echo once")?;
        let sent: Value = serde_json::from_str(&sent)?;
        assert_eq!((&sent["msg_id"], &sent["seq"]), (&json!("one"), &json!(5)));
    }
    assert_eq!(
        ask(seat, "echo", "later")?,
        "echo: later",
        "taken at the third time"
    );
    let dones = kept(seat, "echo", "--type assistant.done")?;
    assert_eq!(dones.len(), 3, "{dones:?}");

    let refused = seat.aegis("tether send --wait echo refuse")?;
    assert_eq!(refused.code(), 1);
    assert!(
        refused.error_text().contains("refuses the message: 400"),
        "{}",
        refused.error_text()
    );
    for (arguments, words) in [
        ("tether send nobody x", "there is no instance 'nobody'"),
        ("tether send echo --frame '{}'", "version 'v' is not 1"),
        (
            "tether send echo --frame '{\"v\":1,\"type\":\"assistant.done\",\"session\":{\"channel\":\"a\",\"id\":\"b\"}}'",
            "goes to the host",
        ),
    ] {
        let failed = seat.aegis(arguments)?;
        assert_ne!(failed.code(), 0, "{arguments}");
        assert!(
            failed.error_text().contains(words),
            "{arguments}: {}",
            failed.error_text()
        );
    }
    let chatted = seat
        .run("printf 'one\\n\\ntwo\\n' | aegisctl chat echo")?
        .success()?;
    assert_eq!(chatted, "echo: one\necho: two");
    let followed = seat
        .run("timeout 20 aegisctl --json tether follow echo --after 0 | head -n 4 | tail -n 1")?;
    let followed: Value = serde_json::from_str(&followed.success()?)?;
    assert_eq!(followed["type"], "assistant.done");

    instance.act("disable")?;
    let disabled = seat.aegis("tether send echo x")?;
    assert!(
        disabled.error_text().contains("is disabled"),
        "{}",
        disabled.error_text()
    );
    instance.act("enable")?;
    assert_eq!(ask(seat, "echo", "again")?, "echo: again");
    all_but_refused(seat)?;
    instance.delete()
}

/// Nothing waits any more.
fn all_but_refused(seat: Seat<'_>) -> Result<()> {
    let sent = kept(seat, "echo", "--type user.message")?.len();
    let acks = kept(seat, "echo", "--type event.ack")?;
    assert_eq!(acks.len(), sent);
    let refused = acks
        .iter()
        .filter(|ack| ack["payload"]["status"] == "refused");
    assert_eq!(refused.count(), 1);
    Ok(())
}

#[test]
fn a_message_is_kept_delivered_and_answered_in_user_mode() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    a_message_is_kept_delivered_and_answered(Seat::alice(&machine))
}

#[test]
fn a_message_is_kept_delivered_and_answered_on_systemd_252() -> Result<()> {
    let machine = Machine::shared(Systemd::V252)?;
    a_message_is_kept_delivered_and_answered(Seat::alice(&machine))
}

#[test]
fn a_message_is_kept_delivered_and_answered_in_system_mode() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    a_message_is_kept_delivered_and_answered(Seat::root(&machine))
}

/// Whatever the VM does: a message wakes it, and is delivered once it takes messages.
fn a_message_wakes_the_instance(seat: Seat<'_>) -> Result<()> {
    let instance = echoing(seat, "woken", "--idle-pause never --idle-hibernate never")?;
    assert_eq!(ask(seat, "woken", "first")?, "echo: first");
    for sleep in ["stop", "pause", "hibernate"] {
        instance.act(sleep)?;
        assert_eq!(ask(seat, "woken", sleep)?, format!("echo: {sleep}"));
        assert_eq!(instance.state()?, "running");
    }
    let qemu = instance.qemu_pid()?.context("QEMU runs")?;
    seat.run(&format!("kill -KILL {qemu}"))?.success()?;
    assert_eq!(ask(seat, "woken", "killed")?, "echo: killed");
    all_are_taken_in_order(seat, &instance)?;
    instance.delete()
}

#[test]
fn a_message_wakes_the_instance_in_user_mode() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    a_message_wakes_the_instance(Seat::alice(&machine))
}

#[test]
fn a_message_wakes_the_instance_on_systemd_252() -> Result<()> {
    let machine = Machine::shared(Systemd::V252)?;
    a_message_wakes_the_instance(Seat::alice(&machine))
}

/// Messages go on being delivered while aegisd and the VM are killed: none is lost, and
/// their order stays.
#[test]
fn no_message_is_lost_whoever_is_killed() -> Result<()> {
    let machine = Machine::temporary("test-tether-killed", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = echoing(seat, "kept", "")?;
    let mut last = String::new();
    for round in 0..12 {
        for number in 0..3 {
            let name = format!("{round}-{number}");
            // The client asks again where aegisd ended over its question.
            seat.aegis_ok(&format!("tether send --msg-id {name} kept {name}"))?;
            last = name;
        }
        match round % 4 {
            1 => drop(seat.kill_aegisd()),
            2 => {
                if let Some(qemu) = instance.qemu_pid()? {
                    seat.run(&format!("kill -KILL {qemu}"))?;
                }
            }
            3 => drop(instance.try_act("stop")?),
            _ => {}
        }
    }
    seat.wait_for_aegisd()?;
    seat.aegis_ok("tether send --msg-id end kept end")?;
    wait_until(DEADLINE, "the last message to be answered", || {
        let done = kept(seat, "kept", "--type assistant.done --tail 1")?;
        Ok(done.iter().any(|frame| frame["reply_to_msg_id"] == "end"))
    })?;
    assert!(!last.is_empty());
    all_are_taken_in_order(seat, &instance)?;
    instance.delete()
}

/// The routes for messages on the socket of an instance's daemons.
#[test]
fn a_daemon_sends_follows_and_polls() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = echoing(seat, "daemonic", "")?;
    let daemon = Daemon::of(seat, &instance);
    let at = |path: &str| format!("/v1/instances/daemonic/{path}");
    let stream = json!({"path": at("tether/stream?channel=telegram"), "lines": 6});
    let stream = daemon.begin(&stream)?;
    // The stream begins before the message comes.
    std::thread::sleep(Duration::from_secs(1));
    let frame = json!({
        "v": 1, "type": "user.message", "session": {"channel": "telegram", "id": "42"},
        "msg_id": "tg-42-1", "seq": 77, "payload": {"text": "hi"},
    });
    seat.aegis_ok(&format!("tether send daemonic --frame '{frame}'"))?;
    let lines = daemon.answer(stream)?;
    let lines = lines["body"].as_str().context("a body")?;
    let lines: Vec<Value> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let types: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["type"].as_str())
        .collect();
    let expected = [
        "user.message",
        "event.ack",
        "status.presence",
        "assistant.delta",
        "assistant.delta",
        "assistant.done",
    ];
    assert_eq!(types, expected);
    assert_eq!(lines[5]["payload"]["text"], "echo: hi");
    // Sent before: it is the same.
    let (status, body) = daemon.post(&at("tether"), &frame.to_string())?;
    let expected = json!({"msg_id": "tg-42-1", "session_id": "42", "ingress_seq": 1});
    assert_eq!(
        (status, serde_json::from_str::<Value>(&body)?),
        (202, expected)
    );

    let polled = daemon.json(&at(
        "tether/poll?reply_to_msg_id=tg-42-1&types=assistant.done",
    ))?;
    assert_eq!(polled["frames"][0]["payload"]["text"], "echo: hi");
    let next = polled["next_seq"].as_u64().context("a number")?;
    let late = daemon.json(&at(&format!("tether/poll?after_seq={next}&wait_ms=300")))?;
    assert_eq!(
        late,
        json!({"frames": [], "next_seq": next, "timed_out": true})
    );
    let waits = json!({"path": at(&format!("tether/poll?after_seq={next}&wait_ms=30000"))});
    let waits = daemon.begin(&waits)?;
    seat.aegis_ok("tether send --channel ui daemonic there")?;
    let polled: Value =
        serde_json::from_str(daemon.answer(waits)?["body"].as_str().context("a body")?)?;
    assert_eq!(polled["frames"][0]["payload"]["text"], "there");

    let mark = at("tether/watermark?channel=telegram");
    assert_eq!(daemon.json(&mark)?, json!({"seq": 0}));
    assert_eq!(daemon.post(&mark, "{\"seq\":5}")?.0, 200);
    assert_eq!(daemon.json(&mark)?, json!({"seq": 5}));
    for (path, body, expected) in [
        ("tether", "{}", 400),
        ("tether/watermark?channel=telegram", "5", 400),
        ("tether/watermark", "{\"seq\":5}", 400),
        ("blob", "no picture", 415),
    ] {
        let (status, answer) = daemon.post(&at(path), body)?;
        assert_eq!(status, expected, "{path}: {answer}");
    }
    instance.delete()
}

/// What a program in the guest can ask of its own instance.
#[test]
fn the_guest_asks_about_itself_and_nothing_else() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = echoing(seat, "selfish", "")?;
    let asks = |request: &str| guest_asks(seat, "selfish", request);
    let (status, own) = asks("GET /v1/self")?;
    assert_eq!((status, &own["handle"]), (200, &json!("selfish")));
    for (request, expected) in [
        ("GET /v1/instances", 404),
        (
            "POST /v1/instances/selfish/exec {\"command\":[\"id\"]}",
            404,
        ),
        ("PUT /v1/self", 405),
        ("POST /v1/tether/send {}", 400),
        (
            "POST /v1/llm/chat {\"provider\":\"elsewhere\",\"body\":{}}",
            400,
        ),
        (
            "POST /v1/llm/chat {\"provider\":\"ollama\",\"body\":{}}",
            502,
        ),
        ("DELETE /v1/self/expose/81", 404),
    ] {
        let (status, answer) = asks(request)?;
        assert_eq!(status, expected, "{request}: {answer}");
        assert!(
            answer["error"]["message"].is_string(),
            "{request}: {answer}"
        );
    }

    let (status, _) = asks("POST /v1/self/keepalive {\"ttl_ms\":60000,\"reason\":\"thinking\"}")?;
    assert_eq!(status, 200);
    let awake = instance.info()?;
    assert!(awake.contains("the guest: thinking"), "{awake}");
    assert_eq!(asks("DELETE /v1/self/keepalive")?.0, 200);
    let info = instance.info()?;
    assert!(!info.contains("the guest: thinking"), "{info}");

    let (status, exposed) = asks("POST /v1/self/expose {\"guest_port\":80}")?;
    assert_eq!((status, &exposed["guest_port"]), (200, &json!(80)));
    let (_, again) = asks("POST /v1/self/expose {\"guest_port\":80}")?;
    assert_eq!(again["public_port"], exposed["public_port"]);
    assert_eq!(asks("POST /v1/self/expose {\"guest_port\":81}")?.0, 200);
    let (status, third) = asks("POST /v1/self/expose {\"guest_port\":82}")?;
    assert_eq!(status, 403, "{third}");
    assert_eq!(asks("DELETE /v1/self/expose/81")?.0, 200);
    let expected = Some("80".to_owned());
    let (_, own) = asks("GET /v1/self")?;
    assert_eq!(
        own["endpoints"][0]["guest_port"]
            .as_u64()
            .map(|port| port.to_string()),
        expected
    );

    let before = instance.exec_ok("cat /proc/sys/kernel/random/boot_id")?;
    assert_eq!(asks("POST /v1/self/restart")?.0, 200);
    wait_until(DEADLINE, "the guest to have begun anew", || {
        let boot = instance.exec("cat /proc/sys/kernel/random/boot_id")?;
        Ok(boot.code() == 0 && boot.text() != before)
    })?;
    assert_eq!(ask(seat, "selfish", "back")?, "echo: back");
    instance.delete()
}

/// A model of the host answers a program in the guest in the original's way: piece by
/// piece, in order, at the program's own port.
#[test]
fn a_model_of_the_host_answers_piece_by_piece() -> Result<()> {
    let machine = Machine::temporary("test-tether-model", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let _model = StandIn::start(seat, "llm", 11434, "--no-auth")?;
    let instance = echoing(seat, "asking", "")?;
    let chat = json!({
        "provider": "ollama", "model": "test", "req_id": "r-1",
        "body": {"stream": true, "messages": [{"role": "user", "content": "say:good morning"}]},
    });
    let (status, answer) = guest_asks(seat, "asking", &format!("POST /v1/llm/chat {chat}"))?;
    assert_eq!((status, answer), (200, json!({"req_id": "r-1"})));
    let pieces = "cat /var/pieces 2>/dev/null; true";
    wait_until(DEADLINE, "the end of the answer", || {
        Ok(instance.exec_ok(pieces)?.contains("llm.done"))
    })?;
    let mut said = String::new();
    for piece in instance.exec_ok(pieces)?.lines() {
        let piece: Value = serde_json::from_str(piece)?;
        assert_eq!(piece["req_id"], "r-1");
        if piece["type"] == "llm.delta" {
            let data = piece["data"].as_str().context("data")?;
            let data: Value = serde_json::from_str(data)?;
            said += data["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap_or_default();
        }
    }
    assert_eq!(said, "good morning");
    instance.delete()
}

/// A message that nobody takes keeps the instance awake, and says so; one that is not of
/// a kit may neither open ports nor use models of the host.
#[test]
fn a_message_that_waits_keeps_the_instance_awake() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let flags = "--idle-pause 2s --idle-hibernate never -d -- sleep infinity";
    let instance = Instance::start(seat, "deaf", flags)?;
    instance.wait_for_state("paused")?;
    seat.aegis_ok("tether send deaf hello")?;
    instance.wait_for_state("running")?;
    std::thread::sleep(Duration::from_secs(5));
    let info = instance.info()?;
    assert!(info.contains("1 undelivered message"), "{info}");
    assert_eq!(instance.state()?, "running");
    let ask = "printf 'POST /v1/self/expose HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 17\\r\\n\\r\\n{\"guest_port\":80}' | nc 127.0.0.1 7777";
    let answer = instance.exec_ok(ask)?;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    instance.delete()
}
