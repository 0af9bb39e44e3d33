//! The client of QEMU's machine protocol (QMP, docs/interop/qmp-spec.rst of QEMU).
//!
//! One task owns the connection and does one command at a time; between commands
//! and during them it follows the events. A guest that broke out speaks here, so
//! lines are bounded, nothing is kept of what was not asked for, and every command
//! has a deadline.

mod command;

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use aegis_os::descriptors::SEND;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, sendmsg};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::binary::Version;
pub use command::Command;

/// The longest line in bytes. The longest answer to our commands, that to
/// query-blockstats, has 2 KiB for each disk.
const MAX_LINE: usize = 64 * 1024;

/// How long a command may take. QEMU answers ours from its main loop in under a
/// millisecond; a host that swaps needs patience.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(20);

/// Commands that wait for their turn. The only caller is the VM's owner.
const QUEUE: usize = 8;

/// Why QEMU's answer is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    #[error("the connection to QEMU has ended")]
    Closed,
    #[error("the connection to QEMU broke")]
    Io(#[source] io::Error),
    #[error("QEMU sent a line of more than {MAX_LINE} bytes")]
    TooLong,
    #[error("QEMU sent a line that is not of its protocol")]
    Malformed(#[source] serde_json::Error),
    #[error("QEMU did not greet")]
    NoGreeting,
    #[error("QEMU refused {command}: {class}: {description}")]
    Refused {
        command: &'static str,
        class: String,
        description: String,
    },
    #[error("QEMU did not answer {command} within {} s", COMMAND_DEADLINE.as_secs())]
    Silent { command: &'static str },
}

/// What QEMU says of itself first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    pub version: Version,
    /// The distribution's version of the package, often empty.
    pub package: String,
}

/// What the events told of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub paused: bool,
    pub shutdown: Option<Shutdown>,
    /// Of the newest state that was sent or received.
    pub migration: Migration,
}

/// How a state fares that QEMU writes or reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Migration {
    #[default]
    None,
    Active,
    Completed,
    /// It failed or was cancelled.
    Failed,
}

/// The last event of a QEMU that ends in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// The guest powered off or reset (`guest: true`).
    Guest,
    /// Somebody on the host asked.
    Host,
}

/// A connection. Clones share it.
#[derive(Clone, Debug)]
pub struct Qmp {
    requests: mpsc::Sender<Request>,
    observed: watch::Receiver<Observed>,
}

#[derive(Debug)]
struct Request {
    command: Command,
    answer: oneshot::Sender<Result<Value, QmpError>>,
}

impl Qmp {
    /// Waits for the greeting and negotiates. The caller sets the deadline.
    ///
    /// # Errors
    /// When what answers is not QEMU, or ends.
    pub async fn connect(stream: UnixStream) -> Result<(Self, Greeting), QmpError> {
        let (observed_tx, observed) = watch::channel(Observed::default());
        let mut connection = Connection {
            stream: BufReader::new(stream),
            line: Vec::new(),
            next_id: 0,
            observed: observed_tx,
        };
        let Line {
            greeting: Some(greeting),
            ..
        } = connection.read().await?
        else {
            return Err(QmpError::NoGreeting);
        };
        connection.say("qmp_capabilities", None, None).await?;
        let (requests, queue) = mpsc::channel(QUEUE);
        tokio::spawn(connection.serve(queue));
        let greeting = Greeting {
            version: greeting.version.qemu,
            package: greeting.version.package,
        };
        Ok((Self { requests, observed }, greeting))
    }

    /// Runs a command.
    ///
    /// # Errors
    /// QEMU's refusal, its silence, or a connection that has ended.
    pub async fn execute(&self, command: Command) -> Result<Value, QmpError> {
        let (answer, answered) = oneshot::channel();
        self.requests
            .send(Request { command, answer })
            .await
            .map_err(|_| QmpError::Closed)?;
        answered.await.map_err(|_| QmpError::Closed)?
    }

    /// What the events told so far.
    pub fn observed(&self) -> Observed {
        self.observed.borrow().clone()
    }

    /// Waits until a state that moves is where it should be, or is not to be.
    ///
    /// # Errors
    /// [`QmpError::Closed`].
    pub async fn migrated(&self) -> Result<Migration, QmpError> {
        let mut observed = self.observed.clone();
        let moved = observed
            .wait_for(|observed| observed.migration != Migration::Active)
            .await;
        moved
            .map(|observed| observed.migration)
            .map_err(|_| QmpError::Closed)
    }

    /// Waits until no event can follow.
    pub async fn closed(&self) -> Observed {
        let mut observed = self.observed.clone();
        while observed.changed().await.is_ok() {}
        self.observed()
    }
}

struct Connection {
    stream: BufReader<UnixStream>,
    /// What has been read of the next line.
    line: Vec<u8>,
    next_id: u64,
    observed: watch::Sender<Observed>,
}

