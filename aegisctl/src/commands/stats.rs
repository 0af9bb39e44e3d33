//! `stats`: memory and CPU of the host that instances use.
//!
//! The figures are the service manager's. It tells no changes of them, so they
//! are read at an interval, which is the user's to choose.

use std::collections::BTreeMap;
use std::time::Duration;

use aegis_bus::instance::{InstanceView, Usage, filter};
use aegis_core::duration::Span;
use aegis_core::fault::Symbol;
use aegis_core::units::{self, UnitKind};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cli::Context;
use crate::client::Client;
use crate::exit_code;
use crate::failure::Failure;
use crate::listing::{FilterFlags, FormatFlags, Listing};
use crate::session::Signals;
use crate::ui::{Table, Tone, Ui, bytes};

/// Between the two readings from which a CPU percentage of now follows.
const SAMPLE: Duration = Duration::from_millis(500);
/// Clears the screen from the top left on (ECMA-48).
const HOME: &str = "\x1b[H\x1b[J";

/// Show what instances use of this host
///
/// Each row is one instance: its VM, QEMU included, and its daemons. Without
/// names all instances of which something runs are shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instances
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    filter: FilterFlags,
    #[command(flatten)]
    format: FormatFlags,
    /// Show the figures once
    #[arg(long)]
    no_stream: bool,
    /// Time between two readings
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    interval: Span,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Asking aegisd");
    let client = progress.during(context.aegisd()).await?;
    let mut signals = Signals::catch()?;
    let mut before = progress.during(read(&client, &args)).await?;
    let mut wait = SAMPLE;
    let show = async {
        let mut noted = false;
        loop {
            sleep(wait).await;
            let now = read(&client, &args).await?;
            let rows: Vec<Row> = now
                .iter()
                .map(|(name, usage)| Row::new(name, usage, before.get(name)))
                .collect();
            print(context.ui, &args, &rows)?;
            if !std::mem::replace(&mut noted, true) {
                note_missing(context.ui, &rows);
            }
            if args.no_stream {
                return Ok(());
            }
            before = now;
            wait = args.interval.0.max(SAMPLE);
        }
    };
    tokio::select! {
        biased;
        _ = signals.next_end() => Ok(exit_code::OK),
        end = show => end.map(|()| exit_code::OK),
    }
}

type Readings = BTreeMap<String, Usage>;

async fn read(client: &Client, args: &Args) -> Result<Readings, Failure> {
    let views = client.instances().await?;
    let folded = |name: &str| name.to_ascii_lowercase();
    for name in &args.names {
        if !views
            .iter()
            .any(|view| folded(&view.handle) == folded(name))
        {
            // Says who is missing in aegisd's own words.
            client
                .instance(name, &format!("show what '{name}' uses"))
                .await?;
        }
    }
    let meant = |view: &&InstanceView| {
        let named = args
            .names
            .iter()
            .any(|name| folded(name) == folded(&view.handle));
        (named || args.names.is_empty()) && filter::matches(&args.filter.filter, view)
    };
    let mut readings = Readings::new();
    for view in views.iter().filter(meant) {
        let usage = usage(client, &view.handle).await?;
        if let Some(usage) = usage.filter(|usage| !usage.units.is_empty() || !args.names.is_empty())
        {
            readings.insert(view.handle.clone(), usage);
        }
    }
    Ok(readings)
}

/// `None` for an instance that went meanwhile.
async fn usage(client: &Client, handle: &str) -> Result<Option<Usage>, Failure> {
    let what = format!("show what '{handle}' uses");
    let read = async {
        let instance = client.instance(handle, &what).await?;
        let usage = instance
            .stats()
            .await
            .map_err(Failure::call(what.as_str()))?;
        Ok::<_, Failure>(Usage::from_dict(usage)?)
    };
    match read.await {
        Err(failure) if failure.is(Symbol::NotFound) => Ok(None),
        read => read.map(Some),
    }
}

/// What one instance uses; a figure that is not accounted for is `None`.
struct Row {
    handle: String,
    cpu_percent: Option<f64>,
    cpu_ns: Option<u64>,
    memory: Option<u64>,
    /// Of the VM, the only one with a limit.
    memory_max: Option<u64>,
    tasks: Option<u64>,
    daemons: usize,
    runs: bool,
    units: Vec<Value>,
}

impl Row {
    fn new(handle: &str, now: &Usage, before: Option<&Usage>) -> Self {
        let is_vm = |unit: &str| units::parse(unit).is_some_and(|(_, kind)| kind == UnitKind::Vm);
        let vm = now.units.iter().find(|unit| is_vm(&unit.unit));
        let cpu_ns = sum(now.units.iter().map(|unit| unit.cpu_ns));
        Self {
            handle: handle.to_owned(),
            cpu_percent: before.and_then(|before| cpu_percent(now, before)),
            cpu_ns,
            memory: sum(now.units.iter().map(|unit| unit.memory)),
            memory_max: vm.and_then(|vm| vm.memory_max),
            tasks: sum(now.units.iter().map(|unit| unit.tasks)),
            daemons: now.units.len() - usize::from(vm.is_some()),
            runs: !now.units.is_empty(),
            units: now
                .units
                .iter()
                .map(|unit| {
                    json!({
                        "unit": unit.unit,
                        "memory": unit.memory,
                        "memory_max": unit.memory_max,
                        "cpu_ns": unit.cpu_ns,
                        "tasks": unit.tasks,
                        "tasks_max": unit.tasks_max,
                    })
                })
                .collect(),
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "handle": self.handle,
            "cpu_percent": self.cpu_percent,
            "cpu_ns": self.cpu_ns,
            "memory": self.memory,
            "memory_max": self.memory_max,
            "memory_percent": self.memory_percent(),
            "tasks": self.tasks,
            "daemons": self.daemons,
            "units": self.units,
        })
    }

    fn memory_percent(&self) -> Option<f64> {
        #[allow(clippy::cast_precision_loss, reason = "a percentage for people")]
        let ratio = |part: u64, whole: u64| part as f64 * 100.0 / whole as f64;
        let percent = ratio(self.memory?, self.memory_max.filter(|&max| max > 0)?);
        Some(rounded(percent))
    }
}

