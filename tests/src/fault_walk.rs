//! The walk over the fault points of aegisd and of the program that makes images:
//! every operation once with its points recorded, then again for each point, with the
//! program killed or refused there.
//!
//! ```text
//!  record: prepare ─► act ─► points passed
//!  per point and accident: prepare ─► order ─► act ─► agreement ─► act again ─► done
//! ```
//!
//! After each accident: registry, units, folders and processes agree, nothing is
//! half-made, what was acknowledged is so, the operation can be repeated, and
//! another instance's QEMU and exec session have not noticed anything.

mod looks;
mod machine;
mod operations;
mod report;
mod states;
mod trials;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aegis_fault_points::{Action, Errno, ORDER, Order, RECORD, SWITCH, When};
use anyhow::{Context, Result, bail, ensure};

use crate::agreement::{recorded, wait_for_agreement};
use crate::instance::{DEADLINE, Instance};
use crate::kit;
use crate::layout::Layout;
use crate::machine::User;
use crate::seat::Seat;
use crate::session::Session;
use crate::wait::wait_until;
pub use machine::walk_machine;
use operations::{Fate, Operation};
pub use report::Report;
use trials::{nth_passages, read_record, shuffle};

/// The handle of the instance that operations work on.
const HANDLE: &str = "walk";

/// Which part of a short walk's time operations get that need aegisd for themselves.
const ALONE_SHARE: u32 = 10;

/// How far to walk.
#[derive(Clone, Copy, Debug)]
pub enum Extent {
    /// Every point of every operation, killed and with every error.
    Whole,
    /// As many as fit the time: first each point once, then others, chosen anew in
    /// each run.
    Within(Duration),
}

/// Whose points they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Program {
    Aegisd,
    /// The one that pulls and imports images.
    Puller,
}

impl Program {
    const ALL: [Self; 2] = [Self::Aegisd, Self::Puller];

    /// A file of the test's that the program looks for.
    fn file(self, seat: Seat<'_>, name: &str) -> String {
        match self {
            Self::Aegisd => format!("{}/{name}", seat.home()),
            Self::Puller => format!("{}/images/{name}", seat.home()),
        }
    }
}

/// The points that an operation passes in one program.
type Points = (Program, Vec<(String, When)>);

/// One accident to be tried.
#[derive(Clone, Debug)]
struct Trial {
    operation: &'static Operation,
    program: Program,
    order: Order,
}

/// Walks over the operations whose name contains `only`, and tells what came of
/// it. Nothing but the walk may use aegisd meanwhile.
///
/// # Errors
/// The walk itself cannot go on; a failed trial is a part of the report.
pub fn walk(seat: Seat<'_>, extent: Extent, only: &str) -> Result<Report> {
    let begin = Instant::now();
    let walk = Walk::begin(seat)?;
    let mut report = Report::default();
    let wanted = operations::ALL.iter().filter(|it| it.name.contains(only));
    let (alone, others): (Vec<_>, Vec<_>) = wanted.partition(|operation| operation.is_alone);
    let share = match extent {
        Extent::Whole => Extent::Whole,
        Extent::Within(limit) => Extent::Within(limit / ALONE_SHARE),
    };
    walk.go_over(&alone, share, begin, None, &mut report)?;
    if !others.is_empty() {
        let bystander = Bystander::begin(seat)?;
        walk.go_over(&others, extent, begin, Some(bystander), &mut report)?;
    }
    walk.end()?;
    Ok(report)
}

/// A kill at each passage of each point, and each error before it.
fn trials_of(operation: &'static Operation, points: &[Points]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (program, points) in points {
        for (name, when, nth) in nth_passages(points) {
            let mut actions = vec![Action::Kill];
            if when == When::Before {
                actions.extend(Errno::ALL.map(Action::Fail));
            }
            trials.extend(actions.into_iter().map(|action| Trial {
                operation,
                program: *program,
                order: Order {
                    action,
                    name: name.clone(),
                    when,
                    nth,
                },
            }));
        }
    }
    trials
}

