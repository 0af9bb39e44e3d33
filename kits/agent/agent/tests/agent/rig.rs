//! An agent with all around it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use serde_json::{Value, json};

use crate::guest::{Guest, PATIENCE};
use crate::http;

pub(crate) struct Rig {
    pub(crate) guest: Guest,
    pub(crate) folder: tempfile::TempDir,
    llm: Llm,
    agent: Option<Agent>,
    variables: Vec<(String, String)>,
}

struct Llm {
    child: Child,
    address: String,
}

struct Agent {
    child: Child,
    address: String,
}

impl Drop for Llm {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    child.kill().ok();
    child.wait().ok();
}

/// The program that stands in for something.
pub(crate) fn stand_in(name: &str) -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    top.join(format!("tests/stand_ins/{name}.py"))
}

impl Llm {
    fn start() -> Llm {
        let mut child = Command::new("python3")
            .arg(stand_in("llm"))
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = format!("127.0.0.1:{}", line.trim());
        Llm { child, address }
    }
}

impl Rig {
    /// An agent whose model is the stand-in's, by OpenAI's protocol.
    pub(crate) fn start() -> Rig {
        Rig::with("{}", &[])
    }

    /// An agent with settings and variables.
    pub(crate) fn with(settings: &str, variables: &[(&str, &str)]) -> Rig {
        let mut rig = Rig::idle(settings, variables);
        rig.run();
        rig
    }

    /// The same, before the agent runs.
    pub(crate) fn idle(settings: &str, variables: &[(&str, &str)]) -> Rig {
        let llm = Llm::start();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".aegis")).unwrap();
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let rig = Rig {
            guest: Guest::start(llm.address.clone()),
            folder,
            agent: None,
            variables: variables.iter().map(own).collect(),
            llm,
        };
        rig.settings(settings);
        rig
    }

    /// Writes agent.json.
    pub(crate) fn settings(&self, text: &str) {
        std::fs::write(self.path(".aegis/agent.json"), text).unwrap();
    }

    /// Where the model listens.
    pub(crate) fn llm_address(&self) -> &str {
        &self.llm.address
    }

    /// Gives the next agent a variable.
    pub(crate) fn variables(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the agent.
    pub(crate) fn run(&mut self) {
        let llm = format!("http://{}", self.llm.address);
        let mut child = Command::new(env!("CARGO_BIN_EXE_aegis-agent"))
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap())
            .env("AEGIS_GUEST_API", format!("http://{}", self.guest.address))
            .env("AEGIS_AGENT_LISTEN", "127.0.0.1:0")
            .env("AEGIS_AGENT_WORKSPACE", self.folder.path())
            .env("AEGIS_MODEL", "openai/test-model")
            .env("OPENAI_API_KEY", "sk-test-openai")
            .env("OPENAI_BASE_URL", format!("{llm}/v1"))
            .env("ANTHROPIC_API_KEY", "sk-test-anthropic")
            .env("ANTHROPIC_BASE_URL", llm)
            .envs(self.variables.iter().cloned())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, ready) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // Shown by the runner where a test fails.
                eprintln!("agent: {line}");
                if let Some((_, address)) = line.split_once("Ready address=") {
                    sender.send(address.trim().to_owned()).ok();
                }
            }
        });
        let address = ready
            .recv_timeout(PATIENCE)
            .expect("the agent is not ready");
        self.agent = Some(Agent { child, address });
    }

    /// Ends the agent at once, as SIGKILL does.
    pub(crate) fn kill(&mut self) {
        self.agent = None;
    }

    /// Kilobytes of memory of the agent.
    pub(crate) fn resident(&self) -> u64 {
        let id = self.agent.as_ref().unwrap().child.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Delivers a frame; the status of the answer.
    pub(crate) fn deliver(&self, frame: &Value) -> Option<u16> {
        let address = &self.agent.as_ref()?.address;
        Some(http::call(address, "POST", "/v1/tether/recv", &frame.to_string())?.0)
    }

    /// A message on the session host/default, which is taken.
    pub(crate) fn say(&self, msg_id: &str, text: &str) {
        self.say_to("host", "default", msg_id, text);
    }

    pub(crate) fn say_to(&self, channel: &str, id: &str, msg_id: &str, text: &str) {
        assert_eq!(self.deliver(&message(channel, id, msg_id, text)), Some(202));
    }

    pub(crate) fn control(&self, kind: &str, msg_id: &str) {
        let frame = json!({"v": 1, "type": kind, "msg_id": msg_id,
            "session": {"channel": "host", "id": "default"}});
        assert_eq!(self.deliver(&frame), Some(202));
    }

    /// The text of the answer to a message that is said now.
    pub(crate) fn ask(&self, msg_id: &str, text: &str) -> String {
        self.say(msg_id, text);
        self.text(msg_id)
    }

    pub(crate) fn text(&self, msg_id: &str) -> String {
        self.guest.answer(msg_id)["text"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Makes the stand-in for models fail.
    pub(crate) fn fail(&self, how: &Value) {
        let (status, _) =
            http::call(&self.llm.address, "POST", "/admin/fail", &how.to_string()).unwrap();
        assert_eq!(status, 200);
    }

    /// What the stand-in received.
    pub(crate) fn requests(&self) -> Vec<Value> {
        let (_, body) = http::call(&self.llm.address, "GET", "/admin/requests", "").unwrap();
        serde_json::from_str(&body).unwrap()
    }

    /// Waits until the stand-in has received so many requests.
    pub(crate) fn requested(&self, count: usize) {
        let until = std::time::Instant::now() + PATIENCE;
        while self.requests().len() < count {
            assert!(std::time::Instant::now() < until, "the model is not asked");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// What of the protocols was broken.
    pub(crate) fn violations(&self) -> Vec<Value> {
        let (_, body) = http::call(&self.llm.address, "GET", "/admin/violations", "").unwrap();
        serde_json::from_str(&body).unwrap()
    }

    /// The turns of a session's file.
    pub(crate) fn turns(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("sessions").join(name)).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A test that failed otherwise says so already.
        if !std::thread::panicking() {
            self.guest
                .change(|state| assert!(state.bad.is_empty(), "{:?}", state.bad));
        }
    }
}

pub(crate) fn message(channel: &str, id: &str, msg_id: &str, text: &str) -> Value {
    json!({"v": 1, "type": "user.message", "session": {"channel": channel, "id": id},
        "msg_id": msg_id, "seq": 1, "payload": {"text": text}})
}
