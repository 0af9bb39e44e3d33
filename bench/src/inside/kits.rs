//! Many instances of a kit: what a daemon takes of memory, and how long all of
//! them take at boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::unistd::getuid;

use super::crowd::Crowd;
use super::supervisors::Supervisor;
use super::tools::{aegis, output, property, resident, wait_for};
use super::witness::{self, Witness};
use crate::row::Row;

/// Instances whose daemons are counted in memory, per kit.
const COUNTED: usize = 50;
/// Daemons of the kit that has several.
const SEVERAL: usize = 5;
/// Instances, each with a daemon, that a boot brings back.
const RESTORED: usize = 100;

pub(super) fn measure() -> Result<Vec<Row>> {
    let home = PathBuf::from(std::env::var("HOME")?);
    let kits = home.join(".aegis/kits");
    let names: Vec<String> = (0..SEVERAL).map(|index| format!("bench-{index}")).collect();
    for name in &names {
        witness::write(&kits.join(name))?;
    }
    fs::write(kits.join("one.json"), manifest(&names[..1])).context("writing a kit")?;
    fs::write(kits.join("several.json"), manifest(&names)).context("writing a kit")?;

    // It runs once somebody uses it.
    aegis(&["instance", "list"])?;
    let mut one = Crowd::new("one", Some("one"))?;
    let mut several = Crowd::new("several", Some("several"))?;
    let before = Memory::now()?;
    one.grow(COUNTED, COUNTED)?;
    wait_for_daemons(COUNTED)?;
    let with_one = Memory::now()?;
    several.grow(COUNTED, COUNTED)?;
    wait_for_daemons(COUNTED * (1 + SEVERAL))?;
    let with_several = Memory::now()?;
    several.delete()?;
    // Both kits have the instances; what they differ by is daemons.
    let difference = with_several.manager + before.manager - 2.0 * with_one.manager;
    let manager = difference * 1024.0 / (COUNTED * (SEVERAL - 1)) as f64;
    // It frees what it made the instances with, so that a difference of two kits says
    // nothing.
    let aegisd = (with_several.aegisd - before.aegisd) * 1024.0 / (2 * COUNTED) as f64;
    let runit = Supervisor::runit(&kits.join(&names[0]), &home.join("kits-peers"))?;
    let s6 = Supervisor::s6(&kits.join(&names[0]), &home.join("kits-peers"))?;
    let kilobytes =
        |supervisor: &Supervisor| -> Result<f64> { Ok(resident(&supervisor.process())? * 1024.0) };
    let mut rows = vec![
        Row::new(
            "memory of systemd's user manager for a daemon",
            "kB",
            manager,
        )
        .against("runit, a process for each", kilobytes(&runit)?),
        Row::new("– the same", "kB", manager).against("s6, a process for each", kilobytes(&s6)?),
        Row::new(
            "memory of aegisd for an instance with three daemons",
            "kB",
            aegisd,
        ),
    ];
    drop((runit, s6));

    one.grow(RESTORED, RESTORED)?;
    wait_for_daemons(RESTORED)?;
    let folders: Vec<PathBuf> = one.handles().map(|handle| kits.join(handle)).collect();
    let ours = boot(&folders)?;
    one.delete()?;
    let plain = boot_of_plain_services(&kits.join(&names[0]), &home.join("plain"))?;
    rows.push(
        Row::new(
            format!("boot: the user manager's start until {RESTORED} instances have their daemon"),
            "ms",
            ours.as_secs_f64() * 1e3,
        )
        .against(
            format!("{RESTORED} plain services of that program"),
            plain.as_secs_f64() * 1e3,
        ),
    );
    Ok(rows)
}

fn manifest(daemons: &[String]) -> String {
    let daemons: Vec<_> = daemons
        .iter()
        .map(|name| serde_json::json!({ "binary": name }))
        .collect();
    serde_json::json!({ "instance_daemons": daemons }).to_string()
}

/// Resident memory in MB.
struct Memory {
    manager: f64,
    aegisd: f64,
}

impl Memory {
    fn now() -> Result<Self> {
        let main = ["show", "--value", "--property", "MainPID", &user_unit()];
        Ok(Self {
            manager: resident(&output("systemctl", &main)?)?,
            aegisd: resident(&property("aegisd.service", "MainPID")?)?,
        })
    }
}

/// The service of the system's manager that is the user's manager.
fn user_unit() -> String {
    format!("user@{}.service", getuid())
}

fn wait_for_daemons(count: usize) -> Result<()> {
    let arguments = [
        "--user",
        "list-units",
        "--no-legend",
        "--plain",
        "--state=running",
        "aegis-kit-*.service",
    ];
    wait_for("all daemons", || {
        let running = output("systemctl", &arguments)?.lines().count();
        Ok((running == count).then_some(()))
    })
}

/// Starts the user's manager anew, as a boot does, and measures until a program
/// runs in each folder.
fn boot(folders: &[PathBuf]) -> Result<Duration> {
    // As a user does whose instances are to come back.
    output(
        "systemctl",
        &["--user", "--quiet", "enable", "aegisd.service"],
    )?;
    output("systemctl", &["restart", &user_unit()])?;
    let start = manager_start()?;
    let last = wait_for("all programs after a boot", || {
        let began = |folder: &PathBuf| Witness::of(folder).began().filter(|at| *at > start);
        let all: Option<Vec<SystemTime>> = folders.iter().map(began).collect();
        Ok(all.and_then(|all| all.into_iter().max()))
    })?;
    Ok(last.duration_since(start)?)
}

/// When the user's manager began to run.
fn manager_start() -> Result<SystemTime> {
    let answer = output(
        "busctl",
        &[
            "--user",
            "get-property",
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            "UserspaceTimestamp",
        ],
    )?;
    let micros = answer.strip_prefix("t ").and_then(|text| text.parse().ok());
    let micros = micros.with_context(|| format!("no timestamp in {answer:?}"))?;
    Ok(UNIX_EPOCH + Duration::from_micros(micros))
}

/// The same with services that systemd reads from files and does not confine.
fn boot_of_plain_services(program: &Path, place: &Path) -> Result<Duration> {
    let units = PathBuf::from(std::env::var("HOME")?).join(".config/systemd/user");
    fs::create_dir_all(&units).context("making the folder of the user's units")?;
    let text = format!(
        "[Service]\nExecStart={}\nWorkingDirectory={}/%i\n[Install]\nWantedBy=default.target\n",
        program.display(),
        place.display()
    );
    fs::write(units.join("plain@.service"), text).context("writing a unit")?;
    let names: Vec<String> = (0..RESTORED)
        .map(|index| format!("plain@{index}.service"))
        .collect();
    let folders: Vec<PathBuf> = (0..RESTORED)
        .map(|index| place.join(index.to_string()))
        .collect();
    for folder in &folders {
        fs::create_dir_all(folder).context("making a folder for a service")?;
    }
    let all = |verb: &[&'static str]| -> Result<()> {
        let mut arguments = verb.to_vec();
        arguments.extend(names.iter().map(String::as_str));
        output("systemctl", &arguments).map(drop)
    };
    all(&["--user", "enable"])?;
    let time = boot(&folders)?;
    all(&["--user", "disable", "--now"])?;
    Ok(time)
}
