//! `aegis-gateway`: started by the service manager in the config folder of its instance,
//! without arguments. Ends with 0 on SIGTERM alone; whatever else ends it is a failure, so
//! that it is started again.

use std::path::Path;
use std::process::ExitCode;

use aegis_core::fault::chain;
use aegis_gateway::gateway;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

fn main() -> ExitCode {
    log();
    end_on_panic();
    let runtime = tokio::runtime::Builder::new_current_thread()
        // For the names of hosts, which the C library looks up one at a time.
        .max_blocking_threads(2)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(gateway::run(Path::new("."))),
        Err(error) => {
            tracing::error!("cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// A task that panics ends the process, which is then started anew. A process that lives
/// on without one of its tasks would look well and do nothing.
fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!("a mistake in this program: {panic}");
        #[expect(clippy::exit, reason = "a panic of a task would end that task alone")]
        std::process::exit(101);
    }));
}

/// To the journal with its fields where the journal takes our stderr
/// (systemd.exec(5), `$JOURNAL_STREAM`), else to stderr as text.
fn log() {
    let filter = EnvFilter::try_from_env("AEGIS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match journal {
        Some(journal) => Box::new(journal),
        None => {
            let text = tracing_subscriber::fmt::layer();
            Box::new(
                text.with_writer(std::io::stderr)
                    .without_time()
                    .with_target(false),
            )
        }
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .init();
}
