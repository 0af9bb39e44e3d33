//! The last output of a terminal, for clients that come later.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Bytes that are kept: some hundred lines, or a few full repaints of a large screen.
const LIMIT: usize = 64 * 1024;

const ESCAPE: u8 = 0x1b;
const BELL: u8 = 0x07;

/// A ring of output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Scrollback {
    bytes: VecDeque<u8>,
    /// Something was lost at the front.
    cut: bool,
}

impl Scrollback {
    pub(super) fn push(&mut self, output: &[u8]) {
        let output = &output[output.len().saturating_sub(LIMIT)..];
        let excess = (self.bytes.len() + output.len()).saturating_sub(LIMIT);
        self.cut |= excess > 0;
        self.bytes.drain(..excess);
        self.bytes.extend(output);
    }

    /// What brings a terminal to the state that the output left: whole lines,
    /// without the questions in it, whose answers would be typed into the guest.
    pub(super) fn replay(&self) -> Vec<u8> {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let start = match self.cut {
            // What is before may be the end of a character or of a sequence.
            true => bytes
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1),
            false => 0,
        };
        without_questions(&bytes[start..])
    }
}

/// Leaves out the sequences that a terminal answers (ECMA-48 and xterm's "Control
/// Sequences"): device attributes, status and position reports, control strings.
fn without_questions(bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == ESCAPE) {
        kept.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let (length, is_question) = sequence(rest);
        if !is_question {
            kept.extend_from_slice(&rest[..length]);
        }
        rest = &rest[length..];
    }
    kept.extend_from_slice(rest);
    kept
}

/// The length of the sequence that `bytes` begins with, and whether a terminal
/// answers it. One that is not over yet counts as a question: alone it means nothing.
fn sequence(bytes: &[u8]) -> (usize, bool) {
    match bytes.get(1) {
        None => (bytes.len(), true),
        Some(b'[') => {
            let end = bytes[2..]
                .iter()
                .position(|byte| (0x40..=0x7e).contains(byte));
            match end {
                Some(end) => {
                    let last = bytes[2 + end];
                    // DA, DSR, DECREQTPARM, window reports, keyboard mode queries.
                    let asks = matches!(last, b'c' | b'n' | b'x')
                        || (last == b't' && !bytes[2..2 + end].contains(&b' '))
                        || (last == b'u' && bytes[2..].starts_with(b"?"))
                        || (last == b'p' && bytes[2..2 + end].contains(&b'$'));
                    (2 + end + 1, asks)
                }
                None => (bytes.len(), true),
            }
        }
        // Operating system commands ask with a '?'; device control strings are
        // nothing else than questions and settings of their answers.
        Some(kind @ (b']' | b'P')) => match control_string(&bytes[2..]) {
            Some((length, content)) => {
                let asks = *kind == b'P' || content.contains(&b'?');
                (2 + length, asks)
            }
            None => (bytes.len(), true),
        },
        Some(b'Z') => (2, true),
        Some(_) => (2, false),
    }
}

/// The length of a control string with its end, and its content.
fn control_string(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = bytes
        .iter()
        .enumerate()
        .find(|(at, byte)| {
            **byte == BELL || (**byte == ESCAPE && bytes.get(at + 1) == Some(&b'\\'))
        })
        .map(|(at, _)| at)?;
    let terminator = if bytes[end] == BELL { 1 } else { 2 };
    Some((end + terminator, &bytes[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept_whole() {
        let mut scrollback = Scrollback::default();
        scrollback.push(b"first\r\n");
        assert_eq!(scrollback.replay(), b"first\r\n");
        for number in 0..20_000 {
            scrollback.push(format!("line {number}\r\n").as_bytes());
        }
        let replay = String::from_utf8(scrollback.replay()).unwrap();
        assert!(replay.len() <= LIMIT);
        assert!(replay.starts_with("line "), "{}", &replay[..20]);
        assert!(replay.ends_with("line 19999\r\n"));
        scrollback.push(&vec![b'x'; 3 * LIMIT]);
        assert_eq!(scrollback.bytes.len(), LIMIT);
    }

    #[test]
    fn a_replay_asks_the_terminal_nothing() {
        for (output, replay) in [
            (&b"a\x1b[6nb"[..], &b"ab"[..]),
            (b"a\x1b[cb\x1b[>0cb", b"abb"),
            (b"\x1b[1;31mred\x1b[0m", b"\x1b[1;31mred\x1b[0m"),
            (b"\x1b]0;title\x07x", b"\x1b]0;title\x07x"),
            (b"\x1b]11;?\x1b\\x", b"x"),
            (b"\x1bP+q544e\x1b\\x", b"x"),
            (b"\x1b[18tx", b"x"),
            (b"\x1b7\x1b8x\x1bZ", b"\x1b7\x1b8x"),
            (b"cut \x1b[1;3", b"cut "),
            (b"cut \x1b", b"cut "),
            (b"\x1b]0;never ends", b""),
        ] {
            assert_eq!(
                without_questions(output),
                replay,
                "{}",
                output.escape_ascii()
            );
        }
    }
}