/// Any line of QEMU's, by the members it may have.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<GreetingLine>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
    id: Option<u64>,
    #[serde(default, rename = "return")]
    value: Value,
    error: Option<ErrorLine>,
}

#[derive(Debug, Deserialize)]
struct GreetingLine {
    version: VersionLine,
}

#[derive(Debug, Deserialize)]
struct VersionLine {
    qemu: Version,
    #[serde(default)]
    package: String,
}

#[derive(Debug, Deserialize)]
struct ErrorLine {
    class: String,
    desc: String,
}

impl Connection {
    /// Serves commands and follows events until either side ends.
    async fn serve(mut self, mut queue: mpsc::Receiver<Request>) {
        loop {
            tokio::select! {
                // A command first: events go on being read while it is done.
                biased;
                request = queue.recv() => {
                    let Some(Request { command, answer }) = request else { return };
                    let name = command.name();
                    if command.moves_state() {
                        // Its events may come before its answer.
                        self.observed.send_modify(|observed| observed.migration = Migration::Active);
                    }
                    let result = timeout(COMMAND_DEADLINE, self.call(&command))
                        .await
                        .unwrap_or(Err(QmpError::Silent { command: name }));
                    let broken = matches!(
                        result,
                        Err(QmpError::Closed | QmpError::Io(_) | QmpError::TooLong | QmpError::Malformed(_))
                    );
                    // A caller that went away needs no answer.
                    answer.send(result).ok();
                    if broken { return }
                }
                line = self.read() => match line {
                    Ok(line) => self.observe(&line),
                    Err(_) => return,
                },
            }
        }
    }

    /// Sends a command and reads up to its answer. After a deadline has cut this
    /// short the late answer is known by its number and skipped.
    async fn call(&mut self, command: &Command) -> Result<Value, QmpError> {
        let (arguments, descriptor) = (command.arguments(), command.descriptor());
        let said = self.say(command.name(), arguments, descriptor).await;
        if said.is_err() && command.moves_state() {
            self.observed
                .send_modify(|observed| observed.migration = Migration::Failed);
        }
        said
    }

    async fn say(
        &mut self,
        command: &'static str,
        arguments: Option<Value>,
        descriptor: Option<&OwnedFd>,
    ) -> Result<Value, QmpError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut line = json!({ "execute": command, "id": id });
        if let Some(arguments) = arguments {
            line["arguments"] = arguments;
        }
        let text = format!("{line}\n");
        let stream = self.stream.get_mut();
        let beside = match descriptor {
            Some(descriptor) => send_with(stream, text.as_bytes(), descriptor).await,
            None => Ok(0),
        };
        let rest = &text.as_bytes()[beside.map_err(QmpError::Io)?..];
        stream.write_all(rest).await.map_err(QmpError::Io)?;
        loop {
            let line = self.read().await?;
            if line.event.is_some() {
                self.observe(&line);
            } else if line.id == Some(id) {
                return match line.error {
                    None => Ok(line.value),
                    Some(error) => Err(QmpError::Refused {
                        command,
                        class: error.class,
                        description: error.desc,
                    }),
                };
            }
        }
    }

    /// Reads a line. Cancelling keeps what was read of it.
    async fn read(&mut self) -> Result<Line, QmpError> {
        let room = (MAX_LINE + 1).saturating_sub(self.line.len());
        // The limit fits: it is at most MAX_LINE + 1.
        let limit = u64::try_from(room).unwrap_or(u64::MAX);
        let mut bounded = (&mut self.stream).take(limit);
        bounded
            .read_until(b'\n', &mut self.line)
            .await
            .map_err(QmpError::Io)?;
        if self.line.last() != Some(&b'\n') {
            let too_long = self.line.len() > MAX_LINE;
            return Err(if too_long {
                QmpError::TooLong
            } else {
                QmpError::Closed
            });
        }
        let line = serde_json::from_slice(&self.line).map_err(QmpError::Malformed);
        self.line.clear();
        line
    }

    fn observe(&self, line: &Line) {
        let Some(event) = &line.event else { return };
        self.observed.send_if_modified(|observed| {
            let before = observed.clone();
            match event.as_str() {
                "STOP" => observed.paused = true,
                "RESUME" => observed.paused = false,
                "SHUTDOWN" => {
                    let guest = line.data.get("guest").and_then(Value::as_bool) == Some(true);
                    observed.shutdown = Some(if guest {
                        Shutdown::Guest
                    } else {
                        Shutdown::Host
                    });
                }
                "MIGRATION" => {
                    observed.migration = match line.data.get("status").and_then(Value::as_str) {
                        Some("completed") => Migration::Completed,
                        Some("failed" | "cancelled") => Migration::Failed,
                        _ => Migration::Active,
                    };
                }
                _ => {}
            }
            *observed != before
        });
    }
}

