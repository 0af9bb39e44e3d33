//! Anthropic's Messages API (API reference, "Messages" and "Streaming messages"). Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Event, Image, Message, Protocol, Reply, ReplyReader, Request, Stop, StreamError, ToolCall,
    ToolDefinition, arguments, sse,
};
use crate::session::turn::Usage;

/// The version of the API, which every request names ("Migrating to API version
/// 2026-10-21"): the one that Anthropic's own client of version 2 names. What it is known
/// to refuse (sampling parameters, documents and citations at wrong places) is not sent.
const VERSION: &str = "2026-10-21";

/// The protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claude;

impl Protocol for Claude {
    fn path(&self) -> &'static str {
        "v1/messages"
    }

    fn headers(&self, key: Option<&str>) -> Vec<(&'static str, String)> {
        let key = key.map(|key| ("x-api-key", key.to_owned()));
        key.into_iter()
            .chain([("anthropic-version", VERSION.to_owned())])
            .collect()
    }

    fn body(&self, model: &str, request: &Request) -> Value {
        let mut body = json!({
            "model": model,
            "max_tokens": request.max_tokens,
            "messages": messages(&request.messages),
            "stream": true,
        });
        if !request.system.is_empty() {
            body["system"] = request.system.as_str().into();
        }
        if !request.tools.is_empty() {
            let tool = |tool: &ToolDefinition| {
                json!({
                    "name": tool.name,
                    "description": tool.description,
                    "input_schema": tool.parameters,
                })
            };
            body["tools"] = request.tools.iter().map(tool).collect();
        }
        body
    }

    fn reader(&self) -> Box<dyn ReplyReader> {
        Box::new(Reader::default())
    }
}

/// Messages with roles taking turns: what one role says several times becomes one
/// message. Results of tools are said by the user, before anything else of that message.
fn messages(messages: &[Message]) -> Vec<Value> {
    let mut roles: Vec<(&str, Vec<Value>)> = Vec::new();
    for message in messages {
        let (role, blocks) = match message {
            Message::User { text, images } => ("user", user(text, images)),
            Message::Assistant { text, calls } => ("assistant", assistant(text, calls)),
            Message::Tool {
                call_id,
                text,
                images,
                error,
            } => {
                let mut result = json!({"type": "tool_result", "tool_use_id": call_id});
                let content = user(text, images);
                if !content.is_empty() {
                    result["content"] = content.into();
                }
                if *error {
                    result["is_error"] = true.into();
                }
                ("user", vec![result])
            }
        };
        match roles.last_mut() {
            _ if blocks.is_empty() => {}
            Some((last, known)) if *last == role => known.extend(blocks),
            _ => roles.push((role, blocks)),
        }
    }
    let message = |(role, content)| json!({"role": role, "content": content});
    roles.into_iter().map(message).collect()
}

fn user(text: &str, images: &[Image]) -> Vec<Value> {
    let image = |image: &Image| {
        json!({"type": "image", "source": {
            "type": "base64", "media_type": image.media_type, "data": image.base64,
        }})
    };
    images.iter().map(image).chain(text_block(text)).collect()
}

fn assistant(text: &str, calls: &[ToolCall]) -> Vec<Value> {
    let call = |call: &ToolCall| json!({"type": "tool_use", "id": call.id, "name": call.name, "input": call.input});
    text_block(text)
        .into_iter()
        .chain(calls.iter().map(call))
        .collect()
}

/// None for text without letters, which the API refuses.
fn text_block(text: &str) -> Option<Value> {
    (!text.trim().is_empty()).then(|| json!({"type": "text", "text": text}))
}

#[derive(Default)]
struct Reader {
    text: String,
    calls: BTreeMap<u64, PartialCall>,
    stop: Option<String>,
    usage: Usage,
    over: bool,
}

