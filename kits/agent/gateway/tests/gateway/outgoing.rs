//! What the agent says arrives in the chat: all of it, once, in order, and well formed.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::world::{ANN, GROUP, World};

fn blob(ending: &str) -> String {
    format!("{}.{ending}", "b".repeat(64))
}

#[tokio::test]
async fn an_answer_is_shown_while_it_is_written_and_formatted_at_the_end() {
    let world = World::strict().await;
    let id = world.telegram.write(ANN, "hello").await;
    world.taken(1).await;
    let words = ["It ", "is ", "**so**", " and ", "`so`", "."];
    for word in words {
        world.aegisd.delta(ANN, &id, word);
        sleep(Duration::from_millis(400)).await;
    }
    world.aegisd.done(ANN, &id, &words.concat());
    world
        .telegram
        .wait_texts(ANN, |texts| texts == ["It is so and so."])
        .await;
    let message = &world.telegram.chat(ANN).await[0];
    assert_eq!(message["raw"], "It is <b>so</b> and <code>so</code>.");
    assert!(message["edits"].as_u64().unwrap() >= 2, "{message}");
    assert_ne!(message["first"], "It is so and so.");
    assert_eq!(world.telegram.violations().await.len(), 0);
    // Typing stops at the answer.
    let actions = world.telegram.ask("state").await["actions"]["42"]
        .as_u64()
        .unwrap();
    sleep(Duration::from_secs(6)).await;
    assert_eq!(
        world.telegram.ask("state").await["actions"]["42"]
            .as_u64()
            .unwrap(),
        actions
    );
}

#[tokio::test]
async fn pieces_that_come_before_the_message_is_taken_are_not_lost() {
    let world = World::start().await;
    // The stand-in answers within the call that hands the message over.
    world.aegisd.echo();
    for number in 0..5 {
        world.telegram.write(ANN, &format!("{number}")).await;
    }
    let texts = world
        .telegram
        .wait_texts(ANN, |texts| texts.len() == 5)
        .await;
    assert_eq!(texts[4], "You said: 4");
    world.aegisd.delta(ANN, "tg-42-9999", "early");
    world
        .telegram
        .wait_texts(ANN, |texts| {
            texts.last().is_some_and(|text| text == "early")
        })
        .await;
}

#[tokio::test]
async fn a_long_answer_comes_in_messages_that_telegram_takes() {
    let world = World::start().await;
    let id = world.telegram.write(ANN, "long").await;
    world.taken(1).await;
    let mut text = String::new();
    for number in 0..120 {
        text.push_str(&format!(
            "Paragraph **{number}** with some words 😀 and more of them & <so>.\n\n"
        ));
    }
    text.push_str("```python\n");
    for number in 0..250 {
        text.push_str(&format!("print({number})  # a line of code\n"));
    }
    text.push_str("```\n");
    for piece in text.as_bytes().chunks(3000) {
        world
            .aegisd
            .delta(ANN, &id, &String::from_utf8_lossy(piece));
        sleep(Duration::from_millis(200)).await;
    }
    world.aegisd.done(ANN, &id, &text);
    let texts = world.telegram.wait_texts(ANN, |texts| {
        texts
            .last()
            .is_some_and(|text| text.ends_with("print(249)  # a line of code"))
            && texts[0].starts_with("Paragraph 0 with")
    });
    let all = texts.await.join("\n");
    for number in 0..120 {
        assert_eq!(
            all.matches(&format!("Paragraph {number} ")).count(),
            1,
            "{number}"
        );
    }
    for number in 0..250 {
        assert_eq!(
            all.matches(&format!("print({number}) ")).count(),
            1,
            "{number}"
        );
    }
    assert!(!all.contains("**") && !all.contains("```"));
}

#[tokio::test]
async fn a_text_whose_marks_are_refused_arrives_without_them() {
    let world = World::start().await;
    let id = world.telegram.write(ANN, "hello").await;
    world.taken(1).await;
    let order = json!({"method": "sendMessage", "times": 1, "kind": "400",
        "description": "Bad Request: can't parse entities: Unsupported start tag \"x\" at byte offset 3"});
    world.telegram.order("fail", order).await;
    world.aegisd.done(ANN, &id, "**bold** & more");
    world
        .telegram
        .wait_texts(ANN, |texts| texts == ["bold & more"])
        .await;
    assert_eq!(world.telegram.chat(ANN).await[0]["raw"], "bold & more");
}

