//! Each provider, what fails there, the context.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::Rig;

const CLAUDE: (&str, &str) = ("AEGIS_MODEL", "anthropic/claude-test");
const OPENAI: (&str, &str) = ("AEGIS_MODEL", "openai/gpt-5-test");
const HOST: (&str, &str) = ("AEGIS_MODEL", "host:ollama/small:1b");
const OTHER: (&str, &str) = ("AEGIS_MODEL", "groq/some-model");

const ALL: [(&str, &str); 4] = [OPENAI, CLAUDE, HOST, OTHER];

fn rig(model: (&str, &str)) -> Rig {
    Rig::with("{}", &[model, ("GROQ_API_KEY", "sk-groq")])
}

/// Pauses between attempts stay short where failures are many.
const FAST: &str = r#"{"max_retries": 2, "request_timeout_s": 2}"#;

#[test]
fn every_provider_streams_uses_tools_and_keeps_the_conversation() {
    for model in ALL {
        let rig = rig(model);
        assert_eq!(rig.ask("m1", "say:hello"), "hello", "{model:?}");
        let text = rig.ask("m2", "talk:bash {\"command\":\"echo $((6*7))\"}");
        assert!(
            text.starts_with("I will look.\n\ntool bash said: 42"),
            "{text}"
        );
        assert_eq!(rig.ask("m3", "count"), "3");
        // Text before a call is in the history.
        assert_eq!(rig.ask("m4", "seen:I will look."), "yes");
        assert_eq!(rig.violations(), Vec::<Value>::new(), "{model:?}");
    }
}

#[test]
fn every_provider_takes_calls_without_arguments_several_at_once_and_many_rounds() {
    for model in ALL {
        let rig = rig(model);
        assert!(
            rig.ask("m1", "empty-tool:self_info")
                .contains("\"handle\": \"test\"")
        );
        let both = rig.ask("m2", "both:bash {\"command\":\"echo hi\"}");
        assert_eq!(both, "tools said: hi\n\nhi", "{model:?}");
        assert!(
            rig.ask(
                "m3",
                "tools:3 bash {\"command\":\"echo x >> log; wc -l < log\"}"
            )
            .contains('3')
        );
        assert_eq!(rig.violations(), Vec::<Value>::new(), "{model:?}");
    }
}

#[test]
fn every_provider_is_shown_images() {
    for model in ALL {
        let rig = rig(model);
        let blob = "9".repeat(64) + ".png";
        std::fs::create_dir_all(rig.path(".aegis/blobs")).unwrap();
        std::fs::write(rig.path(".aegis/blobs").join(&blob), b"\x89PNG\r\n\x1a\nx").unwrap();
        let mut frame = crate::rig::message("host", "default", "m1", "images");
        frame["payload"]["images"] = json!([{"media_type": "image/png", "blob": blob, "size": 9}]);
        assert_eq!(rig.deliver(&frame), Some(202));
        assert_eq!(rig.text("m1"), "1 images", "{model:?}");
        assert_eq!(rig.violations(), Vec::<Value>::new());
    }
}

#[test]
fn what_may_get_better_is_tried_again_without_showing_text_twice() {
    let whole = "0123456789".repeat(8);
    for model in [OPENAI, CLAUDE, HOST] {
        let rig = Rig::with(FAST, &[model]);
        let mut complete = 0;
        for (n, kind) in [
            "500",
            "503",
            "529",
            "429",
            "html",
            "cut-early",
            "cut",
            "malformed",
            "error-event",
        ]
        .into_iter()
        .enumerate()
        {
            rig.fail(&json!({"kind": kind, "count": 1, "after": 1500}));
            let (id, before) = (format!("m{n}"), rig.guest.frames().len());
            assert_eq!(rig.ask(&id, "long:80"), whole, "{model:?} {kind}");
            let frames = rig.guest.frames();
            let deltas = frames[before..]
                .iter()
                .filter(|f| f["type"] == "assistant.delta");
            let shown: String = deltas
                .map(|f| f["payload"]["text"].as_str().unwrap().to_owned())
                .collect();
            // A piece that is lost on its way is not sent again; the answer has it.
            assert!(shown.len() <= whole.len(), "{model:?} {kind}: {shown}");
            complete += usize::from(shown == whole);
        }
        assert!(complete >= 7, "{model:?}: {complete} were shown whole");
        assert_eq!(rig.violations(), Vec::<Value>::new(), "{model:?}");
    }
}

