//! The control socket of a VM's owner: frames between aegisd and aegis-vmm.
//!
//! A unix stream of newline-delimited JSON frames. Descriptors travel by
//! SCM_RIGHTS with the first byte of their frame. The caller numbers its calls;
//! an answer repeats the number. Versions differ after an upgrade (a VM keeps
//! the owner it was started by), so both sides tolerate unknown fields, and a
//! call that the owner does not know is answered with [`Symbol::Unsupported`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Symbol};
use crate::idle::{IdlePolicy, Lease, Sleep};
use crate::lifecycle::VmState;
use crate::spec::Accel;

/// The longest frame in bytes, newline included. An exec's argv and environment
/// must fit; ARG_MAX of a Linux guest is 2 MiB, half of it is ample.
pub const MAX_FRAME: usize = 1 << 20;

/// A frame to the owner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallFrame {
    pub id: u64,
    #[serde(flatten)]
    pub call: Call,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "kebab-case")]
pub enum Call {
    /// Answered with a [`VmStatus`] at once.
    Status,
    /// Answered with a [`VmStatus`] at once and with an event for every change.
    Watch,
    /// Stop the virtual CPUs. Answered with an [`Outcome`].
    Pause,
    /// Let them run on. Answered with an [`Outcome`].
    Resume,
    /// Write the machine to the disk and end. Answered with an [`Outcome`] once it is
    /// there; the connection then ends with the owner.
    Hibernate,
    /// When the VM falls asleep from now on, and what keeps it awake until when: in
    /// place of what its spec said. Answered with an [`Outcome`].
    Keep(Keep),
    /// Send a signal (signal(7) number) to the process group of the instance's
    /// command. Answered with an [`Outcome`].
    Kill { signal: i32 },
    /// Answered with the processes in the guest.
    Processes,
    /// Run a command in the guest. Answered with four descriptors: stdin (write),
    /// stdout (read), stderr (read), control (both, [`ExecEvent`] and [`ExecInput`]).
    Exec(ExecRequest),
    /// Join the terminal of the instance's command; waits for a VM that starts.
    /// Answered like [`Call::Exec`]; stderr is at its end at once. A client that
    /// goes leaves the command as it is.
    Attach(AttachRequest),
    /// Have the listening TCP socket whose descriptor comes with this frame lead to a
    /// port in the guest, until the connection ends. Answered with an [`Outcome`].
    Listen { guest: u16 },
    /// Connect to a port of the guest's 127.0.0.1, waking the VM if need be; a program
    /// that does not listen yet is waited for, and the VM kept awake meanwhile. Answered
    /// with a descriptor of a connected unix stream.
    Dial(Dial),
}

/// A frame from the owner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OwnerFrame {
    /// The answer to a call.
    Answer {
        id: u64,
        ok: Answer,
        /// Descriptors that came with this frame.
        #[serde(default)]
        fds: usize,
    },
    /// A call failed.
    Fault { id: u64, fault: Fault },
    /// A change, for a connection that watches.
    Event { event: Box<VmStatus> },
}

/// What a call is answered with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Status(Box<VmStatus>),
    Outcome(Outcome),
    /// The descriptors of an exec session came with this frame.
    Exec,
    /// The descriptors of an attached client came with this frame.
    Attach,
    Processes(Vec<Process>),
    /// The descriptor of a connection came with this frame.
    Dialed,
}

/// A process in the guest. Its words are the guest's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    /// The user's name, or its number where it has none.
    pub user: String,
    /// One letter of proc_pid_stat(5).
    pub state: String,
    /// CPU time in milliseconds.
    pub cpu_ms: u64,
    /// Resident memory in KiB.
    pub memory_kib: u64,
    /// Milliseconds since it was started.
    pub age_ms: u64,
    /// The command line, or the name in brackets where there is none; perhaps cut.
    pub command: String,
}

/// Whether an idempotent operation had something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Changed,
    Unchanged,
}

