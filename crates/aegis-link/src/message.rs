//! The typed control messages host and guest exchange, as JSON on the link.
//!
//! Three shapes exist: a call with an id, the reply to it, and an event without
//! one. What is big or continuous (stdio, connections, log lines) never travels
//! here: a call names byte streams that were opened before it.
//!
//! ```text
//!   guest                                host
//!     │ event hello {generation}          │   once the port is open, and again after a resync
//!     │◄────────────── call boot {...}    │   generation = the lower of both
//!     │ reply booted                      │   root assembled, or a fault naming the stage
//!     │ event log {stream}                │   the command's output follows on that stream
//!     │ event command-started {pid}       │
//!     │◄── call exec, dial, stop, ...     │
//!     │ event command-ended {end}         │
//!     │◄───────────────── call suspend    │   output stops, disks are synced
//!     │         saved, and restored on a new host
//!     │ event hello, log {stream}         │   the log goes on where it was
//!     │◄─── call restored {time, entropy} │   output flows again
//!     │◄────────────── call adopt {...}   │   the command's terminal, if it has one
//! ```
//!
//! Compatibility: the guest's message set is frozen in its image, so the host
//! adapts. One number, [`GENERATION`], names the set; the lower of both sides
//! holds. Readers ignore unknown fields. `schema/link-N.json` freezes what
//! generation N looks like on the wire; a field may be added to the newest one
//! before it is released, afterwards a change is a new generation.

mod network;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

pub use network::{Network, NetworkAddress};

/// The newest message set this build speaks.
pub const GENERATION: u32 = 1;

/// Longest JSON text of one message in bytes. It has to hold an exec request
/// with a large environment; Linux itself allows 2 MiB, which nobody uses.
pub const MAX_MESSAGE: usize = 512 * 1024;

/// Longest human-readable text taken from a peer, in characters. What a guest
/// writes ends in statuses and logs of the host.
const MAX_TEXT: usize = 1024;

/// Most processes in one answer, and most characters of a command line in it: the
/// answer has to fit into a message.
pub const MAX_PROCESSES: usize = 1024;
/// See [`MAX_PROCESSES`].
pub const MAX_PROCESS_COMMAND: usize = 256;

/// Number of a byte stream on the link, unique within an epoch.
pub type StreamId = u32;

/// Number of an exec session, chosen by the host and never used twice.
pub type SessionId = u64;

/// One message as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Message {
    /// A question; the other side sends exactly one reply with the same id.
    Call {
        /// Chosen by the caller, growing.
        id: u64,
        /// What is asked.
        call: Call,
    },
    /// The answer to a call that succeeded.
    Ok {
        /// The id of the call.
        id: u64,
        /// What came of it.
        ok: Reply,
    },
    /// The answer to a call that failed.
    Fault {
        /// The id of the call.
        id: u64,
        /// Why it failed.
        fault: Fault,
    },
    /// Something that happened.
    Event {
        /// What happened.
        event: Event,
    },
}

impl Message {
    /// The JSON text.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        // Writing to memory cannot fail, and all keys of maps are strings.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What a side asks of the other. All calls of generation 1 go to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Call {
    /// Assemble the root and start the command. Answer: [`Reply::Booted`].
    Boot(Box<Boot>),
    /// Start a program. Answer: [`Reply::Started`] once it runs.
    Exec(Box<Exec>),
    /// Wait for the end of a session. Answer: [`Reply::Ended`].
    Wait {
        /// The session.
        session: SessionId,
    },
    /// Send a signal to the process group of a session. Answer: [`Reply::Done`].
    Signal {
        /// The session.
        session: SessionId,
        /// Linux signal number, 1..=64.
        signal: i32,
    },
    /// Change the terminal size of a session. Answer: [`Reply::Done`].
    Resize {
        /// The session; it must have a terminal.
        session: SessionId,
        /// The new size.
        size: TtySize,
    },
    /// Connect a stream to 127.0.0.1:port in the guest. Answer: [`Reply::Done`]
    /// once connected.
    Dial {
        /// An open stream of the caller.
        stream: StreamId,
        /// TCP port.
        port: u16,
    },
    /// Set the guest's wall clock. Answer: [`Reply::Done`].
    SetTime {
        /// Nanoseconds since the Unix epoch.
        time_ns: u64,
    },
    /// Break off the TCP connections to other hosts: what carried them is gone. Answer:
    /// [`Reply::Done`].
    ResetFlows,
    /// Send a signal to the process group that a process leads. Answer:
    /// [`Reply::Done`].
    SignalProcess {
        /// Its process id in the guest.
        pid: u32,
        /// Linux signal number, 1..=64.
        signal: i32,
    },
    /// Take no more output of programs, hand over what there is, and write all disks.
    /// Answer: [`Reply::Done`] when that is done.
    Suspend,
    /// Go on after [`Call::Suspend`] on the same link. Answer: [`Reply::Done`].
    Unsuspend {
        /// Wall clock, nanoseconds since the Unix epoch.
        time_ns: u64,
    },
    /// Go on after [`Call::Suspend`] on the link of another host. Answer:
    /// [`Reply::Done`].
    Restored(Restored),
    /// Carry the terminal of a session that outlived its host on this stream.
    /// Answer: [`Reply::Done`].
    Adopt {
        /// The session.
        session: SessionId,
        /// An open stream of the caller.
        stream: StreamId,
    },
    /// Ask which processes there are. Answer: [`Reply::Processes`].
    Processes,
    /// Ask for figures. Answer: [`Reply::Stats`].
    Stats,
    /// Is anyone there. Answer: [`Reply::Done`].
    Ping,
    /// End the guest in order: SIGTERM to all, after the grace SIGKILL, sync,
    /// unmount, power off. Answer: [`Reply::Done`] at once; the link then ends
    /// with the guest.
    Stop {
        /// Milliseconds between SIGTERM and SIGKILL.
        grace_ms: u32,
    },
    /// A call of a newer generation; answered with [`Symbol::Unsupported`].
    #[serde(other)]
    Unknown,
}

