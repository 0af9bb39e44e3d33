//! `make soak`: runs that are too long for `make test`, each with its figures.
//!
//! What a part prints goes into its section of `docs/SOAK.md`; the sections of
//! parts that did not run stay as they are.

use std::fs;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use aegis_tests::cache;
use aegis_tests::fault_walk::{self, Extent};
use aegis_tests::kill_storm;
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use aegis_tests::soak::{self, Figures};
use anyhow::{Context, Result};
use clap::Args;

/// Arguments of `soak`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Only parts whose title contains this.
    #[arg(long)]
    only: Option<String>,
    /// Only operations whose name contains this, in a part that walks over them.
    #[arg(long, default_value = "")]
    operation: String,
    /// How long each part may take, in minutes; without it, as long as it needs.
    #[arg(long)]
    minutes: Option<u64>,
    /// Print the figures and leave docs/SOAK.md as it is.
    #[arg(long)]
    dry: bool,
}

/// One long run.
struct Part {
    title: &'static str,
    run: fn(&Arguments) -> Result<Figures>,
}

const PARTS: [Part; 7] = [
    Part {
        title: "Lives of instances",
        run: lives,
    },
    Part {
        title: "Sessions at once",
        run: crowd,
    },
    Part {
        title: "Hours of use",
        run: rounds,
    },
    Part {
        title: "Parsers of guest bytes",
        run: parsers,
    },
    Part {
        title: "Steps of a VM's boot and stop",
        run: machine_steps,
    },
    Part {
        title: "Storm of kills over daemons, aegisd and QEMUs",
        run: kills,
    },
    Part {
        title: "Fault points of aegisd",
        run: fault_points,
    },
];

/// Lives of a whole run.
const LIVES: usize = 1000;

/// Sessions of a whole run.
const SESSIONS: usize = 500;

/// How long a whole run uses instances.
const HOURS_OF_USE: Duration = Duration::from_secs(6 * 3600);

/// Seconds that each fuzzer runs.
const FUZZING: &str = "60";

/// Runs the parts and gives success only if nothing failed.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut failed = 0;
    for part in PARTS.iter().filter(|part| is_wanted(part, arguments)) {
        println!("\n== {}", part.title);
        let begin = Instant::now();
        let figures = (part.run)(arguments).with_context(|| part.title)?;
        for failure in &figures.failures {
            println!("FAILED {failure}\n");
        }
        let took = begin.elapsed().as_secs();
        let text = format!("{}\nTook {took} s.\n", figures.text.trim_end());
        println!("{text}");
        failed += figures.failures.len();
        if !arguments.dry {
            write_section(part.title, &text)?;
        }
    }
    println!("{failed} failures");
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn is_wanted(part: &Part, arguments: &Arguments) -> bool {
    let only = arguments.only.as_ref();
    only.is_none_or(|only| part.title.contains(only.as_str()))
}

impl Arguments {
    fn limit(&self) -> Option<Duration> {
        let minutes = self.minutes?;
        Some(Duration::from_secs(minutes * 60))
    }
}

fn lives(arguments: &Arguments) -> Result<Figures> {
    let machine = Machine::temporary("soak-lives", Systemd::V257)?;
    let extent = soak::Extent {
        times: LIVES,
        within: arguments.limit(),
    };
    soak::lives(Seat::alice(&machine), extent)
}

fn crowd(_: &Arguments) -> Result<Figures> {
    let machine = Machine::temporary("soak-crowd", Systemd::V257)?;
    soak::crowd(Seat::alice(&machine), SESSIONS)
}

fn rounds(arguments: &Arguments) -> Result<Figures> {
    let machine = Machine::temporary("soak-rounds", Systemd::V257)?;
    let extent = soak::Extent {
        times: usize::MAX,
        within: Some(arguments.limit().unwrap_or(HOURS_OF_USE)),
    };
    soak::rounds(Seat::alice(&machine), extent)
}

