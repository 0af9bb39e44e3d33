//! What a model can do.
//!
//! | module | tools |
//! |---|---|
//! | [`shell`] | bash |
//! | [`files`] | read_file, write_file, edit_file, list_files |
//! | [`find`] | glob, grep |
//! | [`web`] | web_fetch |
//! | [`remember`] | memory_store, memory_search, memory_delete |
//! | [`instance`] | self_info, self_restart, notify, respond_with_image |
//! | [`catalogue`] | names, descriptions and parameters, which are upstream's |
//! | [`crate::mcp`] | those of MCP servers |

mod catalogue;
mod files;
mod find;
mod html;
mod instance;
mod path;
mod remember;
mod shell;
mod web;

use std::path::PathBuf;

use reqwest::Client;
use serde_json::Value;

use crate::blob::{Blob, Blobs};
use crate::config::{Config, Memory};
use crate::frame::SessionKey;
use crate::guest_api::GuestApi;
use crate::mcp::Servers;
use crate::memory::Memories;
use crate::outbox::Outbox;
use crate::provider::ToolDefinition;
use crate::session::turn::User;

/// The tool whose success means that the VM restarts after the answer.
pub(crate) const SELF_RESTART: &str = "self_restart";

/// Everything that tools use.
pub(crate) struct Toolbox {
    pub workspace: PathBuf,
    pub blobs: Blobs,
    pub memories: Memories,
    pub api: GuestApi,
    pub outbox: Outbox,
    pub web: Client,
    pub servers: Servers,
}

/// One call.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub session: &'a SessionKey,
    pub user: Option<&'a User>,
    pub config: &'a Config,
    pub name: &'a str,
    pub input: &'a Value,
}

/// What came of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ToolOutcome {
    /// For the model.
    pub text: String,
    /// For the model.
    pub images: Vec<Blob>,
    /// For the user, with the answer.
    pub attached: Vec<Blob>,
    pub error: bool,
}

impl ToolOutcome {
    pub(crate) fn ok(text: impl Into<String>) -> ToolOutcome {
        ToolOutcome {
            text: text.into(),
            ..ToolOutcome::default()
        }
    }

    pub(crate) fn failed(text: impl Into<String>) -> ToolOutcome {
        ToolOutcome {
            error: true,
            ..ToolOutcome::ok(text)
        }
    }
}

/// Text of a tool that only has text, or what went wrong, both for the model.
type Said = Result<String, String>;

impl From<Said> for ToolOutcome {
    fn from(said: Said) -> ToolOutcome {
        match said {
            Ok(text) => ToolOutcome::ok(text),
            Err(text) => ToolOutcome::failed(text),
        }
    }
}

impl Toolbox {
    /// The tools that are not switched off.
    pub(crate) async fn definitions(&self, config: &Config) -> Vec<ToolDefinition> {
        let mut tools = catalogue::tools();
        tools.extend(self.servers.tools(&config.mcp).await);
        tools.retain(|tool| config.tool_enabled(&tool.name));
        tools
    }

    /// Memories that a model is told of, one a line.
    #[must_use]
    pub(crate) fn memories_for(
        &self,
        session: &SessionKey,
        user: Option<&User>,
        message: &str,
        settings: &Memory,
    ) -> String {
        self.memories
            .told(&remember::viewer(session, user), message, settings)
    }

    /// Makes a call. A tool that is switched off is refused, even if a model calls it.
    /// Dropping the future ends what the call started.
    pub(crate) async fn call(&self, call: &Call<'_>) -> ToolOutcome {
        if !call.config.tool_enabled(call.name) {
            return ToolOutcome::failed(format!("The tool {} is switched off.", call.name));
        }
        let input = Input(call.input);
        match call.name {
            "bash" => match input.text("command") {
                Ok(command) => shell::bash(&self.workspace, command).await,
                Err(error) => ToolOutcome::failed(error),
            },
            "read_file" | "write_file" | "edit_file" | "list_files" | "glob" | "grep" => {
                self.on_thread(call).await
            }
            "web_fetch" => match input.text("url") {
                Ok(url) => web::fetch(&self.web, url).await.into(),
                Err(error) => ToolOutcome::failed(error),
            },
            "memory_store" | "memory_search" | "memory_delete" => {
                remember::call(&self.memories, call).into()
            }
            "self_info" => instance::info(&self.api).await.into(),
            SELF_RESTART => ToolOutcome::ok("The VM restarts once your answer has arrived."),
            "notify" => match input.text("text") {
                Ok(text) => self.notify(call.session, text).await.into(),
                Err(error) => ToolOutcome::failed(error),
            },
            "respond_with_image" => match input.text("path") {
                Ok(path) => instance::attach(&self.blobs, &self.workspace, path),
                Err(error) => ToolOutcome::failed(error),
            },
            name => match self
                .servers
                .call(&call.config.mcp, name, call.input, &self.blobs)
                .await
            {
                Some(outcome) => outcome,
                None => ToolOutcome::failed(format!("There is no tool {name}.")),
            },
        }
    }

    /// Tools that read and write files, off the event loop: a disk may be slow.
    async fn on_thread(&self, call: &Call<'_>) -> ToolOutcome {
        let (workspace, name) = (self.workspace.clone(), call.name.to_owned());
        let input = call.input.clone();
        let work = move || {
            let input = Input(&input);
            match name.as_str() {
                "read_file" => files::read(&workspace, &input),
                "write_file" => files::write(&workspace, &input),
                "edit_file" => files::edit(&workspace, &input),
                "list_files" => files::list(&workspace, &input),
                "glob" => find::glob(&workspace, &input),
                _ => find::grep(&workspace, &input),
            }
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(said) => said.into(),
            Err(error) => ToolOutcome::failed(format!("The tool ended by itself: {error}")),
        }
    }
}

/// The arguments of a call.
struct Input<'a>(&'a Value);

impl<'a> Input<'a> {
    fn text(&self, name: &str) -> Result<&'a str, String> {
        let text = self.0[name].as_str().filter(|text| !text.is_empty());
        text.ok_or_else(|| format!("The argument {name} is missing."))
    }

    /// May be empty.
    fn optional(&self, name: &str) -> Option<&'a str> {
        self.0[name].as_str()
    }

    /// A whole number, which models also write as text.
    fn number(&self, name: &str) -> Result<Option<usize>, String> {
        let bad = || format!("The argument {name} is not a whole number.");
        let number = match &self.0[name] {
            Value::Null => return Ok(None),
            Value::Number(number) => number.as_u64().ok_or_else(bad)?,
            Value::String(text) => text.trim().parse().map_err(|_| bad())?,
            _ => return Err(bad()),
        };
        usize::try_from(number).map(Some).map_err(|_| bad())
    }
}

/// The start of a text in whole characters, with a note where it was cut.
pub(crate) fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let size = text.len();
        let mut end = limit;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(&format!("\n[cut: {end} of {size} bytes are shown]"));
    }
    text
}