/// A short walk meets each kind of accident at each kind of point before it
/// meets one again, and the rest in an order of its own.
fn first_of_each_kind_first(trials: Vec<Trial>) -> Vec<Trial> {
    let mut met = BTreeSet::new();
    let is_new = |trial: &Trial| {
        let kill = trial.order.action == Action::Kill;
        met.insert((
            trial.operation.name,
            trial.program,
            trial.order.name.clone(),
            trial.order.when,
            kill,
        ))
    };
    let (mut first, mut rest): (Vec<_>, Vec<_>) = trials.into_iter().partition(is_new);
    let name = |trial: &Trial| format!("{trial:?}");
    shuffle(&mut first, name);
    shuffle(&mut rest, name);
    first.extend(rest);
    first
}

struct Walk<'a> {
    seat: Seat<'a>,
}

impl<'a> Walk<'a> {
    /// Lets the programs' points act and sets up what operations need.
    fn begin(seat: Seat<'a>) -> Result<Self> {
        seat.systemctl(&format!("set-environment {SWITCH}=1"))?
            .success()?;
        kit::install(seat, "walk", &["shell-gateway", "told-daemon"])?;
        Layout::make(&["echo >>etc/passwd"], "--config.cmd id")?.put(seat, "walk-image")?;
        let walk = Self { seat };
        walk.clean_up()?;
        Ok(walk)
    }

