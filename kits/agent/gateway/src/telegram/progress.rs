//! Which stored frames are done with. Pure.
//!
//! ```text
//!  seq   1 2 3 4 5 6 7 8
//!        ✓ ✓ ✓ · ✓ · ✓        cursor 3: all up to there are done
//!                             open 4, 6; done out of order 5, 7
//! ```

use std::collections::BTreeSet;

/// The frames of one channel of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    cursor: u64,
    seen: u64,
    open: BTreeSet<u64>,
    done: BTreeSet<u64>,
}

impl Progress {
    /// All up to `cursor` are done, and `done` beyond it.
    pub fn new(cursor: u64, done: impl IntoIterator<Item = u64>) -> Self {
        let done: BTreeSet<_> = done.into_iter().filter(|seq| *seq > cursor).collect();
        Self {
            cursor,
            seen: cursor,
            open: BTreeSet::new(),
            done,
        }
    }

    /// A frame has come. `false` if it is done or being done already.
    pub fn arrived(&mut self, seq: u64) -> bool {
        if seq <= self.cursor || self.done.contains(&seq) {
            self.seen = self.seen.max(seq);
            self.advance();
            return false;
        }
        self.seen = self.seen.max(seq);
        self.open.insert(seq)
    }

    /// A frame is done with.
    pub fn finish(&mut self, seq: u64) {
        self.open.remove(&seq);
        if seq > self.cursor {
            self.done.insert(seq);
        }
        self.advance();
    }

    /// All frames up to this one are done.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Frames beyond the cursor that are done.
    pub fn done(&self) -> impl Iterator<Item = u64> + '_ {
        self.done.iter().copied()
    }

    fn advance(&mut self) {
        self.cursor = match self.open.first() {
            Some(first) => first - 1,
            None => self.seen,
        };
        self.done = self.done.split_off(&(self.cursor + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_stops_before_the_first_frame_that_is_not_done() {
        let mut progress = Progress::new(10, []);
        assert!(progress.arrived(11) && progress.arrived(13) && progress.arrived(20));
        assert_eq!(progress.cursor(), 10);
        progress.finish(13);
        assert_eq!(
            (progress.cursor(), progress.done().collect::<Vec<_>>()),
            (10, vec![13])
        );
        progress.finish(11);
        assert_eq!((progress.cursor(), progress.done().count()), (19, 0));
        progress.finish(20);
        assert_eq!(progress.cursor(), 20);
    }

    #[test]
    fn frames_that_come_again_are_taken_once() {
        let mut progress = Progress::new(10, [12, 5]);
        assert!(!progress.arrived(9));
        assert!(progress.arrived(11));
        assert!(!progress.arrived(11));
        assert!(!progress.arrived(12));
        progress.finish(11);
        assert_eq!(progress.cursor(), 12);
    }

    #[test]
    fn a_record_of_frames_done_beyond_is_kept_until_the_stream_has_passed_them() {
        let mut progress = Progress::new(3, [5, 7]);
        assert!(progress.arrived(4));
        progress.finish(4);
        assert_eq!(
            (progress.cursor(), progress.done().collect::<Vec<_>>()),
            (4, vec![5, 7])
        );
        assert!(!progress.arrived(5) && progress.arrived(6) && !progress.arrived(7));
        assert_eq!(progress.cursor(), 5);
        progress.finish(6);
        assert_eq!(progress.cursor(), 7);
    }
}
