//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::launchd::Job;

/// What the shim is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Become the daemon of a spec.
    Daemon {
        spec: PathBuf,
        /// Wait out the back-off recorded here.
        back_off: Option<PathBuf>,
        /// The job of launchd's that this is a run of.
        job: Option<Job>,
    },
    /// Become a program behind the sockets of a job of launchd's.
    Activate { job: Job, program: Vec<OsString> },
    /// Record how the daemon's run ended.
    Ended { back_off: PathBuf },
    /// Bring the inherited socket to aegisd's.
    Door { to: PathBuf },
    /// Bring the inherited socket, of a port that leads to this one in the guest, to
    /// that of its VM's owner.
    Port { to: PathBuf, guest: u16 },
}

/// Why a command line makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error(
        "the first argument must be 'daemon', 'activate', 'ended', 'door' or 'port', not {0:?}"
    )]
    Verb(OsString),
    #[error("the argument {0:?} is unknown")]
    Unknown(OsString),
    #[error("{0} needs a value")]
    NoValue(&'static str),
    #[error("{0:?} is no port")]
    Port(PathBuf),
    #[error("{0} is missing")]
    Missing(&'static str),
}

impl Call {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// The first argument that does not fit.
    pub(crate) fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Self, CallError> {
        let verb = words.next().unwrap_or_default();
        let (mut spec, mut back_off, mut to, mut guest) = (None, None, None, None);
        let (mut job, mut launchctl, mut record) = (None, None, None);
        let mut program = Vec::new();
        let mut once = false;
        while let Some(word) = words.next() {
            let (name, place) = match word.to_str() {
                Some("--spec") => ("--spec", &mut spec),
                Some("--back-off") => ("--back-off", &mut back_off),
                Some("--to") => ("--to", &mut to),
                Some("--guest") => ("--guest", &mut guest),
                Some("--job") => ("--job", &mut job),
                Some("--launchctl") => ("--launchctl", &mut launchctl),
                Some("--record") => ("--record", &mut record),
                Some("--once") => {
                    once = true;
                    continue;
                }
                Some("--") => {
                    program.extend(words.by_ref());
                    break;
                }
                _ => return Err(CallError::Unknown(word)),
            };
            *place = Some(PathBuf::from(words.next().ok_or(CallError::NoValue(name))?));
        }
        let job = match job {
            Some(target) => Some(Job {
                target: target.into_os_string(),
                launchctl: launchctl.ok_or(CallError::Missing("--launchctl"))?,
                record: record.ok_or(CallError::Missing("--record"))?,
                once,
            }),
            None => None,
        };
        match verb.to_str() {
            Some("daemon") => Ok(Self::Daemon {
                spec: spec.ok_or(CallError::Missing("--spec"))?,
                back_off,
                job,
            }),
            Some("activate") if program.is_empty() => Err(CallError::Missing("-- PROGRAM")),
            Some("activate") => Ok(Self::Activate {
                job: job.ok_or(CallError::Missing("--job"))?,
                program,
            }),
            Some("ended") => Ok(Self::Ended {
                back_off: back_off.ok_or(CallError::Missing("--back-off"))?,
            }),
            Some("door") => Ok(Self::Door {
                to: to.ok_or(CallError::Missing("--to"))?,
            }),
            Some("port") => Ok(Self::Port {
                to: to.ok_or(CallError::Missing("--to"))?,
                guest: number(guest.ok_or(CallError::Missing("--guest"))?)?,
            }),
            _ => Err(CallError::Verb(verb)),
        }
    }
}

fn number(text: PathBuf) -> Result<u16, CallError> {
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.ok_or(CallError::Port(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Call, CallError> {
        Call::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_call_is_read() {
        assert_eq!(parse("door --to /s"), Ok(Call::Door { to: "/s".into() }));
        assert_eq!(
            parse("port --guest 80 --to /s"),
            Ok(Call::Port {
                to: "/s".into(),
                guest: 80
            })
        );
        assert_eq!(
            parse("daemon --spec /s --back-off /b"),
            Ok(Call::Daemon {
                spec: "/s".into(),
                back_off: Some("/b".into()),
                job: None,
            })
        );
        let job = Job {
            target: "user/0/x".into(),
            launchctl: "/l".into(),
            record: "/r".into(),
            once: false,
        };
        assert_eq!(
            parse("daemon --spec /s --job user/0/x --launchctl /l --record /r"),
            Ok(Call::Daemon {
                spec: "/s".into(),
                back_off: None,
                job: Some(job.clone()),
            })
        );
        assert_eq!(
            parse("activate --job user/0/x --launchctl /l --record /r -- /p --to x"),
            Ok(Call::Activate {
                job: job.clone(),
                program: vec!["/p".into(), "--to".into(), "x".into()],
            })
        );
        assert_eq!(
            parse("activate --once --job user/0/x --launchctl /l --record /r -- /p --once"),
            Ok(Call::Activate {
                job: Job { once: true, ..job },
                program: vec!["/p".into(), "--once".into()],
            })
        );
        assert_eq!(
            parse("ended --back-off /b"),
            Ok(Call::Ended {
                back_off: "/b".into()
            })
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert_eq!(parse(""), Err(CallError::Verb("".into())));
        assert_eq!(parse("window"), Err(CallError::Verb("window".into())));
        assert_eq!(parse("daemon"), Err(CallError::Missing("--spec")));
        assert_eq!(parse("daemon --spec"), Err(CallError::NoValue("--spec")));
        assert_eq!(
            parse("port --to /s --guest x"),
            Err(CallError::Port("x".into()))
        );
        assert_eq!(
            parse("daemon --spec /s --job x --record /r"),
            Err(CallError::Missing("--launchctl"))
        );
        assert_eq!(
            parse("activate --job x --launchctl /l --record /r --"),
            Err(CallError::Missing("-- PROGRAM"))
        );
        assert_eq!(parse("ended /b"), Err(CallError::Unknown("/b".into())));
    }
}
