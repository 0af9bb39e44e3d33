//! Several logs as one, by time. Each is in order already, or as its writer had it.

use std::collections::VecDeque;

use super::entry::Entry;
use crate::failure::Failure;

/// The inputs as one. Of equal times the earlier input comes first; the order
/// within an input stays, whatever its clock did.
pub(super) fn by_time<'a>(
    inputs: Vec<Box<dyn Iterator<Item = Result<Entry, Failure>> + 'a>>,
) -> impl Iterator<Item = Result<Entry, Failure>> + 'a {
    let mut inputs: Vec<_> = inputs.into_iter().map(Iterator::peekable).collect();
    std::iter::from_fn(move || {
        let times = inputs.iter_mut().enumerate().filter_map(|(index, input)| {
            // A failure is told at once.
            let time = input.peek()?.as_ref().map_or(0, |entry| entry.time_us);
            Some((time, index))
        });
        let (_, index) = times.min()?;
        inputs[index].next()
    })
}

/// The last entries, a long line in several parts counting as one.
///
/// # Errors
/// The first failure of an input.
pub(super) fn last(
    entries: impl Iterator<Item = Result<Entry, Failure>>,
    count: usize,
) -> Result<VecDeque<Entry>, Failure> {
    let mut kept: VecDeque<Entry> = VecDeque::new();
    let mut lines = 0;
    for entry in entries {
        let entry = entry?;
        lines += usize::from(!entry.partial);
        kept.push_back(entry);
        while lines > count {
            lines -= kept
                .pop_front()
                .map_or(lines, |gone| usize::from(!gone.partial));
        }
        if count == 0 {
            kept.clear();
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::super::entry::Writer;
    use super::*;

    fn entries(times: &[u64]) -> Vec<Entry> {
        let entry = |time: &u64| Entry::of_journal("web", Writer::Vm, *time, time.to_string());
        times.iter().map(entry).collect()
    }

    fn times(entries: impl Iterator<Item = Entry>) -> Vec<u64> {
        entries.map(|entry| entry.time_us).collect()
    }

    fn boxed(times: &[u64]) -> Box<dyn Iterator<Item = Result<Entry, Failure>>> {
        Box::new(entries(times).into_iter().map(Ok))
    }

    #[test]
    fn inputs_are_merged_and_keep_their_own_order() {
        let merged = by_time(vec![boxed(&[1, 5, 4, 9]), boxed(&[2, 6]), boxed(&[])]);
        assert_eq!(times(merged.map(Result::unwrap)), [1, 2, 5, 4, 6, 9]);
    }

    #[test]
    fn the_last_lines_are_whole() {
        let last = |times: &[u64], count| last(boxed(times), count).unwrap();
        assert_eq!(times(last(&[1, 2, 3], 2).into_iter()), [2, 3]);
        assert!(last(&[1, 2], 0).is_empty());
        assert_eq!(last(&[1], 5).len(), 1);
        let mut parts = entries(&[1, 2, 3, 4]);
        parts[1].partial = true;
        parts[2].partial = true;
        let kept = super::last(parts.into_iter().map(Ok), 1).unwrap();
        assert_eq!(times(kept.into_iter()), [2, 3, 4]);
    }
}