#[tokio::test]
async fn images_are_photos_with_their_type_and_a_caption() {
    let world = World::start().await;
    let id = world.telegram.write(ANN, "draw").await;
    world.taken(1).await;
    world
        .aegisd
        .put_file(&format!(".aegis/blobs/{}", blob("png")), b"\x89PNG some");
    world
        .aegisd
        .put_file(&format!(".aegis/blobs/{}", blob("gif")), b"GIF89a some");
    world
        .aegisd
        .put_file(&format!(".aegis/blobs/{}", blob("webp")), b"-> symlink");
    let image = |ending| json!({"media_type": "image/png", "blob": blob(ending), "size": 9});
    let say = |id: &str, text: &str, images| {
        world.aegisd.say(
            json!({"v": 1, "type": "assistant.done", "msg_id": format!("re-{id}"),
            "session": {"channel": "telegram", "id": "42"}, "reply_to_msg_id": id,
            "payload": {"text": text, "images": images}}),
        );
    };
    say(&id, "a *cat*", json!([image("png")]));
    say("b", &"long ".repeat(300), json!([image("gif")]));
    say(
        "c",
        "",
        json!([image("webp"), {"blob": "../../etc/passwd"}]),
    );
    let texts = world
        .telegram
        .wait_texts(ANN, |texts| texts.len() == 4)
        .await;
    let chat = world.telegram.chat(ANN).await;
    let told: Vec<_> = chat
        .iter()
        .map(|message| (&message["kind"], &message["name"], &message["type"]))
        .collect();
    let (photo, document, text) = (json!("photo"), json!("document"), json!("text"));
    assert_eq!(told[0], (&photo, &json!("image.png"), &json!("image/png")));
    assert_eq!(
        (texts[0].as_str(), &chat[0]["raw"]),
        ("a cat", &json!("a <i>cat</i>"))
    );
    assert_eq!(told[1].0, &text);
    assert_eq!(
        told[2],
        (&document, &json!("image.gif"), &json!("image/gif"))
    );
    assert_eq!(told[3].0, &text);
    assert!(texts[3].contains("could not be read"), "{texts:?}");
}

#[tokio::test]
async fn a_photo_that_is_refused_is_sent_as_a_document() {
    let world = World::start().await;
    world
        .aegisd
        .put_file(&format!(".aegis/blobs/{}", blob("png")), b"not a picture");
    world
        .aegisd
        .say(json!({"v": 1, "type": "assistant.done", "msg_id": "x",
        "session": {"channel": "telegram", "id": "42"},
        "payload": {"text": "see", "images": [{"blob": blob("png")}]}}));
    world
        .telegram
        .wait_texts(ANN, |texts| texts == ["see"])
        .await;
    assert_eq!(world.telegram.chat(ANN).await[0]["kind"], "document");
}

#[tokio::test]
async fn what_the_agent_says_unasked_reaches_the_owner() {
    let world = World::start().await;
    for (id, text) in [("default", "a notice"), ("42", "another")] {
        world
            .aegisd
            .say(json!({"v": 1, "type": "assistant.done", "msg_id": text,
            "session": {"channel": "telegram", "id": id}, "payload": {"text": text}}));
    }
    world
        .telegram
        .wait_texts(ANN, |texts| texts == ["a notice", "another"])
        .await;
}

#[tokio::test]
async fn a_message_that_is_gone_is_sent_anew() {
    let world = World::start().await;
    let id = world.telegram.write(ANN, "hello").await;
    world.taken(1).await;
    world.aegisd.delta(ANN, &id, "Some");
    world
        .telegram
        .wait_texts(ANN, |texts| texts == ["Some"])
        .await;
    world.telegram.order("forget", json!({"chat": ANN})).await;
    world.aegisd.done(ANN, &id, "Some more");
    world
        .telegram
        .wait_texts(ANN, |texts| texts == ["Some more"])
        .await;
    // One that is shown already as it shall be is done.
    let id = world.telegram.write(ANN, "again").await;
    world.taken(2).await;
    world.aegisd.delta(ANN, &id, "Same");
    world
        .telegram
        .wait_texts(ANN, |texts| texts == ["Some more", "Same"])
        .await;
    let seq = world.aegisd.done(ANN, &id, "Same");
    world.done_with(seq).await;
    assert_eq!(world.telegram.texts(ANN).await, ["Some more", "Same"]);
}

#[tokio::test]
async fn a_chat_that_has_blocked_the_bot_holds_up_nobody() {
    let world = World::start().await;
    world.telegram.order("block", json!({"chat": ANN})).await;
    world.aegisd.done(ANN, "tg-42-1", "you do not hear me");
    let seq = world.aegisd.done(GROUP, "tg--100200-1", "but you");
    world
        .telegram
        .wait_texts(GROUP, |texts| texts == ["but you"])
        .await;
    world.logged("chat 42 cannot be written to").await;
    world.done_with(seq).await;
}

#[tokio::test]
async fn in_a_group_twenty_messages_a_minute_are_never_exceeded() {
    let world = World::strict().await;
    for run in 0..3 {
        let id = format!("tg-{GROUP}-{}", 9000 + run);
        for piece in 0..10 {
            world.aegisd.delta(GROUP, &id, &format!("{piece} "));
            sleep(Duration::from_millis(300)).await;
        }
        world.aegisd.done(GROUP, &id, &format!("answer {run}"));
    }
    let wanted = ["answer 0", "answer 1", "answer 2"];
    world
        .telegram
        .wait_texts(GROUP, |texts| texts == wanted)
        .await;
    assert_eq!(world.telegram.violations().await.len(), 0);
}
