//! A stand-in of `AEGIS_SOCKET`: keeps frames, blobs and files as aegisd does, and fails as
//! it is told.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame as BodyFrame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How a call of `POST …/tether` goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mood {
    Good,
    /// Answers with this status, having done nothing.
    Status(u16),
    /// Stores the frame, and closes the connection without an answer.
    Lost,
}

#[derive(Default)]
struct State {
    frames: Vec<Value>,
    streams: Vec<mpsc::UnboundedSender<String>>,
    watermark: u64,
    files: HashMap<String, Vec<u8>>,
    created_at: String,
    instance_state: String,
    moods: Vec<Mood>,
    mood: Option<Mood>,
    posts: usize,
    /// Frames of people are answered at once.
    echo: bool,
    /// How output of `exec` goes on.
    execs: Vec<String>,
}

/// The stand-in.
#[derive(Clone)]
pub(crate) struct Aegisd {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    connections: Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>,
    listener: Arc<std::os::unix::net::UnixListener>,
}

impl Aegisd {
    pub(crate) fn start(folder: &Path) -> Self {
        let path = folder.join("api.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let aegisd = Self {
            path,
            state: Arc::new(Mutex::new(State {
                created_at: "2026-11-28T00:00:00Z".into(),
                instance_state: "paused".into(),
                ..State::default()
            })),
            connections: Arc::default(),
            listener: Arc::new(listener),
        };
        aegisd.resume();
        aegisd
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Ends all connections, as a restart does; new ones wait until it is resumed.
    pub(crate) fn pause(&self) {
        if let Some(task) = self.connections.lock().unwrap().take() {
            task.abort();
        }
        self.state.lock().unwrap().streams.clear();
    }

    pub(crate) fn resume(&self) {
        let (state, listener) = (Arc::clone(&self.state), Arc::clone(&self.listener));
        let task = tokio::spawn(async move {
            let listener = UnixListener::from_std(listener.try_clone().unwrap()).unwrap();
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    let http = hyper::server::conn::http1::Builder::new();
                    http.serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                });
            }
        });
        *self.connections.lock().unwrap() = Some(task);
    }

    /// The next posts go so, then the last mood stays.
    pub(crate) fn moods(&self, moods: &[Mood]) {
        self.state.lock().unwrap().moods = moods.to_vec();
    }

    /// All posts go so.
    pub(crate) fn mood(&self, mood: Mood) {
        self.state.lock().unwrap().mood = (mood != Mood::Good).then_some(mood);
    }

    pub(crate) fn echo(&self) {
        self.state.lock().unwrap().echo = true;
    }

    pub(crate) fn posts(&self) -> usize {
        self.state.lock().unwrap().posts
    }

    pub(crate) fn watermark(&self) -> u64 {
        self.state.lock().unwrap().watermark
    }

    pub(crate) fn set_watermark(&self, seq: u64) {
        self.state.lock().unwrap().watermark = seq;
    }

    pub(crate) fn made_anew(&self, created_at: &str) {
        let mut state = self.state.lock().unwrap();
        state.created_at = created_at.to_owned();
        state.frames.clear();
        state.watermark = 0;
    }

    pub(crate) fn streams(&self) -> usize {
        let mut state = self.state.lock().unwrap();
        state.streams.retain(|stream| !stream.is_closed());
        state.streams.len()
    }

    pub(crate) fn put_file(&self, path: &str, bytes: &[u8]) {
        self.state
            .lock()
            .unwrap()
            .files
            .insert(path.to_owned(), bytes.to_vec());
    }

    pub(crate) fn file(&self, path: &str) -> Option<Vec<u8>> {
        self.state.lock().unwrap().files.get(path).cloned()
    }

    pub(crate) fn execs(&self) -> Vec<String> {
        self.state.lock().unwrap().execs.clone()
    }

    /// The stored frames of a type.
    pub(crate) fn frames(&self, kind: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state
            .frames
            .iter()
            .filter(|frame| frame["type"] == kind)
            .cloned()
            .collect()
    }

    /// The agent sends a frame; stored ones get a number.
    pub(crate) fn say(&self, frame: Value) -> u64 {
        store(&mut self.state.lock().unwrap(), frame)
    }

    /// The agent answers a message of a chat.
    pub(crate) fn done(&self, chat: i64, reply_to: &str, text: &str) -> u64 {
        self.say(
            json!({"v": 1, "type": "assistant.done", "msg_id": format!("re-{reply_to}"),
            "session": {"channel": "telegram", "id": chat.to_string()},
            "reply_to_msg_id": reply_to, "payload": {"text": text}}),
        )
    }

    pub(crate) fn delta(&self, chat: i64, reply_to: &str, text: &str) {
        self.say(json!({"v": 1, "type": "assistant.delta",
            "session": {"channel": "telegram", "id": chat.to_string()},
            "reply_to_msg_id": reply_to, "payload": {"text": text}}));
    }

    pub(crate) fn presence(&self, chat: i64, reply_to: &str) {
        let number = self.state.lock().unwrap().frames.len();
        self.say(
            json!({"v": 1, "type": "status.presence", "msg_id": format!("p-{number}"),
            "session": {"channel": "telegram", "id": chat.to_string()},
            "reply_to_msg_id": reply_to, "payload": {"state": "thinking"}}),
        );
    }
}

