//! aegis-agent: the program in an instance's VM that answers its messages.
//!
//! ```text
//!              127.0.0.1:7778                      127.0.0.1:7777 (guest API)
//!   host ──▶ receive ──▶ session ──▶ answer ──▶ outbox ──▶ host
//!                        file, order   │  ▲
//!                                      ▼  │
//!                              provider, tools, mcp
//! ```
//!
//! | module | what it owns |
//! |---|---|
//! | [`receive`] | the HTTP server; a frame is taken once it is on the disk |
//! | [`agent`] | which sessions there are; what they share |
//! | [`session`] | a conversation: its file, its order |
//! | [`answer`] | one answer, from the message to `assistant.done` |
//! | [`context`], [`prompt`] | what a model is shown |
//! | [`provider`] | asking models |
//! | [`tools`], [`mcp`], [`memory`] | what models can do |
//! | [`outbox`], [`guest_api`], [`lease`] | the way to the host |
//! | [`config`], [`restart`], [`blob`], [`frame`], [`tls`] | settings, restarts, images, messages, trust |
//!
//! It is one static program on one thread, for any Linux image.

mod agent;
mod answer;
mod blob;
mod config;
mod context;
mod frame;
mod guest_api;
mod lease;
mod mcp;
mod memory;
mod outbox;
mod prompt;
mod provider;
mod receive;
mod restart;
mod session;
mod tls;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use reqwest::redirect::Policy;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::agent::{Agent, Shared};
use crate::provider::exchange::{Models, chain};

/// Where the host delivers, and where the guest API is. Tests have them elsewhere.
const LISTEN: &str = "127.0.0.1:7778";
const GUEST_API: &str = "http://127.0.0.1:7777";
const WORKSPACE: &str = "/workspace";
/// How long a connection to a server may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Redirects that a web page may have.
const REDIRECTS: usize = 5;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_env("AEGIS_LOG").unwrap_or_else(|_| "info,rmcp=warn".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(&error), "Cannot run");
            ExitCode::FAILURE
        }
    }
}

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("Cannot start the event loop")]
    Runtime(#[source] std::io::Error),
    #[error("Cannot wait for signals")]
    Signal(#[source] std::io::Error),
    #[error("Cannot use the workspace {path}")]
    Workspace {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("Cannot listen at {address}")]
    Listen {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    #[error("Cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn run() -> Result<(), RunError> {
    let workspace =
        PathBuf::from(variable("AEGIS_AGENT_WORKSPACE").unwrap_or(WORKSPACE.to_owned()));
    std::fs::create_dir_all(workspace.join(".aegis")).map_err(|source| RunError::Workspace {
        path: workspace.clone(),
        source,
    })?;
    let shared = Arc::new(shared(workspace)?);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Writing files is all they do; each has a stack.
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .map_err(RunError::Runtime)?
        .block_on(serve(shared))
}

fn shared(workspace: PathBuf) -> Result<Shared, RunError> {
    let trust = tls::config(variable("SSL_CERT_FILE").map(PathBuf::from))?;
    let client = || {
        Client::builder()
            .connect_timeout(CONNECT)
            .tls_backend_preconfigured(trust.clone())
    };
    let agent_name = concat!("aegis-agent/", env!("CARGO_PKG_VERSION"));
    let outside = client().redirect(Policy::none()).user_agent(agent_name);
    let inside = client().redirect(Policy::none()).no_proxy();
    let web = client()
        .redirect(Policy::limited(REDIRECTS))
        .user_agent(agent_name);
    let outside = outside.build().map_err(RunError::Client)?;
    let inside = inside.build().map_err(RunError::Client)?;
    let guest_api = variable("AEGIS_GUEST_API").unwrap_or(GUEST_API.to_owned());
    let api = guest_api::GuestApi::new(inside.clone(), guest_api.clone());
    let outbox = outbox::Outbox::new();
    let blobs = blob::Blobs::of(&workspace);
    Ok(Shared {
        config: config::ConfigStore::new(&workspace, variable),
        models: Models {
            outside,
            inside,
            guest_api,
        },
        toolbox: tools::Toolbox {
            workspace: workspace.clone(),
            blobs: blobs.clone(),
            memories: memory::Memories::of(&workspace),
            api: api.clone(),
            outbox: outbox.clone(),
            web: web.build().map_err(RunError::Client)?,
            servers: mcp::Servers::new(workspace.clone()),
        },
        api,
        outbox,
        lease: lease::Lease::new(),
        blobs,
        permits: Shared::permits(),
        workspace,
    })
}

/// Runs until it is told to end. What is not done then is done at the next start.
async fn serve(shared: Arc<Shared>) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
    let agent = Arc::new(Agent::new(shared.clone()));
    let address = variable("AEGIS_AGENT_LISTEN").unwrap_or(LISTEN.to_owned());
    let work = async {
        // What was there before comes before what the host delivers now.
        agent.resume().await;
        let failed = |source| RunError::Listen {
            address: address.clone(),
            source,
        };
        let listener = TcpListener::bind(&address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        tracing::info!(address = %bound, "Ready");
        Ok(receive::serve(listener, agent.clone()).await)
    };
    tokio::select! {
        ended = work => ended.map(|never| match never {}),
        never = shared.outbox.deliver(&shared.api) => match never {},
        never = shared.lease.keep(&shared.api) => match never {},
        () = announce(&shared) => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Says that a restart is over, then has nothing more to do.
async fn announce(shared: &Shared) {
    restart::announce(shared).await;
    std::future::pending::<()>().await;
}
