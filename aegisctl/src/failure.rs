//! What can go wrong in the client, and how it is shown.

use std::io;
use std::path::PathBuf;

use aegis_archive::ArchiveError;
use aegis_bus::connect::ConnectError;
use aegis_bus::dict::DictError;
use aegis_bus::error::CallError;
use aegis_core::control::ExecEvent;
use aegis_core::duration::Span;
use aegis_core::fault::{Fault, Symbol, chain};
use aegis_core::secret::SecretError;
use aegis_core::spec::SpecError;
use aegis_core::tether::FrameError;
use aegis_image::change::ChangeError;
use serde_json::{Value, json};

use crate::exit_code;
use crate::original::OriginalError;
use crate::ui::TemplateError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot reach the message bus")]
    Connect(#[source] ConnectError),
    #[error("cannot reach aegisd")]
    NoAegisd(#[source] ConnectError),
    #[error("cannot {what}")]
    Call {
        /// The operation and its object, e.g. "start 'web'".
        what: String,
        #[source]
        source: CallError,
    },
    #[error("cannot {what}: it was cancelled")]
    Cancelled { what: String },
    #[error("the answer of aegisd is not understood")]
    Answer(#[source] DictError),
    #[error("systemd cannot {what}")]
    Systemd {
        what: String,
        #[source]
        source: zbus::Error,
    },
    #[error("launchctl {command} ended with {code}: {words}")]
    Launchctl {
        command: &'static str,
        code: i32,
        words: String,
    },
    #[error("launchd does not know the job {target}")]
    NotLoaded { target: String },
    #[error("cannot reach the service manager: there is no bus")]
    NoManager,
    #[error("systemd ended the job for {unit} as '{result}'")]
    UnitJob { unit: String, result: String },
    #[error("{}", no_values(.0))]
    EnvMissing(Vec<String>),
    #[error("this is no message")]
    Frame(#[source] FrameError),
    #[error("the program in the guest refuses the message: {0}")]
    Refused(String),
    #[error("no answer came within {0}")]
    NoAnswer(Span),
    #[error("the value of the variable {0} is not UTF-8")]
    EnvEncoding(String),
    #[error("cannot read the file of variables {path}")]
    EnvFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("a variable cannot have this secret")]
    SecretName(#[source] SecretError),
    #[error("this cannot be a secret")]
    SecretValue(#[source] SecretError),
    #[error("the variable {0} can have a secret only when the instance is made")]
    SecretLater(String),
    /// Of a file whose lines may hold values: none is repeated.
    #[error("this is no line KEY=VALUE or KEY, and is not shown, since it may hold a value")]
    SecretLine,
    #[error("there is no variable of this name in this environment, and no value")]
    SecretUnset,
    #[error("the value of {0} is the name of a secret")]
    SecretReference(String),
    #[error("cannot read '{path}'")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path}, line {line}")]
    EnvLine {
        path: PathBuf,
        line: usize,
        #[source]
        source: Box<Failure>,
    },
    #[error("'{0}' is not the name of a variable")]
    EnvName(String),
    #[error("nothing to change was given")]
    NothingToChange,
    #[error("cannot print with this format")]
    Template(#[source] TemplateError),
    #[error("nobody can be asked whether to delete: stdin and stderr are no terminal")]
    CannotAsk,
    #[error("not confirmed; nothing was deleted")]
    NotConfirmed,
    #[error("{deleted} deleted, then it failed")]
    PruneStopped {
        deleted: usize,
        #[source]
        source: Box<Failure>,
    },
    /// Of a secret that is set.
    #[error("the value is kept, but not in use everywhere: {}", messages(.0))]
    NotApplied(Vec<Failure>),
    #[error("'{0}' is not a signal")]
    Signal(String),
    #[error("{what} did not happen within {seconds} s")]
    WaitedInVain { what: String, seconds: u64 },
    #[error("the journal cannot be read")]
    Journal(#[source] io::Error),
    #[error("journalctl failed: {0}")]
    Journalctl(String),
    #[error("the instance '{handle}' has no daemon '{daemon}'")]
    NoDaemon { handle: String, daemon: String },
    #[error(transparent)]
    Spec(SpecError),
    #[error("cannot open '{path}'")]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make '{path}' absolute")]
    Path {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the path '{0}' is not UTF-8")]
    PathText(PathBuf),
    #[error("AEGIS_MODE is '{0}', which is neither 'user' nor 'system'")]
    Mode(String),
    /// An instance keeps the settings it was made with.
    #[error(
        "the instance '{handle}' exists already with other settings ({})",
        .differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    Differs {
        handle: String,
        differences: Vec<Difference>,
    },
    #[error("--tty needs a terminal on stdin, and there is none")]
    NoTerminal,
    #[error("cannot {what} the terminal")]
    Terminal {
        what: &'static str,
        #[source]
        source: nix::Error,
    },
    #[error("cannot {what}")]
    Io {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot {what}")]
    Copy {
        /// The operation and its object, e.g. "copy from 'web:/etc'".
        what: String,
        #[source]
        source: ArchiveError,
    },
    #[error("cannot {what}: in the guest: {words}")]
    CopyInGuest { what: String, words: String },
    #[error("interrupted; {destination} holds what was copied so far")]
    CopyInterrupted { destination: String },
    #[error("{0}")]
    CopyUsage(&'static str),
    #[error("the image cannot be changed so")]
    Change(#[source] ChangeError),
    #[error("the archive would come from the terminal")]
    ArchiveFromTerminal,
    /// What another module found, in its words: of a kit, an image, a login.
    #[error(transparent)]
    Said(Fault),
    #[error("cannot import from {folder}")]
    Original {
        folder: PathBuf,
        #[source]
        source: OriginalError,
    },
    /// All that stands in the way of an import, in words.
    #[error("nothing was imported: {}", .0.join("; "))]
    ImportRefused(Vec<String>),
    #[error("the import stopped; {}", steps(.done, .left))]
    ImportStopped {
        done: Vec<String>,
        left: Vec<String>,
        #[source]
        source: Box<Failure>,
    },
    /// The command in the guest could not be run or its VM ended.
    #[error("cannot run the command")]
    Exec(#[source] Fault),
    /// The reader of our stdout is gone: not worth a word.
    #[error("nobody reads the output")]
    BrokenPipe,
}

/// What of an instance is other than it was asked for.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) name: String,
    pub(crate) have: String,
    pub(crate) asked: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, have, asked } = self;
        write!(f, "{name}: have {have}, asked {asked}")
    }
}

/// What is said of variables without a value.
fn no_values(names: &[String]) -> String {
    match names {
        [name] => format!("there is no secret {name}, and no variable {name} in this environment"),
        names => {
            let last = names.len().saturating_sub(1);
            format!(
                "there are no secrets {} and {}, and no variables of these names in this environment",
                names[..last].join(", "),
                names[last..].join("")
            )
        }
    }
}

/// Several failures in one line.
fn messages(all: &[Failure]) -> String {
    let words: Vec<String> = all.iter().map(Failure::message).collect();
    words.join("; ")
}

/// Which steps were taken and which were not.
fn steps(done: &[String], left: &[String]) -> String {
    let words = |steps: &[String]| match steps {
        [] => "nothing".to_owned(),
        steps => steps.join(", "),
    };
    format!("done: {}; not done: {}", words(done), words(left))
}

impl Failure {
    /// A failed call; `what` completes "cannot ...".
    pub(crate) fn call(what: impl Into<String>) -> impl FnOnce(zbus::Error) -> Self {
        |error| Self::Call {
            what: what.into(),
            source: error.into(),
        }
    }

    /// A failed call to systemd; `what` completes "systemd cannot ...".
    pub(crate) fn systemd(what: impl Into<String>) -> impl FnOnce(zbus::Error) -> Self {
        |source| Self::Systemd {
            what: what.into(),
            source,
        }
    }

    /// A failed write to stdout.
    pub(crate) fn output(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Self::Io {
            what: "write the output",
            source,
        }
    }

    /// The fault aegisd answered with, if it did.
    pub(crate) fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Call {
                source: CallError::Fault(fault),
                ..
            }
            | Self::Exec(fault)
            | Self::Said(fault) => Some(fault),
            _ => None,
        }
    }

    /// Whether aegisd said that.
    pub(crate) fn is(&self, symbol: Symbol) -> bool {
        self.fault().is_some_and(|fault| fault.symbol == symbol)
    }

    /// Whether aegisd ended before it answered.
    pub(crate) fn is_vanished(&self) -> bool {
        matches!(
            self,
            Self::Call {
                source: CallError::Vanished,
                ..
            }
        )
    }

    /// Whether the command line, not the world, is at fault.
    fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::EnvMissing(_)
                | Self::EnvEncoding(_)
                | Self::EnvFile { .. }
                | Self::EnvLine { .. }
                | Self::EnvName(_)
                | Self::NothingToChange
                | Self::Frame(_)
                | Self::Template(_)
                | Self::CannotAsk
                | Self::Signal(_)
                | Self::SecretName(_)
                | Self::SecretValue(_)
                | Self::SecretLater(_)
                | Self::SecretLine
                | Self::SecretUnset
                | Self::SecretReference(_)
                | Self::Spec(_)
                | Self::Path { .. }
                | Self::PathText(_)
                | Self::Open { .. }
                | Self::Mode(_)
                | Self::NoTerminal
                | Self::CopyUsage(_)
                | Self::Change(_)
                | Self::ArchiveFromTerminal
        )
    }

    /// The exit code; `in_session` for `run` and `exec`, whose codes below 125
    /// are the guest's.
    pub(crate) fn exit_code(&self, in_session: bool) -> u8 {
        match self {
            Self::BrokenPipe => exit_code::OK,
            _ if self.is_usage() => exit_code::USAGE,
            Self::Exec(fault) => ExecEvent::Failed(fault.clone())
                .exit_code()
                .map_or(exit_code::OURS, exit_code::of_guest),
            _ if in_session => exit_code::OURS,
            _ => exit_code::FAILED,
        }
    }

    /// One word for programs.
    pub(crate) fn symbol(&self) -> &'static str {
        if let Some(fault) = self.fault() {
            return fault.symbol.name();
        }
        match self {
            Self::Connect(error) | Self::NoAegisd(error) => error.symbol(),
            Self::Call { source, .. } => match source {
                CallError::Fault(fault) => fault.symbol.name(),
                CallError::NotInstalled => "AegisdMissing",
                CallError::NotStarted(_) => "AegisdNotStarted",
                CallError::Denied => "PermissionDenied",
                CallError::Vanished => "AegisdVanished",
                CallError::Silent => "AegisdSilent",
                CallError::Bus(_) => "BusFailed",
            },
            Self::Cancelled { .. } | Self::NotConfirmed => "Cancelled",
            Self::PruneStopped { source, .. } | Self::ImportStopped { source, .. } => {
                source.symbol()
            }
            Self::NotApplied(all) => all.first().map_or("Internal", Self::symbol),
            Self::Original { source, .. } => source.symbol(),
            Self::ImportRefused(_) => "ImportRefused",
            Self::WaitedInVain { .. } | Self::NoAnswer(_) => "Timeout",
            Self::Refused(_) => "MessageRefused",
            Self::NoDaemon { .. } => "NotFound",
            Self::Journal(_) | Self::Journalctl(_) => "JournalUnavailable",
            Self::Answer(_) => "Internal",
            Self::Systemd { .. } | Self::UnitJob { .. } | Self::Launchctl { .. } => {
                "SupervisorFailed"
            }
            Self::NotLoaded { .. } => "AegisdMissing",
            Self::NoManager => "SupervisorUnavailable",
            Self::EnvMissing(_)
            | Self::EnvEncoding(_)
            | Self::EnvFile { .. }
            | Self::EnvLine { .. }
            | Self::EnvName(_)
            | Self::NothingToChange
            | Self::Frame(_)
            | Self::Template(_)
            | Self::CannotAsk
            | Self::Signal(_)
            | Self::SecretName(_)
            | Self::SecretValue(_)
            | Self::SecretLater(_)
            | Self::SecretLine
            | Self::SecretUnset
            | Self::SecretReference(_)
            | Self::Spec(_)
            | Self::Path { .. }
            | Self::PathText(_)
            | Self::Open { .. }
            | Self::Mode(_)
            | Self::NoTerminal => "InvalidArgument",
            Self::Copy { .. } | Self::CopyInGuest { .. } => "CopyFailed",
            Self::CopyInterrupted { .. } => "Cancelled",
            Self::CopyUsage(_) | Self::Change(_) | Self::ArchiveFromTerminal => "InvalidArgument",
            Self::Differs { .. } => "AlreadyExists",
            Self::Exec(fault) | Self::Said(fault) => fault.symbol.name(),
            Self::Terminal { .. } | Self::Io { .. } | Self::File { .. } => "InputOutput",
            Self::BrokenPipe => "BrokenPipe",
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        if let Some(fault) = self.fault() {
            return fault.hint.clone();
        }
        match self {
            Self::Connect(error) | Self::NoAegisd(error) => Some(error.hint()),
            Self::Call { source, .. } => source.hint().map(str::to_owned),
            Self::NotLoaded { target } => Some(format!(
                "launchctl bootstrap {} ~/Library/LaunchAgents/org.aegisvm.aegisd.plist",
                target.rsplit_once('/').map_or("", |(domain, _)| domain)
            )),
            Self::NoManager => Some(
                "use systemctl for aegisd.service, with --user in user mode; everything about \
                 instances works without a bus"
                    .to_owned(),
            ),
            Self::UnitJob { unit, .. } => Some(format!(
                "journalctl -u {unit} says why (--user in user mode)"
            )),
            Self::EnvMissing(names) => {
                let it = if names.len() == 1 { "it" } else { "them" };
                let sets = names
                    .iter()
                    .map(|name| format!("aegisctl secret set {name}"));
                let sets: Vec<String> = sets.collect();
                Some(format!(
                    "keep {it}: {}; or export {it} here",
                    sets.join(", ")
                ))
            }
            Self::EnvLine { source, .. } | Self::PruneStopped { source, .. } => source.hint(),
            Self::NotApplied(all) => all.iter().find_map(Self::hint),
            Self::Original { source, .. } => source.hint(),
            Self::ImportStopped { source, .. } => {
                let again = "call it again once that is mended: what is done is left as it is";
                let hint = source.hint().map(|hint| hint + "\n");
                Some(hint.unwrap_or_default() + again)
            }
            Self::NothingToChange => {
                Some("give at least one setting: aegisctl instance update --help".to_owned())
            }
            Self::NoAnswer(_) => Some(
                "the message is kept and will be answered: aegisctl tether follow NAME".to_owned(),
            ),
            Self::CannotAsk => Some("--force deletes without asking".to_owned()),
            Self::Signal(_) => {
                Some("a name with or without SIG, e.g. TERM, or a number of 1 to 64".to_owned())
            }
            Self::Journal(_) => Some("install systemd's journalctl".to_owned()),
            Self::Journalctl(_) => Some(
                "reading the system's journal needs root or the group systemd-journal".to_owned(),
            ),
            Self::NoDaemon { handle, .. } => {
                Some(format!("aegisctl instance info {handle} shows its daemons"))
            }
            Self::Differs { .. } => Some(
                "leave the flags out to start it as it is, or add --replace to delete it \
                 with its disk and log and make it anew"
                    .to_owned(),
            ),
            Self::CopyUsage(_) => Some(
                "an instance's side is NAME:PATH; a local path with a colon begins with ./ or /"
                    .to_owned(),
            ),
            Self::SecretLine | Self::SecretUnset => Some(
                "a value of several lines is set by itself: \
                 aegisctl secret set NAME --from-file FILE"
                    .to_owned(),
            ),
            Self::SecretReference(_) => Some(
                "leave the line out; a value that begins so is set by itself: \
                 aegisctl secret set"
                    .to_owned(),
            ),
            Self::SecretLater(name) => Some(format!(
                "give a value: --env {name}=VALUE; a new value of a secret needs no update: \
                 aegisctl secret set"
            )),
            Self::ArchiveFromTerminal => Some(
                "give a file, or pipe an archive in: tar -c -C DIR . | aegisctl image import -"
                    .to_owned(),
            ),
            Self::NoTerminal => Some("leave --tty out: the streams are passed on".to_owned()),
            _ => None,
        }
    }

    /// The failure in one line: what failed and why.
    pub(crate) fn message(&self) -> String {
        chain(self)
    }

    /// The failure for `--json`.
    pub(crate) fn to_json(&self) -> Value {
        let mut value = json!({
            "symbol": self.symbol(),
            "message": self.message(),
            "hint": self.hint(),
        });
        if let Self::Differs { differences, .. } = self {
            let row = |d: &Difference| json!({"name": d.name, "have": d.have, "asked": d.asked});
            value["differences"] = differences.iter().map(row).collect();
        }
        match self {
            Self::ImportRefused(problems) => value["problems"] = json!(problems),
            Self::ImportStopped { done, left, .. } => {
                value["done"] = json!(done);
                value["left"] = json!(left);
            }
            _ => {}
        }
        value
    }
}

impl From<DictError> for Failure {
    fn from(error: DictError) -> Self {
        Self::Answer(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_aegisd_keeps_symbol_and_hint() {
        let failure = Failure::Call {
            what: "start 'web'".into(),
            source: CallError::Fault(
                Fault::new(Symbol::KernelMissing, "there is no kernel").with_hint("make kernel"),
            ),
        };
        assert_eq!(failure.message(), "cannot start 'web': there is no kernel");
        assert_eq!(failure.symbol(), "KernelMissing");
        assert_eq!(failure.hint().as_deref(), Some("make kernel"));
    }
}
