//! An instance daemon that is killed, until its program runs again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result};

use super::tools::{Instance, output, wait_for};
use crate::row::Row;
use crate::samples::Samples;

const KILLS: usize = 20;
/// The delay before the first restart, which systemd is asked for.
const FIRST_DELAY_MS: f64 = 100.0;

const MANIFEST: &str = r#"{"instance_daemons": [{"binary": "bench-daemon"}]}"#;
/// The file's time is when it runs.
const PROGRAM: &str = "#!/bin/sh\n: >started\nexec sleep infinity\n";

pub(super) fn measure() -> Result<Vec<Row>> {
    let kits = PathBuf::from(std::env::var("HOME")?).join(".aegis/kits");
    fs::create_dir_all(&kits).context("making the kit folder")?;
    fs::write(kits.join("bench.json"), MANIFEST).context("writing the kit")?;
    let program = kits.join("bench-daemon");
    fs::write(&program, PROGRAM).context("writing the daemon")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
        .context("writing the daemon")?;

    let name = "bench-kit";
    let unit = format!("aegis-kit-{name}:bench-daemon.service");
    let started = kits.join(name).join("started");
    let _instance = Instance::start(name, &["--kit", "bench"])?;
    let mut samples = Samples::default();
    for _ in 0..KILLS {
        let killed = SystemTime::now();
        output("systemctl", &["--user", "kill", "--signal=KILL", &unit])?;
        let again = wait_for("the daemon", || {
            let time = fs::metadata(&started).and_then(|file| file.modified()).ok();
            Ok(time.filter(|time| *time > killed))
        })?;
        samples.add(again.duration_since(killed)?);
        // The delay grows with each restart until it is told to start over.
        output("systemctl", &["--user", "reset-failed", &unit])?;
    }
    Ok(vec![
        Row::new(
            "a killed daemon until its program runs again, median",
            "ms",
            samples.median(),
        )
        .against("the delay that was asked for", FIRST_DELAY_MS),
        Row::new("– the same, 95th percentile", "ms", samples.p95())
            .against("the delay that was asked for", FIRST_DELAY_MS),
    ])
}