#[test]
fn a_rate_limit_is_waited_for_as_long_as_it_says() {
    let rig = Rig::start();
    rig.fail(&json!({"kind": "429", "count": 1, "retry_after": 2}));
    let start = Instant::now();
    assert_eq!(rig.ask("m1", "say:late"), "late");
    assert!(start.elapsed() >= Duration::from_secs(2));
}

#[test]
fn a_provider_that_goes_silent_is_asked_again() {
    for kind in ["stall-early", "stall"] {
        let rig = Rig::with(FAST, &[]);
        rig.fail(&json!({"kind": kind, "count": 1, "seconds": 20}));
        assert_eq!(rig.ask("m1", "say:awake"), "awake");
    }
}

#[test]
fn a_lasting_failure_is_one_clear_answer_without_key_or_address() {
    let url = "http://user:secret@127.0.0.1:9/v1";
    let cases = [
        (json!({"kind": "401", "count": 1}), "401"),
        (json!({"kind": "malformed", "count": 9}), "cannot be read"),
        (json!({"kind": "500", "count": 9}), "500"),
        (json!({"kind": "cut", "count": 9}), "broke"),
    ];
    for (failure, told) in cases {
        let rig = Rig::with(r#"{"max_retries": 1}"#, &[]);
        rig.fail(&failure);
        rig.say("m1", "say:hi");
        let answer = rig.guest.answer("m1");
        let text = answer["text"].as_str().unwrap();
        assert_eq!(answer["error"], true);
        assert!(text.contains(told), "{text}");
        assert!(
            !text.contains("sk-test") && !text.contains("127.0.0.1"),
            "{text}"
        );
    }
    let rig = Rig::with(
        &format!(r#"{{"max_retries": 0, "base_url": "{url}"}}"#),
        &[],
    );
    let text = rig.ask("m1", "say:hi");
    assert!(
        text.contains("cannot be reached") && !text.contains("secret"),
        "{text}"
    );
    assert!(!text.contains("127.0.0.1"), "{text}");
}

#[test]
fn without_a_key_or_with_a_bad_model_the_user_is_told() {
    let rig = Rig::with("{}", &[("AEGIS_MODEL", "groq/m")]);
    assert!(rig.ask("m1", "x").contains("GROQ_API_KEY"));
    let rig = Rig::with("{}", &[("AEGIS_MODEL", "nothing")]);
    assert!(rig.ask("m1", "x").contains("PROVIDER/MODEL"));
}

#[test]
fn an_answer_that_reaches_its_longest_length_or_is_refused_says_so() {
    for model in [OPENAI, CLAUDE] {
        let rig = rig(model);
        let text = rig.ask("m1", "cut:begun");
        assert!(
            text.starts_with("begun\n\n[The answer was cut off"),
            "{text}"
        );
        assert!(!rig.ask("m2", "refuse").is_empty());
    }
}

#[test]
fn reasoning_is_streamed_and_not_kept() {
    let rig = rig(HOST);
    // A piece that its answer overtakes is not shown any more: one in time is waited for.
    let frames = (1..=50).find_map(|n| {
        let id = format!("m{n}");
        assert_eq!(rig.ask(&id, "think:so"), "so");
        let mut frames = rig.guest.frames();
        frames.retain(|frame| frame["reply_to_msg_id"] == id.as_str());
        let shown = |frame: &serde_json::Value| frame["type"] == "reasoning.delta";
        frames.iter().any(shown).then_some(frames)
    });
    let frames = frames.unwrap();
    let at = |kind: &str| {
        frames
            .iter()
            .position(|frame| frame["type"] == kind)
            .unwrap()
    };
    assert!(at("reasoning.delta") < at("reasoning.done"));
    assert!(at("reasoning.done") < at("assistant.done"));
    assert!(
        !std::fs::read_to_string(rig.path("sessions/host_default.jsonl"))
            .unwrap()
            .contains("Let me think")
    );
}

#[test]
fn a_model_that_never_stops_calling_tools_is_stopped() {
    let rig = Rig::with(r#"{"max_tool_rounds": 3}"#, &[]);
    rig.say("m1", "forever:bash {\"command\":\"true\"}");
    let answer = rig.guest.answer("m1");
    assert_eq!(answer["text"], "Tool loop limit reached.");
    assert_eq!(rig.requests().len(), 3);
    assert_eq!(rig.ask("m2", "say:fine"), "fine");
}

#[test]
fn a_giant_message_is_answered() {
    let rig = Rig::start();
    let text = rig.ask("m1", &format!("count\n{}", "x".repeat(500_000)));
    assert_eq!(text, "1");
    let body = rig.requests()[0]["body"].to_string();
    assert!(body.len() < 60_000, "{} bytes", body.len());
}

#[test]
fn older_messages_become_a_summary_that_the_model_goes_on_with() {
    for model in [OPENAI, CLAUDE] {
        let rig = Rig::with(r#"{"context_chars": 6000}"#, &[model]);
        for n in 0..8 {
            let text = format!("say:ok {n} {}\nkeep:word{n}", "x".repeat(500));
            rig.ask(&format!("m{n}"), &text);
        }
        let turns = rig.turns("host_default.jsonl");
        assert!(
            turns.iter().any(|turn| turn["role"] == "summary"),
            "{model:?}"
        );
        assert_eq!(rig.ask("n1", "seen:SUMMARY of"), "yes");
        assert_eq!(rig.ask("n2", "seen:word0"), "yes");
        // Each request stays within the limit, but for the prompt and the tools.
        for request in rig.requests() {
            assert!(request["body"]["messages"].to_string().len() < 12_000);
        }
        assert_eq!(rig.violations(), Vec::<Value>::new());
    }
}

#[test]
fn a_summary_that_fails_stops_nothing() {
    let rig = Rig::with(r#"{"context_turns": 6, "max_retries": 0}"#, &[]);
    for n in 0..2 {
        rig.ask(&format!("m{n}"), "say:x");
    }
    rig.fail(&json!({"kind": "500", "count": 1}));
    assert_eq!(rig.ask("m2", "say:still here"), "still here");
}

#[test]
fn a_model_that_takes_less_is_asked_with_less() {
    let rig = Rig::start();
    for n in 0..5 {
        rig.ask(&format!("m{n}"), &format!("say:{}", "x".repeat(1800)));
    }
    rig.fail(&json!({"kind": "too-long", "count": 1}));
    assert_eq!(rig.ask("m5", "say:fits"), "fits");
    let requests = rig.requests();
    let size = |n: usize| {
        requests[requests.len() - n]["body"]["messages"]
            .to_string()
            .len()
    };
    assert!(size(1) < size(2));
}

#[test]
fn settings_of_addresses_win_and_tokens_are_counted() {
    let rig = Rig::with(
        r#"{"max_tokens": 77, "system_prompt": "Be brief."}"#,
        &[CLAUDE],
    );
    rig.ask("m1", "say:hi");
    let body = &rig.requests()[0]["body"];
    assert_eq!(body["max_tokens"], 77);
    assert!(body["system"].as_str().unwrap().starts_with("Be brief."));
    let turns = rig.turns("host_default.jsonl");
    let answer = turns.iter().find(|turn| turn["final"] == true).unwrap();
    assert!(answer["usage"]["input"].as_u64().unwrap() > 0);
}

#[test]
fn names_of_secrets_are_not_in_the_prompt() {
    let rig = Rig::with("{}", &[("MY_PRIVATE_TOKEN", "x")]);
    rig.ask("m1", "say:hi");
    assert!(
        !rig.requests()[0]["body"]
            .to_string()
            .contains("MY_PRIVATE_TOKEN")
    );
}
