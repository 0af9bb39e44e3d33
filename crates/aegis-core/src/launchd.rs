//! What launchd and aegis-shim tell about jobs, read by aegisd and by aegis-shim. Pure.
//!
//! | from | as | tells |
//! |---|---|---|
//! | `launchctl print DOMAIN/LABEL` | [`Service`] | state, process, how the last run ended |
//! | `launchctl print DOMAIN` | [`labels`] | which jobs are loaded |
//! | a file of aegis-shim's | [`RunRecord`] | since when it runs, what it waits for |
//!
//! The text of `launchctl print` is no interface of Apple's (launchctl(1) says so), so it
//! is read leniently: lines that are not known are passed over, and what is missing is
//! not known.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the last run of a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LastEnd {
    /// Exit code, 0 to 255. A program that could not be run has 78.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// A loaded job, as `launchctl print` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// In launchd's words: `running`, `not running`, `spawn scheduled`, `SIGTERMed`.
    pub state: String,
    pub pid: Option<u32>,
    /// How often it was started since it was loaded.
    pub runs: u32,
    /// `None` while no run has ended, or where launchd does not tell.
    pub last_end: Option<LastEnd>,
}

impl Service {
    /// Reads what `launchctl print` said of one job. Only the outermost block counts:
    /// those within have fields of the same names.
    pub fn parse(text: &str) -> Self {
        let mut service = Self::default();
        let mut depth = 0usize;
        let (mut code, mut signal) = (None, None);
        for line in text.lines().map(str::trim) {
            if line == "}" {
                depth = depth.saturating_sub(1);
            } else if line.ends_with(" = {") {
                depth += 1;
            } else if let (1, Some((name, value))) = (depth, line.split_once(" = ")) {
                match name {
                    "state" => value.clone_into(&mut service.state),
                    "pid" => service.pid = value.parse().ok().filter(|&pid| pid != 0),
                    "runs" => service.runs = value.parse().unwrap_or(0),
                    // `78: EX_CONFIG`, `(never exited)`
                    "last exit code" => code = number(value.split(':').next()),
                    // `Killed: 9`
                    "last terminating signal" => signal = number(value.rsplit(':').next()),
                    _ => {}
                }
            }
        }
        service.last_end = signal.map(LastEnd::Signal).or(code.map(LastEnd::Code));
        service
    }

    /// Whether launchd lets it go: it was booted out, and its label is still there.
    pub fn is_leaving(&self) -> bool {
        self.state == "SIGTERMed" || self.state == "SIGKILLed" || self.state == "exited"
    }
}

fn number(text: Option<&str>) -> Option<i32> {
    text?.trim().parse().ok()
}

/// The labels of the jobs that a domain has, as `launchctl print DOMAIN` lists them:
/// process, last status and label in each line of the block `services`.
pub fn labels(text: &str) -> impl Iterator<Item = &str> {
    rows(text).filter_map(|row| row.split_whitespace().last())
}

/// The lines about the jobs of a domain. One changes when its job does.
pub fn rows(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .skip_while(|line| *line != "services = {")
        .skip(1)
        .take_while(|line| *line != "}")
}

/// What aegis-shim keeps of the runs of a job, in a file beside the job's. aegisd removes
/// it with the job, so it never is from before a boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRecord {
    /// The process of the last run.
    pub pid: u32,
    /// When that began, in microseconds since 1970.
    pub started: u64,
    /// Runs in a row before it that failed: what the delay between two follows from.
    pub failures: u32,
    /// What that process waits for instead of being the program.
    pub hold: Option<Hold>,
    /// What aegisd wants of the next start.
    pub order: Option<Order>,
}

/// Why a job's process is not its program yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// The delay after a failure, in microseconds since 1970.
    Delay { since: u64, until: u64 },
    /// Another configuration: the last run ended with 78. launchd would start the job
    /// again after that as after any failure, so this process stays in its place.
    Config,
}

