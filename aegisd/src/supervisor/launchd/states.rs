//! The states of units, from what launchd, aegis-shim and the job itself say. Pure.
//!
//! ```text
//!  not loaded ─► no unit
//!  loaded, no process ─┬─ behind sockets ──────────────► at rest
//!                      ├─ launchd will start it ───────► restarting
//!                      └─ ended with 0 / else ─────────► exited / failed
//!  a process ─┬─ aegis-shim, in a delay ───────────────► restarting
//!             ├─ aegis-shim, ended with 78 before ─────► failed
//!             ├─ aegis-shim, not decided, at rest ─────► at rest
//!             └─ the program, ready / not yet ─────────► running / starting
//! ```

use aegis_core::launchd::{Hold, LastEnd, Order, RunRecord, Service};
use aegis_core::units::UnitKind;

use super::files::Keeps;
use super::readiness::Heard;
use crate::supervisor::state::{Active, EXIT_CONFIG, ProcessEnd, RunResult};
use crate::supervisor::{Limits, UnitId, UnitState};

/// All that is known of a loaded job.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) service: Service,
    pub(super) record: RunRecord,
    pub(super) heard: Option<Heard>,
    pub(super) keeps: Keeps,
}

impl Known {
    /// The process of the job, if aegis-shim has written of it.
    fn recorded(&self) -> bool {
        self.service.pid == Some(self.record.pid)
    }

    /// What aegis-shim waits for in the present run.
    pub(super) fn hold(&self) -> Option<Hold> {
        self.record.hold.filter(|_| self.recorded())
    }

    /// Whether the present process is the program, and ready as far as anyone knows.
    /// `keeps_record`: whether aegis-shim is before it.
    pub(super) fn is_ready(&self, keeps_record: bool) -> bool {
        let Some(pid) = self.service.pid else {
            return false;
        };
        let is_program =
            self.recorded() && self.record.hold.is_none() && self.record.order.is_none();
        let is_awaited = (self.heard.as_ref()).is_some_and(|heard| heard.is_awaited(pid));
        (is_program || !keeps_record) && !is_awaited && !self.service.is_leaving()
    }

    /// The state of the unit that runs as this job.
    pub(super) fn unit_state(&self, unit: UnitId) -> UnitState {
        let keeps_record = matches!(unit.kind, UnitKind::Vm | UnitKind::Daemon(_));
        let (active, sub) = self.activity(&unit.kind, keeps_record);
        let hold = self.hold();
        let ended = match hold {
            Some(Hold::Config) => Some(ProcessEnd::Code(EXIT_CONFIG)),
            _ => self.service.last_end.map(process_end),
        };
        let runs = matches!(active, Active::Active) && self.service.pid.is_some();
        let (since, next_restart) = match hold {
            Some(Hold::Delay { since, until }) => (since, Some(until)),
            _ => (self.record.started, None),
        };
        UnitState {
            active,
            sub: sub.to_owned(),
            result: if runs {
                RunResult::Success
            } else {
                run_result(ended)
            },
            restarts: self.record.failures,
            next_restart,
            main_pid: self.service.pid.filter(|_| hold != Some(Hold::Config)),
            run: match self.record.started {
                0 => String::new(),
                started => format!("{}@{started}", self.record.pid),
            },
            last_end: ended,
            started: self.record.started,
            since,
            control_group: String::new(),
            status: (self.heard.as_ref())
                .filter(|heard| heard.pid.is_none() || heard.pid == self.service.pid)
                .map(|heard| heard.status.clone())
                .unwrap_or_default(),
            stopping: self.service.is_leaving(),
            limits: Limits::default(),
            unit,
        }
    }

    fn activity(&self, kind: &UnitKind, keeps_record: bool) -> (Active, &'static str) {
        let is_daemon = matches!(kind, UnitKind::Daemon(_));
        if self.service.is_leaving() {
            return (Active::Deactivating, "stop-sigterm");
        }
        match (self.hold(), self.service.pid) {
            (Some(Hold::Delay { .. }), _) => (Active::Activating, "auto-restart"),
            (Some(Hold::Config), _) => (Active::Failed, "failed"),
            (None, Some(_)) if self.is_ready(keeps_record) => (Active::Active, "running"),
            // Not before it has decided to be more than that: a job with sockets is
            // started once when it is loaded, and again after it was killed to be stopped.
            (None, Some(_)) if !is_daemon && !self.recorded() => (Active::Inactive, "dead"),
            (None, Some(_)) if self.record.order == Some(Order::Rest) => (Active::Inactive, "dead"),
            (None, Some(_)) => (Active::Activating, "start"),
            (None, None) => self.without_process(is_daemon),
        }
    }

