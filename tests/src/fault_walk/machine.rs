//! The walk over the steps of a VM's boot and stop, of its save and its restore, and of
//! making a template and beginning from it: its owner and its QEMU are killed at each.
//!
//! The owner is held at a step (it stops itself there), QEMU or the owner is killed
//! from outside, and the owner, if it lives, goes on. Afterwards no process is left
//! over, and the instance starts and works.

use std::time::{Duration, Instant};

use aegis_fault_points::{Action, ORDER, Order, RECORD, SWITCH, When};
use anyhow::{Context, Result, ensure};

use super::Report;
use super::trials::{nth_passages, shuffle};
use crate::agreement::wait_for_agreement;
use crate::instance::{DEADLINE, Instance};
use crate::machine::User;
use crate::seat::Seat;
use crate::wait::wait_until;

/// Which step of a VM's life is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Start,
    Stop,
    Hibernate,
    Wake,
    Mold,
    Template,
}

impl Phase {
    const ALL: [Self; 6] = [
        Self::Start,
        Self::Stop,
        Self::Hibernate,
        Self::Wake,
        Self::Mold,
        Self::Template,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Start => "start of a VM",
            Self::Stop => "stop of a VM",
            Self::Hibernate => "hibernation of a VM",
            Self::Wake => "restore of a VM",
            Self::Mold => "start that makes a template",
            Self::Template => "start from a template",
        }
    }
}

/// Kills owner and QEMU at the steps of a boot, a stop, a save and a restore, until
/// `limit` is over.
///
/// # Errors
/// The walk itself cannot go on; a failed trial is a part of the report.
pub fn walk_machine(seat: Seat<'_>, limit: Option<Duration>) -> Result<Report> {
    let begin = Instant::now();
    seat.systemctl(&format!("set-environment {SWITCH}=1"))?
        .success()?;
    let walk = Walk {
        seat,
        keeping: Instance::start(seat, "walk-vm", "")?,
        afresh: Instance::start(seat, "walk-afresh", "--rootfs ro")?,
    };
    for instance in [&walk.keeping, &walk.afresh] {
        instance.act("stop")?;
    }
    let mut report = Report::default();
    let mut trials = Vec::new();
    for phase in Phase::ALL {
        let points = walk.record(phase).context(phase.name())?;
        report.recorded(phase.name(), &points);
        for (name, when, nth) in nth_passages(&points) {
            // A kill of the owner, and one of QEMU while the owner holds.
            trials.extend([Action::Kill, Action::Hold].map(|action| {
                let name = name.clone();
                let order = Order {
                    action,
                    name,
                    when,
                    nth,
                };
                (phase, order)
            }));
        }
    }
    if limit.is_some() {
        shuffle(&mut trials, |(phase, order)| format!("{phase:?} {order}"));
    }
    for (phase, order) in trials {
        if limit.is_some_and(|limit| begin.elapsed() >= limit) {
            break;
        }
        let start = Instant::now();
        let result = walk.attempt(phase, &order);
        report.tried(phase.name(), &order, start.elapsed(), &result);
    }
    seat.systemctl(&format!("unset-environment {SWITCH}"))?
        .success()?;
    Ok(report)
}

/// On the disk and in memory.
const MARK: &str = "echo kept >/var/mark && echo kept >/run/mark && sync";

struct Walk<'a> {
    seat: Seat<'a>,
    keeping: Instance<'a>,
    /// One that keeps nothing, and so has a template.
    afresh: Instance<'a>,
}

