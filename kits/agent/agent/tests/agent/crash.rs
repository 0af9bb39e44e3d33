//! One answer, whenever the agent ends. It is ended by SIGKILL, as by a VM that dies.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::guest::PATIENCE;
use crate::rig::{Rig, message};

#[test]
fn messages_that_were_taken_are_answered_in_order_by_the_next_agent() {
    let mut rig = Rig::start();
    rig.say("m1", "slow:60 one");
    rig.say("m2", "say:two");
    rig.requested(1);
    rig.kill();
    // The first is asked again; it would take a minute, so it is cancelled.
    rig.run();
    rig.say("m3", "say:three");
    rig.requested(2);
    rig.control("control.cancel", "c1");
    assert_eq!(rig.text("m1"), "Cancelled.");
    assert_eq!(rig.text("m2"), "two");
    assert_eq!(rig.text("m3"), "three");
    let done = |frame: &&Value| frame["type"] == "assistant.done";
    let order: Vec<Value> = rig
        .guest
        .frames()
        .iter()
        .filter(done)
        .map(|frame| frame["reply_to_msg_id"].clone())
        .collect();
    assert_eq!(order, ["m1", "m2", "m3"]);
}

#[test]
fn an_agent_that_ends_at_any_moment_leaves_exactly_one_answer() {
    let mut rig = Rig::start();
    for (round, milliseconds) in [0, 3, 8, 15, 25, 40, 60, 90, 130, 200]
        .into_iter()
        .enumerate()
    {
        let ids: Vec<String> = (0..3).map(|n| format!("m{round}-{n}")).collect();
        for (n, id) in ids.iter().enumerate() {
            let text = match n {
                0 => "slow:0.05 short",
                1 => "bash:echo from a tool",
                _ => "long:500",
            };
            rig.say(id, text);
        }
        std::thread::sleep(Duration::from_millis(milliseconds));
        rig.kill();
        rig.run();
        // What the host does not know to be taken it delivers again.
        for id in &ids {
            rig.say(id, "say:again");
            rig.text(id);
        }
    }
    let frames = rig.guest.frames();
    let done = frames
        .iter()
        .filter(|frame| frame["type"] == "assistant.done");
    let mut ids: Vec<String> = done
        .map(|frame| frame["reply_to_msg_id"].to_string())
        .collect();
    assert_eq!(ids.len(), 30);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 30);
    assert!(
        frames
            .iter()
            .all(|frame| frame["payload"]["text"] != "again")
    );
    assert_eq!(rig.violations(), Vec::<Value>::new());
}

#[test]
fn an_answer_that_was_made_and_not_sent_is_sent_by_the_next_agent_without_asking_again() {
    let mut rig = Rig::start();
    rig.guest.change(|state| state.down = true);
    rig.say("m1", "say:kept");
    let until = Instant::now() + PATIENCE;
    while !rig
        .turns("host_default.jsonl")
        .iter()
        .any(|turn| turn["final"] == true)
    {
        assert!(Instant::now() < until, "the answer is not kept");
        std::thread::sleep(Duration::from_millis(20));
    }
    rig.kill();
    rig.guest.change(|state| state.down = false);
    rig.run();
    assert_eq!(rig.text("m1"), "kept");
    assert_eq!(rig.requests().len(), 1);
    // Once it has arrived, it is not sent again.
    let until = Instant::now() + PATIENCE;
    while !rig
        .turns("host_default.jsonl")
        .iter()
        .any(|turn| turn["content"] == "sent")
    {
        assert!(Instant::now() < until, "it is not noted");
        std::thread::sleep(Duration::from_millis(20));
    }
    rig.kill();
    rig.run();
    assert_eq!(rig.ask("m2", "say:next"), "next");
    rig.guest.change(|state| assert_eq!(state.again, 0));
}

#[test]
fn a_tool_that_was_running_is_not_run_again() {
    let mut rig = Rig::start();
    rig.say("m1", "bash:echo x >> runs; sleep 30");
    let until = Instant::now() + PATIENCE;
    while !rig.path("runs").exists() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(20));
    }
    rig.kill();
    rig.run();
    assert!(
        rig.text("m1")
            .contains("The agent was restarted during this call")
    );
    assert_eq!(std::fs::read_to_string(rig.path("runs")).unwrap(), "x\n");
    assert_eq!(rig.violations(), Vec::<Value>::new());
}

#[test]
fn a_message_that_ends_the_agent_time_after_time_is_given_up() {
    let mut rig = Rig::start();
    rig.say("m1", "slow:60");
    rig.requested(1);
    for round in 2..=4 {
        rig.kill();
        rig.run();
        rig.requested(round);
    }
    rig.kill();
    rig.run();
    let answer = rig.guest.answer("m1");
    assert_eq!(answer["error"], true);
    assert!(answer["text"].as_str().unwrap().contains("given up"));
    assert_eq!(rig.ask("m2", "say:fine"), "fine");
}

#[test]
fn half_a_line_in_a_sessions_file_costs_that_line_alone() {
    let mut rig = Rig::idle("{}", &[]);
    std::fs::create_dir(rig.path("sessions")).unwrap();
    let turn =
        |role: &str, text: &str| json!({"role": role, "content": text, "ts": ""}).to_string();
    let long = "x".repeat(300 * 1024);
    let text = format!(
        "{}\n{}\n{}\n{}\n{{\"role\":\"user\",\"cont",
        turn("user", "say:first"),
        turn("assistant", "first"),
        turn("user", &long),
        turn("assistant", "long"),
    );
    std::fs::write(rig.path("sessions/host_default.jsonl"), text).unwrap();
    rig.variables("AEGIS_CONTEXT_CHARS", "1000000");
    rig.run();
    assert_eq!(rig.ask("m1", "count"), "3");
}

#[test]
fn a_restart_is_asked_for_after_the_answer_and_announced_once_it_is_over() {
    let mut rig = Rig::start();
    let text = rig.ask("m1", "tool:self_restart {}");
    assert!(text.contains("restarts once your answer has arrived"));
    rig.guest
        .wait("the restart", |state| (state.restarts == 1).then_some(()));
    assert!(rig.path(".aegis/restart-pending.json").exists());
    rig.kill();
    rig.run();
    let done = |frame: &&Value| {
        frame["type"] == "assistant.done" && frame["payload"]["text"] == "Restart complete."
    };
    let frame = rig.guest.wait("the message", |state| {
        state.frames.iter().find(done).cloned()
    });
    assert_eq!(
        frame["session"],
        json!({"channel": "host", "id": "default"})
    );
    let until = Instant::now() + PATIENCE;
    while rig.path(".aegis/restart-pending.json").exists() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(rig.guest.answers("m1").len(), 1);
}

#[test]
fn a_message_that_cannot_be_kept_is_not_taken() {
    let rig = Rig::start();
    std::fs::write(rig.path("sessions"), "a file where the folder should be").unwrap();
    assert_eq!(
        rig.deliver(&message("host", "default", "m1", "say:hi")),
        Some(503)
    );
    std::fs::remove_file(rig.path("sessions")).unwrap();
    assert_eq!(rig.ask("m1", "say:hi"), "hi");
}
