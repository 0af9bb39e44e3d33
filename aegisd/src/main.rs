//! The program around the library: command line, log, runtime.

use std::process::ExitCode;

use aegis_core::audit;
use aegis_core::fault::chain;
use aegis_core::layout::Mode;
use clap::Parser;
use rustix::fs::Mode as FileMode;
use tracing::Subscriber;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

/// The AegisVM control plane. The service manager starts it; people use aegisctl.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Serve this user, on the user's bus
    #[arg(long, conflicts_with = "system")]
    user: bool,
    /// Serve the whole system, on the system bus
    #[arg(long)]
    system: bool,
}

impl Arguments {
    fn mode(&self) -> Mode {
        match (
            self.user,
            self.system,
            std::env::var("AEGIS_MODE").as_deref(),
        ) {
            (true, _, _) => Mode::User,
            (_, true, _) => Mode::System,
            (_, _, Ok("user")) => Mode::User,
            (_, _, Ok("system")) => Mode::System,
            _ => Mode::default_for(rustix::process::geteuid().as_raw()),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Process-wide, so before there is a second thread.
    rustix::process::umask(FileMode::RWXG | FileMode::RWXO);
    log();
    // Secrets pass through this memory: no core file, and no other program of this
    // user looks into it.
    if let Err(error) = aegis_os::dumps::forbid() {
        tracing::error!("cannot forbid memory dumps: {error}");
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Nothing here computes; more threads would only cost memory.
        .worker_threads(2)
        // For steps on the disk. At the start all instances take some at once, and each
        // may have one that hangs in a file system which does not answer.
        .max_blocking_threads(64)
        .thread_name("aegisd")
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(aegisd::daemon::run(arguments.mode())),
        Err(error) => {
            tracing::error!("cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    tracing::error!("{}", chain(&error));
    if let Some(hint) = error.hint() {
        tracing::error!("hint: {hint}");
    }
    ExitCode::FAILURE
}

/// To the journal with its fields where the journal takes our stderr
/// (systemd.exec(5), `$JOURNAL_STREAM`), else to stderr as text. The record of uses of
/// secrets goes there whole, whatever else is filtered out, and its fields have the
/// names that are searched for.
fn log() {
    let filter = EnvFilter::try_from_env("AEGIS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let rest = filter_fn(|event| event.target() != audit::TARGET);
    let uses = filter_fn(|event| event.target() == audit::TARGET);
    tracing_subscriber::registry()
        .with(layer(|journal| journal).with_filter(filter.and(rest)))
        .with(layer(|journal| journal.with_field_prefix(None)).with_filter(uses))
        .init();
}

fn layer<S>(
    fields: impl FnOnce(tracing_journald::Layer) -> tracing_journald::Layer,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    match journal {
        Some(journal) => Box::new(fields(journal)),
        None => {
            let text = tracing_subscriber::fmt::layer();
            Box::new(
                text.with_writer(std::io::stderr)
                    .without_time()
                    .with_target(false),
            )
        }
    }
}