/// What aegisd wants of a job's next start, whatever launchd's reason for it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// It was asked for: it waits for nothing.
    Run,
    /// It was stopped: no more than its sockets are wanted.
    Rest,
}

/// What aegis-shim knows when launchd has started it.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// How the run before ended; `None` if this is the first one.
    pub last_end: Option<LastEnd>,
    /// How long that run took.
    pub lasted: Duration,
    /// Failures in a row before that run.
    pub failures: u32,
    pub order: Option<Order>,
    /// What the job's sockets say; `None` for a job without.
    pub visitors: Option<bool>,
    /// A run of this length is healthy: its failure is the first in a row.
    pub healthy_after: Duration,
    /// A run that went wrong is not repeated: the VM of an instance without a restart
    /// policy. One that could not even begin is, as with systemd.
    pub once: bool,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Be the program at once.
    Run,
    /// Be it after the delay of so many failures in a row, or when somebody connects.
    After { failures: u32 },
    /// End with 0, which launchd does not follow by another start.
    Rest,
    /// Stay, and be nothing.
    Config,
}

/// The exit code for a configuration that must change first (sysexits(3)).
const EXIT_CONFIG: i32 = 78;
/// The exit code of a VM's owner that lost its VM.
const EXIT_LOST: i32 = 1;
/// SIGHUP, SIGINT, SIGPIPE and SIGTERM: ends by these are no crashes (systemd.service(5)
/// has the same four).
const CLEAN_SIGNALS: [i32; 4] = [1, 2, 13, 15];

impl LastEnd {
    /// Whether the run went wrong, rather than that it could not begin.
    fn is_loss(self) -> bool {
        match self {
            Self::Code(code) => code == EXIT_LOST,
            Self::Signal(signal) => !CLEAN_SIGNALS.contains(&signal),
        }
    }
}