    fn without_process(&self, is_daemon: bool) -> (Active, &'static str) {
        let failed = !matches!(self.service.last_end, None | Some(LastEnd::Code(0)));
        let is_stopped = self.record.order == Some(Order::Rest);
        match (is_daemon, self.keeps, self.service.last_end) {
            (_, Keeps::Failures, _) if failed && !is_stopped => {
                (Active::Activating, "auto-restart")
            }
            (true, Keeps::All, Some(_)) => (Active::Activating, "auto-restart"),
            (true, _, None) => (Active::Activating, "start"),
            (true, _, Some(LastEnd::Code(0))) => (Active::Active, "exited"),
            (true, _, Some(_)) => (Active::Failed, "failed"),
            (false, ..) => (Active::Inactive, "dead"),
        }
    }
}

/// The state of a unit that is there as long as a job is: a socket, a group.
pub(super) fn standing(unit: UnitId, sub: &str) -> UnitState {
    UnitState {
        sub: sub.to_owned(),
        ..UnitState::without_process(unit, Active::Active)
    }
}

pub(super) fn process_end(end: LastEnd) -> ProcessEnd {
    match end {
        LastEnd::Code(code) => ProcessEnd::Code(code),
        LastEnd::Signal(signal) => ProcessEnd::Signal(signal),
    }
}

pub(super) fn run_result(end: Option<ProcessEnd>) -> RunResult {
    match end {
        None | Some(ProcessEnd::Code(0)) => RunResult::Success,
        Some(ProcessEnd::Code(_)) => RunResult::ExitCode,
        Some(ProcessEnd::Signal(_)) => RunResult::Signal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(pid: Option<u32>, last_end: Option<LastEnd>) -> Known {
        Known {
            service: Service {
                state: "x".into(),
                pid,
                runs: 1,
                last_end,
            },
            record: RunRecord {
                pid: 7,
                started: 5,
                ..RunRecord::default()
            },
            heard: None,
            keeps: Keeps::Failures,
        }
    }

    fn daemon(known: &Known) -> UnitState {
        known.unit_state(UnitId::daemon(&"web".parse().unwrap(), "d"))
    }

    fn vm(known: &Known) -> UnitState {
        known.unit_state(UnitId::vm(&"web".parse().unwrap()))
    }

    #[test]
    fn a_daemon_runs_exits_fails_and_restarts() {
        let running = daemon(&known(Some(7), Some(LastEnd::Signal(9))));
        assert_eq!(
            (running.active, running.main_pid),
            (Active::Active, Some(7))
        );
        assert_eq!(running.result, RunResult::Success);
        assert!(daemon(&known(None, Some(LastEnd::Code(0)))).has_exited());
        assert!(daemon(&known(None, Some(LastEnd::Code(1)))).is_restarting());
        let mut never = known(None, Some(LastEnd::Code(1)));
        never.keeps = Keeps::None;
        assert_eq!(daemon(&never).active, Active::Failed);
    }

    #[test]
    fn what_the_shim_waits_for_is_told() {
        let mut waiting = known(Some(7), Some(LastEnd::Code(1)));
        waiting.record.hold = Some(Hold::Delay { since: 1, until: 9 });
        let state = daemon(&waiting);
        assert!(state.is_restarting());
        assert_eq!((state.since, state.next_restart), (1, Some(9)));
        waiting.record.hold = Some(Hold::Config);
        assert!(daemon(&waiting).waits_for_config());
        assert_eq!(daemon(&waiting).main_pid, None);
        waiting.service.pid = Some(8);
        assert!(!daemon(&waiting).waits_for_config(), "another process's");
    }

    #[test]
    fn a_vm_is_at_rest_until_its_shim_has_decided() {
        assert_eq!(vm(&known(Some(8), None)).active, Active::Inactive);
        assert_eq!(
            vm(&known(None, Some(LastEnd::Code(0)))).active,
            Active::Inactive
        );
        assert!(vm(&known(None, Some(LastEnd::Signal(9)))).is_restarting());
        let mut stopped = known(None, Some(LastEnd::Signal(9)));
        stopped.record.order = Some(Order::Rest);
        assert_eq!(vm(&stopped).active, Active::Inactive);
        let mut starting = known(Some(7), None);
        starting.heard = Some(Heard {
            pid: Some(7),
            ..Heard::default()
        });
        assert_eq!(vm(&starting).active, Active::Activating);
        assert!(!starting.is_ready(true));
    }
}
