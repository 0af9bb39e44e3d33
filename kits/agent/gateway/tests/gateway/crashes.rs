//! The gateway is killed: nothing is lost, and at most one message is shown twice for each
//! kill, where Telegram had it and the gateway did not know yet.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::aegisd::Mood;
use crate::world::{ANN, GROUP, World, wait_for};

#[tokio::test]
async fn killed_before_and_after_aegisd_has_a_message_it_comes_once() {
    let mut world = World::start().await;
    world.aegisd.mood(Mood::Status(503));
    world.telegram.write(ANN, "one").await;
    wait_for("a try", || world.aegisd.posts() > 0).await;
    world.kill().await;
    world.aegisd.mood(Mood::Lost);
    world.launch();
    wait_for("the frame", || {
        !world.aegisd.frames("user.message").is_empty()
    })
    .await;
    world.kill().await;
    world.aegisd.mood(Mood::Good);
    world.launch();
    world.connected().await;
    world.telegram.write(ANN, "two").await;
    let frames = world.taken(2).await;
    assert_eq!(frames[1]["payload"]["text"], "two");
}

#[tokio::test]
async fn killed_while_an_answer_is_streamed_it_goes_on_in_the_same_message() {
    let mut world = World::start().await;
    let id = world.telegram.write(ANN, "hello").await;
    world.taken(1).await;
    world.aegisd.delta(ANN, &id, "The beginning");
    world
        .telegram
        .wait_texts(ANN, |texts| texts == ["The beginning"])
        .await;
    let state =
        || world.state()["channels"]["telegram"]["chats"]["42"]["runs"][0]["messages"].clone();
    wait_for("the record", || {
        state().as_array().is_some_and(|ids| ids.len() == 1)
    })
    .await;
    world.kill().await;
    world.launch();
    world.connected().await;
    world.aegisd.delta(ANN, &id, " and the middle");
    world
        .aegisd
        .done(ANN, &id, "The beginning and the middle and the end");
    let wanted = ["The beginning and the middle and the end"];
    world
        .telegram
        .wait_texts(ANN, |texts| texts == wanted)
        .await;
}

#[tokio::test]
async fn killed_between_two_messages_of_a_long_answer_it_goes_on_with_the_second() {
    let mut world = World::start().await;
    let text = format!(
        "{}\n\n{}\n\n{}",
        "one ".repeat(900),
        "two ".repeat(900),
        "six ".repeat(900)
    );
    world
        .telegram
        .order(
            "fail",
            json!({"method": "sendMessage", "times": 0, "kind": "500"}),
        )
        .await;
    world.aegisd.done(ANN, "tg-42-1", &text);
    world
        .telegram
        .wait_texts(ANN, |texts| !texts.is_empty())
        .await;
    let steps = || world.state()["channels"]["telegram"]["chats"]["42"]["runs"][0]["steps"] == 1;
    wait_for("the record", steps).await;
    world.kill().await;
    world.launch();
    let texts = world
        .telegram
        .wait_texts(ANN, |texts| texts.len() >= 3)
        .await;
    let starts: Vec<_> = texts.iter().map(|text| &text[..3]).collect();
    assert_eq!(starts, ["one", "two", "six"]);
}

#[tokio::test]
async fn killed_at_any_moment_it_loses_nothing_and_repeats_at_most_one_message_a_kill() {
    let chats: Vec<i64> = (1000..1004).collect();
    let allowed: Vec<_> = chats.iter().map(ToString::to_string).collect();
    let mut world = World::with(&["--fast"], json!({"allowed_chats": allowed})).await;
    world.connected().await;
    world.aegisd.echo();
    let kills = 8;
    let mut written = 0;
    for kill in 0..kills {
        for chat in &chats {
            world
                .telegram
                .write(*chat, &format!("message {written}"))
                .await;
            written += 1;
        }
        sleep(Duration::from_millis(17 * kill + 5)).await;
        world.kill().await;
        world.launch();
    }
    world.taken(written).await;
    let mut shown: BTreeMap<String, usize> = BTreeMap::new();
    for chat in &chats {
        let own = written / chats.len();
        let texts = world.telegram.wait_texts(*chat, |texts| {
            texts
                .iter()
                .collect::<std::collections::BTreeSet<_>>()
                .len()
                >= own
        });
        let texts = texts.await;
        // The first of each is in order; a double comes right behind.
        let mut last = None;
        for text in texts {
            let number: usize = text.rsplit_once(' ').unwrap().1.parse().unwrap();
            assert!(last <= Some(number), "chat {chat}: {number} after {last:?}");
            last = Some(number);
            *shown.entry(text).or_default() += 1;
        }
    }
    assert_eq!(shown.len(), written);
    let doubles: usize = shown.values().map(|count| count - 1).sum();
    // One for each kill.
    assert!(doubles <= usize::try_from(kills).unwrap(), "{shown:?}");
}

#[tokio::test]
async fn stopped_in_an_orderly_way_it_repeats_nothing() {
    let mut world = World::start().await;
    world.aegisd.echo();
    let mut written = 0;
    for _ in 0..5 {
        for _ in 0..3 {
            world
                .telegram
                .write(ANN, &format!("message {written}"))
                .await;
            written += 1;
        }
        world.telegram.fail("sendMessage", 1, "slow").await;
        sleep(Duration::from_millis(150)).await;
        assert_eq!(world.terminate().await, 0);
        world.launch();
    }
    let texts = world
        .telegram
        .wait_texts(ANN, |texts| texts.len() >= written)
        .await;
    let wanted: Vec<_> = (0..written)
        .map(|number| format!("You said: message {number}"))
        .collect();
    assert_eq!(texts, wanted);
}

#[tokio::test]
async fn killed_it_still_knows_what_a_group_was_sent_within_the_minute() {
    let mut world = World::strict().await;
    let say = |world: &World, numbers: std::ops::Range<u32>| {
        for number in numbers {
            let id = format!("tg-{GROUP}-{}", 9000 + number);
            world.aegisd.done(GROUP, &id, &number.to_string());
        }
    };
    say(&world, 0..14);
    world
        .telegram
        .wait_texts(GROUP, |texts| texts.len() >= 13)
        .await;
    world.kill().await;
    world.launch();
    say(&world, 14..22);
    let mut texts = Vec::new();
    let end = Instant::now() + Duration::from_secs(100);
    while texts.last().is_none_or(|last| last != "21") {
        assert!(Instant::now() < end, "{texts:?}");
        sleep(Duration::from_millis(500)).await;
        texts = world.telegram.texts(GROUP).await;
    }
    let all = texts.len();
    texts.dedup();
    let wanted: Vec<String> = (0..22).map(|number| number.to_string()).collect();
    assert_eq!(texts, wanted);
    assert!(all <= wanted.len() + 1, "one kill has cost {all} messages");
    assert_eq!(world.telegram.violations().await, Vec::<Value>::new());
}
