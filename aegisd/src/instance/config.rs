//! The config files of an instance's daemons: which of them are other than the
//! daemons have read.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use aegis_core::handle::Handle;

use super::work::Work;
use super::{blocking, files, since_1970};
use crate::supervisor::UnitId;
use crate::supervisor::state::UnitState;

/// A valid config file of a daemon.
#[derive(Clone, Copy, Debug)]
pub(super) struct Config {
    /// Tells contents apart.
    content: u64,
    /// In microseconds since 1970.
    written: u64,
}

/// The contents that the daemons have read, by daemon.
#[derive(Debug, Default)]
pub(super) struct Applied {
    contents: BTreeMap<String, u64>,
}

impl Applied {
    /// The daemons that have not read what was found. It counts as read from now on.
    pub(super) fn compare(
        &mut self,
        found: BTreeMap<String, Config>,
        handle: &Handle,
        units: &[UnitState],
    ) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        for (daemon, config) in found {
            let unit = UnitId::daemon(handle, &daemon);
            let state = units.iter().find(|state| state.unit == unit);
            let is_other = match self.contents.insert(daemon.clone(), config.content) {
                Some(applied) => applied != config.content,
                // A new file, or one this aegisd never saw: the daemon has read it if
                // it started later.
                None => state.is_some_and(|state| config.written > state.since),
            };
            if is_other {
                changed.insert(daemon);
            }
        }
        changed
    }
}

/// Reads the valid config files of the daemons.
pub(super) async fn read(work: &Work) -> BTreeMap<String, Config> {
    let record = work.record.borrow().clone();
    let kit = record.spec.kit.as_ref();
    let kit = kit.and_then(|kit| work.shared.catalog.find(&kit.name).ok());
    let folder = work.shared.host.layout.daemon_config(&record.handle);
    let read = move || {
        let (manifest, _) = kit.as_ref()?.usable().ok()?;
        let daemons = manifest.instance_daemons.iter();
        let configs = daemons.filter_map(|daemon| {
            let path = Path::new(&daemon.config.as_ref()?.path);
            Some((daemon.daemon_name().to_owned(), read_one(&folder, path)?))
        });
        Some(configs.collect())
    };
    blocking(read).await.unwrap_or_default()
}

/// `None` if it is missing or not what its name says.
fn read_one(folder: &Path, path: &Path) -> Option<Config> {
    let (bytes, written) = files::read_inside(folder, path)?;
    let is_json = path
        .extension()
        .is_some_and(|extension| extension == "json");
    if is_json && serde_json::from_slice::<serde_json::Value>(&bytes).is_err() {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Some(Config {
        content: hasher.finish(),
        written: since_1970(written),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::state::Active;
    use crate::testing::unit_state;

    fn found(content: u64, written: u64) -> BTreeMap<String, Config> {
        [("gateway".to_owned(), Config { content, written })].into()
    }

    fn started_at(since: u64) -> [UnitState; 1] {
        let unit = UnitId::daemon(&"web".parse().unwrap(), "gateway");
        let mut state = unit_state(unit, Active::Active);
        state.since = since;
        [state]
    }

    #[test]
    fn a_change_is_told_once() {
        let handle = "web".parse().unwrap();
        let mut applied = Applied::default();
        assert!(
            applied
                .compare(found(1, 10), &handle, &started_at(20))
                .is_empty()
        );
        assert!(
            applied
                .compare(found(1, 99), &handle, &started_at(20))
                .is_empty()
        );
        assert_eq!(
            applied
                .compare(found(2, 99), &handle, &started_at(20))
                .len(),
            1
        );
        assert!(
            applied
                .compare(found(2, 99), &handle, &started_at(20))
                .is_empty()
        );
    }

    #[test]
    fn a_file_from_before_the_daemon_has_been_read() {
        let handle = "web".parse().unwrap();
        let mut applied = Applied::default();
        assert!(
            applied
                .compare(found(1, 10), &handle, &started_at(20))
                .is_empty()
        );
        let mut applied = Applied::default();
        assert_eq!(
            applied
                .compare(found(1, 30), &handle, &started_at(20))
                .len(),
            1
        );
    }
}
