//! Server-sent events (WHATWG HTML, 9.2.6), from bytes cut anywhere. Pure.

/// The most bytes of one event.
const LIMIT: usize = 8 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// The field `event`; empty where there is none.
    pub name: String,
    /// The fields `data`, joined by newlines.
    pub data: String,
}

/// An event is larger than the parser takes.
#[derive(Debug, thiserror::Error)]
#[error("The provider sent an event of more than 8 MiB")]
pub(crate) struct TooLarge;

/// Makes events of bytes.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    bytes: Vec<u8>,
    /// Where the next line starts.
    start: usize,
    event: Event,
    has_data: bool,
}

impl Parser {
    /// Takes more bytes.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        self.bytes.drain(..self.start);
        self.start = 0;
        if self.bytes.len() + bytes.len() + self.event.data.len() > LIMIT {
            return Err(TooLarge);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole event.
    pub(crate) fn next(&mut self) -> Option<Event> {
        while let Some(line) = self.line() {
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if std::mem::take(&mut self.has_data) {
                    return Some(event);
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.event.name),
                "data" => {
                    if self.has_data {
                        self.event.data.push('\n');
                    }
                    self.event.data.push_str(value);
                    self.has_data = true;
                }
                // A comment, id, retry, or a field of later times.
                _ => {}
            }
        }
        None
    }

    /// The next line without its end: CR, LF or CR LF.
    fn line(&mut self) -> Option<String> {
        let rest = &self.bytes[self.start..];
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'))?;
        let length = match &rest[end..] {
            [b'\r', b'\n', ..] => 2,
            // The line feed that may follow is not here yet.
            [b'\r'] => return None,
            _ => 1,
        };
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.start += end + length;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str, step: usize) -> Vec<Event> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for part in text.as_bytes().chunks(step) {
            parser.push(part).unwrap();
            while let Some(event) = parser.next() {
                events.push(event);
            }
        }
        events
    }

    #[test]
    fn events_are_the_same_wherever_the_bytes_are_cut() {
        let text = ": hello\r\nevent: ping\r\ndata: {\"a\":1}\r\n\r\ndata:ö\ndata: two\nid: 3\n\n\
                    event: empty\n\ndata: [DONE]\n\ndata: half";
        let whole = events(text, text.len());
        assert_eq!(whole.len(), 3);
        assert_eq!(whole[0].name, "ping");
        assert_eq!(whole[0].data, "{\"a\":1}");
        assert_eq!(whole[1].data, "ö\ntwo");
        assert_eq!(whole[1].name, "");
        for step in 1..text.len() {
            assert_eq!(events(text, step), whole, "cut every {step} bytes");
        }
    }

    #[test]
    fn an_event_without_end_is_refused_at_a_limit() {
        let mut parser = Parser::default();
        let part = vec![b'x'; 1 << 20];
        let pushed = (0..9).all(|_| parser.push(&part).is_ok());
        assert!(!pushed);
    }
}
