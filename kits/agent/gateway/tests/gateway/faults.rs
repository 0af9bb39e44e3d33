//! What goes wrong outside is waited out.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::aegisd::Mood;
use crate::world::{ANN, GROUP, SOON, TOKEN, World};

#[tokio::test]
async fn a_restart_of_aegisd_loses_no_message_and_no_answer() {
    let world = World::start().await;
    let first = world.telegram.write(ANN, "before").await;
    world.taken(1).await;
    for round in 0..3 {
        world.aegisd.pause();
        let while_down = world
            .telegram
            .write(ANN, &format!("meanwhile {round}"))
            .await;
        sleep(Duration::from_millis(500)).await;
        // What the agent says while nobody is connected is kept by aegisd.
        world.aegisd.done(ANN, &first, "to the first");
        world.aegisd.resume();
        world.taken(2 + round).await;
        world.aegisd.done(ANN, &while_down, &format!("to {round}"));
    }
    let wanted = ["to the first", "to 0", "to 1", "to 2"];
    world
        .telegram
        .wait_texts(ANN, |texts| texts == wanted)
        .await;
}

#[tokio::test]
async fn pieces_that_a_restart_has_swallowed_leave_no_hole() {
    let world = World::start().await;
    let id = world.telegram.write(ANN, "hello").await;
    world.taken(1).await;
    world.aegisd.delta(ANN, &id, "One ");
    world
        .telegram
        .wait_texts(ANN, |texts| texts == ["One"])
        .await;
    world.aegisd.pause();
    world.aegisd.delta(ANN, &id, "two ");
    world.aegisd.resume();
    world.connected().await;
    world.aegisd.delta(ANN, &id, "three");
    sleep(Duration::from_millis(2500)).await;
    assert_eq!(world.telegram.texts(ANN).await, ["One"]);
    world.aegisd.done(ANN, &id, "One two three");
    world
        .telegram
        .wait_texts(ANN, |texts| texts == ["One two three"])
        .await;
}

#[tokio::test]
async fn an_aegisd_that_fails_for_a_while_ends_nothing() {
    let mut world = World::start().await;
    world.aegisd.mood(Mood::Status(500));
    world.telegram.write(ANN, "hello").await;
    sleep(Duration::from_secs(3)).await;
    world.aegisd.mood(Mood::Good);
    world.taken(1).await;
    assert_eq!(world.terminate().await, 0);
}

#[tokio::test]
async fn it_starts_without_aegisd_and_without_telegram() {
    let mut world = World::start().await;
    world.terminate().await;
    world.aegisd.pause();
    world.config(json!({"api_base_url": "http://127.0.0.1:9"}));
    world.launch();
    world.logged("waiting for Telegram").await;
    world.telegram.write(ANN, "hello").await;
    world.aegisd.resume();
    world.config(json!({}));
    world.taken(1).await;
    assert!(!world.log().contains(TOKEN));
}

#[tokio::test]
async fn whatever_telegram_answers_an_answer_arrives_once() {
    let world = World::start().await;
    for (number, kind) in ["500", "502", "cut", "slow"].iter().enumerate() {
        world.telegram.fail("sendMessage", 2, kind).await;
        world
            .aegisd
            .done(ANN, &format!("tg-42-{number}"), &format!("after {kind}"));
        world
            .telegram
            .wait_texts(ANN, |texts| texts.len() == number + 1)
            .await;
    }
    let wanted = ["after 500", "after 502", "after cut", "after slow"];
    assert_eq!(world.telegram.texts(ANN).await, wanted);
}

#[tokio::test]
async fn an_answer_of_telegram_that_is_lost_shows_a_message_twice_and_never_not_at_all() {
    let world = World::start().await;
    world.telegram.fail("sendMessage", 1, "lost").await;
    world.aegisd.done(ANN, "tg-42-1", "here");
    world.aegisd.done(ANN, "tg-42-2", "next");
    let texts = world
        .telegram
        .wait_texts(ANN, |texts| texts.contains(&"next".to_owned()))
        .await;
    assert_eq!(texts, ["here", "here", "next"]);
    // An edit that is made twice is made once.
    world.aegisd.delta(ANN, "tg-42-3", "so");
    world
        .telegram
        .wait_texts(ANN, |texts| texts.last().is_some_and(|text| text == "so"))
        .await;
    world.telegram.fail("editMessageText", 1, "lost").await;
    world.aegisd.done(ANN, "tg-42-3", "so be it");
    world
        .telegram
        .wait_texts(ANN, |texts| texts[3..] == ["so be it"])
        .await;
}

