//! The idle clock: how long nobody has needed the VM, and what follows.
//!
//! Only the owner has one, and only the owner pauses, so that a need is either seen
//! before the decision or waits in the owner's mailbox and is answered after it, by
//! letting the VM run on: nothing reaches a guest that is falling asleep.

use std::time::Duration;

use aegis_core::control::{Keep, Outcome};
use aegis_core::fault::Fault;
use aegis_core::idle::{Activity, IdlePolicy, Lease, Sleep};
use aegis_core::lifecycle::VmState;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::{Owner, Phase, Verdict};
use crate::doorway::Visits;
use crate::hypervisor::{Hypervisor, Machine};
use crate::status::now_us;

/// Between two looks at what the guest does: a quarter of the shortest delay, within
/// these bounds. The longest is what a look costs next to nothing in.
const LOOKS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// How long the machine may take to say what it has used.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// When the VM was needed last, and how that is known.
#[derive(Debug)]
pub(super) struct IdleClock {
    policy: IdlePolicy,
    leases: Vec<Lease>,
    /// The end of the last need.
    quiet_since: Instant,
    /// What the machine had used, and when.
    look: Option<(Instant, Activity)>,
    /// What the guest did at the last look.
    busy: Option<&'static str>,
    /// When to look next.
    next: Instant,
}

impl IdleClock {
    pub(super) fn new(policy: IdlePolicy, leases: Vec<Lease>) -> Self {
        Self {
            policy,
            leases,
            quiet_since: Instant::now(),
            look: None,
            busy: None,
            next: Instant::now(),
        }
    }

    /// The VM is needed up to now.
    pub(super) fn wind(&mut self) {
        self.quiet_since = Instant::now();
        self.look = None;
        self.busy = None;
        self.next = Instant::now();
    }

    /// Whether a lease keeps the VM awake.
    pub(super) fn is_leased(&self) -> bool {
        let now = now_us();
        self.leases.iter().any(|lease| !lease.is_over(now))
    }

    /// What keeps the VM awake beside its visitors, in words.
    pub(super) fn reasons(&self) -> Vec<String> {
        let busy = self.busy.map(str::to_owned);
        self.leases_in_words().chain(busy).collect()
    }

    pub(super) fn leases_in_words(&self) -> impl Iterator<Item = String> + '_ {
        let now = now_us();
        let leases = self.leases.iter().filter(move |lease| !lease.is_over(now));
        leases.map(|lease| format!("a lease: {}", lease.reason))
    }

    fn is_needed(&self, visits: Visits) -> bool {
        !visits.nobody() || self.is_leased()
    }

    /// How the VM falls asleep next, and when.
    fn next_sleep(&self, state: VmState, can_hibernate: bool) -> Option<(Sleep, Instant)> {
        let (sleep, delay) = self.policy.next(state, can_hibernate)?;
        Some((sleep, self.quiet_since() + delay))
    }

    /// The end of the last need; a lease that has ended was one.
    fn quiet_since(&self) -> Instant {
        let now = now_us();
        let ago = |until: u64| Instant::now().checked_sub(Duration::from_micros(now - until));
        let over = self.leases.iter().filter(|lease| lease.is_over(now));
        let last = over.filter_map(|lease| ago(lease.until)).max();
        last.map_or(self.quiet_since, |last| last.max(self.quiet_since))
    }

    fn look_interval(&self) -> Duration {
        let delays = [self.policy.pause, self.policy.hibernate];
        let shortest = delays
            .into_iter()
            .filter_map(|delay| delay.duration())
            .min();
        let quarter = shortest.map_or(LOOKS.1, |delay| delay / 4);
        quarter.clamp(LOOKS.0, LOOKS.1)
    }

    /// Takes note of what the machine has used by now.
    fn note(&mut self, activity: Activity) {
        let now = Instant::now();
        let before = self.look.replace((now, activity));
        self.busy = before.and_then(|(at, before)| activity.above_noise(before, now - at));
        if self.busy.is_some() {
            self.quiet_since = now;
        }
    }
}

