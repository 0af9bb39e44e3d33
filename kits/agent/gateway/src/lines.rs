//! Lines out of a stream of bytes (NDJSON), each of a bounded length.

/// Collects bytes until there is a line. One that is longer than `most` bytes is dropped
/// whole, and counted.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    most: usize,
    skipping: bool,
    dropped: u64,
}

impl Lines {
    pub fn new(most: usize) -> Self {
        Self {
            buffer: Vec::new(),
            most,
            skipping: false,
            dropped: 0,
        }
    }

    /// Takes bytes, and gives the lines that they end, without their ends; empty ones are
    /// left out.
    pub fn take(&mut self, mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.add(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.buffer);
            if !std::mem::take(&mut self.skipping) && !line.is_empty() {
                lines.push(line);
            }
        }
        self.add(bytes);
        lines
    }

    /// How many lines were too long.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn add(&mut self, bytes: &[u8]) {
        if self.skipping {
            return;
        }
        if self.buffer.len() + bytes.len() > self.most {
            self.buffer = Vec::new();
            self.skipping = true;
            self.dropped += 1;
            return;
        }
        self.buffer.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_their_bytes_arrive() {
        let text = b"one\n\ntwo\nthree";
        for size in 1..text.len() {
            let mut lines = Lines::new(100);
            let got: Vec<_> = text.chunks(size).flat_map(|c| lines.take(c)).collect();
            assert_eq!(got, [b"one".to_vec(), b"two".to_vec()], "{size}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_costs_itself_alone() {
        let mut lines = Lines::new(4);
        let got = lines.take(b"good\nfar too long\nnext\n");
        assert_eq!(got, [b"good".to_vec(), b"next".to_vec()]);
        assert_eq!(lines.dropped(), 1);
    }
}
