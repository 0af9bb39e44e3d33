//! Images: from a registry to what can boot, beside skopeo with umoci and beside podman,
//! and many instances of one image.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

use super::tools::{aegis, output};
use crate::row::Row;
use crate::sample_image::TAGS;
use crate::samples::Samples;

/// Where the machine's registry listens, and the repository of both images.
pub(crate) const REGISTRY: &str = "127.0.0.1:5000";
pub(crate) const REPOSITORY: &str = "bench";
/// Pulls of each kind.
const RUNS: usize = 3;
/// Instances of one image.
const INSTANCES: usize = 20;
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Where the peers put their files.
const FOLDER: &str = "/home/alice/bench-images";

/// Something that brings images here.
struct Tool {
    name: &'static str,
    /// Its processes, as the kernel names them.
    processes: &'static [&'static str],
    /// Brings the image of a tag here so that it can be started.
    pull: fn(&str) -> Result<()>,
    /// The processor time that it and all else measured so has used.
    processor: fn() -> Result<Duration>,
    /// Removes all images.
    clear: fn() -> Result<()>,
    /// The folders of its images.
    folders: &'static [&'static str],
}

const TOOLS: [Tool; 3] = [
    Tool {
        name: "AegisVM",
        processes: &["aegis-image", "sqfstar"],
        pull: |tag| {
            aegis(&["image", "pull", &name(tag), "--insecure-registry", REGISTRY]).map(drop)
        },
        processor: children_and_units,
        clear: || aegis(&["image", "prune", "--all"]).map(drop),
        folders: &["/home/alice/.aegis/images"],
    },
    Tool {
        name: "skopeo and umoci",
        processes: &["skopeo", "umoci"],
        pull: |tag| {
            let name = name(tag);
            shell(&format!(
                "mkdir -p {FOLDER}/umoci && cd {FOLDER}/umoci && \
                 skopeo --insecure-policy copy --quiet --src-tls-verify=false \
                     docker://{name} oci:layout:{tag} && \
                 umoci unpack --rootless --image layout:{tag} {tag}"
            ))
        },
        processor: children,
        clear: || shell(&format!("rm -rf {FOLDER}/umoci")),
        folders: &["/home/alice/bench-images/umoci"],
    },
    Tool {
        name: "podman",
        processes: &["podman", "exe", "storage-untar"],
        pull: |tag| podman(&format!("pull --quiet --tls-verify=false {}", name(tag))),
        processor: children,
        clear: || podman("rmi --all --force"),
        folders: &["/home/alice/bench-images/podman"],
    },
];

pub(super) fn measure() -> Result<Vec<Row>> {
    let mut costs: Vec<[Costs; 2]> = TOOLS.iter().map(|_| Default::default()).collect();
    for _ in 0..RUNS {
        // In turn, so that a noisy moment meets all.
        for (tool, costs) in TOOLS.iter().zip(&mut costs) {
            (tool.clear)()?;
            for (tag, costs) in TAGS.into_iter().zip(costs) {
                costs.add(tool, tag).with_context(|| tool.name)?;
            }
        }
    }
    let [ours, peers @ ..] = &costs[..] else {
        return Ok(Vec::new());
    };
    let what = [
        "pull of an image of 300 MB until it can boot",
        "pull of another that shares all but 10 MB with it",
    ];
    let mut rows = Vec::new();
    for (image, what) in what.into_iter().enumerate() {
        for (kind, unit, figure) in FIGURES {
            let ours = figure(&ours[image]);
            for (tool, theirs) in TOOLS[1..].iter().zip(peers) {
                let row = Row::new(format!("{what}: {kind}"), unit, ours);
                rows.push(row.against(tool.name, figure(&theirs[image])));
            }
        }
    }
    rows.push(instances()?);
    for tool in &TOOLS {
        (tool.clear)()?;
    }
    Ok(rows)
}

/// What is compared: its name, its unit, and how it is read.
type Figure = (&'static str, &'static str, fn(&Costs) -> f64);

const FIGURES: [Figure; 4] = [
    ("time", "ms", |costs| costs.wall.median()),
    ("processor time", "ms", |costs| costs.processor.median()),
    ("disk", "MB", |costs| costs.disk),
    ("memory at most", "MB", |costs| costs.memory),
];

/// What pulls of one image cost.
#[derive(Default)]
struct Costs {
    wall: Samples,
    processor: Samples,
    /// Megabytes more on the disk after the last one.
    disk: f64,
    /// Megabytes that the processes had at most, in any of them.
    memory: f64,
}

