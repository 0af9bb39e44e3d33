//! Asking the model and using its tools until it has answered.

use super::streamer::Streamer;
use super::{AnswerError, Outcome, RESUMED};
use crate::agent::Shared;
use crate::blob::Blob;
use crate::config::Config;
use crate::context::{self, Limits};
use crate::frame::{self, SessionKey};
use crate::prompt;
use crate::provider::choice::{self, Target};
use crate::provider::exchange::{AskError, Patience, chain};
use crate::provider::{Event, Image, Message, Reply, Request, Stop, ToolCall};
use crate::session::conversation::{Conversation, Exchange};
use crate::session::log::SessionLog;
use crate::session::turn::{Block, Content, Role, Turn, Usage};
use crate::tools::{Call, ToolOutcome};

/// How often the context is halved for a model that takes less.
const HALVINGS: u32 = 3;
/// A session's file that is larger is cut down to what is in use, in bytes.
const FILE_LIMIT: u64 = 1 << 20;
/// Tokens of a summary.
const SUMMARY_TOKENS: u64 = 1024;

/// What stays the same for all rounds.
struct Rounds<'a> {
    shared: &'a Shared,
    log: &'a SessionLog,
    session: &'a SessionKey,
    msg_id: &'a str,
    config: &'a Config,
    target: Target,
    limits: Limits,
    usage: Usage,
}

/// The answer to a message.
pub(super) async fn answer(
    shared: &Shared,
    log: &SessionLog,
    session: &SessionKey,
    msg_id: &str,
) -> Result<Outcome, AnswerError> {
    // Semaphores of the agent are never closed.
    let _permit = shared.permits.acquire().await;
    let mut streamer = Streamer::new(shared.outbox.clone(), session.clone(), msg_id.to_owned());
    streamer.presence("thinking");
    let conversation = read(log, msg_id).await?;
    if last(&conversation)?.resumed > RESUMED {
        return Err(AnswerError::GivenUp);
    }
    let current = shared.config.current();
    let config = &*current.config;
    let mut rounds = Rounds {
        shared,
        log,
        session,
        msg_id,
        config,
        target: choice::choose(config, |name| std::env::var(name).ok())?,
        limits: Limits {
            chars: config.context_chars(),
            turns: config.context_turns(),
        },
        usage: Usage::default(),
    };
    rounds.close_interrupted(&conversation).await?;
    rounds.summarise(&conversation).await;
    // On the heap: it is the largest of all that an answer waits for.
    let mut outcome = Box::pin(rounds.until_answered(&mut streamer)).await?;
    outcome.usage = rounds.usage;
    if let Some(complaint) = current.complaint {
        outcome.text = format!("{complaint}\n\n{}", outcome.text);
    }
    tracing::info!(
        msg_id,
        input_tokens = outcome.usage.input,
        output_tokens = outcome.usage.output,
        "Answered"
    );
    Ok(outcome)
}

async fn read(log: &SessionLog, msg_id: &str) -> Result<Conversation, AnswerError> {
    log.read().await?.up_to(msg_id).ok_or(AnswerError::Missing)
}

fn last(conversation: &Conversation) -> Result<&Exchange, AnswerError> {
    conversation
        .exchanges()
        .next_back()
        .ok_or(AnswerError::Missing)
}

