//! What a user chose to leave out or to call otherwise. Pure.

use std::collections::BTreeMap;

use super::row::Row;
use super::{OldInstance, Problem};

/// What the user chose, by handle or id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choice {
    /// Instances to leave out.
    pub(crate) skip: Vec<String>,
    /// New names.
    pub(crate) renames: BTreeMap<String, String>,
}

impl Choice {
    /// The rows that are not left out, and names that no row has.
    pub(crate) fn among(&self, rows: &[Row]) -> (Vec<Row>, Vec<Problem>) {
        let means = |row: &Row, name: &str| row.id == name || row.handle == name;
        let known = |name: &&String| rows.iter().any(|row| means(row, name));
        let mut unknown = self
            .skip
            .iter()
            .chain(self.renames.keys())
            .collect::<Vec<_>>();
        unknown.retain(|name| !known(name));
        let problems = unknown.into_iter().cloned().map(Problem::NoSuchInstance);
        let is_left = |row: &&Row| !self.skip.iter().any(|name| means(row, name));
        (
            rows.iter().filter(is_left).cloned().collect(),
            problems.collect(),
        )
    }

    /// What an instance is to be called.
    pub(super) fn name<'a>(&'a self, old: &'a OldInstance) -> &'a str {
        let renames = [&old.id, &old.handle].map(|name| self.renames.get(name));
        let name = renames.into_iter().flatten().next();
        name.map_or(old.name(), String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, handle: &str) -> Row {
        Row {
            id: id.into(),
            handle: handle.into(),
            ..Row::default()
        }
    }

    #[test]
    fn instances_are_left_out_and_renamed_by_either_name() {
        let choice = Choice {
            skip: vec!["web".into(), "inst-2".into(), "x".into()],
            renames: [("inst-3".to_owned(), "c".to_owned())].into(),
        };
        let rows = [
            row("inst-1", "web"),
            row("inst-2", ""),
            row("inst-3", "old"),
        ];
        let (left, problems) = choice.among(&rows);
        let ids: Vec<_> = left.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(ids, ["inst-3"]);
        let problems: Vec<_> = problems.iter().map(Problem::words).collect();
        assert_eq!(problems, ["there is no instance 'x' to rename or skip"]);
        let old = |id: &str, handle: &str| OldInstance {
            id: id.into(),
            handle: handle.into(),
            ..OldInstance::default()
        };
        assert_eq!(choice.name(&old("inst-3", "old")), "c");
        assert_eq!(choice.name(&old("inst-4", "d")), "d");
        assert_eq!(choice.name(&old("inst-5", "")), "inst-5");
    }
}
