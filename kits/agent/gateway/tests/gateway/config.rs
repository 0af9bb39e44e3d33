//! The config is followed; what is wrong with it is said and changes nothing.

use std::fs;

use serde_json::json;

use crate::world::{ANN, TOKEN, World};

#[tokio::test]
async fn without_a_token_it_stays_up_says_so_and_waits() {
    let mut world = World::start().await;
    world.terminate().await;
    world.launch_with(&[]);
    world
        .logged("the variable TELEGRAM_BOT_TOKEN is not set")
        .await;
    world.config(json!({"bot_token": TOKEN}));
    world.connected().await;
    world.telegram.write(ANN, "hello").await;
    world.taken(1).await;
}

#[tokio::test]
async fn without_a_config_it_waits_and_a_removed_one_stops_the_channel() {
    let mut world = World::start().await;
    fs::remove_file(world.config_folder().join("gateway.json")).unwrap();
    world
        .logged("gateway.json is missing, waiting for it")
        .await;
    let polls = world.telegram.calls("getupdates").await.len();
    world.telegram.write(ANN, "nobody listens").await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(world.telegram.calls("getupdates").await.len(), polls);
    world.config(json!({}));
    world.taken(1).await;
    assert_eq!(world.terminate().await, 0);
}

#[tokio::test]
async fn a_wrong_config_is_named_and_the_last_good_one_counts() {
    let world = World::start().await;
    world.write_config("{\"telegram\": {\n  \"allowed_chats\": [,]\n}}");
    world
        .logged("gateway.json is not valid JSON: expected value at line 2 column 21")
        .await;
    world.write_config(&world.settings(json!({"allowed_chats": ["me"]})).to_string());
    world
        .logged("the key 'telegram.allowed_chats[0]' is wrong")
        .await;
    world.telegram.write(ANN, "still here").await;
    world.taken(1).await;
}

#[tokio::test]
async fn unknown_keys_are_a_warning() {
    let world = World::with(&["--fast"], json!({"alowed_chats": []})).await;
    world.connected().await;
    world
        .logged("the key 'telegram.alowed_chats' is not known")
        .await;
    let mut config = world.settings(json!({}));
    config["discord"] = json!({});
    world.write_config(&config.to_string());
    world.logged("the key 'discord' is not known").await;
}

#[tokio::test]
async fn a_change_counts_at_once_without_a_restart() {
    let world = World::start().await;
    let polls = world.telegram.calls("getupdates").await.len();
    world.config(json!({"allowed_chats": ["77"], "shell": true}));
    world.logged("config: applied").await;
    // The command list tells that the new settings count.
    let end = tokio::time::Instant::now() + crate::world::SOON;
    while world.telegram.ask("state").await["commands"]
        .as_array()
        .map(Vec::len)
        != Some(6)
    {
        assert!(tokio::time::Instant::now() < end);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(
        world.telegram.calls("getupdates").await.len(),
        polls,
        "the poll was ended"
    );
    world.telegram.write(77, "hello").await;
    world.telegram.write(ANN, "me too").await;
    let frames = world.taken(1).await;
    assert_eq!(frames[0]["session"]["id"], "77");
    let texts = world
        .telegram
        .wait_texts(ANN, |texts| !texts.is_empty())
        .await;
    assert!(texts[0].contains("may not talk"));
    // An answer to a chat that may no longer read is not sent.
    world.aegisd.done(ANN, "tg-42-1", "secret");
    world
        .logged("which is not in allowed_chats, is dropped")
        .await;
    assert_eq!(world.telegram.texts(ANN).await.len(), 1);
}

#[tokio::test]
async fn a_hangup_makes_it_read_the_config_again() {
    let world = World::start().await;
    // Written through a link to elsewhere, which inotify does not see.
    let elsewhere = world.folder.path().join("elsewhere.json");
    fs::write(&elsewhere, world.settings(json!({})).to_string()).unwrap();
    let path = world.config_folder().join("gateway.json");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    fs::write(
        &elsewhere,
        world.settings(json!({"allowed_chats": ["77"]})).to_string(),
    )
    .unwrap();
    world.signal(rustix::process::Signal::HUP);
    world
        .logged("chat 42 (private)")
        .await_or_write(&world)
        .await;
}

/// Writes until the log says what is waited for.
trait AwaitOrWrite {
    async fn await_or_write(self, world: &World);
}

impl<F: Future<Output = ()>> AwaitOrWrite for F {
    async fn await_or_write(self, world: &World) {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        world.telegram.write(ANN, "hello").await;
        self.await;
    }
}

#[tokio::test]
async fn another_token_is_another_bot_with_updates_of_its_own() {
    let world = World::start().await;
    world.telegram.write(ANN, "one").await;
    world.taken(1).await;
    world.config(json!({"bot_token": "999:other-token"}));
    world
        .logged("Telegram refuses the bot token: getMe: Telegram refuses (401): Unauthorized")
        .await;
    world.config(json!({}));
    world.telegram.write(ANN, "two").await;
    world.taken(2).await;
}

#[tokio::test]
async fn it_is_a_failure_not_to_be_started_by_aegisvm_and_none_to_be_stopped() {
    let mut world = World::start().await;
    assert_eq!(world.terminate().await, 0);
    let mut bare = tokio::process::Command::new(env!("CARGO_BIN_EXE_aegis-gateway"));
    let ended = bare.env_clear().output().await.unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let text = String::from_utf8(ended.stderr).unwrap();
    assert!(text.contains("AEGIS_INSTANCE is not set"), "{text}");
}

#[tokio::test]
async fn the_service_manager_is_told_that_it_is_ready_and_what_it_does() {
    let mut world = World::start().await;
    world.terminate().await;
    let path = world.folder.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let path = path.to_str().unwrap().to_owned();
    world.launch_with(&[("TELEGRAM_BOT_TOKEN", TOKEN), ("NOTIFY_SOCKET", &path)]);
    let mut told = String::new();
    while !(told.contains("READY=1") && told.contains("aegisd: connected")) {
        let mut buffer = [0; 4096];
        let received = tokio::time::timeout(crate::world::SOON, socket.recv(&mut buffer));
        let length = received.await.expect(&told).unwrap();
        told.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        told.push('\n');
    }
    assert!(
        told.contains("STATUS=") && told.contains("config: applied"),
        "{told}"
    );
}

#[test]
fn the_kit_is_a_kit_and_its_default_config_admits_nobody() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent.json");
    let text = fs::read_to_string(path).unwrap();
    let checked = aegis_core::kit::Manifest::parse(&text).unwrap();
    assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
    assert_eq!(
        checked.manifest.programs(),
        ["aegis-agent", "aegis-gateway"]
    );
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let section = &manifest["instance_daemons"][0]["config"]["default"]["telegram"];
    let settings = aegis_gateway::telegram::settings::Settings::read(section, |_| None).unwrap();
    assert!(!settings.allows(ANN) && !settings.shell);
    let unknown = aegis_gateway::telegram::settings::check(section).unwrap();
    assert!(unknown.is_empty(), "{unknown:?}");
}