impl Rounds<'_> {
    async fn until_answered(&mut self, streamer: &mut Streamer) -> Result<Outcome, AnswerError> {
        loop {
            let conversation = read(self.log, self.msg_id).await?;
            let exchange = last(&conversation)?;
            let used = exchange
                .turns
                .iter()
                .filter(|turn| turn.role == Role::Assistant)
                .count();
            if used >= self.config.max_tool_rounds() {
                let mut outcome = outcome(exchange, "Tool loop limit reached.");
                outcome.failed = true;
                return Ok(outcome);
            }
            let reply = self.ask(&conversation, streamer).await?;
            if reply.calls.is_empty() {
                return Ok(outcome(exchange, &closing(&reply, exchange)));
            }
            self.keep_calls(&reply).await?;
            for call in &reply.calls {
                streamer.next_text();
                streamer.presence(&format!("tool: {}", call.name));
                let user = exchange.user.user.as_ref();
                let result = self
                    .shared
                    .toolbox
                    .call(&Call {
                        session: self.session,
                        user,
                        config: self.config,
                        name: &call.name,
                        input: &call.input,
                    })
                    .await;
                self.keep_result(call, result).await?;
            }
            streamer.presence("thinking");
        }
    }

    async fn ask(
        &mut self,
        conversation: &Conversation,
        streamer: &mut Streamer,
    ) -> Result<Reply, AnswerError> {
        let mut halvings = 0;
        loop {
            let request = self.request(conversation).await;
            let asked = self
                .shared
                .models
                .ask(&self.target, &request, self.patience(), streamer)
                .await;
            streamer.end_reasoning();
            match asked {
                Ok(reply) => {
                    self.usage.input += reply.usage.input;
                    self.usage.output += reply.usage.output;
                    return Ok(reply);
                }
                Err(error) if error.is_too_long() && halvings < HALVINGS => {
                    tracing::warn!(error = chain(&error), "The model takes less, asking again");
                    self.limits = self.limits.half();
                    halvings += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn patience(&self) -> Patience {
        Patience {
            silence: self.config.request_timeout(),
            retries: self.config.max_retries(),
        }
    }

    async fn request(&self, conversation: &Conversation) -> Request {
        let exchange = conversation.exchanges().next_back();
        let asked = exchange.map(|e| e.user.content.text()).unwrap_or_default();
        let user = exchange.and_then(|exchange| exchange.user.user.as_ref());
        let memories =
            self.shared
                .toolbox
                .memories_for(self.session, user, &asked, &self.config.memory);
        let summary = conversation
            .summary
            .as_ref()
            .map(|summary| summary.content.text());
        Request {
            system: prompt::system(
                self.config.system_prompt.as_deref(),
                self.session,
                &frame::now(),
                &memories,
                summary.as_deref(),
            ),
            messages: context::messages(conversation, self.limits, |blob| self.load(blob)),
            tools: self.shared.toolbox.definitions(self.config).await,
            max_tokens: self.config.max_tokens(),
        }
    }

    fn load(&self, blob: &Blob) -> Option<Image> {
        use base64::Engine;
        match self.shared.blobs.read(&blob.blob) {
            Ok(bytes) => Some(Image {
                media_type: crate::blob::kind(&bytes)?.0.to_owned(),
                base64: base64::engine::general_purpose::STANDARD.encode(bytes),
            }),
            Err(error) => {
                tracing::warn!(error = chain(&error), "Cannot show an image, ignoring");
                None
            }
        }
    }

    /// The calls are in the file before they are made, so that none is made twice.
    async fn keep_calls(&self, reply: &Reply) -> Result<(), AnswerError> {
        let text = (!reply.text.is_empty()).then(|| Block::Text {
            text: reply.text.clone(),
        });
        let calls = reply.calls.iter().map(|call| Block::ToolUse {
            id: call.id.clone(),
            name: call.name.clone(),
            input: call.input.clone(),
        });
        let content = Content::Blocks(text.into_iter().chain(calls).collect());
        let turn = Turn::reply(Role::Assistant, content, self.msg_id);
        Ok(self.log.append(vec![turn]).await?)
    }

    async fn keep_result(&self, call: &ToolCall, result: ToolOutcome) -> Result<(), AnswerError> {
        let content = match result.images.is_empty() {
            true => Content::Text(result.text),
            false => {
                let text = Block::Text { text: result.text };
                let images = result.images.into_iter().map(Block::Image);
                Content::Blocks([text].into_iter().chain(images).collect())
            }
        };
        let turn = Turn {
            tool_call_id: Some(call.id.clone()),
            error: result.error,
            attached: result.attached,
            ..Turn::reply(Role::Tool, content, self.msg_id)
        };
        Ok(self.log.append(vec![turn]).await?)
    }

    /// Calls that were being made when the agent ended get a result that says so.
    async fn close_interrupted(&self, conversation: &Conversation) -> Result<(), AnswerError> {
        let turns = &last(conversation)?.turns;
        let done = |id: &str| {
            turns
                .iter()
                .any(|turn| turn.tool_call_id.as_deref() == Some(id))
        };
        let open: Vec<Turn> = turns
            .iter()
            .flat_map(|turn| turn.content.calls())
            .filter(|(id, _, _)| !done(id))
            .map(|(id, _, _)| {
                let text = "The agent was restarted during this call; what it did is not known.";
                Turn {
                    tool_call_id: Some(id.to_owned()),
                    error: true,
                    ..Turn::reply(Role::Tool, Content::Text(text.to_owned()), self.msg_id)
                }
            })
            .collect();
        match open.is_empty() {
            true => Ok(()),
            false => Ok(self.log.append(open).await?),
        }
    }

    /// Older exchanges become a summary where the context is nearly full. Without one
    /// they are left out, so a failure is survived.
    async fn summarise(&mut self, conversation: &Conversation) {
        let count = context::to_summarise(conversation, self.limits);
        if count == 0 {
            return;
        }
        match self.summary(conversation, count).await {
            Ok(text) if !text.trim().is_empty() => {
                let turn = Turn {
                    covers: Some(conversation.covered + count),
                    ..Turn::new(Role::Summary, Content::Text(text))
                };
                let kept = self.log.append(vec![turn]).await;
                let small = |conversation, size| (size > FILE_LIMIT).then_some(conversation);
                let kept = match kept {
                    Ok(()) => self.log.replace(small).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = kept {
                    tracing::warn!(error = chain(&error), "Cannot keep a summary, ignoring");
                }
            }
            Ok(_) => tracing::warn!("The model gave an empty summary, ignoring"),
            Err(error) => tracing::warn!(error = chain(&error), "Cannot summarise, ignoring"),
        }
    }

    async fn summary(
        &mut self,
        conversation: &Conversation,
        count: usize,
    ) -> Result<String, AskError> {
        let mut text = context::transcript(conversation, count);
        context::cut_middle(&mut text, self.limits.chars.max(24_000));
        let request = Request {
            system: prompt::SUMMARISE.to_owned(),
            messages: vec![Message::User {
                text,
                images: Vec::new(),
            }],
            tools: Vec::new(),
            max_tokens: SUMMARY_TOKENS,
        };
        let patience = Patience {
            retries: self.config.max_retries().min(2),
            ..self.patience()
        };
        let reply = self
            .shared
            .models
            .ask(&self.target, &request, patience, &mut Unheard)
            .await?;
        self.usage.input += reply.usage.input;
        self.usage.output += reply.usage.output;
        Ok(reply.text)
    }
}

/// Nobody sees a summary being made.
struct Unheard;

impl crate::provider::exchange::Sink for Unheard {
    fn event(&mut self, _: Event) {}

    fn restart(&mut self) {}
}

/// What a model said last, with what the user has to know of how it ended.
fn closing(reply: &Reply, exchange: &Exchange) -> String {
    let text = reply.text.trim_end();
    let attached = exchange.turns.iter().any(|turn| !turn.attached.is_empty());
    match (&reply.stop, text.is_empty()) {
        (Stop::Length, true) => "[The answer was cut off at its longest length.]".to_owned(),
        (Stop::Length, false) => {
            format!("{text}\n\n[The answer was cut off at its longest length.]")
        }
        (Stop::Refused, true) => "The model refused to answer.".to_owned(),
        (_, true) if !attached => "The model gave no text.".to_owned(),
        _ => text.to_owned(),
    }
}

/// The answer whose last text is `last`, with what was said and attached before it.
fn outcome(exchange: &Exchange, last: &str) -> Outcome {
    let said = exchange
        .turns
        .iter()
        .filter(|turn| turn.role == Role::Assistant)
        .map(|turn| turn.content.text())
        .chain([last.to_owned()])
        .filter(|text| !text.trim().is_empty());
    let attached = exchange
        .turns
        .iter()
        .flat_map(|turn| turn.attached.iter().cloned());
    let calls = exchange.turns.iter().flat_map(|turn| turn.content.calls());
    let restarts: Vec<&str> = calls
        .filter(|(_, name, _)| *name == crate::tools::SELF_RESTART)
        .map(|(id, _, _)| id)
        .collect();
    let done = |turn: &Turn| {
        !turn.error
            && turn
                .tool_call_id
                .as_deref()
                .is_some_and(|id| restarts.contains(&id))
    };
    Outcome {
        last: last.to_owned(),
        text: said.collect::<Vec<_>>().join("\n\n"),
        images: attached.take(crate::blob::PER_MESSAGE).collect(),
        restart: exchange.turns.iter().any(done),
        ..Outcome::default()
    }
}
