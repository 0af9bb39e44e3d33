//! Our own log: to the journal with the instance's name in its fields, or to
//! standard error where nobody started us with a journal.
//!
//! The fields are sent by us, since LogExtraFields= of older user managers is
//! ignored.

use aegis_core::handle::Handle;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts to log.
pub fn start(handle: Option<&Handle>) {
    let registry = tracing_subscriber::registry().with(LevelFilter::INFO);
    // systemd.exec(5), "Environment Variables in Spawned Processes".
    let journal = std::env::var_os("JOURNAL_STREAM")
        .and_then(|_| tracing_journald::layer().ok())
        .map(|layer| {
            layer
                .with_syslog_identifier("aegis-vmm".to_owned())
                .with_field_prefix(Some("AEGIS".to_owned()))
                .with_custom_fields(handle.map(|handle| ("AEGIS_INSTANCE", handle.as_str())))
        });
    match journal {
        Some(journal) => registry.with(journal).init(),
        None => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_ansi(false),
            )
            .init(),
    }
}
