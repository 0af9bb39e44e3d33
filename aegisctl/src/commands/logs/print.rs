//! Printing lines: to where the command wrote them, with who and when in front.

use std::io::{self, Write};

use super::entry::{Entry, Writer};
use crate::failure::Failure;
use crate::ui::{JSON_VERSION, Ui, local};

/// Prints entries.
#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent choices of the user, not a state"
)]
pub(super) struct Printer {
    json: bool,
    timestamps: bool,
    /// More than one instance: each line names its own.
    names_instance: bool,
    names_daemon: bool,
    /// Who wrote a line that is not yet at its end, and where it stands.
    open: Option<(String, Writer, bool)>,
}

impl Printer {
    pub(super) fn new(ui: Ui, timestamps: bool, names_instance: bool) -> Self {
        Self {
            json: ui.wants_json(),
            timestamps,
            names_instance,
            names_daemon: true,
            open: None,
        }
    }

    /// All lines are of one daemon, which was named.
    pub(super) fn spare_prefix(&mut self) {
        self.names_daemon = false;
    }

    pub(super) fn print(&mut self, entry: &Entry) -> Result<(), Failure> {
        if self.json {
            let mut record = entry.to_json();
            if let Some(object) = record.as_object_mut() {
                object.insert("version".to_owned(), JSON_VERSION.into());
            }
            return write(false, &format!("{record}\n"));
        }
        let writer = (
            entry.instance.clone(),
            entry.writer.clone(),
            entry.is_stderr,
        );
        let goes_on = self.open.as_ref() == Some(&writer);
        if let Some((_, _, is_stderr)) = self.open.take_if(|_| !goes_on) {
            // Somebody else's line came between.
            write(is_stderr, "\n")?;
        }
        let prefix = if goes_on {
            String::new()
        } else {
            self.prefix(entry)
        };
        let end = if entry.partial { "" } else { "\n" };
        self.open = entry.partial.then_some(writer);
        write(entry.is_stderr, &format!("{prefix}{}{end}", entry.text))
    }

    fn prefix(&self, entry: &Entry) -> String {
        let time = match self.timestamps {
            true => local(entry.time_us) + " ",
            false => String::new(),
        };
        let writer = match &entry.writer {
            Writer::Command => None,
            Writer::Daemon(name) => Some(name.as_str()).filter(|_| self.names_daemon),
            Writer::Vm => Some("vm"),
            Writer::ServiceManager => Some("service manager"),
        };
        let instance = &entry.instance;
        match (self.names_instance, writer) {
            (false, None) => time,
            (false, Some(writer)) => format!("{time}[{writer}] "),
            (true, None) => format!("{time}[{instance}] "),
            (true, Some(writer)) => format!("{time}[{instance}/{writer}] "),
        }
    }
}

fn write(is_stderr: bool, text: &str) -> Result<(), Failure> {
    let written = match is_stderr {
        true => io::stderr().lock().write_all(text.as_bytes()),
        false => io::stdout().lock().write_all(text.as_bytes()),
    };
    written.map_err(Failure::output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_whose_they_are_where_that_is_not_clear() {
        let mut printer = Printer::new(Ui::new(false, false), false, false);
        let of = |writer| Entry::of_journal("web", writer, 0, "x".into());
        let daemon = || Writer::Daemon("gateway".into());
        assert_eq!(printer.prefix(&of(Writer::Command)), "");
        assert_eq!(printer.prefix(&of(daemon())), "[gateway] ");
        assert_eq!(
            printer.prefix(&of(Writer::ServiceManager)),
            "[service manager] "
        );
        printer.names_instance = true;
        assert_eq!(printer.prefix(&of(Writer::Command)), "[web] ");
        assert_eq!(printer.prefix(&of(daemon())), "[web/gateway] ");
        printer.timestamps = true;
        assert!(printer.prefix(&of(Writer::Vm)).starts_with("1970-01-01T"));
    }
}
