//! MCP servers: programs on standard input and output whose tools a model may call
//! (Model Context Protocol, transport "stdio").
//!
//! ```text
//!   wanted ──start──▶ running ──ended, or the settings changed──▶ wanted
//!      ▲                │
//!      └── failed: wait ┘   1 s, 2 s, 4 s … 60 s until the next start
//! ```
//!
//! A server starts when a model is first asked. One that does not start has no tools and
//! stops nobody. A call that takes too long, or whose answer is not wanted any more, is
//! cancelled at the server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ContentBlock,
    Implementation, ProtocolVersion, ResourceContents, Tool,
};
use rmcp::service::RunningService;
use rmcp::transport::TokioChildProcess;
use rmcp::{Peer, RoleClient, ServiceExt};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::blob::Blobs;
use crate::config::McpServer;
use crate::provider::ToolDefinition;
use crate::provider::exchange::chain;
use crate::tools::ToolOutcome;

/// How long a server may take to start and name its tools.
const START: Duration = Duration::from_secs(20);
/// How long a call may take.
const CALL: Duration = Duration::from_secs(120);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A server that ran so long has not failed to start.
const STEADY: Duration = Duration::from_secs(60);
/// Upstream's program for the guest API, a server by itself where it is there.
const GUEST_SERVER: &str = "/usr/bin/aegis-mcp-guest";
/// The longest name of a tool that providers take.
const NAME_LIMIT: usize = 64;
/// Bytes of a result's text.
const TEXT_LIMIT: usize = 50 * 1024;

