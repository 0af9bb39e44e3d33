//! Many registered instances: lists, a restart of aegisd, its memory.

use anyhow::Result;

use super::crowd::Crowd;
use super::tools::{aegis, output, property, resident};
use crate::row::Row;
use crate::samples::Samples;

/// Registered instances, and how many of them are enabled.
const SIZES: [(usize, usize); 3] = [(1, 1), (100, 100), (1000, 100)];
const LISTS: usize = 9;
/// Containers that podman lists; making a thousand would take longer than all else.
const CONTAINERS: [usize; 2] = [1, 100];
/// The files of a machine are an overlay, which podman's usual driver does not take.
const PODMAN: [&str; 3] = ["podman", "--storage-driver", "vfs"];
/// Goals for aegisd's memory in MB.
const IDLE_GOAL: f64 = 15.0;
const FULL_GOAL: f64 = 25.0;

pub(super) fn measure() -> Result<Vec<Row>> {
    let mut containers = Containers::default();
    let mut crowd = Crowd::new("fleet", None)?;
    let mut rows = Vec::new();
    restart_aegisd()?;
    rows.push(Row::new("resident memory of aegisd, idle", "MB", aegisd()?).goal(IDLE_GOAL));
    for (size, enabled) in SIZES {
        crowd.grow(size, enabled)?;
        containers.grow(size)?;
        let mut ours = Samples::default();
        let mut theirs = Samples::default();
        // In turn, so that a noisy moment meets both.
        for _ in 0..LISTS {
            ours.extend(Samples::time(1, || aegis(&["instance", "list"]).map(drop))?);
            theirs.extend(Samples::time(1, || containers.list())?);
        }
        let what = format!("`instance list` of {size}, {enabled} enabled");
        let name = format!("`podman ps --all` of {}", containers.0);
        rows.push(Row::new(what, "ms", ours.median()).against(name, theirs.median()));
    }
    let restart = Samples::time(5, restart_aegisd)?;
    let nothing = Samples::time(5, || {
        output("systemd-run", &["--user", "--quiet", "--wait", "true"]).map(drop)
    })?;
    rows.push(
        Row::new(
            "aegisd restarted until it lists 1000 again",
            "ms",
            restart.median(),
        )
        .against("a transient unit that does nothing", nothing.median()),
    );
    rows.push(
        Row::new("resident memory of aegisd, 1000 instances", "MB", aegisd()?).goal(FULL_GOAL),
    );
    crowd.delete()?;
    Ok(rows)
}

/// It answers once it knows every instance and its units.
fn restart_aegisd() -> Result<()> {
    output("systemctl", &["--user", "restart", "aegisd.service"])?;
    aegis(&["instance", "list"]).map(drop)
}

fn aegisd() -> Result<f64> {
    resident(&property("aegisd.service", "MainPID")?)
}

/// Containers of podman, made and never started.
#[derive(Default)]
struct Containers(usize);

impl Containers {
    /// Makes as many as there are instances, as far as that is reasonable.
    fn grow(&mut self, size: usize) -> Result<()> {
        if self.0 == 0 {
            let pack = "tar --create --dereference /bin/true";
            let import = format!("{pack} | {} import --quiet - aegis-bench", PODMAN.join(" "));
            output("sh", &["-c", &import])?;
        }
        let size = CONTAINERS.iter().rfind(|known| **known <= size);
        let more = size.map_or(0, |size| size.saturating_sub(self.0));
        for _ in 0..more {
            podman(&["create", "--quiet", "aegis-bench", "/bin/true"])?;
        }
        self.0 += more;
        Ok(())
    }

    fn list(&self) -> Result<()> {
        podman(&["ps", "--all"])
    }
}

fn podman(arguments: &[&str]) -> Result<()> {
    let [program, options @ ..] = PODMAN;
    output(program, &[&options[..], arguments].concat()).map(drop)
}
