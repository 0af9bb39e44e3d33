//! A storm of kills over many instances: their daemons, aegisd and QEMUs at random
//! moments, side by side, then a reboot.
//!
//! ```text
//!  make instances ─► storm ─► all as wanted ─► every VM can be used ─► reboot ─► all as wanted
//! ```
//!
//! As wanted is: every instance has its daemons, one process each, no process is
//! anybody's who is not wanted, and units, folders and records agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::agreement::wait_for_agreement;
use crate::instance::{DEADLINE, Instance};
use crate::kit;
use crate::machine::{Machine, User};
use crate::seat::Seat;
use crate::wait::wait_until;

const CLIENT: &[u8] = include_bytes!("../clients/kill_storm.py");
/// What the instances in the storm are called before their number, and those that
/// are there for the reboot alone.
const PREFIX: &str = "storm";
const QUIET_PREFIX: &str = "quiet";
const DAEMONS: [&str; 2] = ["first", "second"];
/// The kit's longest delay between two restarts.
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// What a start may take on a busy machine, beyond the delay before it.
const START: Duration = Duration::from_secs(60);

/// How hard it blows.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Instances in the storm, with two daemons each.
    pub instances: u32,
    /// Instances that are only there to be restored by the reboot.
    pub quiet: u32,
    /// Kills of each daemon.
    pub of_daemons: u32,
    /// Kills of aegisd.
    pub of_aegisd: u32,
    /// Kills of QEMUs.
    pub of_qemu: u32,
}

impl Extent {
    /// As `make soak` has it.
    pub const WHOLE: Self = Self {
        instances: 10,
        quiet: 10,
        of_daemons: 50,
        of_aegisd: 50,
        of_qemu: 20,
    };
    /// About a minute.
    pub const SHORT: Self = Self {
        instances: 3,
        quiet: 17,
        of_daemons: 5,
        of_aegisd: 8,
        of_qemu: 2,
    };
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    told: Told,
    settled: Duration,
    instances: usize,
    restored: Duration,
    failures: Vec<String>,
}

/// What the storm itself tells.
#[derive(Debug)]
struct Told {
    /// By daemon's unit, the seconds after each kill until there was another process.
    gaps: BTreeMap<String, Vec<f64>>,
    aegisd: u64,
    qemu: u64,
    failures: Vec<String>,
}

impl Told {
    fn read(text: &str) -> Result<Self> {
        let mut told: Value = serde_json::from_str(text)?;
        let count = |name: &str| told[name].as_u64().with_context(|| name.to_owned());
        Ok(Self {
            aegisd: count("aegisd")?,
            qemu: count("qemu")?,
            gaps: serde_json::from_value(told["gaps"].take())?,
            failures: serde_json::from_value(told["failures"].take())?,
        })
    }
}

impl Report {
    /// What was not as wanted.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gaps: Vec<f64> = self.told.gaps.values().flatten().copied().collect();
        gaps.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let index = (gaps.len() * percent / 100).min(gaps.len().saturating_sub(1));
            gaps.get(index).copied().unwrap_or_default()
        };
        writeln!(formatter, "| what | killed |\n|---|---|")?;
        let daemons = self.told.gaps.len();
        writeln!(formatter, "| {daemons} daemons | {} |", gaps.len())?;
        writeln!(formatter, "| aegisd | {} |", self.told.aegisd)?;
        writeln!(formatter, "| QEMUs | {} |\n", self.told.qemu)?;
        writeln!(
            formatter,
            "From a daemon's kill to its next process: {:.2} s in the median, {:.2} s for 95 of \
             100, {:.2} s at most (its longest delay is {} s). All as wanted {:.1} s after the \
             storm. After a reboot the {} daemons of {} instances ran {:.1} s after the \
             manager answered. {} failures",
            at(50),
            at(95),
            at(100),
            LONGEST_DELAY.as_secs(),
            self.settled.as_secs_f64(),
            self.instances * DAEMONS.len(),
            self.instances,
            self.restored.as_secs_f64(),
            self.failures.len(),
        )
    }
}

/// Lets it blow over a machine that has nothing else to do, in user mode.
///
/// # Errors
/// It cannot be begun or ended; what it left in disorder is in the report.
pub fn blow(machine: &mut Machine, extent: Extent) -> Result<Report> {
    let handles = make_instances(Seat::alice(machine), extent)?;
    let told = kill(Seat::alice(machine), extent)?;
    let mut failures: Vec<String> = told.failures.clone();
    failures.extend(too_long(&told));
    let begin = Instant::now();
    failures.extend(disorder(Seat::alice(machine), &handles));
    let settled = begin.elapsed();
    failures.extend(unusable(Seat::alice(machine), extent));
    machine.reboot()?;
    let begin = Instant::now();
    failures.extend(
        disorder(Seat::alice(machine), &handles).map(|words| format!("after the reboot: {words}")),
    );
    Ok(Report {
        told,
        settled,
        instances: handles.len(),
        restored: begin.elapsed(),
        failures,
    })
}