type Connection = RunningService<RoleClient, ClientConfig>;

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
enum ServerError {
    #[error("Cannot start {command}")]
    Start {
        command: String,
        #[source]
        source: std::io::Error,
    },
    #[error("The server does not answer as MCP demands")]
    Initialize(#[source] Box<rmcp::service::ClientInitializeError>),
    #[error("The server does not name its tools")]
    Tools(#[source] rmcp::ServiceError),
    #[error("The server did not start in {} seconds", START.as_secs())]
    Late,
}

struct Server {
    settings: McpServer,
    running: Option<(Connection, Vec<Tool>)>,
    failures: u32,
    not_before: Instant,
    /// When it started last.
    since: Instant,
}

impl Server {
    fn new(settings: McpServer) -> Server {
        Server {
            settings,
            running: None,
            failures: 0,
            not_before: Instant::now(),
            since: Instant::now(),
        }
    }
}

/// All servers. Each has a lock of its own: one that is slow to start holds up no other.
pub(crate) struct Servers {
    workspace: PathBuf,
    known: Mutex<BTreeMap<String, Arc<Mutex<Server>>>>,
}

impl Servers {
    /// No servers yet.
    #[must_use]
    pub(crate) fn new(workspace: PathBuf) -> Servers {
        Servers {
            workspace,
            known: Mutex::default(),
        }
    }

    /// The tools of all servers that run, or do so now.
    pub(crate) async fn tools(
        &self,
        settings: &BTreeMap<String, McpServer>,
    ) -> Vec<ToolDefinition> {
        let started = self
            .wanted(settings)
            .await
            .into_iter()
            .map(|(name, server)| async move {
                let tools = self.running(&name, &server).await;
                let tools = tools.map(|(_, tools)| tools).unwrap_or_default();
                tools
                    .into_iter()
                    .map(|tool| definition(&name, tool))
                    .collect::<Vec<_>>()
            });
        futures_util::future::join_all(started)
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    /// Calls a tool by its full name; `None` where no server has it.
    pub(crate) async fn call(
        &self,
        settings: &BTreeMap<String, McpServer>,
        full_name: &str,
        input: &Value,
        blobs: &Blobs,
    ) -> Option<ToolOutcome> {
        for (name, server) in self.wanted(settings).await {
            if !full_name.starts_with(&full(&name, "")) {
                continue;
            }
            let Some((peer, tools)) = self.running(&name, &server).await else {
                return Some(ToolOutcome::failed(format!(
                    "The MCP server {name} does not run."
                )));
            };
            if let Some(tool) = tools
                .into_iter()
                .find(|tool| full(&name, &tool.name) == full_name)
            {
                return Some(call(&peer, tool, input, blobs).await);
            }
        }
        None
    }

    /// The servers of the settings; others end.
    async fn wanted(
        &self,
        settings: &BTreeMap<String, McpServer>,
    ) -> Vec<(String, Arc<Mutex<Server>>)> {
        let mut wanted = settings.clone();
        if std::path::Path::new(GUEST_SERVER).exists() {
            wanted
                .entry("aegis".to_owned())
                .or_insert_with(|| McpServer {
                    command: GUEST_SERVER.to_owned(),
                    args: Vec::new(),
                    env: BTreeMap::new(),
                });
        }
        let mut known = self.known.lock().await;
        known.retain(|name, _| wanted.contains_key(name));
        for (name, settings) in wanted {
            let server = known
                .entry(name)
                .or_insert_with(|| Arc::new(Mutex::new(Server::new(settings.clone()))));
            // Its lock is held while it starts; a change of settings counts the next time.
            if let Ok(mut server) = server.try_lock()
                && server.settings != settings
            {
                *server = Server::new(settings);
            }
        }
        known
            .iter()
            .map(|(name, server)| (name.clone(), server.clone()))
            .collect()
    }

    /// A server's connection and tools, once it runs; `None` where it does not start, or
    /// may not yet.
    async fn running(
        &self,
        name: &str,
        server: &Mutex<Server>,
    ) -> Option<(Peer<RoleClient>, Vec<Tool>)> {
        let mut server = server.lock().await;
        if server
            .running
            .as_ref()
            .is_some_and(|(connection, _)| ended(connection))
        {
            tracing::warn!(server = name, "An MCP server ended");
            server.running = None;
            if server.since.elapsed() > STEADY {
                server.failures = 0;
            }
            server.not_before = Instant::now() + pause(server.failures);
            server.failures += 1;
        }
        if server.running.is_none() {
            if Instant::now() < server.not_before {
                // A first restart is near enough to be waited for.
                if server.failures > 1 {
                    return None;
                }
                tokio::time::sleep_until(server.not_before).await;
            }
            let started = tokio::time::timeout(START, self.start(&server.settings)).await;
            match started.unwrap_or(Err(ServerError::Late)) {
                Ok(running) => {
                    server.running = Some(running);
                    server.since = Instant::now();
                }
                Err(error) => {
                    tracing::warn!(
                        server = name,
                        error = chain(&error),
                        "No MCP server, ignoring"
                    );
                    server.not_before = Instant::now() + pause(server.failures);
                    server.failures = (server.failures + 1).max(2);
                }
            }
        }
        let (connection, tools) = server.running.as_ref()?;
        Some((connection.peer().clone(), tools.clone()))
    }

    async fn start(&self, settings: &McpServer) -> Result<(Connection, Vec<Tool>), ServerError> {
        let mut command = Command::new(&settings.command);
        command
            .args(&settings.args)
            .envs(&settings.env)
            .current_dir(&self.workspace)
            .process_group(0)
            .kill_on_drop(true);
        let process = TokioChildProcess::new(command).map_err(|source| ServerError::Start {
            command: settings.command.clone(),
            source,
        })?;
        let ourselves = Implementation::new("aegis-agent", env!("CARGO_PKG_VERSION"));
        let info = ClientConfig::new(ClientCapabilities::default(), ourselves)
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE);
        let connection = info
            .serve(process)
            .await
            .map_err(|error| ServerError::Initialize(Box::new(error)))?;
        let has_tools = connection
            .peer_info()
            .is_some_and(|server| server.capabilities.tools.is_some());
        let tools = match has_tools {
            true => connection
                .list_all_tools()
                .await
                .map_err(ServerError::Tools)?,
            false => Vec::new(),
        };
        Ok((connection, tools))
    }
}

fn ended(connection: &Connection) -> bool {
    connection.is_closed() || connection.is_transport_closed()
}

fn pause(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(6)).min(LONGEST_PAUSE)
}

/// `{server}_{tool}` in the letters that providers take.
fn full(server: &str, tool: &str) -> String {
    let letter = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' {
            c
        } else {
            '_'
        }
    };
    let name: String = format!("{server}_{tool}").chars().map(letter).collect();
    name.chars().take(NAME_LIMIT).collect()
}