/// A command to run in the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The command and its arguments; not empty.
    pub argv: Vec<String>,
    /// Set on top of the instance's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub workdir: Option<String>,
    /// `NAME|UID[:GROUP|GID]`.
    #[serde(default)]
    pub user: Option<String>,
    /// Some values of `env` are secrets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_secrets: bool,
    /// The size of the terminal to run it on; `None` means pipes.
    #[serde(default)]
    pub tty: Option<TerminalSize>,
}

/// A connection to a program in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dial {
    pub guest: u16,
    /// How long the program may take to listen, in milliseconds from the moment the
    /// guest runs.
    pub patience_ms: u64,
}

/// When a VM falls asleep, and what keeps it awake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    pub idle: IdlePolicy,
    pub leases: Vec<Lease>,
}

/// A client that joins the terminal of the instance's command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// The size of the client's terminal; `None` if it has none.
    #[serde(default)]
    pub size: Option<TerminalSize>,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub rows: u16,
    pub cols: u16,
}

/// From the client of an exec session, on its control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecInput {
    Resize(TerminalSize),
    /// A signal (signal(7) number) for the process group in the guest.
    Signal(i32),
}

/// To the client of an exec session, on its control stream. The last one is sent
/// after all output was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecEvent {
    Started {},
    Exited { code: i32 },
    Signaled { signal: i32 },
    Failed(Fault),
}

impl ExecEvent {
    /// Whether this is the last event of a session.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Started {})
    }

    /// The exit code a shell would report: the code itself, 128+n for a signal,
    /// 126 and 127 for a command that cannot be run (sh(1), "Exit status"), 125
    /// for a failure of ours.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Started {} => None,
            Self::Exited { code } => Some(*code),
            Self::Signaled { signal } => Some(128 + signal),
            Self::Failed(fault) => Some(match fault.symbol {
                Symbol::CommandNotFound => 127,
                Symbol::CommandNotExecutable => 126,
                _ => 125,
            }),
        }
    }
}

/// The VM as its owner sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VmStatus {
    /// Grows with every change.
    pub generation: u64,
    pub state: VmState,
    /// When the state began, in microseconds since 1970.
    pub since: u64,
    /// The state in words, for people.
    pub words: String,
    /// Why the state is [`VmState::Failed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// What QEMU runs on; known once it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineFacts>,
    #[serde(default)]
    pub command: CommandState,
    /// Open exec sessions.
    #[serde(default)]
    pub execs: u32,
    /// Clients on the command's terminal.
    #[serde(default)]
    pub attached: u32,
    /// Open connections on exposed ports.
    #[serde(default)]
    pub connections: u32,
    /// The revision of the spec that the VM was started with.
    #[serde(default)]
    pub revision: u64,
    /// Why the guest has no network although it should have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_fault: Option<Fault>,
    /// What keeps the VM awake, in words.
    #[serde(default)]
    pub awake_because: Vec<String>,
    /// How it falls asleep next, and when, in microseconds since 1970; `None` while it
    /// is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sleeps: Option<(Sleep, u64)>,
    /// Why it cannot be hibernated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cannot_hibernate: Option<Fault>,
    /// Why it was booted though a snapshot was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_restored: Option<Fault>,
    /// When connections start the VM again, while they do not, in microseconds
    /// since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rests_until: Option<u64>,
}

/// What the machine is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineFacts {
    pub accel: Accel,
    /// QEMU's machine type: `microvm`, `q35`, `virt`.
    pub machine: String,
    pub kernel: KernelKind,
    pub qemu_version: String,
    /// QEMU's process id as aegis-vmm sees it.
    pub qemu_pid: u32,
    /// How the workspace is shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<ShareKind>,
}

/// Which kernel the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelKind {
    /// Built by the project for microVMs.
    Own,
    /// A distribution's, with modules.
    Fallback,
}

/// How a folder of the host is shared with the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShareKind {
    Virtiofs,
    #[serde(rename = "9p")]
    Plan9,
}

/// The instance's command in the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandState {
    /// The instance has no command, or it has not started yet.
    #[default]
    None,
    Running {
        /// Its process id in the guest.
        pid: u32,
    },
    Ended(CommandExit),
}

