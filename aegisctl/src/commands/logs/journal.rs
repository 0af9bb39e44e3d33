//! The lines of an instance's units in the journal.
//!
//! Lines are found by unit and not by `AEGIS_INSTANCE`: user managers before
//! version 254 do not put that field on the lines of daemons. The journal does not know
//! the unit of a process that has ended when it reads its line, as the small programs of
//! a shell script have, unless the unit is the system manager's: of a user's daemons it
//! still knows the word that its stream was opened with.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::{SystemTime, UNIX_EPOCH};

use aegis_core::layout::Mode;
use aegis_core::units;
use serde_json::Value;
use tokio::io::AsyncBufReadExt;
use tokio::net::unix::pipe;

use super::entry::{Entry, Writer};
use crate::failure::Failure;
use crate::journalctl;

/// The word of a stream, systemd.journal-fields(7).
const IDENTIFIER: &str = "SYSLOG_IDENTIFIER";

/// What of the journal is wanted.
#[derive(Debug)]
pub(super) struct Journal {
    mode: Mode,
    /// Whose lines those of a unit's processes are.
    writers: BTreeMap<String, (String, Writer)>,
    /// Units of which the service manager's own lines are wanted, and their instances.
    managed: BTreeMap<String, String>,
    /// Where the past ended.
    end: End,
}

#[derive(Clone, Debug)]
enum End {
    Cursor(String),
    /// Nothing was there; seconds since 1970.
    Since(u64),
}

impl Journal {
    pub(super) fn new(mode: Mode) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            mode,
            writers: BTreeMap::new(),
            managed: BTreeMap::new(),
            end: End::Since(now.unwrap_or_default().as_secs()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writers.is_empty()
    }

    /// Wants the lines of a daemon, and those of the service manager about it.
    pub(super) fn add_daemon(&mut self, handle: &str, name: &str, unit: &str, managed: bool) {
        let writer = Writer::Daemon(name.to_owned());
        self.writers
            .insert(unit.to_owned(), (handle.to_owned(), writer));
        if managed {
            self.managed.insert(unit.to_owned(), handle.to_owned());
        }
    }

    /// Wants the lines of the VM's owner, and those of the service manager about
    /// it and its sockets.
    pub(super) fn add_vm(&mut self, handle: &str, [service, socket]: [&String; 2]) {
        let writer = (handle.to_owned(), Writer::Vm);
        self.writers.insert(service.clone(), writer);
        for unit in [service, socket] {
            self.managed.insert(unit.clone(), handle.to_owned());
        }
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// There is no journalctl.
    pub(super) fn past(&self, since: Option<u64>, until: Option<u64>) -> Result<Past, Failure> {
        let mut command = journalctl::command();
        if let Some(since) = since {
            command.arg(format!("--since=@{}", since / 1_000_000));
        }
        if let Some(until) = until {
            // Whole seconds, so one more; the window is held to exactly elsewhere.
            command.arg(format!(
                "--until=@{}",
                (until / 1_000_000).saturating_add(1)
            ));
        }
        let mut child = journalctl::spawn(command.args(self.matches()))?;
        let stdout = child.stdout.take().map(BufReader::new);
        let mut past = Past {
            reader: Reader::new(self),
            child,
            stdout,
            next: None,
            failed: false,
        };
        past.next = past.read();
        match past.next.take() {
            Some(Err(failure)) => Err(failure),
            next => {
                past.next = next;
                Ok(past)
            }
        }
    }

    /// What follows is read from where the past ended.
    pub(super) fn continue_after(&mut self, past: Past) {
        if let Some(cursor) = past.reader.cursor {
            self.end = End::Cursor(cursor);
        }
    }

    /// Follows what comes.
    ///
    /// # Errors
    /// There is no journalctl.
    pub(super) fn future(&self) -> Result<Future, Failure> {
        let mut command = journalctl::command();
        command.arg("--follow").arg("--no-tail");
        match &self.end {
            End::Cursor(cursor) => command.arg(format!("--after-cursor={cursor}")),
            End::Since(since) => command.arg(format!("--since=@{since}")),
        };
        let mut child = journalctl::spawn(command.args(self.matches()))?;
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stdout = stdout.map(pipe::Receiver::from_owned_fd).transpose();
        Ok(Future {
            reader: Reader::new(self),
            child: Killed(child),
            stdout: stdout
                .map_err(Failure::Journal)?
                .map(tokio::io::BufReader::new),
            line: Vec::new(),
        })
    }

    /// Conditions on different fields must all match; `+` separates alternatives.
    fn matches(&self) -> Vec<String> {
        let uid = nix::unistd::geteuid();
        let (of_process, of_manager) = match self.mode {
            Mode::User => ("_SYSTEMD_USER_UNIT", "USER_UNIT"),
            Mode::System => ("_SYSTEMD_UNIT", "UNIT"),
        };
        let names = self.writers.keys().map(|unit| (of_process, unit.as_str()));
        let managed = self.managed.keys().map(|unit| (of_manager, unit.as_str()));
        let daemons = self.writers.iter().filter(|(_, (_, writer))| {
            self.mode == Mode::User && matches!(writer, Writer::Daemon(_))
        });
        let streams = daemons.map(|(unit, _)| (IDENTIFIER, units::daemon_identifier(unit)));
        let mut words = Vec::new();
        for (field, value) in names.chain(managed).chain(streams) {
            if !words.is_empty() {
                words.push("+".to_owned());
            }
            words.push(format!("{field}={value}"));
            if field == IDENTIFIER {
                words.push("_TRANSPORT=stdout".to_owned());
            }
            if self.mode == Mode::User {
                words.push(format!("_UID={uid}"));
            }
        }
        words
    }
}

/// Makes entries of journalctl's lines.
#[derive(Debug)]
struct Reader {
    writers: BTreeMap<String, (String, Writer)>,
    managed: BTreeMap<String, String>,
    cursor: Option<String>,
}

impl Reader {
    fn new(journal: &Journal) -> Self {
        Self {
            writers: journal.writers.clone(),
            managed: journal.managed.clone(),
            cursor: None,
        }
    }