#[tokio::test]
async fn a_storm_of_429_is_obeyed_and_the_final_text_arrives() {
    let world = World::start().await;
    let order = json!({"method": "*", "times": 6, "kind": "429", "retry_after": 2, "chat": ANN});
    world.telegram.order("fail", order).await;
    let id = world.telegram.write(ANN, "hello").await;
    world.taken(1).await;
    for piece in ["Some ", "text ", "that ", "grows"] {
        world.aegisd.delta(ANN, &id, piece);
        sleep(Duration::from_millis(300)).await;
    }
    world.aegisd.done(ANN, &id, "Some text that grew");
    // Another chat is not held up by it.
    world.aegisd.done(GROUP, "tg--100200-5", "quick");
    world
        .telegram
        .wait_texts(GROUP, |texts| texts == ["quick"])
        .await;
    let texts = world.telegram.wait_texts(ANN, |texts| {
        texts.last().is_some_and(|text| text.ends_with("grew"))
    });
    assert_eq!(texts.await, ["Some text that grew"]);
    assert_eq!(
        world.telegram.violations().await,
        Vec::<serde_json::Value>::new()
    );
}

#[tokio::test]
async fn updates_that_telegram_does_not_give_are_asked_for_again() {
    let world = World::start().await;
    for kind in ["500", "502", "cut", "lost"] {
        world.telegram.fail("getUpdates", 1, kind).await;
        world.telegram.write(ANN, kind).await;
    }
    let frames = world.taken(4).await;
    let texts: Vec<_> = frames
        .iter()
        .map(|frame| frame["payload"]["text"].clone())
        .collect();
    assert_eq!(texts, ["500", "502", "cut", "lost"]);
}

#[tokio::test]
async fn another_program_with_the_same_bot_is_named() {
    let world = World::start().await;
    let order = json!({"method": "getUpdates", "times": 1, "kind": "409",
        "description": "Conflict: terminated by other getUpdates request"});
    world.telegram.order("fail", order).await;
    world.telegram.write(ANN, "one").await;
    world
        .logged("another program receives the messages of this bot")
        .await;
    world.taken(1).await;
}

#[tokio::test]
async fn two_gateways_share_nothing() {
    let one = World::start().await;
    let two = World::start().await;
    one.telegram.write(ANN, "to one").await;
    two.telegram.write(ANN, "to two").await;
    assert_eq!(one.taken(1).await[0]["payload"]["text"], "to one");
    assert_eq!(two.taken(1).await[0]["payload"]["text"], "to two");
    one.aegisd.done(ANN, "tg-42-1", "from one");
    one.telegram
        .wait_texts(ANN, |texts| texts == ["from one"])
        .await;
    assert!(two.telegram.texts(ANN).await.is_empty());
}

#[tokio::test]
async fn what_was_said_before_it_came_is_not_said_again() {
    let mut world = World::start().await;
    world.terminate().await;
    std::fs::remove_file(world.config_folder().join(".gateway-state.json")).unwrap();
    for number in 0..8 {
        world.aegisd.done(ANN, &format!("tg-42-{number}"), "old");
    }
    world.aegisd.set_watermark(0);
    world.launch();
    world.connected().await;
    world.aegisd.done(ANN, "tg-42-90", "new");
    world
        .telegram
        .wait_texts(ANN, |texts| texts == ["new"])
        .await;
    let end = Instant::now() + SOON;
    while world.aegisd.watermark() < 9 {
        assert!(
            Instant::now() < end,
            "the watermark is {}",
            world.aegisd.watermark()
        );
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn an_instance_that_is_made_anew_is_heard() {
    let mut world = World::start().await;
    for number in 0..5 {
        world
            .aegisd
            .done(ANN, &format!("tg-42-{number}"), &format!("{number}"));
    }
    world
        .telegram
        .wait_texts(ANN, |texts| texts.len() == 5)
        .await;
    world.terminate().await;
    world.aegisd.made_anew("2026-12-01T00:00:00Z");
    world.launch();
    world.connected().await;
    world.aegisd.done(ANN, "tg-42-1", "I am new");
    world
        .telegram
        .wait_texts(ANN, |texts| {
            texts.last().is_some_and(|text| text == "I am new")
        })
        .await;
}
