//! Order, queueing, duplicates, cancel, starting afresh.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::{Rig, message};

#[test]
fn a_message_is_answered_once_with_streamed_text_and_presence() {
    let rig = Rig::start();
    assert_eq!(rig.ask("m1", "say:hello there"), "hello there");
    let frames = rig.guest.frames();
    let of = |kind: &str| {
        frames
            .iter()
            .filter(|frame| frame["type"] == kind)
            .collect::<Vec<_>>()
    };
    let streamed: String = of("assistant.delta")
        .iter()
        .map(|f| f["payload"]["text"].as_str().unwrap())
        .collect();
    assert_eq!(streamed, "hello there");
    assert_eq!(of("status.presence")[0]["payload"]["state"], "thinking");
    let done = of("assistant.done");
    assert_eq!(done.len(), 1);
    assert_eq!(done[0]["msg_id"], "re-m1");
    assert!(frames.iter().all(|frame| frame["reply_to_msg_id"] == "m1"));
    assert_eq!(rig.violations(), Vec::<Value>::new());
}

#[test]
fn text_comes_in_order_and_complete_however_slow_the_host_is() {
    let rig = Rig::start();
    rig.guest
        .change(|state| state.slow = Some(Duration::from_millis(300)));
    let text = rig.ask("m1", "long:20000");
    assert_eq!(text.len(), 20_000);
    let streamed: String = rig
        .guest
        .frames()
        .iter()
        .filter(|frame| frame["type"] == "assistant.delta")
        .map(|frame| frame["payload"]["text"].as_str().unwrap().to_owned())
        .collect();
    assert!(text.starts_with(&streamed), "text was reordered");
}

#[test]
fn messages_of_one_session_are_answered_one_after_another_in_order() {
    let rig = Rig::start();
    rig.say("m1", "slow:1 one");
    rig.say("m2", "say:two");
    rig.say("m3", "count");
    assert_eq!(rig.text("m3"), "3");
    let done: Vec<Value> = rig
        .guest
        .frames()
        .iter()
        .filter(|frame| frame["type"] == "assistant.done")
        .map(|frame| frame["payload"]["text"].clone())
        .collect();
    assert_eq!(done, ["one", "two", "3"]);
    // The first was asked without the later ones, which were there already.
    let users = |request: &Value| {
        let messages = request["body"]["messages"].as_array().unwrap();
        messages
            .iter()
            .filter(|message| message["role"] == "user")
            .count()
    };
    assert_eq!(
        rig.requests().iter().map(users).collect::<Vec<_>>(),
        [1, 2, 3]
    );
}

#[test]
fn sessions_are_answered_side_by_side() {
    let rig = Rig::start();
    let start = Instant::now();
    for n in 0..6 {
        rig.say_to("ui", &format!("s{n}"), &format!("m{n}"), "slow:2");
    }
    for n in 0..6 {
        assert_eq!(rig.text(&format!("m{n}")), "slow");
    }
    assert!(
        start.elapsed() < Duration::from_secs(9),
        "they were answered one by one"
    );
}

#[test]
fn a_message_that_comes_again_is_taken_and_not_answered_again_even_after_a_restart() {
    let mut rig = Rig::start();
    assert_eq!(rig.ask("m1", "say:once"), "once");
    rig.say("m1", "say:once");
    rig.kill();
    rig.run();
    rig.say("m1", "say:once");
    assert_eq!(rig.ask("m2", "count"), "2");
    assert_eq!(rig.guest.answers("m1").len(), 1);
}

#[test]
fn cancel_ends_the_running_answer_alone() {
    let rig = Rig::start();
    rig.say("m1", "slow:60 never");
    rig.say("m2", "say:after");
    rig.requested(1);
    rig.control("control.cancel", "c1");
    let cancelled = rig.guest.answer("m1");
    assert_eq!(cancelled, json!({"text": "Cancelled.", "cancelled": true}));
    assert_eq!(rig.text("m2"), "after");
    rig.control("control.cancel", "c2");
    assert_eq!(rig.ask("m3", "say:fine"), "fine");
}

#[test]
fn cancel_ends_what_tools_started() {
    let rig = Rig::start();
    rig.say("m1", "bash:(sleep 3; touch late) & touch early; wait");
    let until = Instant::now() + crate::guest::PATIENCE;
    while !rig.path("early").exists() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(20));
    }
    rig.control("control.cancel", "c1");
    assert_eq!(rig.text("m1"), "Cancelled.");
    std::thread::sleep(Duration::from_secs(4));
    assert!(!rig.path("late").exists(), "a child of the tool lives on");
    // The call without result does not break what follows.
    assert_eq!(rig.ask("m2", "say:fine"), "fine");
    assert_eq!(rig.violations(), Vec::<Value>::new());
}

#[test]
fn new_starts_afresh_after_what_was_said_before_and_archives_it() {
    let mut rig = Rig::start();
    rig.say("m1", "slow:1 one");
    rig.control("control.new", "n1");
    rig.say("m2", "count");
    assert_eq!(rig.text("m1"), "one");
    assert_eq!(rig.text("m2"), "1");
    let archived = std::fs::read_dir(rig.path("sessions/archive"))
        .unwrap()
        .count();
    assert_eq!(archived, 1);
    // A message of before is still known.
    rig.kill();
    rig.run();
    rig.say("m1", "slow:1 one");
    rig.control("control.new", "n1");
    assert_eq!(rig.ask("m3", "count"), "2");
    assert_eq!(rig.guest.answers("m1").len(), 1);
}

#[test]
fn bad_frames_are_refused_and_gets_say_that_the_agent_is_there() {
    let rig = Rig::start();
    assert_eq!(rig.deliver(&json!({"v": 1})), Some(400));
    assert_eq!(rig.deliver(&message("host", "a\u{7}", "m", "x")), Some(400));
    assert_eq!(
        rig.deliver(&message("host", "a", "m", &"x".repeat(2 << 20))),
        Some(413)
    );
    let unknown = json!({"v": 1, "type": "control.later",
        "session": {"channel": "host", "id": "a"}});
    assert_eq!(rig.deliver(&unknown), Some(202));
    // A channel and an id that would leave the folder do not.
    rig.say_to("../..", "/etc/x", "m1", "say:hi");
    assert_eq!(rig.text("m1"), "hi");
    assert_eq!(std::fs::read_dir(rig.path("sessions")).unwrap().count(), 1);
}

#[test]
fn a_lease_is_held_while_answers_are_made_and_given_back() {
    let rig = Rig::start();
    assert_eq!(rig.ask("m1", "slow:1"), "slow");
    rig.guest.wait("the lease", |state| {
        (state.lease.first()? == "POST" && state.lease.last()? == "DELETE").then_some(())
    });
}

#[test]
fn an_answer_waits_for_a_host_that_is_away() {
    let rig = Rig::start();
    rig.guest.change(|state| state.down = true);
    rig.say("m1", "say:kept");
    rig.say("m2", "say:too");
    rig.requested(2);
    std::thread::sleep(Duration::from_millis(300));
    rig.guest.change(|state| state.down = false);
    assert_eq!(rig.text("m1"), "kept");
    assert_eq!(rig.text("m2"), "too");
}

#[test]
fn an_idle_agent_is_small() {
    let rig = Rig::start();
    rig.ask("m1", "say:hi");
    let resident = rig.resident();
    println!("resident: {resident} KB");
    assert!(resident < 30_000, "{resident} KB");
}