/// Runs the fuzzers, which show nothing but their counts unless they find something.
fn parsers(_: &Arguments) -> Result<Figures> {
    let script = cache::repository().join("fuzz/run");
    let heading = "| parser | executions | per second | peak RSS in MiB |\n|---|---|---|---|\n";
    let mut figures = Figures {
        text: heading.to_owned(),
        failures: Vec::new(),
    };
    for parser in [
        "frames",
        "mux",
        "link",
        "messages",
        "log_records",
        "console",
        "layer",
        "image_documents",
        "image_names",
        "image_changes",
        "egress_packets",
        "egress_stream",
    ] {
        let output = Command::new(&script)
            .args([parser, FUZZING])
            .output()
            .with_context(|| format!("running {}", script.display()))?;
        let words = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            let from = words.len().saturating_sub(4000);
            let last = words.get(from..).unwrap_or(&words);
            figures
                .failures
                .push(format!("{parser}: {}: {last}", output.status));
            continue;
        }
        let stat = |name: &str| {
            let line = words.lines().rfind(|line| line.contains(name));
            line.and_then(|line| line.split_whitespace().last())
                .unwrap_or("?")
                .to_owned()
        };
        figures.text += &format!(
            "| {parser} | {} | {} | {} |\n",
            stat("number_of_executed_units"),
            stat("average_exec_per_sec"),
            stat("peak_rss_mb")
        );
    }
    Ok(figures)
}

fn fault_points(arguments: &Arguments) -> Result<Figures> {
    let machine = Machine::temporary("soak-fault-points", Systemd::V257)?;
    let extent = arguments.limit().map_or(Extent::Whole, Extent::Within);
    let report = fault_walk::walk(Seat::alice(&machine), extent, &arguments.operation)?;
    for missed in report.missed() {
        println!("not reached: {missed}");
    }
    Ok(Figures {
        text: report.to_string(),
        failures: report.failures().to_vec(),
    })
}

fn machine_steps(arguments: &Arguments) -> Result<Figures> {
    let machine = Machine::temporary("soak-machine-steps", Systemd::V257)?;
    let report = fault_walk::walk_machine(Seat::alice(&machine), arguments.limit())?;
    for missed in report.missed() {
        println!("not reached: {missed}");
    }
    Ok(Figures {
        text: report.to_string(),
        failures: report.failures().to_vec(),
    })
}

fn kills(_: &Arguments) -> Result<Figures> {
    let mut machine = Machine::temporary("soak-kills", Systemd::V257)?;
    let report = kill_storm::blow(&mut machine, kill_storm::Extent::WHOLE)?;
    Ok(Figures {
        text: report.to_string(),
        failures: report.failures().to_vec(),
    })
}

/// Puts a part's figures in the place of its earlier ones.
fn write_section(title: &str, text: &str) -> Result<()> {
    let path = cache::repository().join("docs/SOAK.md");
    let old = fs::read_to_string(&path).unwrap_or_else(|_| {
        "# Soak\n\nFigures of `make soak`, written by its last run.\n".to_owned()
    });
    fs::write(&path, with_section(&old, title, text))
        .with_context(|| format!("writing {}", path.display()))
}

/// The document with one section replaced or added at the end.
fn with_section(document: &str, title: &str, text: &str) -> String {
    let heading = format!("## {title}\n");
    let section = format!("{heading}\n{text}");
    let Some((before, rest)) = document.split_once(&heading) else {
        return format!("{}\n\n{section}", document.trim_end());
    };
    let after = rest.find("\n## ").map_or("", |at| &rest[at..]);
    format!("{before}{section}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_the_place_of_its_earlier_self() {
        let first = with_section("# Soak\n", "One", "1\n");
        let both = with_section(&first, "Two", "2\n");
        assert_eq!(both, "# Soak\n\n## One\n\n1\n\n## Two\n\n2\n");
        let again = with_section(&both, "One", "new\n");
        assert_eq!(again, "# Soak\n\n## One\n\nnew\n\n## Two\n\n2\n");
    }
}
