//! MCP servers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::guest::PATIENCE;
use crate::rig::Rig;

fn settings(more: &Value) -> String {
    let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agent/mcp_server.py");
    let mut settings = json!({"mcp": {"my": {"command": "python3", "args": [server, "mcp.log"]}}});
    for (key, value) in more.as_object().unwrap() {
        settings[key] = value.clone();
    }
    settings.to_string()
}

fn rig(more: &Value) -> Rig {
    Rig::with(&settings(more), &[])
}

#[test]
fn tools_of_a_server_are_offered_and_called() {
    let rig = rig(&json!({}));
    let offered = rig.ask("m1", "tool-list");
    assert!(
        offered.contains("my_add") && offered.contains("bash"),
        "{offered}"
    );
    assert!(
        rig.ask("m2", "tool:my_add {\"a\":1,\"b\":2}")
            .contains("said: 3")
    );
    // Answers belong to their calls, whatever else a server says.
    assert!(rig.ask("m3", "tool:my_noise {}").contains("said: quiet"));
    let log = std::fs::read_to_string(rig.path("mcp.log")).unwrap();
    assert!(
        log.starts_with("start\ninitialize\nnotifications/initialized\ntools/list\n"),
        "{log}"
    );
    assert_eq!(rig.violations(), Vec::<Value>::new());
}

#[test]
fn images_and_errors_of_a_server_are_passed_on() {
    for model in ["openai/test", "anthropic/test"] {
        let rig = Rig::with(&settings(&json!({})), &[("AEGIS_MODEL", model)]);
        assert!(rig.ask("m1", "tool:my_fail {}").contains("it went wrong"));
        rig.ask("m2", "tool:my_picture {}");
        let turns = rig.turns("host_default.jsonl");
        assert!(
            turns
                .iter()
                .any(|turn| turn["role"] == "tool" && turn["error"] == true)
        );
        let body = rig.requests().last().unwrap()["body"].to_string();
        assert!(body.contains("image/png"), "{body}");
        assert_eq!(rig.violations(), Vec::<Value>::new());
    }
}

#[test]
fn one_slow_tool_blocks_no_other() {
    let rig = rig(&json!({}));
    rig.ask("m0", "tool:my_pid {}");
    rig.say_to("host", "slow", "m1", "tool:my_sleep {\"seconds\":5}");
    let start = Instant::now();
    assert!(
        rig.ask("m2", "tool:my_add {\"a\":1,\"b\":2}")
            .contains("said: 3")
    );
    assert!(start.elapsed() < Duration::from_secs(4));
    assert!(rig.text("m1").contains("slept"));
}

#[test]
fn a_server_that_ended_is_started_again() {
    let rig = rig(&json!({}));
    let first = rig.ask("m1", "tool:my_pid {}");
    rig.ask("m2", "tool:my_die {}");
    let second = rig.ask("m3", "tool:my_pid {}");
    assert!(second.contains("said: ") && first != second, "{second}");
}

#[test]
fn cancel_cancels_the_call_at_the_server() {
    let rig = rig(&json!({}));
    rig.say("m1", "tool:my_sleep {\"seconds\":30}");
    let logged = |text: &str| {
        std::fs::read_to_string(rig.path("mcp.log"))
            .unwrap_or_default()
            .contains(text)
    };
    let wait = |text: &str| {
        let until = Instant::now() + PATIENCE;
        while !logged(text) {
            assert!(Instant::now() < until, "no {text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait("tools/call");
    rig.control("control.cancel", "c1");
    assert_eq!(rig.text("m1"), "Cancelled.");
    wait("notifications/cancelled");
}

#[test]
fn a_tool_of_a_server_can_be_switched_off() {
    let rig = rig(&json!({"tools": {"my_add": {"enabled": false}}}));
    assert!(!rig.ask("m1", "tool-list").contains("my_add"));
    assert!(
        rig.ask("m2", "tool:my_add {\"a\":1,\"b\":2}")
            .contains("switched off")
    );
}

#[test]
fn a_server_that_does_not_start_stops_nothing() {
    let settings = json!({"mcp": {"gone": {"command": "/nowhere/server"},
        "mute": {"command": "true"}}});
    let rig = Rig::with(&settings.to_string(), &[]);
    assert_eq!(rig.ask("m1", "say:fine"), "fine");
    assert_eq!(rig.ask("m2", "say:still"), "still");
}
