//! The `changes` of `Update`.

use std::collections::BTreeMap;

use crate::dict::{Dict, DictError, DictReader, put, put_some};

/// What to change of an instance; what is absent stays as it is.
///
/// The limits of the host's resources apply at once, labels are only noted; the
/// rest applies when the VM starts next, and until then is in `Pending`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateRequest {
    /// Guest memory in MiB.
    pub memory_mib: Option<u32>,
    pub cpus: Option<u32>,
    /// In MiB; 0 takes a limit back that was set.
    pub memory_max_mib: Option<u32>,
    /// Per cent of one CPU; 0 takes a limit back that was set.
    pub cpu_quota: Option<u32>,
    /// 0 takes a limit back that was set.
    pub tasks_max: Option<u32>,
    /// Set beside those that are there.
    pub labels: BTreeMap<String, String>,
    pub remove_labels: Vec<String>,
    /// Set beside those that are there.
    pub env: BTreeMap<String, String>,
    pub remove_env: Vec<String>,
}

impl UpdateRequest {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The changes as they travel.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put_some(&mut dict, "memory", self.memory_mib);
        put_some(&mut dict, "cpus", self.cpus);
        put_some(&mut dict, "memory-max", self.memory_max_mib);
        put_some(&mut dict, "cpu-quota", self.cpu_quota);
        put_some(&mut dict, "tasks-max", self.tasks_max);
        for (key, map) in [("labels", &self.labels), ("env", &self.env)] {
            if !map.is_empty() {
                put(&mut dict, key, map.clone());
            }
        }
        for (key, names) in [
            ("remove-labels", &self.remove_labels),
            ("remove-env", &self.remove_env),
        ] {
            if !names.is_empty() {
                put(&mut dict, key, names.clone());
            }
        }
        dict
    }

    /// Reads the changes.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("change", dict);
        let request = Self {
            memory_mib: reader.take("memory")?,
            cpus: reader.take("cpus")?,
            memory_max_mib: reader.take("memory-max")?,
            cpu_quota: reader.take("cpu-quota")?,
            tasks_max: reader.take("tasks-max")?,
            labels: reader.take("labels")?.unwrap_or_default(),
            remove_labels: reader.take("remove-labels")?.unwrap_or_default(),
            env: reader.take("env")?.unwrap_or_default(),
            remove_env: reader.take("remove-env")?.unwrap_or_default(),
        };
        reader.finish()?;
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_travel_whole() {
        let request = UpdateRequest {
            memory_mib: Some(512),
            cpus: Some(2),
            memory_max_mib: Some(1024),
            cpu_quota: Some(150),
            tasks_max: Some(0),
            labels: [("a".into(), "b".into())].into(),
            remove_labels: vec!["c".into()],
            env: [("A".into(), "b".into())].into(),
            remove_env: vec!["C".into()],
        };
        assert_eq!(
            UpdateRequest::from_dict(request.to_dict()).unwrap(),
            request
        );
        assert!(UpdateRequest::default().to_dict().is_empty());
        assert!(UpdateRequest::default().is_empty());
    }
}
