//! What of a conversation a model is shown. Pure.
//!
//! The latest exchanges that fit, each whole, so that no result is without its call; the
//! one that is being answered always. Where that alone is too much, results of its tools
//! are shortened, the oldest first, then its message. Before it comes to that, older
//! exchanges are to be summarised ([`to_summarise`]).

use crate::blob::Blob;
use crate::provider::{Image, Message, ToolCall};
use crate::session::conversation::{Conversation, Exchange};
use crate::session::turn::{Role, Turn};

/// Images that a model is shown again; older ones are named only.
const IMAGES: usize = 4;
/// What stays of a result that is shortened, in characters.
const SHORT: usize = 400;
/// The least of a message that is shortened, in characters.
const LEAST: usize = 1000;
/// What is said of an image that is not shown.
const UNSHOWN: &str = "[an image that is not shown any more]";

/// How much a model is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub chars: usize,
    pub turns: usize,
}

impl Limits {
    /// Half as much, for a model that takes less than was thought.
    #[must_use]
    pub(crate) fn half(self) -> Limits {
        Limits {
            chars: (self.chars / 2).max(LEAST),
            turns: (self.turns / 2).max(1),
        }
    }
}

/// How many of the first exchanges should be summarised now; 0 for none.
///
/// They are, once four fifths of the limits are used, so many that two fifths are; never
/// the one that is being answered, nor one whose answer the host may not have.
#[must_use]
pub(crate) fn to_summarise(conversation: &Conversation, limits: Limits) -> usize {
    let exchanges: Vec<&Exchange> = conversation.exchanges().collect();
    let within = |part: usize| {
        fitting(
            &exchanges,
            Limits {
                chars: limits.chars / 5 * part,
                turns: (limits.turns * part / 5).max(1),
            },
        )
    };
    if within(4) == 0 {
        return 0;
    }
    let told = exchanges
        .iter()
        .take_while(|e| e.sent || e.msg_id().is_none())
        .count();
    within(2).min(told).min(exchanges.len().saturating_sub(1))
}

/// Where the latest exchanges start that are within the limits; the last one always is.
fn fitting(exchanges: &[&Exchange], limits: Limits) -> usize {
    let (mut chars, mut turns) = (0, 0);
    for (at, exchange) in exchanges.iter().enumerate().rev() {
        chars += exchange.chars();
        turns += 1 + exchange.turns.len();
        let is_last = at + 1 == exchanges.len();
        if !is_last && (chars > limits.chars || turns > limits.turns) {
            return at + 1;
        }
    }
    0
}

/// The messages for a model. `load` gives the bytes of an image, if they are there.
#[must_use]
pub(crate) fn messages(
    conversation: &Conversation,
    limits: Limits,
    load: impl Fn(&Blob) -> Option<Image>,
) -> Vec<Message> {
    let exchanges: Vec<&Exchange> = conversation.exchanges().collect();
    let shown = &exchanges[fitting(&exchanges, limits)..];
    let images = shown.iter().flat_map(|exchange| {
        let turns = exchange
            .turns
            .iter()
            .map(|turn| turn.content.images().count());
        turns.chain([exchange.user.content.images().count()])
    });
    let mut skip = images.sum::<usize>().saturating_sub(IMAGES);
    let mut picture = |turn: &Turn, text: &mut String| {
        let mut images = Vec::new();
        for blob in turn.content.images() {
            let image = if skip > 0 { None } else { load(blob) };
            skip = skip.saturating_sub(1);
            match image {
                Some(image) => images.push(image),
                None => {
                    let gap = if text.is_empty() { "" } else { "\n" };
                    text.push_str(gap);
                    text.push_str(UNSHOWN);
                }
            }
        }
        images
    };
    let mut messages = Vec::new();
    for exchange in shown {
        let mut text = spoken(&exchange.user);
        let images = picture(&exchange.user, &mut text);
        messages.push(Message::User { text, images });
        push_turns(&mut messages, &exchange.turns, &mut picture);
    }
    shorten(&mut messages, limits.chars);
    messages
}

/// What a user said, with who it was, as upstream writes it.
#[must_use]
pub(crate) fn spoken(turn: &Turn) -> String {
    let text = turn.content.text();
    let name = turn
        .user
        .as_ref()
        .and_then(|user| user.name.as_ref().or(user.username.as_ref()));
    match name.filter(|name| !name.is_empty()) {
        Some(name) => format!("[{name}]: {text}"),
        None => text,
    }
}