/// Sends the beginning of a line with a descriptor beside it; how much of it.
async fn send_with(stream: &UnixStream, line: &[u8], descriptor: &OwnedFd) -> io::Result<usize> {
    let fds = [descriptor.as_fd()];
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        // There is room for one.
        rights.push(SendAncillaryMessage::ScmRights(&fds));
        Ok(sendmsg(stream, &[IoSlice::new(line)], &mut rights, SEND)?)
    };
    stream.async_io(Interest::WRITABLE, send).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "Debian 1:10.0.2+ds-2"}, "capabilities": ["oob"]}}"#;

    /// Plays QEMU: sends what it is told, and answers commands in their order.
    struct Peer(BufReader<UnixStream>);

    impl Peer {
        async fn say(&mut self, line: &str) {
            self.0
                .get_mut()
                .write_all(format!("{line}\r\n").as_bytes())
                .await
                .unwrap();
        }

        async fn hear(&mut self) -> Value {
            let mut line = String::new();
            self.0.read_line(&mut line).await.unwrap();
            serde_json::from_str(&line).unwrap()
        }
    }

    fn pair() -> (UnixStream, Peer) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (ours, Peer(BufReader::new(theirs)))
    }

    async fn connected() -> (Qmp, Peer) {
        let (ours, mut peer) = pair();
        let play = async {
            peer.say(GREETING).await;
            assert_eq!(peer.hear().await["execute"], "qmp_capabilities");
            peer.say(r#"{"return": {}, "id": 0}"#).await;
        };
        let (connected, ()) = tokio::join!(Qmp::connect(ours), play);
        let (qmp, greeting) = connected.unwrap();
        assert_eq!(
            greeting.version,
            Version {
                major: 10,
                minor: 0,
                micro: 2
            }
        );
        assert_eq!(greeting.package, "Debian 1:10.0.2+ds-2");
        (qmp, peer)
    }

    #[tokio::test]
    async fn events_between_command_and_answer_are_followed() {
        let (qmp, mut peer) = connected().await;
        let play = async {
            assert_eq!(peer.hear().await["execute"], "stop");
            peer.say(r#"{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}"#)
                .await;
            peer.say(r#"{"return": {}, "id": 1}"#).await;
        };
        let (result, ()) = tokio::join!(qmp.execute(Command::Stop), play);
        result.unwrap();
        assert!(qmp.observed().paused);
    }

    #[tokio::test]
    async fn a_shutdown_of_the_guest_is_known_after_the_end() {
        let (qmp, mut peer) = connected().await;
        peer.say(r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#)
            .await;
        drop(peer);
        assert_eq!(qmp.closed().await.shutdown, Some(Shutdown::Guest));
        assert!(matches!(
            qmp.execute(Command::Cont).await,
            Err(QmpError::Closed)
        ));
    }

    #[tokio::test]
    async fn a_refusal_names_the_command() {
        let (qmp, mut peer) = connected().await;
        let play = async {
            peer.hear().await;
            peer.say(r#"{"id": 1, "error": {"class": "GenericError", "desc": "no"}}"#)
                .await;
        };
        let (result, ()) = tokio::join!(qmp.execute(Command::Cont), play);
        assert_eq!(
            result.unwrap_err().to_string(),
            "QEMU refused cont: GenericError: no"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_qemu_is_a_deadline_and_its_late_answer_is_skipped() {
        let (qmp, mut peer) = connected().await;
        let silent = qmp.execute(Command::Stop).await.unwrap_err();
        assert!(
            matches!(silent, QmpError::Silent { command: "stop" }),
            "{silent}"
        );
        let play = async {
            peer.hear().await;
            peer.hear().await;
            peer.say(r#"{"return": {"late": true}, "id": 1}"#).await;
            peer.say(r#"{"return": {"late": false}, "id": 2}"#).await;
        };
        let (result, ()) = tokio::join!(qmp.execute(Command::QueryStatus), play);
        assert_eq!(result.unwrap()["late"], false);
    }

    #[tokio::test]
    async fn lines_without_end_and_garbage_are_errors() {
        let (ours, mut peer) = pair();
        let flood = async {
            // The reader gives up before everything is written.
            peer.0
                .get_mut()
                .write_all(&vec![b'x'; 4 * MAX_LINE])
                .await
                .ok();
        };
        let connect = async { Qmp::connect(ours).await.unwrap_err() };
        let (error, ()) = tokio::join!(connect, flood);
        assert!(matches!(error, QmpError::TooLong), "{error}");

        let (ours, mut peer) = pair();
        peer.say("SSH-2.0-OpenSSH").await;
        assert!(matches!(
            Qmp::connect(ours).await.unwrap_err(),
            QmpError::Malformed(_)
        ));

        let (ours, mut peer) = pair();
        peer.say(r#"{"event": "STOP"}"#).await;
        assert!(matches!(
            Qmp::connect(ours).await.unwrap_err(),
            QmpError::NoGreeting
        ));
    }
}
