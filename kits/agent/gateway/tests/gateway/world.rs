//! A gateway between its stand-ins, in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::aegisd::Aegisd;

/// A deadline of what happens soon; generous, since machines are shared.
pub(crate) const SOON: Duration = Duration::from_secs(60);
pub(crate) const TOKEN: &str = "123456:TEST-token_of-the-stand-in";
/// A chat that may talk to the agent, and the id of its person.
pub(crate) const ANN: i64 = 42;
/// A group that may.
pub(crate) const GROUP: i64 = -100_200;
pub(crate) const BOT: i64 = 123_456;

/// The stand-in of Telegram.
pub(crate) struct Telegram {
    _process: Child,
    pub(crate) port: u16,
    http: reqwest::Client,
    _folder: TempDir,
}

fn client() -> reqwest::Client {
    let tls = aegis_gateway::trust::tls().unwrap();
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy();
    builder.build().unwrap()
}

impl Telegram {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("telegram.json");
        let program =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/stand_ins/telegram.py");
        let process = Command::new("python3")
            .arg(program)
            .args(["--port", "0", "--state"])
            .arg(&state)
            .args(arguments)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        wait_for("Telegram's port", || state.exists()).await;
        let state: Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
        Self {
            _process: process,
            port: u16::try_from(state["port"].as_u64().unwrap()).unwrap(),
            http: client(),
            _folder: folder,
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn order(&self, what: &str, order: Value) -> Value {
        let url = format!("{}/admin/{what}", self.address());
        let answer = self
            .http
            .post(url)
            .body(order.to_string())
            .send()
            .await
            .unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    pub(crate) async fn ask(&self, what: &str) -> Value {
        let url = format!("{}/admin/{what}", self.address());
        let answer = self.http.get(url).send().await.unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    /// A person writes; the `msg_id` of the message.
    pub(crate) async fn write(&self, chat: i64, text: &str) -> String {
        self.send(chat, json!({"text": text})).await
    }

    /// A person sends something else; the `msg_id` of the message.
    pub(crate) async fn send(&self, chat: i64, mut message: Value) -> String {
        message["chat"] = chat_of(chat);
        let told = self.order("update", message).await;
        format!("tg-{chat}-{}", told["message_id"])
    }

    /// The messages of the bot in a chat that are there.
    pub(crate) async fn chat(&self, chat: i64) -> Vec<Value> {
        let all = self.ask(&format!("chat?id={chat}")).await;
        let all = all.as_array().unwrap().iter();
        all.filter(|message| message["deleted"] == false)
            .cloned()
            .collect()
    }

    pub(crate) async fn texts(&self, chat: i64) -> Vec<String> {
        let messages = self.chat(chat).await.into_iter();
        messages
            .map(|message| message["text"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Waits until the texts of a chat are as they shall be.
    pub(crate) async fn wait_texts(
        &self,
        chat: i64,
        wanted: impl Fn(&[String]) -> bool,
    ) -> Vec<String> {
        let end = Instant::now() + SOON;
        loop {
            let texts = self.texts(chat).await;
            if wanted(&texts) {
                return texts;
            }
            assert!(Instant::now() < end, "the chat {chat} has {texts:#?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn fail(&self, method: &str, times: u64, kind: &str) {
        self.order(
            "fail",
            json!({"method": method, "times": times, "kind": kind}),
        )
        .await;
    }

    pub(crate) async fn calls(&self, method: &str) -> Vec<Value> {
        let all = self.ask("calls").await;
        let all = all.as_array().unwrap().iter();
        all.filter(|call| call["method"] == method)
            .cloned()
            .collect()
    }

    pub(crate) async fn violations(&self) -> Vec<Value> {
        self.ask("state").await["violations"]
            .as_array()
            .unwrap()
            .clone()
    }
}

pub(crate) fn chat_of(id: i64) -> Value {
    match id < 0 {
        true => json!({"id": id, "type": "supergroup", "title": "Group"}),
        false => json!({"id": id, "type": "private", "first_name": "Ann", "username": "ann"}),
    }
}

/// A gateway and what it talks to.
pub(crate) struct World {
    pub(crate) telegram: Telegram,
    pub(crate) aegisd: Aegisd,
    pub(crate) folder: TempDir,
    pub(crate) gateway: Option<Child>,
}

impl World {
    /// All of it, with the settings of most tests, once the gateway is connected.
    pub(crate) async fn start() -> Self {
        let world = Self::with(&["--fast"], json!({})).await;
        world.connected().await;
        world
    }

    /// With the limits of the real Telegram.
    pub(crate) async fn strict() -> Self {
        let world = Self::with(&[], json!({})).await;
        world.connected().await;
        world
    }

    pub(crate) async fn with(arguments: &[&str], more: Value) -> Self {
        let telegram = Telegram::start(arguments).await;
        for chat in [ANN, GROUP] {
            telegram.order("know", json!({"chat": chat_of(chat)})).await;
        }
        let folder = tempfile::tempdir().unwrap();
        let aegisd = Aegisd::start(folder.path());
        let mut world = Self {
            telegram,
            aegisd,
            folder,
            gateway: None,
        };
        world.config(more);
        world.launch();
        world
    }

    /// The settings of most tests and more.
    pub(crate) fn settings(&self, more: Value) -> Value {
        let mut section = json!({"api_base_url": self.telegram.address(),
            "allowed_chats": [ANN.to_string(), GROUP.to_string()]});
        section
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"telegram": section})
    }

    pub(crate) fn config(&self, more: Value) {
        self.write_config(&self.settings(more).to_string());
    }

    pub(crate) fn write_config(&self, text: &str) {
        let aside = self.config_folder().join("aside");
        fs::write(&aside, text).unwrap();
        fs::rename(aside, self.config_folder().join("gateway.json")).unwrap();
    }

    pub(crate) fn config_folder(&self) -> PathBuf {
        let folder = self.folder.path().join("kits/my-agent");
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What the gateway has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub(crate) fn state(&self) -> Value {
        let text = fs::read(self.config_folder().join(".gateway-state.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub(crate) fn launch(&mut self) {
        self.launch_with(&[("TELEGRAM_BOT_TOKEN", TOKEN)]);
    }

    pub(crate) fn launch_with(&mut self, environment: &[(&str, &str)]) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_aegis-gateway"))
            .current_dir(self.config_folder())
            .env_clear()
            .env("AEGIS_INSTANCE", "my-agent")
            .env("AEGIS_SOCKET", self.aegisd.path())
            .env("AEGIS_LOG", "trace")
            .env("PATH", "/usr/bin:/bin")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.gateway = Some(child);
    }

    /// Ends it as a crash does.
    pub(crate) async fn kill(&mut self) {
        let mut gateway = self.gateway.take().unwrap();
        gateway.kill().await.unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = self.gateway.as_ref().unwrap().id().unwrap();
        let id = rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Ends it as the service manager does; its exit status.
    pub(crate) async fn terminate(&mut self) -> i32 {
        self.signal(rustix::process::Signal::TERM);
        let mut gateway = self.gateway.take().unwrap();
        let status = tokio::time::timeout(SOON, gateway.wait())
            .await
            .unwrap()
            .unwrap();
        status.code().unwrap()
    }

    /// Waits until it follows aegisd and asks Telegram for messages.
    pub(crate) async fn connected(&self) {
        let calls = self.telegram.calls("getupdates").await.len();
        wait_for("aegisd's stream", || self.aegisd.streams() > 0).await;
        let end = Instant::now() + SOON;
        while self.telegram.calls("getupdates").await.len() <= calls.saturating_sub(1) {
            assert!(
                Instant::now() < end,
                "Telegram is not asked: {}",
                self.log()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until aegisd has so many messages of people.
    pub(crate) async fn taken(&self, count: usize) -> Vec<Value> {
        let aegisd = &self.aegisd;
        wait_for("messages to be taken", || {
            aegisd.frames("user.message").len() >= count
        })
        .await;
        let frames = self.aegisd.frames("user.message");
        assert_eq!(frames.len(), count, "{frames:#?}");
        frames
    }

    /// Waits until the gateway is done with all frames up to this one.
    pub(crate) async fn done_with(&self, seq: u64) {
        let cursor = || self.state()["channels"]["telegram"]["cursor"].as_u64();
        wait_for("the cursor", || {
            cursor().is_some_and(|cursor| cursor >= seq)
        })
        .await;
    }

    pub(crate) async fn logged(&self, text: &str) {
        let end = Instant::now() + SOON;
        while !self.log().contains(text) {
            assert!(
                Instant::now() < end,
                "{text:?} is not in the log: {}",
                self.log()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let log = self.log();
        let secret = TOKEN.split_once(':').unwrap().1;
        let shown = log.contains(secret) && !std::thread::panicking();
        if std::thread::panicking() {
            let end: Vec<_> = log
                .lines()
                .rev()
                .filter(|line| !line.contains("TRACE"))
                .take(60)
                .collect();
            for line in end.iter().rev() {
                eprintln!("{line}");
            }
        }
        assert!(!shown, "the log shows the token");
    }
}

pub(crate) async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < end, "waiting for {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