impl<'a> Walk<'a> {
    fn instance(&self, phase: Phase) -> &Instance<'a> {
        match phase {
            Phase::Start | Phase::Stop | Phase::Hibernate | Phase::Wake => &self.keeping,
            Phase::Mold | Phase::Template => &self.afresh,
        }
    }

    fn root(&self, line: &str) -> Result<()> {
        self.seat.machine().run(User::Root, line)?.success()?;
        Ok(())
    }

    fn path(&self, phase: Phase, name: &str) -> String {
        format!("{}/{name}", self.instance(phase).folder())
    }

    /// A file of the test's in the instance's folder, in the hands of its owner.
    fn place(&self, phase: Phase, name: &str, text: &str) -> Result<()> {
        let (path, folder) = (self.path(phase, name), self.instance(phase).folder());
        self.root(&format!(
            "printf %s '{text}' >'{path}.new' && chown --reference='{folder}' '{path}.new' \
             && mv '{path}.new' '{path}'"
        ))
    }

    fn prepare(&self, phase: Phase) -> Result<()> {
        let (order, record) = (self.path(phase, ORDER), self.path(phase, RECORD));
        self.root(&format!("rm -f '{order}' '{record}'"))?;
        let instance = self.instance(phase);
        match phase {
            Phase::Start => instance.act("stop").map(drop),
            Phase::Stop => instance.start_again().map(drop),
            Phase::Hibernate | Phase::Wake => {
                instance.start_again()?;
                instance.exec_ok(MARK)?;
                if phase == Phase::Wake {
                    instance.act("hibernate")?;
                }
                Ok(())
            }
            Phase::Mold => {
                instance.act("stop")?;
                self.root(&format!("rm -f {}/templates/*", self.seat.home()))
            }
            Phase::Template => {
                instance.start_again()?;
                instance.act("stop").map(drop)
            }
        }
    }

    /// What was on the disk is there, and so is what was in memory, if that came back:
    /// whole, or not at all.
    fn is_marked(&self) -> Result<()> {
        let marks = self
            .keeping
            .exec_ok("cat /var/mark; cat /run/mark || true")?;
        let marks: Vec<&str> = marks.lines().collect();
        ensure!(
            matches!(marks[..], ["kept"] | ["kept", "kept"]),
            "{marks:?}"
        );
        Ok(())
    }

    fn act(&self, phase: Phase) -> Result<i32> {
        let verb = match phase {
            Phase::Start | Phase::Mold | Phase::Template => "start --name",
            Phase::Stop => "stop",
            Phase::Hibernate => "hibernate",
            Phase::Wake => "wake",
        };
        Ok(self.instance(phase).try_act(verb)?.code())
    }

    fn record(&self, phase: Phase) -> Result<Vec<(String, When)>> {
        self.prepare(phase)?;
        self.place(phase, RECORD, "")?;
        ensure!(self.act(phase)? == 0, "it fails without an accident");
        let text = self.seat.machine().read_file(&self.path(phase, RECORD))?;
        super::trials::read_record(&text)
    }

    /// Returns whether the point was reached.
    fn attempt(&self, phase: Phase, order: &Order) -> Result<bool> {
        self.prepare(phase).context("preparing")?;
        self.place(phase, ORDER, &order.to_string())?;
        std::thread::scope(|scope| -> Result<()> {
            let acting = scope.spawn(|| self.act(phase));
            if order.action == Action::Hold {
                self.kill_qemu_of_a_held_owner(phase, || acting.is_finished())?;
            }
            // Whether it fails or a second VM makes it succeed, it must end.
            let _code = acting
                .join()
                .map_err(|_| anyhow::anyhow!("the client hangs"))??;
            Ok(())
        })?;
        let order = self.path(phase, ORDER);
        let gone = format!("test -e '{order}'");
        let reached = !self.seat.machine().run(User::Root, &gone)?.status.success();
        self.root(&format!("rm -f '{order}'"))?;
        wait_for_agreement(self.seat)?;
        let instance = self.instance(phase);
        instance.start_again().context("it does not start again")?;
        ensure!(instance.exec_ok("echo up")? == "up");
        if matches!(phase, Phase::Hibernate | Phase::Wake) {
            self.is_marked()?;
        }
        let agreed = wait_for_agreement(self.seat)?;
        ensure!(agreed.contains(instance.handle()), "it is gone");
        Ok(reached)
    }

    /// Waits until the owner holds, kills its QEMU if there is one yet, and lets it
    /// go on. A machine that ends before its guest has answered takes the rest of
    /// the stop with it: then `is_over` comes first, and the point is not reached.
    fn kill_qemu_of_a_held_owner(&self, phase: Phase, is_over: impl Fn() -> bool) -> Result<()> {
        let unit = self.instance(phase).vm_unit();
        let mut owner = 0;
        wait_until(DEADLINE, "the owner to hold", || {
            if is_over() {
                owner = 0;
                return Ok(true);
            }
            owner = self.seat.main_pid(&unit)?.unwrap_or_default();
            let state = format!("grep -q '^State:.T' /proc/{owner}/status");
            Ok(owner != 0
                && self
                    .seat
                    .machine()
                    .run(User::Root, &state)?
                    .status
                    .success())
        })?;
        if owner == 0 {
            return Ok(());
        }
        self.root(&format!(
            "pkill -KILL --parent {owner} qemu; kill -CONT {owner}"
        ))
    }
}