fn push_turns(
    messages: &mut Vec<Message>,
    turns: &[Turn],
    picture: &mut impl FnMut(&Turn, &mut String) -> Vec<Image>,
) {
    // Calls whose result is yet to come.
    let mut open: Vec<String> = Vec::new();
    for turn in turns {
        match turn.role {
            Role::Assistant => {
                close(messages, &mut open);
                let call = |(id, name, input): (&str, &str, &serde_json::Value)| ToolCall {
                    id: id.to_owned(),
                    name: name.to_owned(),
                    input: match input.is_object() {
                        true => input.clone(),
                        false => serde_json::json!({}),
                    },
                };
                let calls: Vec<ToolCall> = turn.content.calls().map(call).collect();
                open = calls.iter().map(|call| call.id.clone()).collect();
                let text = turn.content.text();
                let text = if turn.failed {
                    format!("[No answer: {text}]")
                } else {
                    text
                };
                messages.push(Message::Assistant { text, calls });
            }
            Role::Tool => {
                let id = turn.tool_call_id.clone().unwrap_or_default();
                let Some(at) = open.iter().position(|known| *known == id) else {
                    continue;
                };
                open.remove(at);
                let mut text = turn.content.text();
                let images = picture(turn, &mut text);
                messages.push(Message::Tool {
                    call_id: id,
                    text,
                    images,
                    error: turn.error,
                });
            }
            Role::User | Role::Summary | Role::Note => {}
        }
    }
    close(messages, &mut open);
}

/// Providers refuse a call without a result.
fn close(messages: &mut Vec<Message>, open: &mut Vec<String>) {
    messages.extend(open.drain(..).map(|call_id| Message::Tool {
        call_id,
        text: "The call was interrupted; what it did is not known.".to_owned(),
        images: Vec::new(),
        error: true,
    }));
}

/// Makes the last exchange fit, which is always shown.
fn shorten(messages: &mut [Message], limit: usize) {
    let mut total: usize = messages.iter().map(size).sum();
    let last_user = messages
        .iter()
        .rposition(|m| matches!(m, Message::User { .. }));
    let start = last_user.unwrap_or(0);
    for message in &mut messages[start..] {
        if total <= limit {
            return;
        }
        if let Message::Tool { text, .. } = message {
            let before = text.chars().count();
            cut_middle(text, SHORT);
            total = total - before + text.chars().count();
        }
    }
    if let Some(Message::User { text, .. }) = messages.get_mut(start)
        && total > limit
    {
        let length = text.chars().count();
        let rest = total - length;
        cut_middle(text, limit.saturating_sub(rest).max(LEAST));
    }
}

fn size(message: &Message) -> usize {
    match message {
        Message::User { text, .. } | Message::Tool { text, .. } => text.chars().count(),
        Message::Assistant { text, calls } => {
            let calls = calls
                .iter()
                .map(|call| call.name.len() + call.input.to_string().len());
            text.chars().count() + calls.sum::<usize>()
        }
    }
}

/// Leaves the start and the end of a text that is longer than `keep` characters.
pub(crate) fn cut_middle(text: &mut String, keep: usize) {
    let length = text.chars().count();
    // What is said of the gap takes room itself.
    if length <= keep + 60 {
        return;
    }
    let head = keep * 2 / 3;
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(length - (keep - head)).collect();
    *text = format!(
        "{start}\n[… {} characters left out …]\n{end}",
        length - keep
    );
}

