//! What people write arrives at the instance: all of it, once, in order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::aegisd::Mood;
use crate::world::{ANN, BOT, GROUP, World, wait_for};

fn data(bytes: &[u8]) -> Value {
    json!({"data": STANDARD.encode(bytes)})
}

fn jpeg(number: u8) -> Vec<u8> {
    [b"\xff\xd8\xff\xe0 some photo ".as_slice(), &[number]].concat()
}

#[tokio::test]
async fn a_message_goes_in_and_its_answer_comes_out() {
    let world = World::start().await;
    let id = world.telegram.write(ANN, "hello").await;
    let frames = world.taken(1).await;
    assert_eq!(frames[0]["payload"]["text"], "hello");
    assert_eq!(frames[0]["msg_id"], id.as_str());
    assert_eq!(
        frames[0]["session"],
        json!({"channel": "telegram", "id": "42"})
    );
    let user = json!({"id": "42", "name": "Ann", "username": "ann"});
    assert_eq!(frames[0]["payload"]["user"], user);
    world.aegisd.done(ANN, &id, "**hi** there");
    let texts = world
        .telegram
        .wait_texts(ANN, |texts| !texts.is_empty())
        .await;
    assert_eq!(texts, ["hi there"]);
    assert_eq!(world.telegram.violations().await.len(), 0);
}

#[tokio::test]
async fn a_photo_comes_in_its_largest_size_and_an_image_document_as_an_image() {
    let world = World::start().await;
    let photo = json!({"photo": data(&jpeg(1)), "caption": "what is it?"});
    world.telegram.send(ANN, photo).await;
    let document = json!({"document": {"data": STANDARD.encode(b"\x89PNG picture"),
        "file_name": "a.png", "mime_type": "image/png"}});
    world.telegram.send(ANN, document).await;
    let frames = world.taken(2).await;
    assert_eq!(frames[0]["payload"]["text"], "what is it?");
    let image = &frames[0]["payload"]["images"][0];
    assert_eq!(
        (&image["media_type"], &image["size"]),
        (&json!("image/jpeg"), &json!(jpeg(1).len()))
    );
    let path = format!(".aegis/blobs/{}", image["blob"].as_str().unwrap());
    assert_eq!(world.aegisd.file(&path).unwrap(), jpeg(1));
    assert_eq!(frames[1]["payload"]["images"][0]["media_type"], "image/png");
    assert_eq!(frames[1]["payload"]["text"], "");
}

#[tokio::test]
async fn an_album_is_one_message_and_its_fifth_photo_a_file() {
    let world = World::start().await;
    for number in 0..5 {
        let mut photo = json!({"photo": data(&jpeg(number)), "media_group_id": "album"});
        if number == 0 {
            photo["caption"] = "five".into();
        }
        world.telegram.send(ANN, photo).await;
    }
    world.telegram.write(ANN, "and then").await;
    let frames = world.taken(2).await;
    assert_eq!(frames[0]["payload"]["text"], "five");
    assert_eq!(frames[0]["payload"]["images"].as_array().unwrap().len(), 4);
    assert_eq!(frames[0]["payload"]["files"].as_array().unwrap().len(), 1);
    assert_eq!(frames[1]["payload"]["text"], "and then");
}

#[tokio::test]
async fn a_document_lies_in_the_workspace_and_is_named() {
    let world = World::start().await;
    let document = json!({"document": {"data": STANDARD.encode(b"%PDF"), "file_name": "../my report.pdf",
        "mime_type": "application/pdf"}, "caption": "read this"});
    let id = world.telegram.send(ANN, document).await;
    let frames = world.taken(1).await;
    let path = format!(
        ".aegis/files/{}-_my_report.pdf",
        id.replacen("tg-", "tg", 1)
    );
    let file =
        json!({"path": path, "name": "_my_report.pdf", "media_type": "application/pdf", "size": 4});
    assert_eq!(frames[0]["payload"]["files"], json!([file]));
    assert_eq!(world.aegisd.file(&path).unwrap(), b"%PDF");
}

