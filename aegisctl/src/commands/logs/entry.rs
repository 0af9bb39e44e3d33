//! One line of a log, whoever wrote it.

use serde_json::{Map, Value, json};

/// Who wrote a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    Command,
    Daemon(String),
    /// aegis-vmm, the VM's owner.
    Vm,
    ServiceManager,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) instance: String,
    pub(super) writer: Writer,
    /// In microseconds since 1970; of the command by the guest's clock.
    pub(super) time_us: u64,
    pub(super) is_stderr: bool,
    pub(super) text: String,
    /// It goes on in the writer's next entry.
    pub(super) partial: bool,
    /// The fields of a record of the command's log, as they are there.
    fields: Map<String, Value>,
}

/// What a line of the command's log is.
#[derive(Debug, PartialEq)]
pub(super) enum Record {
    Entry(Box<Entry>),
    /// The last of its file: the log goes on in another one.
    Rotated,
    /// After a crash of its writer a file may end in half a line.
    Garbage,
}

impl Record {
    /// Reads a line of the command's log.
    pub(super) fn read(line: &[u8], instance: &str) -> Self {
        let Ok(Value::Object(fields)) = serde_json::from_slice(line) else {
            return Self::Garbage;
        };
        if fields.get("rotated") == Some(&Value::Bool(true)) {
            return Self::Rotated;
        }
        let Some(text) = fields.get("line").and_then(Value::as_str) else {
            return Self::Garbage;
        };
        let time_ns = fields.get("time").and_then(Value::as_u64).unwrap_or(0);
        Self::Entry(Box::new(Entry {
            instance: instance.to_owned(),
            writer: Writer::Command,
            time_us: time_ns / 1000,
            is_stderr: fields
                .get("stream")
                .is_some_and(|stream| stream == "stderr"),
            text: text.to_owned(),
            partial: fields.get("partial") == Some(&Value::Bool(true)),
            fields,
        }))
    }
}

impl Entry {
    /// A message of the journal.
    pub(super) fn of_journal(instance: &str, writer: Writer, time_us: u64, text: String) -> Self {
        Self {
            instance: instance.to_owned(),
            writer,
            time_us,
            is_stderr: false,
            text,
            partial: false,
            fields: Map::new(),
        }
    }

    /// The record for programs, as docs/schemas/logs.json describes it.
    pub(super) fn to_json(&self) -> Value {
        let mut fields = self.fields.clone();
        let (source, daemon) = match &self.writer {
            Writer::Command => ("command", None),
            Writer::Daemon(name) => ("daemon", Some(name.as_str())),
            Writer::Vm => ("vm", None),
            Writer::ServiceManager => ("service-manager", None),
        };
        fields.insert("instance".to_owned(), self.instance.as_str().into());
        fields.insert("source".to_owned(), source.into());
        if let Some(daemon) = daemon {
            fields.insert("daemon".to_owned(), daemon.into());
        }
        if self.writer != Writer::Command {
            fields.insert("line".to_owned(), self.text.as_str().into());
            fields.insert("time".to_owned(), json!(self.time_us.saturating_mul(1000)));
        }
        fields.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_is_seen_and_garbage_is_not_fatal() {
        assert_eq!(Record::read(br#"{"rotated":true}"#, "web"), Record::Rotated);
        assert_eq!(Record::read(b"half a li", "web"), Record::Garbage);
        assert_eq!(Record::read(b"[1]", "web"), Record::Garbage);
        let line = br#"{"seq":1,"time":2000,"stream":"stderr","line":"x","partial":true}"#;
        let Record::Entry(entry) = Record::read(line, "web") else {
            panic!("no entry")
        };
        assert_eq!(
            (entry.time_us, entry.is_stderr, entry.partial),
            (2, true, true)
        );
        assert_eq!(entry.to_json()["seq"], 1);
        assert_eq!(entry.to_json()["source"], "command");
    }
}
