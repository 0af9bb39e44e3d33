//! The `options` of `Prune` and `FindPrunable`.

use crate::dict::{Dict, DictError, DictReader, put, put_some};
use crate::instance::filter::Condition;

/// Which instances that nothing runs of are meant.
///
/// Those that are disabled or have failed. An instance that sleeps, enabled and
/// woken by its next use, is not left over: it is meant only with `asleep`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Only those that have been so for as many seconds.
    pub older_than_secs: Option<u64>,
    pub filters: Vec<Condition>,
    /// Those that sleep too.
    pub asleep: bool,
}

impl PruneOptions {
    /// The options as they travel.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put_some(&mut dict, "older-than", self.older_than_secs);
        if !self.filters.is_empty() {
            let filters: Vec<_> = self.filters.iter().map(ToString::to_string).collect();
            put(&mut dict, "filters", filters);
        }
        if self.asleep {
            put(&mut dict, "asleep", true);
        }
        dict
    }

    /// Reads the options.
    ///
    /// # Errors
    /// The first entry that is unknown, of the wrong type or not parsable.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            older_than_secs: reader.take("older-than")?,
            filters: reader.parse_all("filters")?,
            asleep: reader.take("asleep")?.unwrap_or_default(),
        };
        reader.finish()?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_travel_whole() {
        let options = PruneOptions {
            older_than_secs: Some(60),
            filters: vec!["label=a=b".parse().unwrap()],
            asleep: true,
        };
        assert_eq!(PruneOptions::from_dict(options.to_dict()).unwrap(), options);
        assert!(PruneOptions::default().to_dict().is_empty());
    }
}