    /// `None` for what is not a line to show.
    fn read(&mut self, line: &[u8]) -> Option<Entry> {
        let fields: Value = serde_json::from_slice(line).ok()?;
        let text = |name: &str| fields[name].as_str();
        if let Some(cursor) = text("__CURSOR") {
            self.cursor = Some(cursor.to_owned());
        }
        // The owner copies the command's lines here; they are read from their file.
        if text("AEGIS_TARGET").or(text("TARGET")) == Some("command") {
            return None;
        }
        let either = |a: &str, b: &str| text(a).or(text(b));
        let about = either("USER_UNIT", "UNIT").and_then(|unit| self.managed.get(unit));
        let (instance, writer) = match about {
            Some(handle) => (handle.clone(), Writer::ServiceManager),
            None => {
                let unit = either("_SYSTEMD_USER_UNIT", "_SYSTEMD_UNIT");
                let known = unit.and_then(|unit| self.writers.get(unit));
                let of_stream = || {
                    let identifier = text(IDENTIFIER)?;
                    self.writers.get(&format!("{identifier}.service"))
                };
                known.or_else(of_stream).cloned()?
            }
        };
        let time_us = text("__REALTIME_TIMESTAMP")?.parse().ok()?;
        let message = journalctl::text(&fields["MESSAGE"])?;
        Some(Entry::of_journal(&instance, writer, time_us, message))
    }
}

/// What was there, in order.
#[derive(Debug)]
pub(super) struct Past {
    reader: Reader,
    child: Child,
    stdout: Option<BufReader<std::process::ChildStdout>>,
    /// Read ahead: whether journalctl can read anything shows with its first line.
    next: Option<Result<Entry, Failure>>,
    failed: bool,
}

impl Past {
    fn read(&mut self) -> Option<Result<Entry, Failure>> {
        let stdout = self.stdout.as_mut()?;
        let mut line = Vec::new();
        loop {
            line.clear();
            match stdout.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => {
                    if let Some(entry) = self.reader.read(&line) {
                        return Some(Ok(entry));
                    }
                }
                Err(error) => return Some(Err(Failure::Journal(error))),
            }
        }
        self.stdout = None;
        journalctl::failure_of(&mut self.child).map(Err)
    }
}

