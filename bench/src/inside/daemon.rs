//! An instance daemon: killed, until its program runs again, beside other
//! supervisors; and given another config.

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use super::supervisors::Supervisor;
use super::tools::{Instance, output};
use super::witness::{self, Witness};
use crate::row::Row;
use crate::samples::Samples;

const KILLS: usize = 20;
const CHANGES: usize = 10;
/// The delay before the first restart, which systemd is asked for.
const FIRST_DELAY_MS: f64 = 100.0;
/// runit and s6 let a second pass between two starts of a program.
const PAUSE: Duration = Duration::from_millis(1200);

const MANIFEST: &str = r#"{"instance_daemons": [
    {"binary": "bench-daemon", "config": {"path": "bench.json", "default": {}}}
]}"#;
const NAME: &str = "bench-kit";

pub(super) fn measure() -> Result<Vec<Row>> {
    let home = PathBuf::from(std::env::var("HOME")?);
    let kits = home.join(".aegis/kits");
    let program = kits.join("bench-daemon");
    witness::write(&program)?;
    fs::write(kits.join("bench.json"), MANIFEST).context("writing the kit")?;
    let unit = format!("aegis-kit-{NAME}:bench-daemon.service");
    let folder = kits.join(NAME);
    let daemon = Witness::of(&folder);
    let _instance = Instance::start(NAME, &["--kit", "bench"])?;

    let mut ours = Samples::default();
    let mut others: Vec<(Supervisor, Samples)> = Supervisor::all(&program, &home.join("peers"))?
        .into_iter()
        .map(|supervisor| (supervisor, Samples::default()))
        .collect();
    // In turn, so that a noisy moment meets all.
    for _ in 0..KILLS {
        sleep(PAUSE);
        ours.add(daemon.kill()?);
        // The delay grows with each restart until it is told to start over.
        output("systemctl", &["--user", "reset-failed", &unit])?;
        for (supervisor, samples) in &mut others {
            samples.add(supervisor.program.kill()?);
        }
    }
    let mut rows = rows_of("median", &ours, &others, Samples::median);
    rows.extend(rows_of("95th percentile", &ours, &others, Samples::p95));

    let mut changed = Samples::default();
    let mut restarted = Samples::default();
    for change in 0..CHANGES {
        changed.add(daemon.until_again(|_| {
            let config = format!("{{\"change\": {change}}}\n");
            fs::write(folder.join("bench.json"), config).context("writing the config")
        })?);
        restarted.add(
            daemon.until_again(|_| output("systemctl", &["--user", "restart", &unit]).map(drop))?,
        );
    }
    rows.push(
        Row::new(
            "a config written until the daemon runs with it",
            "ms",
            changed.median(),
        )
        .against("`systemctl restart` of it", restarted.median()),
    );
    Ok(rows)
}

/// One figure of the returns of a killed program, beside each of the others'.
fn rows_of(
    kind: &str,
    ours: &Samples,
    others: &[(Supervisor, Samples)],
    figure: fn(&Samples) -> f64,
) -> Vec<Row> {
    let what = format!("a killed daemon until its program runs again, {kind}");
    let first = Row::new(what, "ms", figure(ours));
    let mut rows = vec![first.against("the delay that was asked for", FIRST_DELAY_MS)];
    for (supervisor, samples) in others {
        let row = Row::new("– the same", "ms", figure(ours));
        rows.push(row.against(supervisor.name, figure(samples)));
    }
    rows
}