impl<H> Owner<H>
where
    H: Hypervisor + Send + Sync + 'static,
    H::Machine: 'static,
{
    /// When the idle clock is to be looked at.
    pub(super) fn idle_at(&self) -> Option<Instant> {
        let state = self.state();
        if self.spec.ephemeral || !matches!(state, VmState::Running | VmState::Paused) {
            return None;
        }
        if !self.doorway.visits().nobody() {
            return None;
        }
        if let Some(end) = self.idle.leases.iter().map(|lease| lease.until).max()
            && let now = now_us()
            && end > now
        {
            return Some(Instant::now() + Duration::from_micros(end - now));
        }
        let (_, due) = self.idle.next_sleep(state, self.can_hibernate())?;
        Some(match state {
            VmState::Running => self.idle.next.min(due),
            _ => due,
        })
    }

    /// Looks at the guest, and lets the VM fall asleep if its time has come.
    pub(super) async fn idle_tick(&mut self) -> Option<Verdict> {
        if self.idle.is_needed(self.doorway.visits()) {
            return None;
        }
        if self.command_is_over {
            return self.end_if_unneeded();
        }
        let state = self.state();
        if let Phase::Up(up) = &self.phase
            && state == VmState::Running
        {
            self.idle.next = Instant::now() + self.idle.look_interval();
            match timeout(LOOK_PATIENCE, up.machine.activity()).await {
                Ok(Ok(activity)) => self.idle.note(activity),
                Ok(Err(error)) => {
                    warn!("cannot see what the guest does: {error}, taking it for busy");
                    self.idle.wind();
                }
                Err(_) => self.idle.wind(),
            }
            if up.is_judging() {
                self.idle.wind();
            }
        }
        if !self.is_judged && self.idle.policy.hibernate.duration().is_some() {
            // Told before it matters.
            drop(self.judge_save().await);
        }
        match self.idle.next_sleep(state, self.can_hibernate()) {
            Some((sleep, due)) if due <= Instant::now() => self.fall_asleep(sleep).await,
            _ => self.publish_idle(),
        }
        None
    }

    async fn fall_asleep(&mut self, sleep: Sleep) {
        let quiet = self.idle.quiet_since().elapsed();
        info!("nobody has needed the VM for {} s", quiet.as_secs());
        match sleep {
            Sleep::Pause => {
                if let Err(fault) = self.pause().await {
                    warn!("the VM cannot be paused: {fault}, trying again later");
                    self.idle.wind();
                }
            }
            // Where it cannot be had, the next look pauses instead.
            Sleep::Hibernate => {
                if let Err(fault) = self.judge_save().await {
                    info!("the VM is not hibernated: {fault}");
                } else {
                    self.begin_save();
                }
            }
        }
        self.publish_idle();
    }

    /// Tells what keeps the VM awake, and when it falls asleep.
    pub(super) fn publish_idle(&mut self) {
        let visits = self.doorway.visits();
        let state = self.state();
        let mut reasons = super::report::reasons(visits);
        reasons.extend(self.idle.reasons());
        let next = match reasons.is_empty() && !self.spec.ephemeral {
            true => self.idle.next_sleep(state, self.can_hibernate()),
            false => None,
        };
        let sleeps = next.map(|(sleep, due)| {
            let left = due.saturating_duration_since(Instant::now());
            (sleep, u64::try_from(left.as_micros()).unwrap_or(u64::MAX))
        });
        self.status.change(|status| {
            status.execs = visits.execs;
            status.attached = visits.attached;
            status.connections = visits.connections;
            status.awake_because = reasons;
            status.sleeps = match (status.sleeps, sleeps) {
                // Said once: the clocks that it is told by differ a little each time.
                (Some((before, at)), Some((sleep, left)))
                    if before == sleep && at.abs_diff(now_us().saturating_add(left)) < SAME =>
                {
                    Some((sleep, at))
                }
                (_, sleeps) => sleeps.map(|(sleep, left)| (sleep, now_us().saturating_add(left))),
            };
        });
    }

    /// Takes other settings for those of the spec.
    pub(super) async fn keep(&mut self, keep: Keep) -> Result<Outcome, Fault> {
        let is_other = self.idle.policy != keep.idle || self.idle.leases != keep.leases;
        let was_leased = self.idle.is_leased();
        self.idle.policy = keep.idle;
        self.idle.leases = keep.leases;
        let is_leased = self.idle.is_leased();
        if was_leased && !is_leased {
            self.idle.wind();
        }
        if is_leased {
            self.give_up_save();
        }
        if is_leased && self.state() == VmState::Paused {
            self.resume().await?;
        }
        self.publish_idle();
        Ok(match is_other {
            true => Outcome::Changed,
            false => Outcome::Unchanged,
        })
    }
}

/// Times nearer to each other than this are the same, in microseconds.
const SAME: u64 = 500_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_of_the_guest_winds_the_clock_and_noise_does_not() {
        let mut clock = IdleClock::new(IdlePolicy::default(), Vec::new());
        let used = |millis| Activity {
            cpu: Duration::from_millis(millis),
            ..Activity::default()
        };
        let begun = Instant::now();
        clock.note(used(1_000));
        tokio::time::advance(Duration::from_secs(10)).await;
        clock.note(used(1_300));
        assert_eq!((clock.busy, clock.quiet_since), (None, begun));
        tokio::time::advance(Duration::from_secs(10)).await;
        clock.note(used(3_000));
        assert_eq!(clock.busy, Some("the guest computes"));
        assert_eq!(clock.quiet_since, Instant::now());
    }

    #[test]
    fn looks_are_neither_rare_nor_many() {
        let clock = |pause: &str| {
            let policy = IdlePolicy {
                pause: pause.parse().unwrap(),
                ..IdlePolicy::default()
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let _entered = runtime.enter();
            IdleClock::new(policy, Vec::new()).look_interval()
        };
        assert_eq!(clock("1s"), Duration::from_millis(250));
        assert_eq!(clock("20s"), Duration::from_secs(5));
        assert_eq!(clock("1h"), Duration::from_secs(10));
    }
}