impl Call {
    /// The streams this call hands over to the other side.
    pub fn streams(&self) -> impl Iterator<Item = StreamId> {
        let (first, second) = match self {
            Call::Exec(exec) => (Some(exec.stdio), exec.stderr),
            Call::Dial { stream, .. } | Call::Adopt { stream, .. } => (Some(*stream), None),
            _ => (None, None),
        };
        first.into_iter().chain(second)
    }
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Reply {
    /// It was done; nothing more to say.
    Done,
    /// The root is assembled.
    Booted(Booted),
    /// The program runs.
    Started {
        /// Its process id in the guest.
        pid: u32,
    },
    /// The session is over: its output streams have ended as well.
    Ended {
        /// How its main process ended.
        end: ProcessEnd,
    },
    /// Figures.
    Stats(Stats),
    /// The processes of the guest.
    Processes {
        /// By number, at most [`MAX_PROCESSES`].
        #[serde(deserialize_with = "processes")]
        processes: Vec<Process>,
    },
}

/// What a side tells the other unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Event {
    /// The guest's first word.
    Hello(Hello),
    /// The instance command runs.
    CommandStarted {
        /// Its process id in the guest.
        pid: u32,
    },
    /// The instance command ended, or could not be started.
    CommandEnded {
        /// How.
        end: CommandEnd,
    },
    /// A stream the guest opened carries the command's output as records of
    /// [`crate::log`].
    Log {
        /// The stream.
        stream: StreamId,
    },
    /// A program in the guest connected to the API of its instance: what it says is on
    /// a stream that the guest opened.
    Api {
        /// The stream.
        stream: StreamId,
    },
    /// An event of a newer generation.
    #[serde(other)]
    Unknown,
}

impl Event {
    /// The stream this event hands over to the other side.
    pub fn stream(&self) -> Option<StreamId> {
        match self {
            Event::Log { stream } | Event::Api { stream } => Some(*stream),
            _ => None,
        }
    }
}

/// Who the guest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Newest message set the guest speaks.
    pub generation: u32,
    /// Version of the harness, for people.
    #[serde(deserialize_with = "text")]
    pub harness: String,
    /// Kernel release, for people.
    #[serde(deserialize_with = "text")]
    pub kernel: String,
}

/// What the guest should become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The message set both sides use from here on.
    pub generation: u32,
    /// Host name of the guest.
    pub hostname: String,
    /// Wall clock, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The root file system.
    pub root: Root,
    /// A directory of the root that is made if it is missing, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// What of the host is shared, if anything is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// The network of the guest; without one it has its loopback alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// The port of 127.0.0.1 at which programs find the API of their instance; without
    /// one there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<u16>,
    /// The instance command; without one the guest idles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Program>,
}

/// The layers of an overlay root. Disks are named by their virtio-blk serial
/// (at most 20 bytes, Virtio 1.2 section 5.2.6.2), which does not depend on the
/// order in which the kernel finds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Serials of disks with read-only layers, the lowest first.
    pub layers: Vec<String>,
    /// The first of these disks holds so many layers as its partitions 1, 2, ...,
    /// the lowest first; without a number the whole disk is one layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
    /// Where writes go.
    pub upper: Upper,
    /// No program can write to the root; /run, /tmp and /var/tmp are memory.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
}

/// Where writes to the root go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Upper {
    /// An ext4 disk, made by the host.
    Disk {
        /// Its serial.
        serial: String,
    },
    /// Guest memory; gone with the guest.
    Tmpfs,
}

/// Files and folders of the host, all on one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// How they reach the guest.
    pub kind: ShareKind,
    /// Mount tag of the device.
    pub tag: String,
    /// What of it is seen where. What lies below another target comes after it.
    pub places: Vec<SharePlace>,
}

