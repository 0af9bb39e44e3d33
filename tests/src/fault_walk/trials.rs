//! From recorded points to accidents.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use aegis_fault_points::When;
use anyhow::{Context, Result};

/// Reads what a program recorded: `NAME before|after` a line.
pub(super) fn read_record(text: &[u8]) -> Result<Vec<(String, When)>> {
    let text = String::from_utf8_lossy(text);
    text.lines()
        .map(|line| {
            let (name, when) = line.split_once(' ').context("a name and a side")?;
            Ok((name.to_owned(), when.parse()?))
        })
        .collect()
}

/// Each passage with its number among those of the same point.
pub(super) fn nth_passages(points: &[(String, When)]) -> Vec<(String, When, u32)> {
    let mut passed: BTreeMap<(&str, When), u32> = BTreeMap::new();
    points
        .iter()
        .map(|(name, when)| {
            let nth = passed.entry((name, *when)).or_default();
            *nth += 1;
            (name.clone(), *when, *nth)
        })
        .collect()
}

/// Puts trials into an order of this run's own.
pub(super) fn shuffle<T>(trials: &mut [T], name: impl Fn(&T) -> String) {
    // The standard library's hash keys are random.
    let keys = RandomState::new();
    trials.sort_by_cached_key(|trial| keys.hash_one(name(trial)));
}