impl Situation {
    /// What to do with the run that launchd has just started.
    ///
    /// A job with sockets is to run when somebody connects, or when it was asked for, or
    /// again after a failure. For the last launchd starts it once when it is loaded
    /// (`SuccessfulExit` implies `RunAtLoad`); that first run is to be none.
    pub fn next(&self) -> Next {
        let failed = match (self.visitors, self.order, self.last_end) {
            (_, Some(Order::Run), _) | (Some(true), Some(Order::Rest), _) => return Next::Run,
            (_, Some(Order::Rest), _) | (Some(false), _, None) => return Next::Rest,
            (None, _, Some(LastEnd::Code(EXIT_CONFIG))) => return Next::Config,
            (Some(false), None, Some(end)) if self.once && end.is_loss() => return Next::Rest,
            // Somebody connects, or connected and is gone again, or asked by hand.
            (Some(_), _, Some(LastEnd::Code(0))) => false,
            // One without sockets is started after its end with 0 only where every end
            // is followed by a start, and then with a delay as after a failure.
            (_, _, last_end) => last_end.is_some(),
        };
        match failed {
            false => Next::Run,
            true if self.lasted >= self.healthy_after => Next::After { failures: 1 },
            true => Next::After {
                failures: self.failures.saturating_add(1),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    const RUNNING: &str = "gui/501/org.x = {\n\tactive count = 1\n\tstate = running\n\n\t\
        arguments = {\n\t\tpid = 1\n\t}\n\n\truns = 3\n\tpid = 42\n\t\
        last exit code = (never exited)\n\n\tcoalition = {\n\t\tstate = active\n\t}\n}\n";

    #[test]
    fn a_running_job_is_read_without_its_inner_blocks() {
        let service = Service::parse(RUNNING);
        let expected = Service {
            state: "running".into(),
            pid: Some(42),
            runs: 3,
            last_end: None,
        };
        assert_eq!(service, expected);
    }

    #[test]
    fn ends_are_read_in_the_forms_that_were_seen() {
        for (line, end) in [
            ("last exit code = 0", Some(LastEnd::Code(0))),
            ("last exit code = 78: EX_CONFIG", Some(LastEnd::Code(78))),
            ("last exit code = (never exited)", None),
            (
                "last terminating signal = Killed: 9",
                Some(LastEnd::Signal(9)),
            ),
            ("last terminating signal = what", None),
        ] {
            let text = format!("x = {{\n\tstate = not running\n\t{line}\n}}");
            assert_eq!(Service::parse(&text).last_end, end, "{line}");
        }
    }

    #[test]
    fn labels_are_those_of_the_services() {
        let text = "user/0 = {\n\tactive count = 2\n\n\tservices = {\n\
            \t\t     214      - \torg.a\n\t\t       0     -9 \torg.b:[::1]:80\n\
            \t\t       0   (pe) \torg.c\n\t}\n\n\tdisabled services = {\n\
            \t\t\"org.d\" => disabled\n\t}\n}";
        let found: Vec<&str> = labels(text).collect();
        assert_eq!(found, ["org.a", "org.b:[::1]:80", "org.c"]);
        assert_eq!(labels("").count(), 0);
    }

    fn situation(last_end: Option<LastEnd>, visitors: Option<bool>) -> Situation {
        Situation {
            last_end,
            lasted: Duration::from_secs(1),
            failures: 4,
            order: None,
            visitors,
            healthy_after: Duration::from_secs(60),
            once: false,
        }
    }

    #[test]
    fn a_daemon_waits_after_failures_and_for_its_configuration() {
        let next = |last_end| situation(last_end, None).next();
        assert_eq!(next(None), Next::Run);
        assert_eq!(next(Some(LastEnd::Signal(9))), Next::After { failures: 5 });
        assert_eq!(next(Some(LastEnd::Code(78))), Next::Config);
        let healthy = Situation {
            lasted: Duration::from_secs(60),
            ..situation(Some(LastEnd::Code(1)), None)
        };
        assert_eq!(healthy.next(), Next::After { failures: 1 });
    }

    #[test]
    fn a_job_with_sockets_rests_until_it_is_wanted() {
        let idle = |last_end| situation(last_end, Some(false)).next();
        assert_eq!(idle(None), Next::Rest, "when it is loaded");
        assert_eq!(
            idle(Some(LastEnd::Code(0))),
            Next::Run,
            "kickstarted by hand"
        );
        assert_eq!(idle(Some(LastEnd::Code(1))), Next::After { failures: 5 });
        let visited = situation(None, Some(true)).next();
        assert_eq!(visited, Next::Run);
        for (order, next) in [(Order::Run, Next::Run), (Order::Rest, Next::Rest)] {
            let ordered = Situation {
                order: Some(order),
                ..situation(Some(LastEnd::Signal(9)), Some(false))
            };
            assert_eq!(ordered.next(), next);
        }
    }

    #[test]
    fn a_machine_that_was_lost_is_made_again_only_where_that_is_wanted() {
        let next = |last_end, once, visitors| {
            let situation = situation(Some(last_end), Some(visitors));
            Situation { once, ..situation }.next()
        };
        let again = Next::After { failures: 5 };
        for lost in [LastEnd::Code(1), LastEnd::Signal(9), LastEnd::Signal(11)] {
            assert_eq!(next(lost, true, false), Next::Rest, "{lost:?}");
            assert_eq!(next(lost, true, true), again, "{lost:?}: somebody waits");
            assert_eq!(next(lost, false, false), again, "{lost:?}");
        }
        // Not even begun, ended from outside, or to be started again.
        for other in [LastEnd::Code(125), LastEnd::Signal(15), LastEnd::Code(75)] {
            assert_eq!(next(other, true, false), again, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC*", lines in proptest::collection::vec("[a-z ={}0-9:\t-]*", 0..20)) {
            Service::parse(&text);
            let text = lines.join("\n");
            Service::parse(&text);
            labels(&text).count();
        }
    }
}