/// How the instance's command ended. Written to `exit.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandExit {
    /// The exit code, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal, if it was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why it could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// When, in microseconds since 1970.
    pub at: u64,
    /// The guest ran out of memory.
    #[serde(default)]
    pub oom: bool,
    #[serde(default)]
    pub follow_up: FollowUp,
}

impl CommandExit {
    /// Whether it is anything but an exit with code 0.
    pub fn is_failure(&self) -> bool {
        self.code != Some(0)
    }

    /// How the end reads in a sentence.
    pub fn words(&self) -> String {
        let how = match self {
            Self {
                fault: Some(fault), ..
            } if fault.symbol == Symbol::VmEnded => {
                format!("the command ended with its VM: {fault}")
            }
            Self {
                fault: Some(fault), ..
            } => format!("the command did not start: {fault}"),
            Self {
                code: Some(code), ..
            } => format!("the command exited with {code}"),
            Self {
                signal: Some(signal),
                ..
            } => format!("signal {signal} killed the command"),
            _ => "the command did not start".to_owned(),
        };
        match self.oom {
            true => format!("{how}: the guest ran out of memory"),
            false => how,
        }
    }
}

/// What follows the end of a command ([`crate::restart`]), and the counts that
/// it followed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowUp {
    /// How often the policy has started it again since somebody did.
    #[serde(default)]
    pub restarts: u32,
    /// Ends in a row that came soon after their start.
    #[serde(default)]
    pub quick_ends: u32,
    /// It failed as often as its policy allows.
    #[serde(default)]
    pub gave_up: bool,
    /// No connection starts the VM before, in microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rests_until: Option<u64>,
}

/// `start.json`: when somebody last started the instance by name. Written by
/// aegisd; ends before it count no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartMark {
    /// In microseconds since 1970.
    pub at: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json<T: Serialize>(value: &T) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn frames_look_as_documented() {
        let call = CallFrame {
            id: 1,
            call: Call::Status,
        };
        assert_eq!(json(&call), r#"{"id":1,"call":"status"}"#);
        let exec = Call::Exec(ExecRequest {
            argv: vec!["true".into()],
            ..Default::default()
        });
        assert_eq!(
            json(&CallFrame { id: 2, call: exec }),
            r#"{"id":2,"call":"exec","argv":["true"],"env":{},"workdir":null,"user":null,"tty":null}"#
        );
        let answer = OwnerFrame::Answer {
            id: 2,
            ok: Answer::Exec,
            fds: 4,
        };
        assert_eq!(json(&answer), r#"{"id":2,"ok":"exec","fds":4}"#);
        assert_eq!(json(&ExecInput::Signal(15)), r#"{"signal":15}"#);
        assert_eq!(
            json(&ExecEvent::Exited { code: 3 }),
            r#"{"exited":{"code":3}}"#
        );
    }

    #[test]
    fn frames_are_read_back() {
        let fault = Fault::new(Symbol::QemuMissing, "no QEMU");
        for frame in [
            OwnerFrame::Fault { id: 3, fault },
            OwnerFrame::Answer {
                id: 4,
                ok: Answer::Outcome(Outcome::Unchanged),
                fds: 0,
            },
        ] {
            assert_eq!(
                serde_json::from_str::<OwnerFrame>(&json(&frame)).unwrap(),
                frame
            );
        }
        let newer = r#"{"id":9,"call":"pause","reason":"a field of tomorrow"}"#;
        assert_eq!(
            serde_json::from_str::<CallFrame>(newer).unwrap().call,
            Call::Pause
        );
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        let failed = |symbol| ExecEvent::Failed(Fault::new(symbol, "")).exit_code();
        assert_eq!(ExecEvent::Exited { code: 7 }.exit_code(), Some(7));
        assert_eq!(ExecEvent::Signaled { signal: 9 }.exit_code(), Some(137));
        assert_eq!(failed(Symbol::CommandNotFound), Some(127));
        assert_eq!(failed(Symbol::CommandNotExecutable), Some(126));
        assert_eq!(failed(Symbol::VmEnded), Some(125));
    }
}
