//! `tether`: messages that are kept.

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