    /// Walks over some operations, beside an instance that has nothing to do with them.
    fn go_over(
        &self,
        operations: &[&'static Operation],
        extent: Extent,
        begin: Instant,
        mut bystander: Option<Bystander<'a>>,
        report: &mut Report,
    ) -> Result<()> {
        let mut trials = Vec::new();
        for operation in operations {
            let points = self
                .record(operation)
                .with_context(|| format!("recording {}", operation.name))?;
            for (_, points) in &points {
                report.recorded(operation.name, points);
            }
            trials.extend(trials_of(operation, &points));
        }
        if let Extent::Within(_) = extent {
            trials = first_of_each_kind_first(trials);
        }
        for trial in trials {
            if matches!(extent, Extent::Within(limit) if begin.elapsed() >= limit) {
                break;
            }
            let start = Instant::now();
            let result = self.attempt(&trial).and_then(|reached| {
                bystander.as_mut().map_or(Ok(()), Bystander::check)?;
                Ok(reached)
            });
            report.tried(trial.operation.name, &trial.order, start.elapsed(), &result);
            if result.is_err() {
                self.clean_up()?;
                // The old one goes before the new one comes: they have one name.
                if bystander.take().is_some() {
                    bystander = Some(Bystander::begin(self.seat)?);
                }
            }
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        self.clean_up()?;
        self.seat
            .systemctl(&format!("unset-environment {SWITCH}"))?
            .success()?;
        self.seat.systemctl("restart aegisd.service")?.success()?;
        Ok(())
    }

    /// Begins from nothing: no order, no record, no instance of the walk's.
    fn clean_up(&self) -> Result<()> {
        let (home, kits) = (self.seat.home(), self.seat.kits());
        self.root(&format!(
            "rm -f {home}/{ORDER} {home}/{RECORD} {home}/images/{ORDER} \
             {home}/images/{RECORD} {home}/instances/*/{RECORD}"
        ))?;
        self.seat.systemctl("restart aegisd.service")?.success()?;
        self.seat.wait_for_aegisd()?;
        self.seat
            .aegis(&format!("instance delete --purge {HANDLE}"))?;
        self.root(&format!("rm -rf {kits}/{HANDLE}"))
    }

    fn user(&self, line: &str) -> Result<()> {
        self.seat.run(line)?.success()?;
        Ok(())
    }

    fn root(&self, line: &str) -> Result<()> {
        self.seat.machine().run(User::Root, line)?.success()?;
        Ok(())
    }

    /// The points that an operation passes when nothing happens to it.
    fn record(&self, operation: &'static Operation) -> Result<Vec<Points>> {
        operation.prepare(self.seat)?;
        let record = |program: Program| program.file(self.seat, RECORD);
        for program in Program::ALL {
            self.user(&format!(": >'{}'", record(program)))?;
        }
        operation.act(self.seat)?.success()?;
        operation.wait_for(self.seat, Fate::Done)?;
        let read = |program| {
            let text = self.seat.machine().read_file(&record(program))?;
            self.root(&format!("rm '{}'", record(program)))?;
            Ok((program, read_record(&text)?))
        };
        Program::ALL.into_iter().map(read).collect()
    }

    /// Has one accident happen; returns whether its point was reached.
    fn attempt(&self, trial: &Trial) -> Result<bool> {
        let Trial {
            operation,
            program,
            order,
        } = trial;
        operation.prepare(self.seat).context("preparing")?;
        let aegisd = self.seat.main_pid("aegisd.service")?;
        let path = program.file(self.seat, ORDER);
        let place = format!("printf %s '{order}' >'{path}.new' && mv '{path}.new' '{path}'");
        self.user(&place)?;
        let told = operation.act(self.seat)?;
        let reached = self.reached(&path)?;
        let acknowledged = told.code() == 0 && !operation.is_unasked;
        if reached && told.code() != 0 {
            let words = String::from_utf8_lossy(&told.stderr);
            ensure!(!words.trim().is_empty(), "it failed without a word");
        }
        self.seat.wait_for_aegisd()?;
        let spared = *program != Program::Aegisd || order.action != Action::Kill;
        if reached && spared && !operation.restarts_aegisd {
            let now = self.seat.main_pid("aegisd.service")?;
            ensure!(now == aegisd, "aegisd ended of what was not its end");
        }
        self.root(&format!("rm -f '{path}'"))?;
        wait_for_agreement(self.seat)?;
        let fate = operation.fate(self.seat)?;
        if acknowledged {
            ensure!(fate == Fate::Done, "acknowledged, but undone: {fate:?}");
        }
        if fate == Fate::NotDone && !operation.is_unasked {
            let again = operation.act(self.seat)?;
            again.success().context("it cannot be repeated")?;
        }
        operation.wait_for(self.seat, Fate::Done)?;
        wait_for_agreement(self.seat)?;
        Ok(reached)
    }

    /// Whether the order was met. An operation may go on after its client was told.
    fn reached(&self, order: &str) -> Result<bool> {
        let gone = || {
            Ok(!self
                .seat
                .run(&format!("test -e '{order}'"))?
                .status
                .success())
        };
        Ok(wait_until(Duration::from_secs(1), "the order to be met", gone).is_ok())
    }
}

/// An instance that has nothing to do with the operations, with a session that
/// counts: neither may notice what happens to aegisd.
struct Bystander<'a> {
    instance: Instance<'a>,
    qemu: Option<u32>,
    session: Session<'a>,
    last: u64,
}

impl<'a> Bystander<'a> {
    fn begin(seat: Seat<'a>) -> Result<Self> {
        let instance = Instance::start(seat, "bystander", "")?;
        let count = "aegisctl exec bystander -- sh -c \
                     'i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done'";
        let mut session = Session::start(seat, count)?;
        session.wait_for_line("1")?;
        Ok(Self {
            qemu: instance.qemu_pid()?,
            instance,
            session,
            last: 1,
        })
    }

    /// The same QEMU runs, and the session went on without a gap and goes on.
    fn check(&mut self) -> Result<()> {
        let before = self.last;
        let mut fresh = self.session.lines_so_far();
        if fresh.is_empty() {
            fresh.push(self.session.line()?);
        }
        for line in fresh {
            let number: u64 = line.parse().context("a number")?;
            ensure!(number == self.last + 1, "the session jumped after {before}");
            self.last = number;
        }
        if self.instance.qemu_pid()? != self.qemu {
            bail!("another QEMU runs in the bystander");
        }
        Ok(())
    }
}

/// Enabled or not, by handle, once aegisd tells.
fn enabled(seat: Seat<'_>) -> Result<Option<bool>> {
    Ok(recorded(seat)?.get(HANDLE).copied())
}

/// Waits for a condition as long as any state may take to come.
fn until(what: &str, condition: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_until(DEADLINE, what, condition)
}
