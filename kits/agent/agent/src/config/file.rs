//! The keys of `agent.json` and the variables that win over them. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

/// All settings. Zero and absence mean the default, as upstream has it.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    pub model: Option<String>,
    pub api_key_env: Option<String>,
    /// Of the model in use.
    pub base_url: Option<String>,
    pub providers: BTreeMap<String, ProviderAccess>,
    max_tokens: u64,
    context_chars: usize,
    context_turns: usize,
    pub system_prompt: Option<String>,
    max_tool_rounds: usize,
    request_timeout_s: u64,
    max_retries: Option<u32>,
    pub mcp: BTreeMap<String, McpServer>,
    tools: BTreeMap<String, ToolSwitch>,
    pub memory: Memory,
}

/// Where a provider is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ProviderAccess {
    pub base_url: Option<String>,
    pub api_key_env: Option<String>,
}

/// An MCP server on standard input and output.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct McpServer {
    pub command: String,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct ToolSwitch {
    enabled: Option<bool>,
}

/// Which memories a model is told of without asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MemoryMode {
    /// Those that have to do with the message.
    #[default]
    Relevant,
    /// The latest.
    RecentOnly,
    Off,
}

/// The key `memory`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Memory {
    pub inject_mode: MemoryMode,
    max_inject_chars: usize,
    max_inject_count: usize,
    max_total: usize,
}

impl Memory {
    /// Characters of memories that a model is told of.
    #[must_use]
    pub(crate) fn inject_chars(&self) -> usize {
        or(self.max_inject_chars, 2000)
    }

    /// Memories that a model is told of.
    #[must_use]
    pub(crate) fn inject_count(&self) -> usize {
        or(self.max_inject_count, 10)
    }

    /// Memories that are kept; the oldest go.
    #[must_use]
    pub(crate) fn total(&self) -> usize {
        or(self.max_total, 500)
    }
}

fn or(value: usize, default: usize) -> usize {
    if value == 0 { default } else { value }
}

impl Config {
    /// Settings of a file's text.
    ///
    /// # Errors
    /// What is wrong with it, with line and column.
    pub(crate) fn parse(text: &str) -> Result<Config, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The variables `AEGIS_MODEL`, `AEGIS_MAX_TOKENS`, `AEGIS_CONTEXT_CHARS`,
    /// `AEGIS_CONTEXT_TURNS` and `AEGIS_SYSTEM_PROMPT` win over the file, as upstream
    /// has it. One that is empty or not a number says nothing.
    pub(crate) fn overlay(&mut self, variable: impl Fn(&str) -> Option<String>) {
        let text = |name| variable(name).filter(|value: &String| !value.is_empty());
        let number = |name| text(name)?.parse::<u64>().ok();
        let size = |name| usize::try_from(number(name)?).ok();
        if let Some(model) = text("AEGIS_MODEL") {
            self.model = Some(model);
        }
        if let Some(tokens) = number("AEGIS_MAX_TOKENS") {
            self.max_tokens = tokens;
        }
        if let Some(chars) = size("AEGIS_CONTEXT_CHARS") {
            self.context_chars = chars;
        }
        if let Some(turns) = size("AEGIS_CONTEXT_TURNS") {
            self.context_turns = turns;
        }
        if let Some(prompt) = text("AEGIS_SYSTEM_PROMPT") {
            self.system_prompt = Some(prompt);
        }
    }

    /// Tokens of one answer of the model at most.
    #[must_use]
    pub(crate) fn max_tokens(&self) -> u64 {
        if self.max_tokens == 0 {
            4096
        } else {
            self.max_tokens
        }
    }

    /// Characters of the conversation that a model is shown.
    #[must_use]
    pub(crate) fn context_chars(&self) -> usize {
        or(self.context_chars, 24_000)
    }

    /// Turns of the conversation that a model is shown.
    #[must_use]
    pub(crate) fn context_turns(&self) -> usize {
        or(self.context_turns, 50)
    }

    /// How often a model may use tools before it has to answer.
    #[must_use]
    pub(crate) fn max_tool_rounds(&self) -> usize {
        or(self.max_tool_rounds, 20)
    }

    /// How long one request may take until its first byte and between two parts of its
    /// answer. Models think for minutes before the first.
    #[must_use]
    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_secs(match self.request_timeout_s {
            0 => 120,
            seconds => seconds,
        })
    }

    /// How often a request is made again.
    #[must_use]
    pub(crate) fn max_retries(&self) -> u32 {
        self.max_retries.unwrap_or(4)
    }

    /// Whether a tool may be used; names of MCP tools are `{server}_{tool}`.
    #[must_use]
    pub(crate) fn tool_enabled(&self, name: &str) -> bool {
        self.tools.get(name).and_then(|tool| tool.enabled) != Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_absence_are_the_default_and_unknown_keys_say_nothing() {
        let config = Config::parse(
            r#"{"max_tokens":0,"context_chars":100,"later":{},
                "tools":{"bash":{"enabled":false},"web_search":{"brave_api_key_env":"B"}},
                "memory":{"inject_mode":"recent_only"}}"#,
        )
        .unwrap();
        assert_eq!(config.max_tokens(), 4096);
        assert_eq!(config.context_chars(), 100);
        assert_eq!(config.context_turns(), 50);
        assert_eq!(config.memory.inject_mode, MemoryMode::RecentOnly);
        assert!(!config.tool_enabled("bash"));
        assert!(config.tool_enabled("web_search") && config.tool_enabled("grep"));
    }

    #[test]
    fn variables_win_over_the_file() {
        let mut config = Config::parse(r#"{"model":"openai/a","max_tokens":5}"#).unwrap();
        config.overlay(|name| match name {
            "AEGIS_MODEL" => Some("anthropic/b".into()),
            "AEGIS_MAX_TOKENS" => Some("many".into()),
            "AEGIS_CONTEXT_TURNS" => Some("7".into()),
            "AEGIS_SYSTEM_PROMPT" => Some(String::new()),
            _ => None,
        });
        assert_eq!(config.model.as_deref(), Some("anthropic/b"));
        assert_eq!(config.max_tokens(), 5);
        assert_eq!(config.context_turns(), 7);
        assert_eq!(config.system_prompt, None);
    }
}
