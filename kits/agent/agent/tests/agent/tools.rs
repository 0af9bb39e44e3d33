//! Tools and settings.

use serde_json::{Value, json};

use crate::rig::Rig;

fn tool(rig: &Rig, id: &str, name: &str, input: &Value) -> String {
    rig.ask(id, &format!("tool:{name} {input}"))
}

#[test]
fn files_are_written_edited_and_found() {
    let rig = Rig::start();
    let write = json!({"path": "src/a.txt", "content": "one\ntwo\n"});
    assert!(tool(&rig, "m1", "write_file", &write).contains("Wrote 8 bytes"));
    let edit = json!({"path": "src/a.txt", "old_text": "two", "new_text": "2"});
    assert!(tool(&rig, "m2", "edit_file", &edit).contains("+2"));
    assert!(tool(&rig, "m3", "glob", &json!({"pattern": "**/*.txt"})).contains("src/a.txt"));
    assert!(tool(&rig, "m4", "grep", &json!({"pattern": "^2"})).contains("src/a.txt:2: 2"));
    let outside = json!({"path": "../outside.txt", "content": "x"});
    assert!(tool(&rig, "m5", "write_file", &outside).contains("not in /workspace"));
    assert_eq!(rig.violations(), Vec::<Value>::new());
}

#[test]
fn a_tool_that_is_switched_off_is_not_offered_and_a_call_of_it_is_refused() {
    let rig = Rig::with(r#"{"tools": {"bash": {"enabled": false}}}"#, &[]);
    let offered = rig.ask("m1", "tool-list");
    assert!(!offered.contains("bash") && offered.contains("read_file"));
    assert!(rig.ask("m2", "bash:touch ran").contains("switched off"));
    assert!(!rig.path("ran").exists());
    assert!(
        rig.ask("m3", "tool:no_such {}")
            .contains("There is no tool no_such")
    );
}

#[test]
fn settings_count_from_the_next_answer_and_broken_ones_change_nothing() {
    let rig = Rig::with(r#"{"system_prompt": "first"}"#, &[]);
    assert_eq!(rig.ask("m1", "seen:first"), "yes");
    rig.settings(r#"{"system_prompt": "second"}"#);
    assert_eq!(rig.ask("m2", "seen:second"), "yes");
    rig.settings(r#"{"system_prompt": "#);
    assert_eq!(rig.ask("m3", "seen:second"), "yes");
}

#[test]
fn broken_settings_without_good_ones_are_told_once() {
    let rig = Rig::with("{", &[]);
    let text = rig.ask("m1", "say:hi");
    assert!(
        text.contains("agent.json is not valid") && text.ends_with("hi"),
        "{text}"
    );
    assert_eq!(rig.ask("m2", "say:hi"), "hi");
}

#[test]
fn what_is_remembered_is_told_to_the_model_and_kept_from_others() {
    let rig = Rig::start();
    let fact = json!({"text": "Her cat is called Tom", "scope": "session"});
    assert!(tool(&rig, "m1", "memory_store", &fact).contains("Remembered as m-0"));
    assert_eq!(rig.ask("m2", "seen:cat is called Tom"), "yes");
    rig.say_to("host", "other", "m3", "seen:cat is called Tom");
    assert_eq!(rig.text("m3"), "no");
    assert!(rig.path(".aegis/memory/memories.jsonl").exists());
    rig.settings(r#"{"memory": {"inject_mode": "off"}}"#);
    rig.control("control.new", "n1");
    assert_eq!(rig.ask("m4", "seen:cat is called Tom"), "no");
    assert!(tool(&rig, "m5", "memory_search", &json!({"query": "cat"})).contains("m-0"));
}

#[test]
fn an_image_is_attached_to_the_answer_and_kept_under_its_hash() {
    let rig = Rig::start();
    std::fs::write(rig.path("plot.png"), b"\x89PNG\r\n\x1a\nplot").unwrap();
    rig.say(
        "m1",
        &format!("tool:respond_with_image {}", json!({"path": "plot.png"})),
    );
    let answer = rig.guest.answer("m1");
    let image = &answer["images"][0];
    assert_eq!(image["media_type"], "image/png");
    let kept = rig
        .path(".aegis/blobs")
        .join(image["blob"].as_str().unwrap());
    assert_eq!(std::fs::read(kept).unwrap(), b"\x89PNG\r\n\x1a\nplot");
}

#[test]
fn notify_from_a_scheduled_message_reaches_the_chat_people_use() {
    let rig = Rig::start();
    rig.say_to("telegram", "4242", "m1", "say:hi");
    rig.text("m1");
    rig.say_to("cron", "daily", "m2", "tool:notify {\"text\":\"wake up\"}");
    assert!(rig.text("m2").contains("Sent to telegram/4242."));
    let sent = rig.guest.wait("the notice", |state| {
        state
            .frames
            .iter()
            .find(|frame| frame["payload"]["text"] == "wake up")
            .cloned()
    });
    assert_eq!(
        sent["session"],
        json!({"channel": "telegram", "id": "4242"})
    );
    assert_eq!(sent["type"], "assistant.done");
}

#[test]
fn a_web_page_is_fetched_as_text() {
    use std::io::{Read, Write};
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            let page = match request[..length].starts_with(b"GET /old") {
                true => "HTTP/1.1 302 Found\r\nLocation: /new\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned(),
                false => {
                    let body = format!(
                        "<html><body><h1>Title</h1>{}</body></html>",
                        "y ".repeat(20_000)
                    );
                    format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\
                         Content-Length: {}\r\n\r\n{body}",
                        body.len()
                    )
                }
            };
            stream.write_all(page.as_bytes()).unwrap();
        }
    });
    let rig = Rig::start();
    let text = tool(
        &rig,
        "m1",
        "web_fetch",
        &json!({"url": format!("http://{address}/old")}),
    );
    assert!(
        text.contains("Title") && text.contains("bytes are shown"),
        "{text}"
    );
    assert!(text.len() < 12_000);
    let file = tool(
        &rig,
        "m2",
        "web_fetch",
        &json!({"url": "file:///etc/passwd"}),
    );
    assert!(file.contains("Only http and https"));
}
