//! Cold starts: `run -- true` beside the least that QEMU and the kernel can take,
//! and what its time is made of. The first run of an image and a shape boots and leaves
//! a template of its guest; the next ones begin from there.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::tools::{Instance, aegis, output};
use super::virtme;
use crate::row::Row;
use crate::samples::Samples;

/// Starts of each kind.
const RUNS: usize = 9;
/// Starts by virtme-ng, each of which takes several times as long.
const VIRTME_RUNS: usize = 3;
/// Starts without a template.
const FIRST_RUNS: usize = 5;
/// At most this multiple of the floor.
const GOAL: f64 = 1.5;

pub(super) fn measure() -> Result<Vec<Row>> {
    let floor = Floor::like_an_instance()?;
    let mut bare = Samples::default();
    let mut ours = Samples::default();
    let mut first = Samples::default();
    let mut parts = Vec::new();
    // The first of each reads its files from the disk.
    floor.boot()?;
    aegis(&["run", "--", "true"])?;
    for _ in 0..FIRST_RUNS {
        forget_templates()?;
        first.extend(Samples::time(1, || {
            aegis(&["run", "--", "true"]).map(drop)
        })?);
    }
    // In turn, so that a noisy moment meets both.
    for _ in 0..RUNS {
        let once = Samples::time(1, || floor.boot())?;
        bare.add(std::time::Duration::from_secs_f64(once.median() / 1e3));
        let begin = now_ms()?;
        aegis(&["run", "--", "true"])?;
        let end = now_ms()?;
        ours.add(std::time::Duration::from_secs_f64((end - begin) / 1e3));
        parts.push(split(begin, end)?);
    }
    let name = "plain QEMU, same kernel, an init that does nothing";
    let mut rows = vec![
        Row::new("cold `run -- true`", "ms", ours.median())
            .against(name, bare.median())
            .goal(GOAL),
        Row::new("– the first of its image and shape", "ms", first.median())
            .against(name, bare.median()),
    ];
    let virtme = Samples::time(VIRTME_RUNS, virtme::run_true)?;
    rows.push(
        Row::new("– the same", "ms", ours.median())
            .against("virtme-ng, same kernel", virtme.median()),
    );
    for (index, what) in PARTS.iter().enumerate() {
        let mut samples = Samples::default();
        for part in &parts {
            samples.add(std::time::Duration::from_secs_f64(
                part[index].max(0.0) / 1e3,
            ));
        }
        rows.push(Row::new(format!("– of it {what}"), "ms", samples.median()));
    }
    Ok(rows)
}

const PARTS: [&str; 4] = [
    "client, bus and aegisd until the unit starts",
    "unit start, aegis-vmm and QEMU until the guest is loaded",
    "kernel and harness until the guest is ready",
    "the command, and everything removed again",
];

/// Cuts a run into its parts, by what the journal has of it.
fn split(begin: f64, end: f64) -> Result<[f64; 4]> {
    let since = format!("--since=@{:.6}", begin / 1e3);
    let journal = output(
        "journalctl",
        &["--user", "--quiet", "--output=json", &since],
    )?;
    let entries: Vec<Value> = journal
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let find = |part: &str| {
        let entry = entries.iter().find(|entry| {
            entry["MESSAGE"]
                .as_str()
                .is_some_and(|message| message.contains(part))
        })?;
        let micros: f64 = entry["__REALTIME_TIMESTAMP"].as_str()?.parse().ok()?;
        Some(micros / 1e3)
    };
    let at = |part: &str| find(part).with_context(|| format!("'{part}' is not in the journal"));
    let unit = at("Starting aegis-vm-run")?;
    let loaded = at("the guest is loaded from its template")?;
    let ready = at("the guest is ready")?;
    Ok([unit - begin, loaded - unit, ready - loaded, end - ready])
}

/// Has the next run boot.
fn forget_templates() -> Result<()> {
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    let folder = Path::new(&home).join(".aegis/templates");
    fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))
}

fn now_ms() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1e3)
}

/// A plain QEMU with the machine, kernel and command line of an instance.
pub(super) struct Floor {
    arguments: Vec<String>,
}

impl Floor {
    /// Takes both from an instance that runs.
    pub(super) fn like_an_instance() -> Result<Self> {
        let instance = Instance::start("bench-model", &["--", "sleep", "infinity"])?;
        let path = format!("/proc/{}/cmdline", instance.qemu()?);
        let words = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        Ok(Self {
            arguments: kept(words.trim_end_matches('\0').split('\0')),
        })
    }

    /// Boots it to its end.
    pub(super) fn boot(&self) -> Result<()> {
        let status = self.command("", &[]).status().context("running QEMU")?;
        if !status.success() {
            bail!("plain QEMU: {status}");
        }
        Ok(())
    }

    /// A boot with more kernel arguments and devices.
    pub(super) fn command(&self, kernel_words: &str, devices: &[&str]) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        for word in &self.arguments {
            if word.starts_with("console=") {
                command.arg(format!("{word} {kernel_words}"));
            } else {
                command.arg(word);
            }
        }
        command
            .args(["-kernel", "/usr/lib/aegisvm/guest/vmlinux"])
            .args(["-initrd", FLOOR_INITRAMFS])
            .args(["-serial", "file:/dev/null"])
            .args(devices)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }
}

/// Where the host puts the archive with the init that does nothing.
pub(super) const FLOOR_INITRAMFS: &str = "/usr/local/lib/aegis-bench/initramfs";

/// The options that make the machine what it is, with their values.
const MACHINE: [&str; 7] = [
    "-machine", "-accel", "-cpu", "-smp", "-m", "-append", "-global",
];
const FLAGS: [&str; 3] = ["-no-user-config", "-nodefaults", "-no-reboot"];

fn kept<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut kept = vec!["-display".to_owned(), "none".to_owned()];
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        if FLAGS.contains(&word) {
            kept.push(word.to_owned());
        } else if MACHINE.contains(&word) {
            kept.push(word.to_owned());
            kept.extend(words.next().map(str::to_owned));
        }
    }
    kept
}

/// Whether the host put everything in its place.
pub(super) fn is_prepared() -> bool {
    Path::new(FLOOR_INITRAMFS).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_kept_and_its_devices_are_not() {
        let words = "qemu -nodefaults -machine microvm -device x -append console=ttyS0 -m 512";
        let kept = kept(words.split(' '));
        let expected = "-display none -nodefaults -machine microvm -append console=ttyS0 -m 512";
        assert_eq!(kept.join(" "), expected);
    }
}