impl Costs {
    fn add(&mut self, tool: &Tool, tag: &str) -> Result<()> {
        let disk = disk(tool.folders)?;
        let peak = Peak::of(tool.processes);
        let (start, processor_before) = (Instant::now(), (tool.processor)()?);
        (tool.pull)(tag)?;
        self.wall.add(start.elapsed());
        self.processor
            .add((tool.processor)()?.saturating_sub(processor_before));
        self.memory = self.memory.max(peak.end());
        self.disk = disk_after(tool.folders, disk)?;
        Ok(())
    }
}

/// The last of many instances of one image beside the first.
fn instances() -> Result<Row> {
    (TOOLS[0].pull)(TAGS[0])?;
    let image = name(TAGS[0]);
    let names: Vec<String> = (1..=INSTANCES)
        .map(|n| format!("bench-image-{n}"))
        .collect();
    let mut samples = Vec::new();
    for name in &names {
        let start = ["instance", "start", "--name", name, "--image", &image];
        samples.push(Samples::time(1, || aegis(&start).map(drop))?.median());
    }
    for name in &names {
        aegis(&["instance", "delete", "--purge", name])?;
    }
    let (first, last) = (samples[0], samples[INSTANCES - 1]);
    let what = format!("start of instance {INSTANCES} of an image, the others running");
    Ok(Row::new(what, "ms", last).against("that of the first", first))
}

fn name(tag: &str) -> String {
    format!("{REGISTRY}/{REPOSITORY}:{tag}")
}

fn shell(line: &str) -> Result<()> {
    output("sh", &["-ec", line]).map(drop)
}

/// With the driver that works over the files of a machine, which are an overlay.
fn podman(arguments: &str) -> Result<()> {
    shell(&format!(
        "podman --root {FOLDER}/podman --storage-driver vfs {arguments}"
    ))
}

fn disk(folders: &[&str]) -> Result<f64> {
    let mut sum = 0.0;
    for folder in folders
        .iter()
        .filter(|folder| fs::exists(folder).unwrap_or_default())
    {
        let said = output("du", &["--summarize", "--block-size=1000", folder])?;
        let size = said.split_whitespace().next();
        sum += size
            .and_then(|size| size.parse::<f64>().ok())
            .with_context(|| said.clone())?
            / 1e3;
    }
    Ok(sum)
}

fn disk_after(folders: &[&str], before: f64) -> Result<f64> {
    // What was written a moment ago may not have its blocks yet.
    output("sync", &[])?;
    Ok(disk(folders)? - before)
}

/// The processor time of our children.
fn children() -> Result<Duration> {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).context("reading our usage")?;
    let time = |time: TimeVal| {
        let micros = u64::try_from(time.num_microseconds());
        Duration::from_micros(micros.unwrap_or_default())
    };
    Ok(time(used.user_time()) + time(used.system_time()))
}

/// The same with everything that alice's manager runs, which is where aegisd's program
/// pulls. podman puts itself there too and would be counted twice.
fn children_and_units() -> Result<Duration> {
    let group = output(
        "systemctl",
        &["--user", "show", "--value", "--property", "ControlGroup"],
    )?;
    let path = format!("/sys/fs/cgroup{group}/cpu.stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let micros = text
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "));
    let micros = micros.and_then(|text| text.parse().ok());
    let managed = Duration::from_micros(micros.with_context(|| format!("{path} has no usage"))?);
    Ok(children()? + managed)
}

/// Looks at the memory of processes until it is ended.
struct Peak {
    ended: Arc<AtomicBool>,
    looking: JoinHandle<f64>,
}

impl Peak {
    fn of(names: &'static [&'static str]) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let seen = ended.clone();
        let looking = spawn(move || {
            let mut most: f64 = 0.0;
            while !seen.load(Ordering::Relaxed) {
                most = most.max(resident_of(names));
                sleep(LOOK);
            }
            most
        });
        Self { ended, looking }
    }

    /// Megabytes that they had at most together.
    fn end(self) -> f64 {
        self.ended.store(true, Ordering::Relaxed);
        self.looking.join().unwrap_or_default()
    }
}

/// The resident memory of all processes of these names, in megabytes. One that ends
/// meanwhile has none.
fn resident_of(names: &[&str]) -> f64 {
    let mut sum = 0.0;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = entry.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if !names.contains(&name.trim()) {
            continue;
        }
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        sum += kib.unwrap_or_default() / 1024.0;
    }
    sum
}
