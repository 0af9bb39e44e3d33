//! What the end of an instance's command leads to. Pure.
//!
//! ```text
//!  the command ended
//!    ├─ the policy wants it again ──► the VM ends, and its unit with [`RESTART_STATUS`]:
//!    │                                the service manager starts it after its own delay
//!    └─ it does not ──► the VM ends once nobody uses it; until the back-off is
//!                       over connections do not start another one
//! ```
//!
//! The policy of a unit (`Restart=`) follows from the policy too, for VMs that are
//! lost: [`crate::vm_spec`] carries it to the owner, the unit's plan to the manager.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The exit status of an owner whose VM is to be started again (`EX_TEMPFAIL` of
/// sysexits(3)). The unit's `Restart=` takes it for a failure.
pub const RESTART_STATUS: u8 = 75;

/// A command that ran for less ended quickly: the next delay is longer. A longer
/// run begins anew with the shortest (the same limit as in dockerd).
pub const QUICK: Duration = Duration::from_secs(10);

/// The delay after the first quick end, and the longest: those of daemons.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// What is to happen when the command or the VM of an instance ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RestartPolicy {
    /// Nothing; the next use starts it.
    #[default]
    No,
    /// Start it again after a failure, at most so many times until somebody starts it.
    OnFailure { most: Option<u32> },
    /// Start it again, and at each start of the service manager.
    Always,
    /// As `Always`, but at a start of the service manager only if nobody stopped it.
    UnlessStopped,
}

/// What follows an end of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterEnd {
    /// The VM ends and is started again.
    Restart,
    /// It failed as often as it may: it rests until somebody starts it.
    GiveUp,
    /// It rests until it is used.
    Rest,
}

impl RestartPolicy {
    /// What follows an end, after so many restarts for the same reason.
    pub fn after_end(self, failed: bool, restarts: u32) -> AfterEnd {
        match self {
            Self::No => AfterEnd::Rest,
            Self::OnFailure { .. } if !failed => AfterEnd::Rest,
            Self::OnFailure { most: Some(most) } if restarts >= most => AfterEnd::GiveUp,
            Self::OnFailure { .. } | Self::Always | Self::UnlessStopped => AfterEnd::Restart,
        }
    }

    /// Whether a new run of the service manager (a boot, a login) starts the VM.
    pub fn starts_with_manager(self, stopped_by_user: bool) -> bool {
        match self {
            Self::No | Self::OnFailure { .. } => false,
            Self::Always => true,
            Self::UnlessStopped => !stopped_by_user,
        }
    }
}

/// How long connections do not start the VM after so many quick ends in a row.
pub fn delay(quick_ends: u32) -> Duration {
    let doublings = quick_ends.saturating_sub(1).min(16);
    match quick_ends {
        0 => Duration::ZERO,
        _ => (FIRST_DELAY * (1 << doublings)).min(LONGEST_DELAY),
    }
}

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a restart policy; known are no, on-failure[:N], always and unless-stopped")]
pub struct RestartPolicyError(String);

impl FromStr for RestartPolicy {
    type Err = RestartPolicyError;

    fn from_str(text: &str) -> Result<Self, RestartPolicyError> {
        let wrong = || RestartPolicyError(text.to_owned());
        match text.split_once(':') {
            None => match text {
                "no" => Ok(Self::No),
                "on-failure" => Ok(Self::OnFailure { most: None }),
                "always" => Ok(Self::Always),
                "unless-stopped" => Ok(Self::UnlessStopped),
                _ => Err(wrong()),
            },
            Some(("on-failure", most)) => {
                let most = most.parse().map_err(|_| wrong())?;
                Ok(Self::OnFailure { most: Some(most) })
            }
            Some(_) => Err(wrong()),
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure { most: None } => f.write_str("on-failure"),
            Self::OnFailure { most: Some(most) } => write!(f, "on-failure:{most}"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

impl TryFrom<String> for RestartPolicy {
    type Error = RestartPolicyError;

    fn try_from(text: String) -> Result<Self, RestartPolicyError> {
        text.parse()
    }
}

impl From<RestartPolicy> for String {
    fn from(policy: RestartPolicy) -> Self {
        policy.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWICE: RestartPolicy = RestartPolicy::OnFailure { most: Some(2) };
    const ON_FAILURE: RestartPolicy = RestartPolicy::OnFailure { most: None };

    #[test]
    fn the_table_of_ends() {
        use AfterEnd::{GiveUp, Rest, Restart};
        use RestartPolicy::{Always, No, UnlessStopped};
        for (policy, failed, restarts, after) in [
            (No, false, 0, Rest),
            (No, true, 0, Rest),
            (No, true, 9, Rest),
            (ON_FAILURE, false, 0, Rest),
            (ON_FAILURE, true, 0, Restart),
            (ON_FAILURE, true, u32::MAX, Restart),
            (TWICE, false, 0, Rest),
            (TWICE, false, 2, Rest),
            (TWICE, true, 0, Restart),
            (TWICE, true, 1, Restart),
            (TWICE, true, 2, GiveUp),
            (Always, false, 0, Restart),
            (Always, true, 9, Restart),
            (UnlessStopped, false, 0, Restart),
            (UnlessStopped, true, 9, Restart),
        ] {
            assert_eq!(
                policy.after_end(failed, restarts),
                after,
                "{policy} failed={failed} {restarts}"
            );
        }
    }

    #[test]
    fn the_table_of_boots() {
        use RestartPolicy::{Always, No, UnlessStopped};
        for (policy, stopped, starts) in [
            (No, false, false),
            (ON_FAILURE, false, false),
            (Always, false, true),
            (Always, true, true),
            (UnlessStopped, false, true),
            (UnlessStopped, true, false),
        ] {
            assert_eq!(policy.starts_with_manager(stopped), starts, "{policy}");
        }
    }

    #[test]
    fn the_delay_doubles_up_to_a_minute() {
        let delays: Vec<u128> = (0..5).map(|ends| delay(ends).as_millis()).collect();
        assert_eq!(delays, [0, 100, 200, 400, 800]);
        assert_eq!(delay(11), LONGEST_DELAY);
        assert_eq!(delay(u32::MAX), LONGEST_DELAY);
    }

    #[test]
    fn words_are_read_and_written_alike() {
        for word in [
            "no",
            "on-failure",
            "on-failure:3",
            "always",
            "unless-stopped",
        ] {
            let policy: RestartPolicy = word.parse().unwrap();
            assert_eq!(policy.to_string(), word);
            let json = serde_json::to_string(&policy).unwrap();
            assert_eq!(json, format!("\"{word}\""));
            assert_eq!(
                serde_json::from_str::<RestartPolicy>(&json).unwrap(),
                policy
            );
        }
        for word in ["", "yes", "on-failure:", "on-failure:-1", "always:3", "No"] {
            assert!(word.parse::<RestartPolicy>().is_err(), "{word:?}");
        }
    }
}