struct PartialCall {
    id: String,
    name: String,
    /// Given whole at the start, by some; empty otherwise.
    input: Value,
    json: String,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said {
    MessageStart {
        message: Start,
    },
    ContentBlockStart {
        index: u64,
        content_block: StartedBlock,
    },
    ContentBlockDelta {
        index: u64,
        delta: BlockDelta,
    },
    MessageDelta {
        delta: MessageDelta,
        #[serde(default)]
        usage: Tokens,
    },
    MessageStop,
    Error {
        error: ReportedError,
    },
    /// `ping`, `content_block_stop`, and those of later times, as the API demands.
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Start {
    #[serde(default)]
    usage: Tokens,
}

#[derive(Default, Deserialize)]
struct Tokens {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum StartedBlock {
    Text {
        #[serde(default)]
        text: String,
    },
    ToolUse {
        id: String,
        name: String,
        #[serde(default)]
        input: Value,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum BlockDelta {
    TextDelta {
        text: String,
    },
    InputJsonDelta {
        partial_json: String,
    },
    ThinkingDelta {
        thinking: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct MessageDelta {
    #[serde(default)]
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
struct ReportedError {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    message: String,
}

impl Reader {
    fn count(&mut self, tokens: &Tokens) {
        if let Some(input) = tokens.input_tokens {
            self.usage.input = input
                + tokens.cache_creation_input_tokens.unwrap_or_default()
                + tokens.cache_read_input_tokens.unwrap_or_default();
        }
        if let Some(output) = tokens.output_tokens {
            self.usage.output = output;
        }
    }

    fn say(&mut self, text: String) -> Vec<Event> {
        self.text.push_str(&text);
        match text.is_empty() {
            true => Vec::new(),
            false => vec![Event::Text(text)],
        }
    }
}

impl ReplyReader for Reader {
    fn take(&mut self, event: &sse::Event) -> Result<Vec<Event>, StreamError> {
        match serde_json::from_str(&event.data).map_err(StreamError::Malformed)? {
            Said::MessageStart { message } => self.count(&message.usage),
            Said::ContentBlockStart {
                index,
                content_block,
            } => match content_block {
                StartedBlock::Text { text } => return Ok(self.say(text)),
                StartedBlock::ToolUse { id, name, input } => {
                    let json = String::new();
                    let call = PartialCall {
                        id,
                        name,
                        input,
                        json,
                    };
                    self.calls.insert(index, call);
                }
                StartedBlock::Other => {}
            },
            Said::ContentBlockDelta { index, delta } => match delta {
                BlockDelta::TextDelta { text } => return Ok(self.say(text)),
                BlockDelta::InputJsonDelta { partial_json } => {
                    if let Some(call) = self.calls.get_mut(&index) {
                        call.json.push_str(&partial_json);
                    }
                }
                BlockDelta::ThinkingDelta { thinking } => {
                    return Ok(vec![Event::Reasoning(thinking)]);
                }
                BlockDelta::Other => {}
            },
            Said::MessageDelta { delta, usage } => {
                self.count(&usage);
                self.stop = delta.stop_reason.or(self.stop.take());
            }
            Said::MessageStop => self.over = true,
            Said::Error { error } => {
                return Err(StreamError::Reported {
                    kind: error.kind,
                    message: error.message,
                });
            }
            Said::Other => {}
        }
        Ok(Vec::new())
    }

    fn finish(self: Box<Self>) -> Result<Reply, StreamError> {
        if !self.over {
            return Err(StreamError::Incomplete);
        }
        let stop = match self.stop.as_deref() {
            Some("max_tokens" | "model_context_window_exceeded") => Stop::Length,
            Some("refusal") => Stop::Refused,
            Some("tool_use") => Stop::Tools,
            _ if !self.calls.is_empty() => Stop::Tools,
            _ => Stop::End,
        };
        let mut calls = Vec::new();
        for call in self.calls.into_values() {
            let input = match &call.input {
                Value::Object(given) if call.json.is_empty() && !given.is_empty() => Ok(call.input),
                _ => arguments(&call.json),
            };
            match input {
                Ok(input) => calls.push(ToolCall {
                    id: call.id,
                    name: call.name,
                    input,
                }),
                // Cut off in the middle of its arguments.
                Err(_) if stop == Stop::Length => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Reply {
            text: self.text,
            calls,
            stop,
            usage: self.usage,
        })
    }

    fn is_over(&self) -> bool {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::read;
    use super::*;

    fn stream(events: &[Value]) -> String {
        let line = |event: &Value| {
            format!(
                "event: {}\ndata: {event}\n\n",
                event["type"].as_str().unwrap()
            )
        };
        events.iter().map(line).collect()
    }

    fn answer(stop: &str, json: &[&str]) -> String {
        let mut events = vec![
            json!({"type": "message_start", "message": {"usage":
                {"input_tokens": 9, "output_tokens": 1}}}),
            json!({"type": "content_block_start", "index": 0,
                "content_block": {"type": "text", "text": ""}}),
            json!({"type": "ping"}),
            json!({"type": "of_later_times", "x": 1}),
            json!({"type": "content_block_delta", "index": 0,
                "delta": {"type": "text_delta", "text": "I look."}}),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "content_block_start", "index": 1, "content_block":
                {"type": "tool_use", "id": "t", "name": "self_info", "input": {}}}),
        ];
        events.extend(json.iter().map(|part| {
            json!({"type": "content_block_delta", "index": 1,
                "delta": {"type": "input_json_delta", "partial_json": part}})
        }));
        events.extend([
            json!({"type": "message_delta", "delta": {"stop_reason": stop},
                "usage": {"output_tokens": 5}}),
            json!({"type": "message_stop"}),
        ]);
        stream(&events)
    }

    #[test]
    fn a_call_without_arguments_has_an_empty_object() {
        for parts in [&[][..], &[""][..]] {
            let (_, reply) = read(&Claude, &answer("tool_use", parts), 11).unwrap();
            assert_eq!(reply.calls[0].input, json!({}));
            assert_eq!(reply.text, "I look.");
            assert_eq!(reply.stop, Stop::Tools);
            assert_eq!(
                reply.usage,
                Usage {
                    input: 9,
                    output: 5
                }
            );
        }
    }

    #[test]
    fn arguments_are_put_together_and_dropped_where_the_limit_cut_them() {
        let text = answer("tool_use", &["{\"a\"", ":1}"]);
        assert_eq!(
            read(&Claude, &text, 3).unwrap().1.calls[0].input,
            json!({"a": 1})
        );
        let (_, reply) = read(&Claude, &answer("max_tokens", &["{\"a\""]), 3).unwrap();
        assert_eq!((reply.stop, reply.calls.len()), (Stop::Length, 0));
    }

    #[test]
    fn overload_in_the_stream_and_a_cut_stream_are_errors() {
        let overloaded = stream(&[json!({"type": "error",
            "error": {"type": "overloaded_error", "message": "Overloaded"}})]);
        let error = read(&Claude, &overloaded, 8).unwrap_err();
        assert!(matches!(error, StreamError::Reported { kind, .. } if kind == "overloaded_error"));
        let whole = answer("end_turn", &[]);
        let cut = &whole[..whole.len() - 60];
        assert!(matches!(
            read(&Claude, cut, 8),
            Err(StreamError::Incomplete)
        ));
    }

    #[test]
    fn roles_take_turns_and_results_come_first() {
        let text = |text: &str| Message::User {
            text: text.into(),
            images: Vec::new(),
        };
        let request = Request {
            messages: vec![
                text("a"),
                text("b"),
                Message::Assistant {
                    text: String::new(),
                    calls: vec![ToolCall {
                        id: "t".into(),
                        name: "n".into(),
                        input: json!({}),
                    }],
                },
                Message::Tool {
                    call_id: "t".into(),
                    text: String::new(),
                    images: Vec::new(),
                    error: true,
                },
                text("c"),
            ],
            ..Request::default()
        };
        let body = Claude.body("m", &request);
        let roles: Vec<_> = body["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| &m["role"])
            .collect();
        assert_eq!(roles, ["user", "assistant", "user"]);
        assert_eq!(body["messages"][0]["content"].as_array().unwrap().len(), 2);
        assert_eq!(body["messages"][2]["content"][0]["type"], "tool_result");
        assert_eq!(body["messages"][2]["content"][0]["is_error"], true);
        assert_eq!(body["messages"][2]["content"][1]["text"], "c");
    }
}