impl Iterator for &mut Past {
    type Item = Result<Entry, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = std::mem::take(&mut self.next);
        self.next = self.read();
        self.failed = next.as_ref().is_some_and(Result::is_err);
        next
    }
}

/// What comes.
#[derive(Debug)]
pub(super) struct Future {
    reader: Reader,
    child: Killed,
    stdout: Option<tokio::io::BufReader<pipe::Receiver>>,
    line: Vec<u8>,
}

impl Future {
    /// The next line; `None` if journalctl ended.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>, Failure> {
        let Some(stdout) = &mut self.stdout else {
            return Ok(None);
        };
        loop {
            // What was read of a line stays if this is dropped.
            let read = stdout.read_until(b'\n', &mut self.line).await;
            if read.map_err(Failure::Journal)? == 0 {
                return Ok(None);
            }
            let entry = self.reader.read(&self.line);
            self.line.clear();
            if entry.is_some() {
                return Ok(entry);
            }
        }
    }

    /// Why it ended.
    pub(super) async fn failure(mut self) -> Failure {
        let ended = "it ended while it was followed";
        journalctl::failure_of(&mut self.child.0)
            .unwrap_or_else(|| Failure::Journalctl(ended.to_owned()))
    }
}

/// journalctl follows until it is ended.
#[derive(Debug)]
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(mode: Mode) -> Journal {
        let mut journal = Journal::new(mode);
        journal.add_daemon("web", "gateway", "aegis-kit-web:gateway.service", false);
        let vm = [
            "aegis-vm-web.service".to_owned(),
            "aegis-vm-web.socket".to_owned(),
        ];
        journal.add_vm("web", [&vm[0], &vm[1]]);
        journal
    }

    #[test]
    fn units_are_alternatives() {
        let words = journal(Mode::System).matches().join(" ");
        assert_eq!(
            words,
            "_SYSTEMD_UNIT=aegis-kit-web:gateway.service + _SYSTEMD_UNIT=aegis-vm-web.service + \
             UNIT=aegis-vm-web.service + UNIT=aegis-vm-web.socket"
        );
        let words = journal(Mode::User).matches();
        assert!(words[1].starts_with("_UID="), "{words:?}");
        let streams = "+ SYSLOG_IDENTIFIER=aegis-kit-web:gateway _TRANSPORT=stdout _UID=";
        assert!(words.join(" ").contains(streams), "{words:?}");
    }

    #[test]
    fn lines_are_known_by_their_unit() {
        let mut reader = Reader::new(&journal(Mode::User));
        let line = br#"{"__CURSOR":"c1","__REALTIME_TIMESTAMP":"5",
            "_SYSTEMD_USER_UNIT":"aegis-kit-web:gateway.service","MESSAGE":"hello"}"#;
        let entry = reader.read(line).unwrap();
        assert_eq!(entry.writer, Writer::Daemon("gateway".into()));
        assert_eq!((entry.time_us, entry.text.as_str()), (5, "hello"));
        assert_eq!(reader.cursor.as_deref(), Some("c1"));
        let of_a_child = br#"{"__REALTIME_TIMESTAMP":"5","MESSAGE":"bye",
            "SYSLOG_IDENTIFIER":"aegis-kit-web:gateway"}"#;
        let entry = reader.read(of_a_child).unwrap();
        assert_eq!(entry.writer, Writer::Daemon("gateway".into()));
        let managed = br#"{"__REALTIME_TIMESTAMP":"6","USER_UNIT":"aegis-vm-web.service",
            "_SYSTEMD_USER_UNIT":"init.scope","MESSAGE":"Started"}"#;
        assert_eq!(reader.read(managed).unwrap().writer, Writer::ServiceManager);
        let copied = br#"{"__REALTIME_TIMESTAMP":"7","TARGET":"command",
            "_SYSTEMD_USER_UNIT":"aegis-vm-web.service","MESSAGE":"x"}"#;
        assert_eq!(reader.read(copied), None);
        let bytes = br#"{"__REALTIME_TIMESTAMP":"8","MESSAGE":[104,255],
            "_SYSTEMD_USER_UNIT":"aegis-vm-web.service"}"#;
        assert_eq!(reader.read(bytes).unwrap().text, "h\u{fffd}");
        assert_eq!(reader.read(b"nonsense"), None);
    }
}