fn make_instances(seat: Seat<'_>, extent: Extent) -> Result<BTreeSet<String>> {
    seat.aegis_ok("up")?;
    kit::install(seat, "storm", &["storm-daemon"])?;
    let of = |prefix: &'static str, count| (0..count).map(move |n| format!("{prefix}-{n}"));
    let handles = of(PREFIX, extent.instances).chain(of(QUIET_PREFIX, extent.quiet));
    let handles: BTreeSet<String> = handles.collect();
    for handle in &handles {
        // Kept beyond the value: a drop would delete it before the reboot.
        std::mem::forget(kit::make_at_rest(seat, handle, "storm")?);
    }
    match disorder(seat, &handles) {
        None => Ok(handles),
        Some(words) => bail!("before the storm: {words}"),
    }
}

/// Runs the storm to its end.
fn kill(seat: Seat<'_>, extent: Extent) -> Result<Told> {
    let machine = seat.machine();
    let script = "/usr/local/bin/kill-storm";
    machine.write_file(User::Root, script, CLIENT)?;
    let home = machine
        .run(
            User::Root,
            "systemctl show --property=ControlGroup --value user@1000.service",
        )?
        .success()?;
    let line = format!(
        "SCOPE={} python3 {script} /sys/fs/cgroup{home} {PREFIX} {} {} {} {}",
        seat.scope(),
        extent.instances,
        extent.of_daemons,
        extent.of_aegisd,
        extent.of_qemu
    );
    let output = seat.run(&line)?;
    let text = output.success().context("the storm")?;
    Told::read(&text).with_context(|| format!("reading {text}"))
}

/// Daemons that were away longer than their delay and a start allow.
fn too_long(told: &Told) -> Option<String> {
    let longest = (LONGEST_DELAY + START).as_secs_f64();
    let late = told
        .gaps
        .iter()
        .filter(|(_, gaps)| gaps.iter().any(|&gap| gap > longest));
    let late: Vec<&str> = late.map(|(unit, _)| unit.as_str()).collect();
    (!late.is_empty()).then(|| format!("away for more than {longest} s: {}", late.join(", ")))
}

/// What is not as wanted, if it does not become so.
fn disorder(seat: Seat<'_>, handles: &BTreeSet<String>) -> Option<String> {
    order(seat, handles).err().map(|error| format!("{error:#}"))
}

fn order(seat: Seat<'_>, handles: &BTreeSet<String>) -> Result<()> {
    let mut story = String::new();
    wait_until(DEADLINE, "every daemon to run once", || {
        story = told_by_units(seat, handles)?;
        Ok(story.is_empty())
    })
    .with_context(|| story.clone())?;
    let recorded = wait_for_agreement(seat)?;
    ensure!(recorded == *handles, "aegisd knows {recorded:?}");
    Ok(())
}

/// Which daemons' units do not run, and processes of daemons that are too many or too
/// few, in words.
fn told_by_units(seat: Seat<'_>, handles: &BTreeSet<String>) -> Result<String> {
    let listed = seat
        .systemctl("list-units --all --no-legend --plain 'aegis-kit-*' 'aegis-vm-*.socket'")?
        .success()?;
    let mut running = BTreeSet::new();
    for line in listed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [unit, _, "active", "running" | "listening", ..] = words[..] {
            running.insert(unit.to_owned());
        }
    }
    let mut wanted = BTreeSet::new();
    for handle in handles {
        let instance = std::mem::ManuallyDrop::new(Instance::existing(seat, handle));
        wanted.extend(DAEMONS.map(|daemon| instance.daemon_unit(daemon)));
        // It is "running" beside a VM, and that is as well.
        wanted.insert(instance.socket_unit());
    }
    let missing: Vec<_> = wanted.difference(&running).collect();
    let surplus: Vec<_> = running.difference(&wanted).collect();
    let processes = seat.run("pgrep --count --full --exact 'sleep 31536000'")?;
    let processes: usize = processes.text().parse().context("a number of processes")?;
    let expected = handles.len() * DAEMONS.len();
    Ok(
        match (missing.len() + surplus.len(), processes == expected) {
            (0, true) => String::new(),
            _ => format!(
                "not running: {missing:?}, not wanted: {surplus:?}, {processes} processes of {expected}"
            ),
        },
    )
}

/// Instances of the storm whose VM cannot be used.
fn unusable(seat: Seat<'_>, extent: Extent) -> Vec<String> {
    let one = |number: u32| -> Result<()> {
        let handle = format!("{PREFIX}-{number}");
        let instance = std::mem::ManuallyDrop::new(Instance::existing(seat, &handle));
        let used = || -> Result<()> {
            instance.start_again()?;
            let said = instance.exec_ok("echo up")?;
            ensure!(said == "up", "it says {said}");
            instance.act("stop")?;
            Ok(())
        };
        used().with_context(|| format!("{handle} after the storm"))
    };
    let results = (0..extent.instances).map(one);
    results
        .filter_map(|result| result.err().map(|error| format!("{error:#}")))
        .collect()
}
