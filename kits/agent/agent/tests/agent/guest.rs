//! A guest API: takes frames as aegisd does, each stored one once, and passes models of
//! the host on to the stand-in.

use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http;

/// How long a test waits for what has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct State {
    /// Frames in the order they came; stored ones once.
    pub(crate) frames: Vec<Value>,
    /// Stored frames that came again.
    pub(crate) again: usize,
    /// Nothing is taken.
    pub(crate) down: bool,
    /// Deltas are answered late.
    pub(crate) slow: Option<Duration>,
    /// `POST` and `DELETE` of the lease.
    pub(crate) lease: Vec<String>,
    pub(crate) restarts: usize,
    /// What broke the rules of frames.
    pub(crate) bad: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Guest {
    pub(crate) address: String,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Guest {
    /// `llm` is the address of the stand-in for models.
    pub(crate) fn start(llm: String) -> Guest {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let guest = Guest {
            address: listener.local_addr().unwrap().to_string(),
            shared: Arc::default(),
        };
        let served = guest.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (guest, llm) = (served.clone(), llm.clone());
                std::thread::spawn(move || guest.serve(stream, &llm));
            }
        });
        guest
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.0.lock().unwrap());
        self.shared.1.notify_all();
    }

    /// What `look` finds, once it finds something.
    pub(crate) fn wait<T>(&self, what: &str, mut look: impl FnMut(&State) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut state = self.shared.0.lock().unwrap();
        loop {
            if let Some(found) = look(&state) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{what} did not happen; frames: {:#?}",
                state.frames
            );
            state = self.shared.1.wait_timeout(state, left).unwrap().0;
        }
    }

    pub(crate) fn frames(&self) -> Vec<Value> {
        self.shared.0.lock().unwrap().frames.clone()
    }

    /// The answers to a message so far.
    pub(crate) fn answers(&self, msg_id: &str) -> Vec<Value> {
        let is = |frame: &&Value| {
            frame["type"] == "assistant.done" && frame["reply_to_msg_id"] == msg_id
        };
        self.frames().iter().filter(is).cloned().collect()
    }

    /// The answer to a message, once it is there.
    pub(crate) fn answer(&self, msg_id: &str) -> Value {
        self.wait(&format!("an answer to {msg_id}"), |state| {
            let is = |frame: &&Value| {
                frame["type"] == "assistant.done" && frame["reply_to_msg_id"] == msg_id
            };
            state
                .frames
                .iter()
                .find(is)
                .map(|frame| frame["payload"].clone())
        })
    }

    fn serve(&self, stream: TcpStream, llm: &str) {
        let mut writer = stream.try_clone().unwrap();
        let mut reader = BufReader::new(stream);
        while let Some(request) = http::receive(&mut reader) {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            match (request.method.as_str(), request.path.as_str()) {
                ("POST", "/v1/tether/send") => self.send(&mut writer, &body),
                (method, "/v1/self/keepalive") => {
                    self.change(|state| state.lease.push(method.to_owned()));
                    http::reply(&mut writer, 200, &json!({"ok": true}));
                }
                ("GET", "/v1/self") => {
                    let info = json!({"id": "i-1", "handle": "test", "state": "running"});
                    http::reply(&mut writer, 200, &info);
                }
                ("POST", "/v1/self/restart") => {
                    self.change(|state| state.restarts += 1);
                    http::reply(
                        &mut writer,
                        200,
                        &json!({"ok": true, "message": "restarting"}),
                    );
                }
                ("POST", "/v1/llm/chat") => {
                    assert_eq!(request.accept, "text/event-stream");
                    return relay(&mut writer, llm, &body);
                }
                _ => http::reply(
                    &mut writer,
                    404,
                    &json!({"error": {"message": "no such path"}}),
                ),
            }
        }
    }

    fn send(&self, writer: &mut TcpStream, frame: &Value) {
        let live = matches!(
            frame["type"].as_str(),
            Some("assistant.delta" | "reasoning.delta")
        );
        let slow = self.shared.0.lock().unwrap().slow;
        if let Some(slow) = slow.filter(|_| live) {
            std::thread::sleep(slow);
        }
        let mut down = false;
        self.change(|state| {
            down = state.down;
            if down {
                return;
            }
            if frame["v"] != 1 || (!live && !frame["msg_id"].is_string()) {
                state.bad.push(frame.to_string());
            }
            let key = |frame: &Value| {
                (
                    frame["session"].clone(),
                    frame["type"].clone(),
                    frame["msg_id"].clone(),
                )
            };
            if !live && state.frames.iter().any(|known| key(known) == key(frame)) {
                state.again += 1;
            } else {
                state.frames.push(frame.clone());
            }
        });
        match down {
            true => http::reply(writer, 503, &json!({"error": {"message": "down"}})),
            false => http::reply(writer, 200, &json!({"ok": true, "seq": 1})),
        }
    }
}

/// Answers with what the stand-in answers, byte by byte.
fn relay(writer: &mut TcpStream, llm: &str, body: &Value) {
    assert!(matches!(
        body["provider"].as_str(),
        Some("ollama" | "lmstudio" | "vllm")
    ));
    assert_eq!(body["body"]["model"], body["model"]);
    let request = body["body"].to_string();
    let mut stream = TcpStream::connect(llm).unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer host\r\n\
         Content-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        request.len()
    );
    stream
        .write_all(format!("{head}{request}").as_bytes())
        .unwrap();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if writer.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
