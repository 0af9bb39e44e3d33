//! The task of one session. It alone decides what is answered next.
//!
//! ```text
//!   frame ──▶ file ──▶ 202            (a message is on the disk before it is taken)
//!               │
//!               ▼
//!   queue:  message · message · new   one after another, in the order they came
//!               │
//!               ▼
//!   the answer that is being made     control.cancel ends this one alone
//! ```
//!
//! A message that was seen is taken and not answered again.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::conversation::{Conversation, Exchange, Item, NEW, RESUMED};
use super::log::{LogError, SessionLog};
use super::turn::{Block, Content, Role, Turn, User};
use crate::agent::Shared;
use crate::answer;
use crate::blob::{self, Blob};
use crate::frame::{Frame, Request, SessionKey};
use crate::provider::exchange::chain;

/// Ids of messages that a session remembers; the host repeats only its latest.
const REMEMBERED: usize = 1000;

/// What a session is told.
#[derive(Debug)]
pub(crate) enum Command {
    Frame {
        frame: Box<Frame>,
        request: Request,
        taken: oneshot::Sender<Result<(), LogError>>,
    },
    /// Only reads the file, and goes on with what is open there.
    Resume { taken: oneshot::Sender<()> },
}

/// Whether a session's file asks for something to be done.
#[must_use]
pub(crate) fn has_work(conversation: &Conversation) -> bool {
    conversation.items.iter().any(|item| match item {
        Item::Exchange(exchange) => exchange.is_open() || is_unsent(exchange),
        Item::New { .. } => true,
    })
}

fn is_unsent(exchange: &Exchange) -> bool {
    exchange.msg_id().is_some() && exchange.answer().is_some() && !exchange.sent
}

/// What a session does next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Job {
    Answer { msg_id: String, resumed: bool },
    New,
}

struct Running {
    task: JoinHandle<()>,
    cancel: CancellationToken,
    msg_id: String,
}

struct Actor {
    shared: Arc<Shared>,
    session: SessionKey,
    log: SessionLog,
    queue: VecDeque<Job>,
    seen: Seen,
    running: Option<Running>,
}

/// The latest ids.
#[derive(Debug, Default)]
struct Seen {
    order: VecDeque<String>,
    known: HashSet<String>,
}

impl Seen {
    fn add(&mut self, id: &str) {
        if self.known.insert(id.to_owned()) {
            self.order.push_back(id.to_owned());
        }
        while self.order.len() > REMEMBERED {
            if let Some(old) = self.order.pop_front() {
                self.known.remove(&old);
            }
        }
    }
}

/// Runs a session until its mailbox closes or its file cannot be read.
pub(crate) async fn run(
    shared: Arc<Shared>,
    session: SessionKey,
    mut commands: mpsc::Receiver<Command>,
) {
    let log = SessionLog::new(&shared.sessions(), &session);
    let conversation = match log.read().await {
        Ok(conversation) => conversation,
        Err(error) => {
            // The mailbox closes: the host keeps its message and sends it again.
            tracing::error!(error = chain(&error), "Cannot open a session");
            return;
        }
    };
    let mut actor = Actor {
        shared,
        session,
        log,
        queue: VecDeque::new(),
        seen: Seen::default(),
        running: None,
    };
    actor.resume(conversation).await;
    loop {
        actor.start_next().await;
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Frame { frame, request, taken }) => {
                    let result = actor.take(*frame, &request).await;
                    // Whoever asked may be gone; the host asks again then.
                    drop(taken.send(result));
                }
                Some(Command::Resume { taken }) => drop(taken.send(())),
                None => return,
            },
            () = ended(&mut actor.running) => {}
        }
    }
}

/// Waits for the answer that is being made; for ever where there is none.
async fn ended(running: &mut Option<Running>) {
    match running {
        Some(current) => {
            if let Err(error) = (&mut current.task).await {
                tracing::error!(%error, msg_id = current.msg_id, "An answer ended by a panic");
            }
            *running = None;
        }
        None => std::future::pending().await,
    }
}

impl Actor {
    async fn resume(&mut self, conversation: Conversation) {
        for id in &conversation.seen {
            self.seen.add(id);
        }
        for item in conversation.items {
            match item {
                Item::New { .. } => self.queue.push_back(Job::New),
                Item::Exchange(exchange) if exchange.is_open() => {
                    let msg_id = exchange.msg_id().unwrap_or_default().to_owned();
                    self.queue.push_back(Job::Answer {
                        msg_id,
                        resumed: !exchange.turns.is_empty() || exchange.resumed > 0,
                    });
                }
                Item::Exchange(exchange) if is_unsent(&exchange) => {
                    answer::send_again(&self.shared, &self.log, &self.session, &exchange).await;
                }
                Item::Exchange(_) => {}
            }
        }
        // Which of them was being answered is not known where nothing of it was kept.
        if let Some(Job::Answer { resumed, .. }) = self.queue.front_mut() {
            *resumed = true;
        }
    }

