//! `tether` and `chat`: messages that are kept, sent and followed.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::harness::Bench;

fn frame(seq: u64, channel: &str, text: &str) -> String {
    format!(
        r#"{{"v":1,"type":"user.message","ts":"2026-01-02T03:04:05Z","seq":{seq},"session":{{"channel":"{channel}","id":"7"}},"payload":{{"text":"{text}"}}}}"#
    )
}

#[test]
fn messages_are_read_from_the_beginning_and_from_the_end() {
    let bench = Bench::new();
    let texts: Vec<String> = (1..=5)
        .map(|seq| {
            frame(
                seq,
                if seq == 2 { "ui" } else { "telegram" },
                &format!("text {seq}"),
            )
        })
        .collect();
    bench.fake.keep_messages("web", &texts);
    let read = |more: &[&str]| {
        let read = bench.run(&[&["tether", "read", "web"], more].concat());
        assert_eq!((read.code, read.stderr.as_str()), (Some(0), ""), "{read:?}");
        let lines = read.stdout.lines().skip(1);
        let number = |line: &str| line.split_whitespace().next().unwrap().to_owned();
        lines.map(number).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(read(&[]), "1 2 3 4 5", "also what is more than one answer");
    assert_eq!(read(&["--after", "3"]), "4 5");
    assert_eq!(read(&["--tail", "3"]), "3 4 5");
    assert_eq!(read(&["--tail", "9"]), "1 2 3 4 5");
    assert_eq!(read(&["--channel", "ui"]), "2");
    assert_eq!(read(&["--tail", "0"]), "");
    bench.run(&["tether", "read", "web", "--tail", "1"]).expect(
        0,
        "NUMBER  TIME                  SESSION     TYPE          MESSAGE\n\
         5       2026-01-02T03:04:05Z  telegram/7  user.message  text 5\n",
        "",
    );
    let missing = bench.run(&["tether", "read", "nobody"]);
    assert_eq!(missing.code, Some(1));
    let words = "cannot read the messages of 'nobody': there is no instance 'nobody'";
    assert!(missing.stderr.contains(words), "{missing:?}");
}

#[test]
fn a_message_is_sent_and_its_answer_waited_for() {
    let bench = Bench::new();
    let sent = bench.run(&["tether", "send", "web", "hello"]);
    sent.expect(0, "host-1\n", "");
    let waited = bench.run(&[
        "tether", "send", "--wait", "--msg-id", "m", "web", "hi\tyou",
    ]);
    waited.expect(0, "heard: hi\u{fffd}you\n", "");
    let refused = bench.run(&["tether", "send", "--wait", "--msg-id", "r", "web", "refuse"]);
    let words = "error: the program in the guest refuses the message: no (MessageRefused)\n";
    refused.expect(1, "", words);
    let frame = r#"{"v":1,"type":"user.message","session":{"channel":"ui","id":"7"},"msg_id":"f"}"#;
    let sent = bench.run(&["tether", "send", "web", "--frame", frame]);
    sent.expect(0, "f\n", "");
    let odd = bench.run(&["tether", "send", "web", "--frame", "{}"]);
    assert_eq!(odd.code, Some(2), "{odd:?}");
    let both = bench.run(&["tether", "send", "web", "x", "--frame", frame]);
    assert_eq!(both.code, Some(2), "{both:?}");
    let unnamed = bench.run(&["tether", "send", "--msg-id", "", "web", "x"]);
    assert_eq!(unnamed.code, Some(2), "{unnamed:?}");
}

#[test]
fn messages_are_followed_across_the_end_of_an_aegisd() {
    let bench = Bench::new();
    bench
        .fake
        .keep_messages("web", &[frame(3, "host", "three")]);
    let mut command = bench.command(&["--json", "tether", "follow", "web", "--after", "0"]);
    let mut following = bench.spawn(&mut command);
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut text = || {
        let line: serde_json::Value =
            serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        line["payload"]["text"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(text(), "three");
    // Longer than the fake's stream lives.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    bench.run(&["tether", "send", "web", "four"]);
    assert_eq!(text(), "four");
    following.kill().unwrap();
    following.wait().unwrap();
}

#[test]
fn a_chat_without_a_terminal_answers_line_by_line() {
    let bench = Bench::new();
    let mut command = bench.command(&["chat", "web"]);
    command.stdin(Stdio::piped());
    let mut chat = bench.spawn(&mut command);
    let mut stdin = chat.stdin.take().unwrap();
    stdin.write_all(b"one\n\n/help\nrefuse\ntwo\n").unwrap();
    drop(stdin);
    let stdout = BufReader::new(chat.stdout.take().unwrap()).lines();
    let said: Vec<String> = stdout.map(Result::unwrap).collect();
    let expected = ["heard: one", "the message was refused: no", "heard: two"];
    assert_eq!(said, expected);
    assert_eq!(chat.wait().unwrap().code(), Some(0));
}