/// The CPU time used between two readings, in per cent of one CPU. A unit that was
/// started anew meanwhile counts from 0.
fn cpu_percent(now: &Usage, before: &Usage) -> Option<f64> {
    let elapsed = now.at_us.checked_sub(before.at_us).filter(|&us| us > 0)?;
    let used = now.units.iter().map(|unit| {
        let then = before.units.iter().find(|then| then.unit == unit.unit);
        let then = then.and_then(|then| then.cpu_ns).unwrap_or(0);
        let now = unit.cpu_ns?;
        Some(now.checked_sub(then).unwrap_or(now))
    });
    #[allow(clippy::cast_precision_loss, reason = "a percentage for people")]
    let percent = |used: u64| used as f64 / 10.0 / elapsed as f64;
    sum(used).map(percent).map(rounded)
}

fn rounded(percent: f64) -> f64 {
    (percent * 100.0).round() / 100.0
}

/// The sum of figures; `None` if one of them is, or if there are none.
fn sum(figures: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    let figures: Option<Vec<u64>> = figures.collect();
    figures
        .filter(|figures| !figures.is_empty())
        .map(|figures| {
            figures
                .iter()
                .fold(0, |sum: u64, figure| sum.saturating_add(*figure))
        })
}

fn print(ui: Ui, args: &Args, rows: &[Row]) -> Result<(), Failure> {
    let live =
        ui.is_terminal() && !args.no_stream && !ui.wants_json() && args.format.format.is_none();
    let listing = Listing {
        key: "stats",
        rows: rows.iter().map(Row::to_json).collect(),
        name: "handle",
    };
    listing.print(ui, &args.format, || {
        let table = table(ui, rows);
        if live {
            format!("{HOME}{table}")
        } else {
            table
        }
    })
}

fn table(ui: Ui, rows: &[Row]) -> String {
    let headings = [
        "HANDLE",
        "CPU %",
        "MEMORY / LIMIT",
        "MEM %",
        "TASKS",
        "DAEMONS",
    ];
    let mut table = Table::new(&headings);
    for row in rows {
        let memory = row.memory.map(|memory| match row.memory_max {
            Some(max) => format!("{} / {}", bytes(memory), bytes(max)),
            None => bytes(memory),
        });
        let percent = |percent: Option<f64>| percent.map(|percent| format!("{percent:.2}"));
        let cells = [
            Some(row.handle.clone()),
            percent(row.cpu_percent),
            memory,
            percent(row.memory_percent()),
            row.tasks.map(|tasks| tasks.to_string()),
            Some(row.daemons.to_string()),
        ];
        table.row(
            cells
                .map(|cell| (Tone::Plain, cell.unwrap_or_default()))
                .into(),
        );
    }
    table.render(ui)
}

/// Says why there are dashes.
fn note_missing(ui: Ui, rows: &[Row]) {
    let running = || rows.iter().filter(|row| row.runs);
    let missing: Vec<&str> = [
        ("memory", running().any(|row| row.memory.is_none())),
        ("CPU time", running().any(|row| row.cpu_ns.is_none())),
        ("tasks", running().any(|row| row.tasks.is_none())),
    ]
    .into_iter()
    .filter_map(|(what, missing)| missing.then_some(what))
    .collect();
    if !missing.is_empty() {
        ui.note(&format!(
            "note: the service manager does not account for {} here\n\
             hint: that takes cgroup v2 with the controllers delegated to it",
            missing.join(" and ")
        ));
    }
}

#[cfg(test)]
mod tests {
    use aegis_bus::instance::UnitUsage;

    use super::*;

    fn usage(at_us: u64, cpu_ns: Option<u64>, memory: Option<u64>) -> Usage {
        let vm = UnitUsage {
            unit: "aegis-vm-web.service".into(),
            memory,
            memory_max: Some(4096),
            cpu_ns,
            tasks: Some(3),
            tasks_max: None,
        };
        Usage {
            at_us,
            units: vec![vm],
        }
    }

    #[test]
    fn a_percentage_is_of_the_time_between_two_readings() {
        let before = usage(0, Some(1_000_000_000), None);
        let now = usage(1_000_000, Some(1_500_000_000), None);
        assert_eq!(cpu_percent(&now, &before), Some(50.0));
        let anew = usage(1_000_000, Some(250_000_000), None);
        assert_eq!(cpu_percent(&anew, &before), Some(25.0));
        assert_eq!(cpu_percent(&usage(0, Some(2), None), &before), None);
    }

    #[test]
    fn what_is_not_accounted_for_is_no_zero() {
        let row = Row::new("web", &usage(5, None, None), Some(&usage(0, None, None)));
        assert_eq!(
            (row.cpu_percent, row.memory, row.tasks),
            (None, None, Some(3))
        );
        let text = table(Ui::new(false, false), &[row]);
        assert!(
            text.ends_with("web     -      -               -      3      0\n"),
            "{text}"
        );
        let row = Row::new("web", &usage(5, None, Some(1024)), None);
        assert_eq!(row.memory_percent(), Some(25.0));
    }
}
