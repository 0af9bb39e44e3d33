//! Messages of instances: read from what is kept, and taken over from elsewhere.

use aegis_core::fault::{Fault, Symbol};
use aegis_core::tether::{Frame, FrameError, MAX_KEPT, MAX_KEPT_BYTES};

use crate::registry::RegistryError;

/// Most messages in one answer.
pub const MAX_ANSWER: u32 = 1000;
/// Most bytes of messages in one answer.
pub const MAX_ANSWER_BYTES: usize = 4 << 20;
/// How many messages of an instance are kept, and how many bytes of them.
pub const KEPT: (usize, usize) = (MAX_KEPT, MAX_KEPT_BYTES);

/// Why messages are refused.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    #[error("line {line} is no message")]
    Frame {
        line: usize,
        #[source]
        source: FrameError,
    },
    #[error("the message of line {0} has no number 'seq' from 1 on")]
    Number(usize),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl MessageError {
    /// The error as clients see it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Frame { .. } | Self::Number(_) => {
                Fault::from_error(Symbol::InvalidArgument, self)
            }
            Self::Registry(error) => error.fault(),
        }
    }
}

/// Numbered frames, a line each.
///
/// # Errors
/// The first line that is none.
pub fn numbered(text: &str) -> Result<Vec<(u64, Frame)>, MessageError> {
    let lines = text.lines().enumerate();
    let lines = lines.map(|(index, text)| (index + 1, text));
    let frame = |(line, text)| {
        let frame = Frame::parse(text).map_err(|source| MessageError::Frame { line, source })?;
        let seq = frame.seq().filter(|seq| *seq > 0);
        Ok((seq.ok_or(MessageError::Number(line))?, frame))
    };
    lines.map(frame).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_numbered_frame() {
        let good = r#"{"v":1,"type":"t","seq":3,"session":{"channel":"a","id":"b"}}"#;
        let read = numbered(&format!("{good}\n{good}\n")).unwrap();
        assert_eq!(read.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [3, 3]);
        let odd = numbered(&format!("{good}\n{{}}")).unwrap_err();
        assert!(matches!(odd, MessageError::Frame { line: 2, .. }), "{odd}");
        let zero = numbered(&good.replace(":3,", ":0,")).unwrap_err();
        assert!(matches!(zero, MessageError::Number(1)), "{zero}");
    }
}