    async fn take(&mut self, frame: Frame, request: &Request) -> Result<(), LogError> {
        let msg_id = frame.msg_id.clone();
        if msg_id
            .as_ref()
            .is_some_and(|id| self.seen.known.contains(id))
        {
            return Ok(());
        }
        match request {
            Request::Message => {
                let msg_id = msg_id.clone().unwrap_or_else(answer::random_id);
                let turn = user_turn(&frame, &msg_id);
                self.log.append(vec![turn]).await?;
                self.seen.add(&msg_id);
                self.queue.push_back(Job::Answer {
                    msg_id,
                    resumed: false,
                });
            }
            Request::New => {
                let turn = Turn {
                    msg_id: msg_id.clone(),
                    ..Turn::note(NEW, None)
                };
                self.log.append(vec![turn]).await?;
                self.queue.push_back(Job::New);
            }
            Request::Cancel => {
                if let Some(running) = &self.running {
                    running.cancel.cancel();
                }
            }
            Request::Unknown => tracing::info!(kind = frame.kind, "Ignoring an unknown frame"),
        }
        if let Some(id) = &msg_id {
            self.seen.add(id);
        }
        Ok(())
    }

    async fn start_next(&mut self) {
        while self.running.is_none()
            && let Some(job) = self.queue.pop_front()
        {
            match job {
                Job::New => self.begin_anew().await,
                Job::Answer { msg_id, resumed } => {
                    if resumed {
                        self.note_resumed(&msg_id).await;
                    }
                    let cancel = CancellationToken::new();
                    let task = tokio::spawn(answer::run(
                        self.shared.clone(),
                        self.log.clone(),
                        self.session.clone(),
                        msg_id.clone(),
                        cancel.clone(),
                    ));
                    self.running = Some(Running {
                        task,
                        cancel,
                        msg_id,
                    });
                }
            }
        }
    }

    async fn note_resumed(&self, msg_id: &str) {
        // On the disk: it is what ends a message that ends the agent, time after time.
        let note = Turn::note(RESUMED, Some(msg_id));
        if let Err(error) = self.log.append(vec![note]).await {
            tracing::warn!(
                error = chain(&error),
                "Cannot note a resumed answer, ignoring"
            );
        }
    }

    async fn begin_anew(&self) {
        let split =
            |conversation: Conversation, _| conversation.split_at_new().map(|(_, rest)| rest);
        if let Err(error) = self.log.replace(split).await {
            // What was before is left out of the context all the same.
            tracing::error!(error = chain(&error), "Cannot archive a session, ignoring");
        }
    }
}

/// The turn of a message.
fn user_turn(frame: &Frame, msg_id: &str) -> Turn {
    let payload = frame.payload.clone().unwrap_or_default();
    let mut text = payload["text"].as_str().unwrap_or_default().to_owned();
    for file in payload["files"].as_array().into_iter().flatten() {
        let of = |key: &str| file[key].as_str().unwrap_or("?").to_owned();
        let gap = if text.is_empty() { "" } else { "\n" };
        let (name, kind, path) = (of("name"), of("media_type"), of("path"));
        text.push_str(&format!("{gap}[file {name} ({kind}) is at {path}]"));
    }
    let images: Vec<Blob> = payload["images"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|image| serde_json::from_value(image.clone()).ok())
        .filter(|image: &Blob| blob::is_blob_name(&image.blob))
        .take(blob::PER_MESSAGE)
        .collect();
    let content = match images.is_empty() {
        true => Content::Text(text),
        false => {
            let text = (!text.is_empty()).then_some(Block::Text { text });
            Content::Blocks(
                text.into_iter()
                    .chain(images.into_iter().map(Block::Image))
                    .collect(),
            )
        }
    };
    Turn {
        msg_id: Some(msg_id.to_owned()),
        session: Some(frame.session.clone()),
        user: user(&payload["user"]),
        ..Turn::new(Role::User, content)
    }
}

/// Who wrote it; ids are text or numbers.
fn user(value: &serde_json::Value) -> Option<User> {
    let text = |key: &str| match &value[key] {
        serde_json::Value::String(text) if !text.is_empty() => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    value.is_object().then(|| User {
        id: text("id").unwrap_or_default(),
        username: text("username"),
        name: text("name"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_keeps_its_images_files_and_writer() {
        let image = format!("{}.png", "a".repeat(64));
        let frame: Frame = serde_json::from_value(json!({
            "v": 1, "type": "user.message", "session": {"channel": "telegram", "id": "7"},
            "payload": {
                "text": "look",
                "images": [
                    {"media_type": "image/png", "blob": image, "size": 3},
                    {"media_type": "image/png", "blob": "../x.png", "size": 3},
                ],
                "files": [{"path": "inbox/a.pdf", "name": "a.pdf", "media_type": "application/pdf"}],
                "user": {"id": 7, "name": "Ann"},
            },
        }))
        .unwrap();
        let turn = user_turn(&frame, "m");
        assert_eq!(turn.content.images().count(), 1);
        assert!(
            turn.content
                .text()
                .contains("[file a.pdf (application/pdf) is at inbox/a.pdf]")
        );
        assert_eq!(turn.user.unwrap().id, "7");
        assert_eq!(turn.session.unwrap().id, "7");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = Seen::default();
        for n in 0..REMEMBERED + 10 {
            seen.add(&n.to_string());
        }
        assert_eq!(seen.known.len(), REMEMBERED);
        assert!(!seen.known.contains("5") && seen.known.contains("500"));
    }
}
