//! Commands that the gateway itself carries out.

use serde_json::json;

use crate::world::{ANN, GROUP, World, wait_for};

#[tokio::test]
async fn commands_are_offered_and_answered() {
    let world = World::start().await;
    world
        .aegisd
        .put_file(".aegis/agent.json", br#"{"model": "openai/gpt-5.4"}"#);
    world.telegram.write(ANN, "/start").await;
    world.telegram.write(ANN, "/status").await;
    let texts = world
        .telegram
        .wait_texts(ANN, |texts| texts.len() == 2)
        .await;
    assert!(texts[0].contains("/cancel"), "{texts:?}");
    assert!(!texts[0].contains("/exec"), "{texts:?}");
    let status =
        "Instance: my-agent\nVM: paused (a message wakes it)\nAgent: idle\nModel: openai/gpt-5.4";
    assert_eq!(texts[1], status);
    assert_eq!(world.aegisd.frames("user.message").len(), 0);
    let commands = world.telegram.ask("state").await["commands"].clone();
    let names: Vec<_> = commands
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["command"].clone())
        .collect();
    assert_eq!(names, ["new", "cancel", "status", "help"]);
}

#[tokio::test]
async fn cancel_and_new_are_frames_for_the_agent() {
    let world = World::start().await;
    let id = world.telegram.write(ANN, "work").await;
    world.taken(1).await;
    world.aegisd.presence(ANN, &id);
    world.telegram.write(ANN, "/status").await;
    world
        .telegram
        .wait_texts(ANN, |texts| {
            texts.iter().any(|text| text.contains("answering you"))
        })
        .await;
    let cancel = world.telegram.write(ANN, "/cancel").await;
    let new = world.telegram.write(ANN, "/new").await;
    world
        .telegram
        .wait_texts(ANN, |texts| texts.len() == 3)
        .await;
    let frames = world.aegisd.frames("control.cancel");
    assert_eq!((frames.len(), &frames[0]["msg_id"]), (1, &json!(cancel)));
    let frames = world.aegisd.frames("control.new");
    assert_eq!((frames.len(), &frames[0]["msg_id"]), (1, &json!(new)));
}

#[tokio::test]
async fn without_the_setting_there_is_no_shell() {
    let world = World::start().await;
    world.telegram.write(ANN, "/exec id").await;
    let frames = world.taken(1).await;
    assert_eq!(frames[0]["payload"]["text"], "/exec id");
    assert!(world.aegisd.execs().is_empty());
}

#[tokio::test]
async fn with_the_setting_commands_run_in_the_vm_one_after_the_other() {
    let world = World::with(&["--fast"], json!({"shell": true})).await;
    world.connected().await;
    world.telegram.write(ANN, "/exec fail").await;
    world.telegram.write(ANN, "/exec lines 2").await;
    let wanted = ["exit code 3", "line number 0\nline number 1"];
    world
        .telegram
        .wait_texts(ANN, |texts| texts == wanted)
        .await;
    world.telegram.write(ANN, "/exec").await;
    world
        .telegram
        .wait_texts(ANN, |texts| texts.len() == 3)
        .await;
    world.telegram.write(ANN, "uname").await;
    world
        .telegram
        .wait_texts(ANN, |texts| {
            texts.last().is_some_and(|text| text == "ran: uname")
        })
        .await;
    world.telegram.write(ANN, "/exit").await;
    world.telegram.write(ANN, "hello agent").await;
    world.taken(1).await;
    assert_eq!(world.aegisd.execs(), ["fail", "lines 2", "uname"]);
}

#[tokio::test]
async fn long_output_is_cut_and_a_command_that_hangs_can_be_stopped() {
    let world = World::with(&["--fast"], json!({"shell": true})).await;
    world.connected().await;
    world.telegram.write(ANN, "/exec lines 2000").await;
    let texts = world.telegram.wait_texts(ANN, |texts| {
        texts
            .last()
            .is_some_and(|text| text.ends_with("line number 1999"))
    });
    assert!(
        texts
            .await
            .concat()
            .contains("bytes before this are left out")
    );
    world.telegram.write(ANN, "/exec hang").await;
    wait_for("the command", || world.aegisd.execs().len() == 2).await;
    world.telegram.write(ANN, "/cancel").await;
    world
        .telegram
        .wait_texts(ANN, |texts| {
            texts.last().is_some_and(|text| text.contains("stopped"))
        })
        .await;
    assert!(world.aegisd.frames("control.cancel").is_empty());
}

#[tokio::test]
async fn a_command_is_run_once_whenever_the_gateway_is_killed() {
    let mut world = World::with(&["--fast"], json!({"shell": true})).await;
    world.connected().await;
    world.telegram.write(ANN, "/exec hang").await;
    wait_for("the command", || world.aegisd.execs().len() == 1).await;
    world.kill().await;
    world.launch();
    world.connected().await;
    world.telegram.write(ANN, "/exec other").await;
    world
        .telegram
        .wait_texts(ANN, |texts| {
            texts.last().is_some_and(|text| text == "ran: other")
        })
        .await;
    assert_eq!(world.aegisd.execs(), ["hang", "other"]);
}

#[tokio::test]
async fn commands_in_groups_need_the_name_of_the_bot() {
    let world = World::start().await;
    world.telegram.write(GROUP, "/help").await;
    world.telegram.write(GROUP, "/help@aegis_test_bot").await;
    let texts = world
        .telegram
        .wait_texts(GROUP, |texts| !texts.is_empty())
        .await;
    assert_eq!(texts.len(), 1);
    assert!(world.aegisd.frames("user.message").is_empty());
}
