//! OpenAI's chat completions (API reference, "Create chat completion"), which OpenAI,
//! Ollama, LM Studio, vLLM and most others speak. Pure.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Event, Image, Message, Protocol, Reply, ReplyReader, Request, Stop, StreamError, ToolCall,
    arguments, sse,
};
use crate::session::turn::Usage;

/// The protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenAi {
    /// OpenAI itself takes `max_completion_tokens` and, for its newer models, refuses
    /// the `max_tokens` that others know.
    pub official: bool,
}

impl Protocol for OpenAi {
    fn path(&self) -> &'static str {
        "chat/completions"
    }

    fn headers(&self, key: Option<&str>) -> Vec<(&'static str, String)> {
        key.map(|key| ("authorization", format!("Bearer {key}")))
            .into_iter()
            .collect()
    }

    fn body(&self, model: &str, request: &Request) -> Value {
        let mut messages = vec![json!({"role": "system", "content": request.system})];
        // Results of tools are text here; their images follow the round's last result.
        let mut images = Vec::new();
        for message in &request.messages {
            if !matches!(message, Message::Tool { .. }) {
                messages.extend(user_images(&mut images));
            }
            messages.push(match message {
                Message::User { text, images } if images.is_empty() => {
                    json!({"role": "user", "content": text})
                }
                Message::User { text, images } => {
                    json!({"role": "user", "content": parts(text, images)})
                }
                Message::Assistant { text, calls } => assistant(text, calls),
                Message::Tool {
                    call_id,
                    text,
                    images: more,
                    ..
                } => {
                    images.extend(more.iter().cloned());
                    json!({"role": "tool", "tool_call_id": call_id, "content": text})
                }
            });
        }
        messages.extend(user_images(&mut images));
        let limit = match self.official {
            true => "max_completion_tokens",
            false => "max_tokens",
        };
        let mut body = json!({
            "model": model,
            "messages": messages,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        body[limit] = request.max_tokens.into();
        if !request.tools.is_empty() {
            let tool = |tool: &super::ToolDefinition| {
                json!({"type": "function", "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                }})
            };
            body["tools"] = request.tools.iter().map(tool).collect();
        }
        body
    }

    fn reader(&self) -> Box<dyn ReplyReader> {
        Box::new(Reader::default())
    }
}

fn user_images(images: &mut Vec<Image>) -> Option<Value> {
    let images = std::mem::take(images);
    (!images.is_empty()).then(
        || json!({"role": "user", "content": parts("Images that the tools returned:", &images)}),
    )
}

fn parts(text: &str, images: &[Image]) -> Vec<Value> {
    let text = (!text.is_empty()).then(|| json!({"type": "text", "text": text}));
    let image = |image: &Image| {
        let url = format!("data:{};base64,{}", image.media_type, image.base64);
        json!({"type": "image_url", "image_url": {"url": url}})
    };
    text.into_iter().chain(images.iter().map(image)).collect()
}

fn assistant(text: &str, calls: &[ToolCall]) -> Value {
    let mut message = json!({"role": "assistant", "content": text});
    if !calls.is_empty() {
        if text.is_empty() {
            message["content"] = Value::Null;
        }
        let call = |call: &ToolCall| {
            json!({"id": call.id, "type": "function", "function": {
                "name": call.name,
                "arguments": call.input.to_string(),
            }})
        };
        message["tool_calls"] = calls.iter().map(call).collect();
    }
    message
}

#[derive(Default)]
struct Reader {
    text: String,
    calls: Vec<PartialCall>,
    finish: Option<String>,
    usage: Usage,
    over: bool,
}

#[derive(Default)]
struct PartialCall {
    index: u64,
    id: String,
    name: String,
    arguments: String,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<ChunkUsage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    /// vLLM and LM Studio.
    #[serde(default)]
    reasoning_content: Option<String>,
    /// Ollama and OpenRouter.
    #[serde(default)]
    reasoning: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
struct CallDelta {
    #[serde(default)]
    index: Option<u64>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    function: FunctionDelta,
}

#[derive(Default, Deserialize)]
struct FunctionDelta {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct ChunkUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

impl Reader {
    /// The call that a delta continues. Some servers leave the index out and send each
    /// call whole.
    fn call(&mut self, delta: &CallDelta) -> &mut PartialCall {
        let last = self.calls.last().map(|call| call.index);
        let index = match (delta.index, last) {
            (Some(index), _) => index,
            (None, None) => 0,
            (None, Some(last)) if delta.id.is_some() => last + 1,
            (None, Some(last)) => last,
        };
        let at = self.calls.iter().position(|call| call.index == index);
        let at = at.unwrap_or_else(|| {
            self.calls.push(PartialCall {
                index,
                ..PartialCall::default()
            });
            self.calls.len() - 1
        });
        &mut self.calls[at]
    }
}

impl ReplyReader for Reader {
    fn take(&mut self, event: &sse::Event) -> Result<Vec<Event>, StreamError> {
        if event.data.trim() == "[DONE]" {
            self.over = true;
            return Ok(Vec::new());
        }
        let chunk: Chunk = serde_json::from_str(&event.data).map_err(StreamError::Malformed)?;
        if let Some(error) = chunk.error {
            return Err(reported(&error));
        }
        if let Some(usage) = chunk.usage {
            self.usage = Usage {
                input: usage.prompt_tokens,
                output: usage.completion_tokens,
            };
        }
        let mut events = Vec::new();
        for choice in chunk.choices {
            let delta = choice.delta;
            let reasoning = delta.reasoning_content.or(delta.reasoning);
            if let Some(text) = reasoning.filter(|text| !text.is_empty()) {
                events.push(Event::Reasoning(text));
            }
            for text in delta.content.into_iter().chain(delta.refusal) {
                if !text.is_empty() {
                    self.text.push_str(&text);
                    events.push(Event::Text(text));
                }
            }
            for delta in delta.tool_calls.unwrap_or_default() {
                let call = self.call(&delta);
                if let Some(id) = delta.id.filter(|id| !id.is_empty()) {
                    call.id = id;
                }
                call.name.push_str(&delta.function.name.unwrap_or_default());
                call.arguments
                    .push_str(&delta.function.arguments.unwrap_or_default());
            }
            self.finish = choice.finish_reason.or(self.finish.take());
        }
        Ok(events)
    }

    fn finish(self: Box<Self>) -> Result<Reply, StreamError> {
        let stop = match self.finish.as_deref() {
            None => return Err(StreamError::Incomplete),
            Some("length") => Stop::Length,
            Some("content_filter") => Stop::Refused,
            // Some servers say "stop" although there are calls.
            Some(_) if !self.calls.is_empty() => Stop::Tools,
            Some(_) => Stop::End,
        };
        let mut calls = Vec::new();
        for (at, call) in self.calls.into_iter().enumerate() {
            match arguments(&call.arguments) {
                Ok(input) => calls.push(ToolCall {
                    // Some servers give none; the answer to the call must name it.
                    id: if call.id.is_empty() {
                        format!("call_{at}")
                    } else {
                        call.id
                    },
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

fn reported(error: &Value) -> StreamError {
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    StreamError::Reported {
        kind: Some(text("type"))
            .filter(|kind| !kind.is_empty())
            .unwrap_or("an error".into()),
        message: error
            .as_str()
            .map_or_else(|| text("message"), str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::read;
    use super::*;

    const OPENAI: OpenAi = OpenAi { official: true };

    fn stream(chunks: &[Value]) -> String {
        let chunks = chunks.iter().map(|chunk| format!("data: {chunk}\n\n"));
        chunks.chain(["data: [DONE]\n\n".to_owned()]).collect()
    }

    fn delta(delta: &Value) -> Value {
        json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
    }

    #[test]
    fn text_and_calls_are_put_together_from_deltas_cut_anywhere() {
        let call = |index: u64, id: Option<&str>, name: Option<&str>, arguments: &str| {
            delta(
                &json!({"tool_calls": [{"index": index, "id": id, "function":
                {"name": name, "arguments": arguments}}]}),
            )
        };
        let text = stream(&[
            delta(&json!({"role": "assistant", "content": ""})),
            delta(&json!({"reasoning_content": "hm"})),
            delta(&json!({"content": "Let me "})),
            delta(&json!({"content": "see."})),
            call(0, Some("a"), Some("bash"), ""),
            call(0, None, None, "{\"comm"),
            call(1, Some("b"), Some("self_info"), ""),
            call(0, None, None, "and\":\"ls\"}"),
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}),
            json!({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}),
        ]);
        for step in [1, 7, 64, text.len()] {
            let (events, reply) = read(&OPENAI, &text, step).unwrap();
            assert_eq!(events.len(), 3);
            assert_eq!(reply.text, "Let me see.");
            assert_eq!(reply.stop, Stop::Tools);
            assert_eq!(reply.calls[0].input, json!({"command": "ls"}));
            assert_eq!(reply.calls[1].input, json!({}));
            assert_eq!(
                reply.usage,
                Usage {
                    input: 7,
                    output: 3
                }
            );
        }
    }

    #[test]
    fn a_stream_without_end_is_incomplete_and_one_cut_at_the_limit_is_not() {
        let text = format!("data: {}\n\n", delta(&json!({"content": "a"})));
        assert!(matches!(
            read(&OPENAI, &text, 9),
            Err(StreamError::Incomplete)
        ));
        let cut = stream(&[
            delta(&json!({"content": "a"})),
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}),
        ]);
        assert_eq!(read(&OPENAI, &cut, 9).unwrap().1.stop, Stop::Length);
    }

    #[test]
    fn malformed_events_and_reported_errors_are_errors() {
        assert!(matches!(
            read(&OPENAI, "data: {\"choices\": [\n\n", 5),
            Err(StreamError::Malformed(_))
        ));
        assert!(matches!(
            read(
                &OPENAI,
                "data: {\"error\":{\"type\":\"server_error\",\"message\":\"x\"}}\n\n",
                5
            ),
            Err(StreamError::Reported { .. })
        ));
    }

    #[test]
    fn text_before_calls_and_images_of_tools_are_in_the_request() {
        let image = Image {
            media_type: "image/png".into(),
            base64: "AAAA".into(),
        };
        let request = Request {
            messages: vec![
                Message::User {
                    text: "look".into(),
                    images: vec![image.clone()],
                },
                Message::Assistant {
                    text: "I will.".into(),
                    calls: vec![ToolCall {
                        id: "a".into(),
                        name: "shot".into(),
                        input: json!({}),
                    }],
                },
                Message::Tool {
                    call_id: "a".into(),
                    text: "done".into(),
                    images: vec![image],
                    error: false,
                },
            ],
            ..Request::default()
        };
        let body = OPENAI.body("m", &request);
        assert_eq!(body["messages"][1]["content"][1]["type"], "image_url");
        assert_eq!(body["messages"][2]["content"], "I will.");
        assert_eq!(
            body["messages"][2]["tool_calls"][0]["function"]["arguments"],
            "{}"
        );
        assert_eq!(body["messages"][4]["role"], "user");
        assert!(body.get("max_completion_tokens").is_some());
        let other = OpenAi { official: false }.body("m", &request);
        assert!(other.get("max_tokens").is_some());
    }
}