/// The first `count` exchanges as text for a summary, with the summary before them.
#[must_use]
pub(crate) fn transcript(conversation: &Conversation, count: usize) -> String {
    /// One turn's part; what matters is at its start and its end.
    const TURN: usize = 1500;
    let mut text = String::new();
    let mut say = |who: &str, mut what: String| {
        cut_middle(&mut what, TURN);
        if !what.trim().is_empty() {
            text.push_str(&format!("{who}: {what}\n\n"));
        }
    };
    if let Some(summary) = &conversation.summary {
        say("Summary of what was before", summary.content.text());
    }
    for exchange in conversation.exchanges().take(count) {
        say("User", spoken(&exchange.user));
        for turn in &exchange.turns {
            let who = if turn.role == Role::Tool {
                "Tool result"
            } else {
                "Assistant"
            };
            say(who, turn.content.text());
            for (_, name, input) in turn.content.calls() {
                say("Assistant calls", format!("{name} {input}"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::session::turn::{Block, Content};

    fn user(id: &str, text: &str) -> Turn {
        Turn {
            msg_id: Some(id.into()),
            ..Turn::new(Role::User, Content::Text(text.into()))
        }
    }

    fn said(id: &str, text: &str) -> Turn {
        Turn {
            is_final: true,
            ..Turn::reply(Role::Assistant, Content::Text(text.into()), id)
        }
    }

    fn call(id: &str, call: &str) -> Turn {
        let blocks = vec![
            Block::Text {
                text: "first".into(),
            },
            Block::ToolUse {
                id: call.into(),
                name: "bash".into(),
                input: json!({"command": "ls"}),
            },
        ];
        Turn::reply(Role::Assistant, Content::Blocks(blocks), id)
    }

    fn result(id: &str, call: &str, text: &str) -> Turn {
        Turn {
            tool_call_id: Some(call.into()),
            ..Turn::reply(Role::Tool, Content::Text(text.into()), id)
        }
    }

    fn conversation(turns: Vec<Turn>) -> Conversation {
        let mut conversation = Conversation::default();
        turns.into_iter().for_each(|turn| conversation.push(turn));
        conversation
    }

    const WIDE: Limits = Limits {
        chars: 24_000,
        turns: 50,
    };

    fn shown(conversation: &Conversation, limits: Limits) -> Vec<Message> {
        messages(conversation, limits, |_| None)
    }

    #[test]
    fn a_single_giant_message_is_shortened_and_never_left_out() {
        let giant = conversation(vec![user("a", &"x".repeat(100_000))]);
        let messages = shown(&giant, WIDE);
        let [Message::User { text, .. }] = &messages[..] else {
            panic!("{messages:?}");
        };
        assert!(text.len() > 20_000 && text.len() < 25_000);
        assert!(text.contains("characters left out"));
    }

    #[test]
    fn tool_chains_are_whole_or_not_there() {
        let turns = vec![
            user("a", "one"),
            call("a", "c1"),
            result("a", "c1", "out"),
            said("a", "done"),
            user("b", "two"),
        ];
        let conversation = conversation(turns);
        assert_eq!(shown(&conversation, WIDE).len(), 5);
        let narrow = Limits {
            chars: 24_000,
            turns: 4,
        };
        assert_eq!(shown(&conversation, narrow).len(), 1);
    }

    #[test]
    fn text_before_a_call_stays_and_a_call_without_result_gets_one() {
        let conversation = conversation(vec![
            user("a", "one"),
            call("a", "c1"),
            Turn {
                cancelled: true,
                ..said("a", "Cancelled.")
            },
            user("b", "two"),
        ]);
        let messages = shown(&conversation, WIDE);
        assert!(
            matches!(&messages[1], Message::Assistant { text, calls } if text == "first" && calls.len() == 1)
        );
        assert!(
            matches!(&messages[2], Message::Tool { call_id, error: true, .. } if call_id == "c1")
        );
        assert_eq!(messages.len(), 5);
    }

    #[test]
    fn results_of_the_running_exchange_are_shortened_oldest_first() {
        let turns = vec![
            user("a", "one"),
            call("a", "c1"),
            result("a", "c1", &"x".repeat(9000)),
            call("a", "c2"),
            result("a", "c2", &"y".repeat(9000)),
        ];
        let messages = shown(
            &conversation(turns),
            Limits {
                chars: 10_000,
                turns: 50,
            },
        );
        assert!(matches!(&messages[2], Message::Tool { text, .. } if text.len() < 600));
        assert!(matches!(&messages[4], Message::Tool { text, .. } if text.len() == 9000));
    }

    #[test]
    fn only_the_latest_images_are_shown() {
        let with_image = |id: &str| Turn {
            content: Content::Blocks(vec![Block::Image(Blob {
                media_type: "image/png".into(),
                blob: format!("{id}.png"),
                size: 1,
            })]),
            ..user(id, "")
        };
        let ids = ["a", "b", "c", "d", "e"];
        let conversation = conversation(ids.iter().map(|id| with_image(id)).collect());
        let load = |blob: &Blob| {
            Some(Image {
                media_type: blob.media_type.clone(),
                base64: blob.blob.clone(),
            })
        };
        let messages = messages(&conversation, WIDE, load);
        assert!(
            matches!(&messages[0], Message::User { images, text } if images.is_empty() && text == UNSHOWN)
        );
        assert!(matches!(&messages[4], Message::User { images, .. } if images.len() == 1));
    }

    #[test]
    fn old_exchanges_are_summarised_near_the_limit_once_they_are_sent() {
        let exchange = |id: &str| {
            [
                user(id, &"x".repeat(1000)),
                said(id, &"y".repeat(1000)),
                Turn::note("sent", Some(id)),
            ]
        };
        let ids: Vec<String> = (0..10).map(|n| format!("m{n}")).collect();
        let mut turns: Vec<Turn> = ids.iter().flat_map(|id| exchange(id)).collect();
        turns.push(user("now", "hi"));
        let full = conversation(turns.clone());
        assert_eq!(to_summarise(&full, WIDE), 6);
        assert_eq!(
            to_summarise(
                &full,
                Limits {
                    chars: 100_000,
                    turns: 50
                }
            ),
            0
        );
        turns.retain(|turn| !(turn.role == Role::Note && turn.reply_to.as_deref() == Some("m2")));
        assert_eq!(to_summarise(&conversation(turns), WIDE), 2);
    }

    #[test]
    fn a_users_name_is_before_the_text() {
        let mut turn = user("a", "hi");
        turn.user = Some(crate::session::turn::User {
            name: Some("Ann".into()),
            ..Default::default()
        });
        assert_eq!(spoken(&turn), "[Ann]: hi");
    }
}