#[tokio::test]
async fn what_cannot_be_taken_is_answered_with_one_sentence() {
    let world = World::start().await;
    world
        .telegram
        .send(ANN, json!({"voice": {"file_id": "x", "duration": 1}}))
        .await;
    world
        .telegram
        .send(ANN, json!({"sticker": {"file_id": "x"}}))
        .await;
    let large = json!({"document": {"size": 11 << 20, "file_name": "a.zip"}});
    world.telegram.send(ANN, large).await;
    // Somebody joins a group and the like: nothing at all.
    world.telegram.send(ANN, json!({})).await;
    world
        .telegram
        .send(ANN, json!({"text": "typo", "as": "edited_message"}))
        .await;
    world
        .telegram
        .order("update", json!({"raw": {"message": {"odd": 1}}}))
        .await;
    world.telegram.write(ANN, "last").await;
    world.taken(1).await;
    let texts = world
        .telegram
        .wait_texts(ANN, |texts| texts.len() == 3)
        .await;
    assert!(texts[0].contains("voice messages"), "{texts:?}");
    assert!(texts[1].contains("stickers"), "{texts:?}");
    assert!(texts[2].contains("10 MB"), "{texts:?}");
}

#[tokio::test]
async fn a_file_that_telegram_does_not_give_at_first_arrives() {
    let world = World::start().await;
    world.telegram.fail("getFile", 1, "500").await;
    world.telegram.fail("download", 1, "cut").await;
    world
        .telegram
        .send(ANN, json!({"photo": data(&jpeg(1))}))
        .await;
    let frames = world.taken(1).await;
    assert_eq!(frames[0]["payload"]["images"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn in_a_group_only_what_is_said_to_the_bot_goes_in() {
    let world = World::start().await;
    let say = async |text: &str, more: Value| {
        let mut message =
            json!({"text": text, "from": {"id": 7, "first_name": "Bob", "last_name": "B"}});
        message
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        world.telegram.send(GROUP, message).await
    };
    say("among ourselves", json!({})).await;
    say("/status", json!({})).await;
    say("/status@other_bot", json!({})).await;
    let mention = json!({"entities": [{"type": "mention", "offset": 0, "length": 15}]});
    let id = say("@aegis_test_bot hello", mention).await;
    let reply = json!({"reply_to_message": {"message_id": 1, "chat": {"id": GROUP, "type": "supergroup"},
        "from": {"id": BOT, "is_bot": true, "first_name": "x"}}});
    say("and this", reply).await;
    let frames = world.taken(2).await;
    assert_eq!(frames[0]["payload"]["text"], "hello");
    assert_eq!(
        frames[0]["payload"]["user"],
        json!({"id": "7", "name": "Bob B"})
    );
    assert_eq!(frames[1]["payload"]["text"], "and this");
    world.aegisd.done(GROUP, &id, "hi Bob");
    world
        .telegram
        .wait_texts(GROUP, |texts| texts == ["hi Bob"])
        .await;
    let asked: i64 = id.rsplit_once('-').unwrap().1.parse().unwrap();
    assert_eq!(world.telegram.chat(GROUP).await[0]["reply_to"], asked);
}

#[tokio::test]
async fn a_group_that_becomes_a_supergroup_talks_on_in_the_same_session() {
    let world = World::start().await;
    const NEW: i64 = -100_777;
    world.telegram.write(GROUP, "@aegis_test_bot no mark").await;
    let order = json!({"chat": GROUP, "to": NEW});
    // An answer that is under way meanwhile arrives where the group is now.
    world.telegram.order("migrate", order).await;
    world.aegisd.done(GROUP, "tg-1-1", "under way");
    world
        .telegram
        .wait_texts(NEW, |texts| texts == ["under way"])
        .await;
    let mention = json!({"text": "@aegis_test_bot hello",
        "entities": [{"type": "mention", "offset": 0, "length": 15}]});
    world.telegram.send(NEW, mention).await;
    let frames = world.taken(1).await;
    assert_eq!(frames[0]["session"]["id"], GROUP.to_string());
    world.aegisd.done(GROUP, "tg-1-2", "hi");
    let both = ["under way", "hi"];
    world.telegram.wait_texts(NEW, |texts| texts == both).await;
}

#[tokio::test]
async fn a_chat_that_is_not_allowed_is_told_its_id_once() {
    let mut world = World::start().await;
    for text in ["let me in", "please"] {
        world.telegram.write(77, text).await;
    }
    let texts = world
        .telegram
        .wait_texts(77, |texts| !texts.is_empty())
        .await;
    assert!(texts[0].contains("\"77\""), "{texts:?}");
    world
        .logged("chat 77 (private) is not in allowed_chats")
        .await;
    // A new process still knows that it has told it.
    assert_eq!(world.terminate().await, 0);
    world.launch();
    world.connected().await;
    world.telegram.write(77, "again").await;
    world.telegram.write(ANN, "me").await;
    world.taken(1).await;
    assert_eq!(world.telegram.texts(77).await.len(), 1);
}

#[tokio::test]
async fn nobody_is_admitted_where_the_config_names_no_chat() {
    let world = World::with(&["--fast"], json!({"allowed_chats": []})).await;
    world.connected().await;
    world.logged("allowed_chats is empty").await;
    world.telegram.write(ANN, "hello").await;
    let texts = world
        .telegram
        .wait_texts(ANN, |texts| !texts.is_empty())
        .await;
    assert!(texts[0].contains("\"42\""), "{texts:?}");
    world.config(json!({"allowed_chats": ["*"]}));
    world.logged("everybody who finds the bot").await;
    world.telegram.write(ANN, "hello again").await;
    let frames = world.taken(1).await;
    assert_eq!(frames[0]["payload"]["text"], "hello again");
}

#[tokio::test]
async fn a_message_is_confirmed_to_telegram_only_when_aegisd_has_it() {
    let world = World::start().await;
    world.aegisd.mood(Mood::Status(503));
    world.telegram.write(ANN, "one").await;
    world.telegram.write(ANN, "two").await;
    let aegisd = &world.aegisd;
    wait_for("tries", || aegisd.posts() > 2).await;
    let state = world.telegram.ask("state").await;
    assert_eq!(state["pending"], 2, "{state}");
    // Disabled, too many, an answer that is lost: waited out; the frame counts once.
    world
        .aegisd
        .moods(&[Mood::Status(409), Mood::Status(507), Mood::Lost, Mood::Lost]);
    world.aegisd.mood(Mood::Good);
    let frames = world.taken(2).await;
    assert_eq!(
        (&frames[0]["payload"]["text"], &frames[1]["payload"]["text"]),
        (&json!("one"), &json!("two"))
    );
    let telegram = &world.telegram;
    let end = tokio::time::Instant::now() + crate::world::SOON;
    while telegram.ask("state").await["pending"] != 0 {
        assert!(tokio::time::Instant::now() < end);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_message_that_aegisd_does_not_want_is_skipped_and_its_writer_told() {
    let world = World::start().await;
    world.aegisd.moods(&[Mood::Status(413)]);
    world.telegram.write(ANN, "too long").await;
    world.telegram.write(ANN, "good").await;
    let frames = world.taken(1).await;
    assert_eq!(frames[0]["payload"]["text"], "good");
    let texts = world
        .telegram
        .wait_texts(ANN, |texts| !texts.is_empty())
        .await;
    assert!(texts[0].contains("could not be passed on"), "{texts:?}");
}

#[tokio::test]
async fn messages_that_people_write_one_after_the_other_stay_in_order() {
    let world = World::start().await;
    for number in 0..30 {
        world.telegram.write(ANN, &format!("number {number}")).await;
    }
    let frames = world.taken(30).await;
    let texts: Vec<_> = frames
        .iter()
        .map(|frame| frame["payload"]["text"].clone())
        .collect();
    let expected: Vec<_> = (0..30)
        .map(|number| json!(format!("number {number}")))
        .collect();
    assert_eq!(texts, expected);
}

#[tokio::test]
async fn a_link_that_the_guest_has_planted_holds_up_no_message() {
    let world = World::start().await;
    world.aegisd.put_file(".aegis/files", b"-> symlink");
    let document = json!({"document": {"data": "AAAA", "file_name": "a.bin"}});
    world.telegram.send(ANN, document).await;
    world.telegram.write(ANN, "next").await;
    let frames = world.taken(1).await;
    assert_eq!(frames[0]["payload"]["text"], "next");
    let wanted = ["This file could not be passed on to the agent."];
    world
        .telegram
        .wait_texts(ANN, |texts| texts == wanted)
        .await;
}