/// Stores a frame once, and sends it to whoever follows; its number.
fn store(state: &mut State, mut frame: Value) -> u64 {
    let live = ["assistant.delta", "reasoning.delta"].contains(&frame["type"].as_str().unwrap());
    let mut seq = 0;
    if !live {
        let same = |other: &&Value| {
            ["type", "session", "msg_id"]
                .iter()
                .all(|key| other[*key] == frame[*key])
        };
        if let Some(known) = state.frames.iter().find(same) {
            return known["seq"].as_u64().unwrap();
        }
        seq = state.frames.len() as u64 + 1;
        frame["seq"] = seq.into();
        state.frames.push(frame.clone());
    }
    let line = format!("{frame}\n");
    state
        .streams
        .retain(|stream| stream.send(line.clone()).is_ok());
    seq
}

fn reply(status: u16, value: Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

fn error(status: u16, text: &str) -> Response<Body> {
    reply(status, json!({"error": text}))
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let query: HashMap<String, String> = parts
        .uri
        .query()
        .map(|query| {
            let url = reqwest::Url::parse(&format!("http://x/?{query}")).unwrap();
            url.query_pairs().into_owned().collect()
        })
        .unwrap_or_default();
    let body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    let Some(what) = path.strip_prefix("/v1/instances/my-agent") else {
        return Ok(error(404, "no such instance"));
    };
    let mut lock = state.lock().unwrap();
    let number = |key: &str| query.get(key).and_then(|text| text.parse::<u64>().ok());
    Ok(match (parts.method, what) {
        (Method::GET, "") => reply(
            200,
            json!({"id": "my-agent", "handle": "my-agent", "state": lock.instance_state,
                "enabled": true, "created_at": lock.created_at}),
        ),
        (Method::POST, "/tether") => {
            lock.posts += 1;
            let next = (!lock.moods.is_empty()).then(|| lock.moods.remove(0));
            let mood = next.or(lock.mood).unwrap_or(Mood::Good);
            if let Mood::Status(status) = mood {
                return Ok(error(status, "as the test wants it"));
            }
            let Ok(frame) = aegis_core::tether::Frame::parse(&String::from_utf8_lossy(&body))
            else {
                return Ok(error(400, "bad frame"));
            };
            if !frame.kind().starts_with("user.") && !frame.kind().starts_with("control.") {
                return Ok(error(400, "not a type for the guest"));
            }
            let known = lock.frames.len();
            let frame = frame.into_value();
            let seq = store(&mut lock, frame.clone());
            let is_new = lock.frames.len() > known;
            if lock.echo && is_new && frame["type"] == "user.message" {
                let id = frame["msg_id"].as_str().unwrap();
                let done = json!({"v": 1, "type": "assistant.done", "msg_id": format!("re-{id}"),
                    "session": frame["session"], "reply_to_msg_id": id,
                    "payload": {"text": format!("You said: {}", frame["payload"]["text"].as_str().unwrap())}});
                store(&mut lock, done);
            }
            if mood == Mood::Lost {
                return Err(std::io::Error::other("the connection is cut"));
            }
            reply(
                202,
                json!({"msg_id": frame["msg_id"], "session_id": frame["session"]["id"], "ingress_seq": seq}),
            )
        }
        (Method::GET, "/tether/stream") => {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let channel = query.get("channel").cloned();
            if let Some(after) = number("after_seq") {
                for frame in &lock.frames {
                    if frame["seq"].as_u64().unwrap() > after {
                        sender.send(format!("{frame}\n")).unwrap();
                    }
                }
            }
            lock.streams.push(sender);
            let lines = stream::poll_fn(move |context| {
                receiver
                    .poll_recv(context)
                    .map(|line| line.map(|line| Ok(BodyFrame::data(Bytes::from(line)))))
            });
            let of_channel = futures_util::StreamExt::filter(
                lines,
                move |line: &Result<BodyFrame<Bytes>, Infallible>| {
                    let data = line.as_ref().unwrap().data_ref().unwrap();
                    let frame: Value = serde_json::from_slice(data).unwrap();
                    let ours = channel
                        .as_ref()
                        .is_none_or(|channel| frame["session"]["channel"] == channel.as_str());
                    std::future::ready(ours)
                },
            );
            Response::new(StreamBody::new(of_channel).boxed_unsync())
        }
        (Method::GET, "/tether/poll") => {
            let after = number("after_seq").unwrap_or(0);
            let most = usize::try_from(number("limit").unwrap_or(50)).unwrap();
            let channel = query.get("channel").map_or("", String::as_str);
            let frames = lock.frames.iter().filter(|frame| {
                frame["seq"].as_u64().unwrap() > after && frame["session"]["channel"] == channel
            });
            let frames: Vec<_> = frames.take(most.min(3)).cloned().collect();
            reply(
                200,
                json!({"frames": frames, "next_seq": 0, "timed_out": false}),
            )
        }
        (Method::GET, "/tether/watermark") => reply(200, json!({"seq": lock.watermark})),
        (Method::POST, "/tether/watermark") => {
            let told: Value = serde_json::from_slice(&body).unwrap();
            lock.watermark = told["seq"].as_u64().unwrap();
            reply(200, json!({"seq": lock.watermark}))
        }
        (Method::POST, "/blob") => {
            let kind = parts.headers["content-type"].to_str().unwrap();
            let ending = match (
                kind,
                body.starts_with(b"\x89PNG"),
                body.starts_with(b"\xff\xd8"),
            ) {
                ("image/png", true, _) => "png",
                ("image/jpeg", _, true) => "jpg",
                _ => return Ok(error(400, "no image of that type")),
            };
            let digest = format!(
                "{:064x}",
                body.iter().fold(7_u128, |sum, byte| {
                    sum.wrapping_mul(31).wrapping_add(u128::from(*byte))
                })
            );
            let blob = format!("{digest}.{ending}");
            lock.files
                .insert(format!(".aegis/blobs/{blob}"), body.to_vec());
            reply(
                200,
                json!({"blob": blob, "media_type": kind, "size": body.len()}),
            )
        }
        (Method::GET, "/workspace") => match lock.files.get(&query["path"]) {
            Some(bytes) if bytes == b"-> symlink" => error(403, "it is a symbolic link"),
            Some(bytes) => Response::new(Full::new(Bytes::from(bytes.clone())).boxed_unsync()),
            None => error(404, "no such file"),
        },
        (Method::POST, "/workspace") if lock.files.contains_key(".aegis/files") => {
            error(409, "a part of the path is a symbolic link")
        }
        (Method::POST, "/workspace") => {
            lock.files.insert(query["path"].clone(), body.to_vec());
            reply(200, json!({"status": "ok"}))
        }
        (Method::POST, "/exec") => {
            let order: Value = serde_json::from_slice(&body).unwrap();
            let command = order["command"][2].as_str().unwrap().to_owned();
            lock.execs.push(command.clone());
            exec(&command)
        }
        _ => error(404, "no such route"),
    })
}

/// `lines N` writes N lines, `fail` ends with 3, `hang` never ends, others are echoed.
fn exec(command: &str) -> Response<Body> {
    let mut lines = vec![json!({"exec_id": "exec-1", "started_at": "2026-11-28T00:00:00Z"})];
    let line = |text: String| json!({"stream": "stdout", "line": text, "source": "exec"});
    let mut code = 0;
    let mut hangs = false;
    match command.split_once(' ') {
        Some(("lines", count)) => {
            let count: usize = count.parse().unwrap();
            lines.extend((0..count).map(|number| line(format!("line number {number}"))));
        }
        _ if command == "fail" => code = 3,
        _ if command == "hang" => hangs = true,
        _ => lines.push(line(format!("ran: {command}"))),
    }
    if !hangs {
        lines.push(json!({"exec_id": "exec-1", "exit_code": code, "done": true}));
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let first =
        stream::once(async move { Ok::<_, Infallible>(BodyFrame::data(Bytes::from(text))) });
    let rest = stream::once(async move {
        if hangs {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        Ok(BodyFrame::data(Bytes::new()))
    });
    let all = futures_util::StreamExt::chain(first, rest);
    Response::new(StreamBody::new(all).boxed_unsync())
}