fn definition(server: &str, tool: Tool) -> ToolDefinition {
    ToolDefinition {
        name: full(server, &tool.name),
        description: tool.description.unwrap_or_default().into_owned(),
        parameters: Value::Object((*tool.input_schema).clone()),
    }
}

async fn call(peer: &Peer<RoleClient>, tool: Tool, input: &Value, blobs: &Blobs) -> ToolOutcome {
    let mut params = CallToolRequestParams::new(tool.name);
    params.arguments = input.as_object().cloned();
    // Dropped by a cancel or by its time, the call is cancelled at the server.
    match tokio::time::timeout(CALL, peer.call_tool(params)).await {
        Ok(Ok(result)) => outcome(result, blobs),
        Ok(Err(error)) => ToolOutcome::failed(format!("The MCP server: {}", chain(&error))),
        Err(_) => ToolOutcome::failed(format!(
            "The MCP server gave no result in {} seconds.",
            CALL.as_secs()
        )),
    }
}

fn outcome(result: CallToolResult, blobs: &Blobs) -> ToolOutcome {
    let mut outcome = ToolOutcome {
        error: result.is_error == Some(true),
        ..ToolOutcome::default()
    };
    let mut texts = Vec::new();
    for block in result.content {
        match block {
            ContentBlock::Text(text) => texts.push(text.text),
            ContentBlock::Image(image) => match picture(&image.data, blobs) {
                Ok(blob) => outcome.images.push(blob),
                Err(why) => texts.push(format!("[an image that cannot be shown: {why}]")),
            },
            ContentBlock::Resource(resource) => texts.push(match resource.resource {
                ResourceContents::TextResourceContents { uri, text, .. } => {
                    format!("{uri}:\n{text}")
                }
                ResourceContents::BlobResourceContents { uri, .. } => format!("[bytes of {uri}]"),
                _ => "[a resource]".to_owned(),
            }),
            ContentBlock::ResourceLink(link) => texts.push(format!("[resource {}]", link.uri)),
            ContentBlock::Audio(_) => texts.push("[audio]".to_owned()),
            _ => texts.push("[something that this agent does not know]".to_owned()),
        }
    }
    if texts.is_empty()
        && let Some(value) = result.structured_content
    {
        texts.push(value.to_string());
    }
    outcome.text = crate::tools::cut(texts.join("\n"), TEXT_LIMIT);
    outcome
}

fn picture(data: &str, blobs: &Blobs) -> Result<crate::blob::Blob, String> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(data.trim())
        .map_err(|error| error.to_string())?;
    blobs.keep(&bytes).map_err(|error| chain(&error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_have_the_server_before_them_in_letters_that_providers_take() {
        assert_eq!(full("files", "read file"), "files_read_file");
        assert_eq!(full("a.b", &"x".repeat(100)).len(), NAME_LIMIT);
    }

    #[test]
    fn images_and_errors_of_results_are_passed_on() {
        let folder = tempfile::tempdir().unwrap();
        let png = base64::engine::general_purpose::STANDARD.encode(b"\x89PNG\r\n\x1a\n");
        let result: CallToolResult = serde_json::from_value(json!({
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image", "data": png, "mimeType": "image/png"},
                {"type": "image", "data": "AAAA", "mimeType": "image/png"},
            ],
            "isError": true,
        }))
        .unwrap();
        let outcome = outcome(result, &Blobs::of(folder.path()));
        assert!(outcome.error);
        assert_eq!(outcome.images.len(), 1);
        assert!(
            outcome
                .text
                .starts_with("see\n[an image that cannot be shown")
        );
    }

    #[test]
    fn pauses_between_starts_grow_to_a_limit() {
        let seconds: Vec<u64> = [0, 1, 2, 6, 50].map(|n| pause(n).as_secs()).to_vec();
        assert_eq!(seconds, [1, 2, 4, 60, 60]);
    }
}
