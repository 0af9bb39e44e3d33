//! `tether` and `chat`: messages that are kept, sent and followed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, poll};
use nix::pty::openpty;
use nix::sys::termios::tcgetattr;

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

/// The side of a person at a terminal.
struct Keyboard {
    master: File,
    shown: String,
}

impl Keyboard {
    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for a text after the last that was waited for.
    fn see(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        while !self.shown.contains(text) {
            let mut ready = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            let length = match poll(&mut ready, 20_000u16).unwrap() {
                0 => 0,
                _ => self.master.read(&mut buffer).unwrap_or(0),
            };
            assert_ne!(length, 0, "{text:?} is not in {:?}", self.shown);
            self.shown
                .push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        let end = self.shown.find(text).unwrap() + text.len();
        self.shown.drain(..end);
    }
}

#[test]
fn a_chat_on_a_terminal_edits_streams_and_cancels() {
    let bench = Bench::new();
    bench.fake.keep_messages(
        "web",
        &[frame(1, "host", "of before").replace("\"7\"", "\"default\"")],
    );
    let terminal = openpty(None, None).unwrap();
    let before = tcgetattr(&terminal.slave).unwrap();
    let plain = bench.command(&["chat", "web"]);
    // Ctrl-C is a signal on the terminal of a session alone.
    let mut command = Command::new("setsid");
    command
        .args(["--ctty", "--wait"])
        .arg(plain.get_program())
        .args(plain.get_args())
        .env_clear()
        .env("TERM", "xterm");
    for (name, value) in plain.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let slave = || Stdio::from(terminal.slave.try_clone().unwrap());
    command.stdin(slave()).stdout(slave()).stderr(slave());
    let mut chat = command.spawn().unwrap();
    drop(command);
    let mut keyboard = Keyboard {
        master: File::from(terminal.master),
        shown: String::new(),
    };
    keyboard.see("> of before");
    keyboard.see("Ctrl-D leaves");
    keyboard.see("> ");
    keyboard.press("ones\x7f\r");
    keyboard.see("heard: one\r\n");
    // The keys of history bring back what was said, also before this chat.
    keyboard.see("> ");
    keyboard.press("\x1b[A\x1b[A\r");
    keyboard.see("heard: of before\r\n");
    // A line that is being typed stays under what comes meanwhile.
    keyboard.see("> ");
    keyboard.press("half");
    keyboard.see("half");
    bench.run(&[
        "tether",
        "send",
        "--session",
        "default",
        "web",
        "from elsewhere",
    ]);
    keyboard.see("heard: from elsewhere");
    keyboard.see("> half");
    keyboard.press(" whole\r");
    keyboard.see("heard: half whole");
    // Ctrl-C on a line gives it up, and does not leave.
    keyboard.see("> ");
    keyboard.press("nonsense\x03");
    keyboard.see("> ");
    keyboard.press("first\x1b\rsecond\r");
    keyboard.see("heard: first\r\nsecond");
    // Ctrl-C ends an answer; again, the wait for its end.
    keyboard.see("> ");
    keyboard.press("say nothing\r");
    let cancelled = || {
        bench
            .run(&["tether", "read", "web"])
            .stdout
            .contains("control.cancel")
    };
    let since = std::time::Instant::now();
    while !cancelled() {
        assert!(since.elapsed().as_secs() < 20, "no control.cancel");
        std::thread::sleep(std::time::Duration::from_millis(300));
        keyboard.press("\x03");
    }
    keyboard.press("\x03");
    keyboard.see("> ");
    keyboard.press("again\r");
    keyboard.see("heard: again");
    keyboard.see("> ");
    keyboard.press("\x04");
    assert_eq!(chat.wait().unwrap().code(), Some(0));
    assert_eq!(tcgetattr(&terminal.slave).unwrap(), before);
}
