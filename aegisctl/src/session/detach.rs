//! The keys that detach a client from a terminal.

use std::str::FromStr;

/// Those of podman and docker.
pub(crate) const USUAL: &str = "ctrl-p,ctrl-q";

/// A sequence of keys; an empty one never detaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

/// Why a text is no sequence of keys.
#[derive(Debug, thiserror::Error)]
#[error("not keys: single characters or ctrl-KEY, separated by commas, e.g. {USUAL}; '' for none")]
pub(crate) struct DetachKeysError;

impl FromStr for DetachKeys {
    type Err = DetachKeysError;

    fn from_str(text: &str) -> Result<Self, DetachKeysError> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        text.split(',')
            .map(key)
            .collect::<Option<_>>()
            .map(Self)
            .ok_or(DetachKeysError)
    }
}

/// The byte that a terminal sends for a key.
fn key(name: &str) -> Option<u8> {
    let single = |text: &str| match text.as_bytes() {
        [byte] if byte.is_ascii_graphic() => Some(*byte),
        _ => None,
    };
    match name.strip_prefix("ctrl-") {
        // ASCII: the control characters are those of columns 4 and 5, less 0x40.
        Some(name) => single(name)
            .map(|byte| byte.to_ascii_uppercase())
            .filter(|byte| (b'@'..=b'_').contains(byte))
            .map(|byte| byte - b'@'),
        None => single(name),
    }
}

/// Looks for the keys in what is typed. The beginning of the sequence is held back
/// until it is clear that it is none.
#[derive(Debug)]
pub(super) struct Watcher {
    keys: Vec<u8>,
    seen: usize,
}

/// What became of some input.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Typed {
    /// For the command.
    pub(super) bytes: Vec<u8>,
    pub(super) detach: bool,
}

impl Watcher {
    pub(super) fn new(keys: &DetachKeys) -> Self {
        Self {
            keys: keys.0.clone(),
            seen: 0,
        }
    }

    pub(super) fn filter(&mut self, input: &[u8]) -> Typed {
        let mut bytes = Vec::with_capacity(input.len());
        for &byte in input {
            if self.keys.get(self.seen) == Some(&byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return Typed {
                        bytes,
                        detach: true,
                    };
                }
                continue;
            }
            bytes.extend_from_slice(&self.keys[..self.seen]);
            self.seen = usize::from(self.keys.len() > 1 && self.keys.first() == Some(&byte));
            if self.seen == 0 {
                bytes.push(byte);
            }
        }
        Typed {
            bytes,
            detach: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: u8 = 0x10;
    const Q: u8 = 0x11;

    fn watcher(keys: &str) -> Watcher {
        Watcher::new(&keys.parse().unwrap())
    }

    #[test]
    fn keys_are_read_as_podman_writes_them() {
        assert_eq!(USUAL.parse::<DetachKeys>().unwrap(), DetachKeys(vec![P, Q]));
        assert_eq!(
            "ctrl-],x".parse::<DetachKeys>().unwrap(),
            DetachKeys(vec![0x1d, b'x'])
        );
        assert_eq!("".parse::<DetachKeys>().unwrap(), DetachKeys(Vec::new()));
        for text in ["ctrl-", "ctrl-p,", "ctrl-pq", "ctrl-1", "é"] {
            assert!(text.parse::<DetachKeys>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_sequence_detaches_wherever_chunks_end() {
        let mut keys = watcher(USUAL);
        let typed = keys.filter(b"ls\n\x10");
        assert_eq!(
            (typed.bytes.as_slice(), typed.detach),
            (&b"ls\n"[..], false)
        );
        let typed = keys.filter(b"\x11rest");
        assert_eq!((typed.bytes.as_slice(), typed.detach), (&b""[..], true));
    }

    #[test]
    fn half_a_sequence_is_typed() {
        let mut keys = watcher(USUAL);
        assert_eq!(keys.filter(&[P, b'x']).bytes, [P, b'x']);
        assert_eq!(keys.filter(&[P, P]).bytes, [P]);
        assert!(keys.filter(&[Q]).detach);
        let mut none = watcher("");
        assert_eq!(none.filter(&[P, Q]).bytes, [P, Q]);
    }
}