/// One of the files and folders of a [`Share`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharePlace {
    /// Its name on the device; empty for the device's whole tree.
    #[serde(default)]
    pub name: String,
    /// Absolute path in the guest; made if missing.
    pub target: String,
    /// Mount it read-only.
    #[serde(default)]
    pub read_only: bool,
    /// While nothing is in the folder, it gets what the root has at the target.
    #[serde(default, skip_serializing_if = "is_false")]
    pub filled: bool,
}

/// How what is shared reaches the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShareKind {
    /// virtio-fs, by a vhost-user daemon.
    #[serde(rename = "virtiofs")]
    Virtiofs,
    /// 9P2000.L over virtio, by QEMU itself.
    #[serde(rename = "9p")]
    NineP,
}

/// A program to run in the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The program and its arguments. A name without '/' is looked up in PATH.
    pub argv: Vec<String>,
    /// Environment on top of the guest's own (PATH, HOME, USER, SHELL, TERM).
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Absolute working directory; without one the user's home, else `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`; without one root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Linux signal number, 1..=64, that asks it to end when the guest is stopped;
    /// without one SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<i32>,
}

/// A program to run with its stdio on the link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The session, chosen by the host.
    pub session: SessionId,
    /// Stream for stdin (towards the guest) and stdout (towards the host).
    pub stdio: StreamId,
    /// Stream for stderr; none with a terminal, which has one output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<StreamId>,
    /// What to run.
    pub program: Program,
    /// Run it on a terminal of this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<TtySize>,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtySize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// What a guest lacks that was saved and restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Wall clock, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Random bytes, which nobody else has, for the guest's kernel.
    pub entropy: Vec<u8>,
}

/// The root is assembled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booted {
    /// Milliseconds from the start of the kernel to this reply, by the guest's
    /// own clock.
    pub uptime_ms: u64,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessEnd {
    /// By itself.
    Exited {
        /// Its exit code, 0..=255.
        code: i32,
    },
    /// By a signal.
    Signaled {
        /// Linux signal number.
        signal: i32,
    },
}

/// How the instance command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandEnd {
    /// It ran and ended.
    Ended(ProcessEnd),
    /// It could not be started.
    Failed(Fault),
}

/// Figures of a running guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    /// Memory the guest has, in KiB.
    pub memory_total_kib: u64,
    /// Memory it could still give to programs, in KiB.
    pub memory_available_kib: u64,
    /// Processes, kernel threads included.
    pub processes: u32,
    /// Exec sessions.
    pub sessions: u32,
    /// Processes that the kernel killed for want of memory since it started.
    #[serde(default)]
    pub oom_kills: u32,
}

/// A process of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// The number of its parent.
    pub parent: u32,
    /// The user's name, or its number where it has none.
    #[serde(deserialize_with = "text")]
    pub user: String,
    /// One letter of proc_pid_stat(5).
    #[serde(deserialize_with = "text")]
    pub state: String,
    /// CPU time in milliseconds.
    pub cpu_ms: u64,
    /// Resident memory in KiB.
    pub memory_kib: u64,
    /// Milliseconds since it was started.
    pub age_ms: u64,
    /// The command line, or the name in brackets.
    #[serde(deserialize_with = "text")]
    pub command: String,
}

/// Why a call failed. Display gives the message alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// For programs.
    pub symbol: Symbol,
    /// For people: one line. Shortened and freed of control characters when
    /// read, since a guest is not trusted.
    #[serde(deserialize_with = "text")]
    pub message: String,
}

impl Fault {
    /// A fault with a message for people.
    pub fn new(symbol: Symbol, message: impl Into<String>) -> Self {
        Fault {
            symbol,
            message: message.into(),
        }
    }
}

/// What kind of failure a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Symbol {
    /// No such program.
    CommandNotFound,
    /// There is a file, but it cannot be executed.
    CommandNotExecutable,
    /// No such user or group in the guest.
    UserNotFound,
    /// No such working directory.
    WorkdirNotFound,
    /// The kernel refused to start a process.
    SpawnFailed,
    /// Nothing listens on the port.
    ConnectionRefused,
    /// No such session, or it has no terminal.
    NoSuchSession,
    /// The stream the call named is gone.
    StreamGone,
    /// The guest already does all it can.
    Busy,
    /// The request does not make sense.
    BadRequest,
    /// The guest has not booted yet, or is stopping.
    NotReady,
    /// The other side does not know this call.
    Unsupported,
    /// Boot: a disk is not there.
    BootDeviceMissing,
    /// Boot: a mount failed.
    BootMountFailed,
    /// Boot: what is shared could not be mounted.
    BootShareFailed,
    /// Boot: anything else the guest needs failed.
    BootFailed,
    /// A failure of a newer generation, or one inside the other side.
    #[serde(other)]
    Internal,
}

/// A guest that names more is cut, not believed.
fn processes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Process>, D::Error> {
    let mut processes = Vec::<Process>::deserialize(deserializer)?;
    processes.truncate(MAX_PROCESSES);
    Ok(processes)
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let raw = String::deserialize(deserializer)?;
    Ok(raw
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_TEXT)
        .collect())
}
