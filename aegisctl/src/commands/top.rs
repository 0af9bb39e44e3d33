//! `top`: the processes in a guest, told by the harness, so any image will do.

use std::time::Duration;

use aegis_bus::instance::GuestProcess;
use serde_json::{Value, json};

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::listing::{FormatFlags, Listing};
use crate::ui::{Table, Tone, span_words};

/// Show the processes in the guest of an instance
///
/// Kernel threads are left out. An instance that sleeps is not woken.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
    #[command(flatten)]
    format: FormatFlags,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = &args.name;
    let progress = context.ui.progress("Asking the guest");
    let ask = async {
        let what = format!("show the processes of '{name}'");
        let client = context.aegisd().await?;
        let instance = client.instance(name, &what).await?;
        let processes = instance.processes().await.map_err(Failure::call(what))?;
        let read = processes.into_iter().map(GuestProcess::from_dict);
        Ok::<_, Failure>(read.collect::<Result<Vec<_>, _>>()?)
    };
    let processes = progress.during(ask).await?;
    let listing = Listing {
        key: "processes",
        rows: processes.iter().map(to_json).collect(),
        name: "command",
    };
    listing.print(context.ui, &args.format, || {
        let headings = [
            "PID", "PPID", "USER", "STATE", "CPU", "MEMORY", "STARTED", "COMMAND",
        ];
        let mut table = Table::new(&headings);
        for process in &processes {
            let started = Duration::from_millis(process.age_ms);
            let cells = [
                process.pid.to_string(),
                process.parent.to_string(),
                process.user.clone(),
                process.state.clone(),
                seconds(process.cpu_ms),
                mebibytes(process.memory_kib),
                format!("{} ago", span_words(started)),
                process.command.clone(),
            ];
            table.row(cells.map(|cell| (Tone::Plain, cell)).into());
        }
        table.render(context.ui)
    })?;
    Ok(exit_code::OK)
}

fn to_json(process: &GuestProcess) -> Value {
    json!({
        "pid": process.pid,
        "parent": process.parent,
        "user": process.user,
        "state": process.state,
        "cpu_ms": process.cpu_ms,
        "memory_kib": process.memory_kib,
        "age_ms": process.age_ms,
        "command": process.command,
    })
}

fn seconds(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1000, ms % 1000 / 10)
}

fn mebibytes(kib: u64) -> String {
    format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_units() {
        assert_eq!(seconds(61_234), "61.23 s");
        assert_eq!(mebibytes(1536), "1.5 MiB");
    }
}
