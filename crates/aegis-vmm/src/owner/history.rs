//! How the instance's command ended before, and what follows from its next end.
//!
//! The counts outlive the owner in `exit.json`; a start by name (`start.json`,
//! written by aegisd) makes them count from zero.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use aegis_core::control::{CommandExit, FollowUp, StartMark};
use aegis_core::restart::{self, AfterEnd, RestartPolicy};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct History {
    last: FollowUp,
    started: Option<Instant>,
}

impl History {
    /// What an instance's folder tells. A file that is missing or not readable
    /// tells nothing: then the counts begin anew.
    pub(super) fn read(dir: &Path) -> Self {
        let exit: Option<CommandExit> = read(&dir.join("exit.json"));
        let mark: StartMark = read(&dir.join("start.json")).unwrap_or_default();
        let counts = exit.filter(|exit| exit.at > mark.at);
        Self {
            last: counts.map(|exit| exit.follow_up).unwrap_or_default(),
            started: None,
        }
    }

    /// How long connections do not start the VM from now on.
    pub(super) fn rest(&self, now_us: u64) -> Option<Duration> {
        let left = self.last.rests_until?.saturating_sub(now_us);
        (left > 0).then(|| Duration::from_micros(left))
    }

    /// Until when connections do not start the VM, in microseconds since 1970.
    pub(super) fn rests_until(&self) -> Option<u64> {
        self.last.rests_until
    }

    /// The command runs.
    pub(super) fn started(&mut self) {
        self.started = Some(Instant::now());
    }

    /// Decides what follows an end and notes the counts in its record.
    pub(super) fn ended(&mut self, policy: RestartPolicy, exit: &mut CommandExit) -> AfterEnd {
        // One that could not be started ran for no time at all.
        let ran = self
            .started
            .take()
            .map_or(Duration::ZERO, |at| at.elapsed());
        let (after, follow_up) = follow(policy, self.last, ran, exit);
        self.last = follow_up;
        exit.follow_up = follow_up;
        after
    }
}

/// What follows an end after a run of some length.
fn follow(
    policy: RestartPolicy,
    before: FollowUp,
    ran: Duration,
    exit: &CommandExit,
) -> (AfterEnd, FollowUp) {
    let quick_ends = match ran < restart::QUICK {
        true => before.quick_ends.saturating_add(1),
        // It was well for a while: this end is a new one.
        false => 1,
    };
    let after = policy.after_end(exit.is_failure(), before.restarts);
    let restarts = match after {
        AfterEnd::Restart => before.restarts.saturating_add(1),
        AfterEnd::GiveUp => before.restarts,
        AfterEnd::Rest => 0,
    };
    let delay = u64::try_from(restart::delay(quick_ends).as_micros()).unwrap_or(u64::MAX);
    let follow_up = FollowUp {
        restarts,
        quick_ends,
        gave_up: after == AfterEnd::GiveUp,
        // The service manager has a delay of its own.
        rests_until: (after != AfterEnd::Restart).then(|| exit.at.saturating_add(delay)),
    };
    (after, follow_up)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> CommandExit {
        CommandExit {
            code: Some(code),
            signal: None,
            fault: None,
            at: 1_000_000,
            oom: false,
            follow_up: FollowUp::default(),
        }
    }

    #[test]
    fn quick_ends_make_connections_wait_ever_longer() {
        let mut before = FollowUp::default();
        for until in [1_100_000, 1_200_000, 1_400_000] {
            let (after, next) = follow(RestartPolicy::No, before, Duration::ZERO, &exit(1));
            assert_eq!(after, AfterEnd::Rest);
            assert_eq!(next.rests_until, Some(until));
            before = next;
        }
        let (_, next) = follow(RestartPolicy::No, before, restart::QUICK, &exit(0));
        assert_eq!(next.quick_ends, 1);
    }

    #[test]
    fn failures_are_counted_to_the_limit() {
        let policy = RestartPolicy::OnFailure { most: Some(2) };
        let mut before = FollowUp::default();
        for restarts in [1, 2] {
            let (after, next) = follow(policy, before, Duration::ZERO, &exit(3));
            assert_eq!((after, next.restarts), (AfterEnd::Restart, restarts));
            assert_eq!(next.rests_until, None);
            before = next;
        }
        let (after, next) = follow(policy, before, Duration::ZERO, &exit(3));
        assert_eq!(after, AfterEnd::GiveUp);
        assert!(next.gave_up && next.rests_until.is_some());
    }

    #[test]
    fn a_start_by_name_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut last = exit(1);
        last.follow_up.restarts = 7;
        last.follow_up.rests_until = Some(u64::MAX);
        let write = |name: &str, json: String| fs::write(dir.path().join(name), json).unwrap();
        write("exit.json", serde_json::to_string(&last).unwrap());
        assert!(History::read(dir.path()).rest(0).is_some());
        write("start.json", r#"{"at":2000000}"#.to_owned());
        assert!(History::read(dir.path()).rest(0).is_none());
        write("exit.json", "half a".to_owned());
        assert_eq!(History::read(dir.path()).last, FollowUp::default());
    }
}
