//! The config files of an instance's daemons: what they hold, what the daemons have
//! read of it, and what to do about the difference.
//!
//! ```text
//!  file ──read──► Found ──┐
//!                         ├──► decide ──► restart | signal | nothing, and note what is applied
//!  unit (since when) ─────┘
//! ```
//!
//! What was applied is kept in a file of ours, so that a change made while aegisd
//! is not there is found by the next one, and a restart of aegisd changes nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use aegis_bus::instance::ConfigEntry;
use aegis_core::daemon::{DaemonConfig, Reload};
use aegis_core::handle::Handle;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::work::Work;
use super::{InstanceError, blocking, files, since_1970};
use crate::host::Host;
use crate::supervisor::UnitId;
use crate::supervisor::state::{Active, UnitState};

/// A config file as it lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Missing,
    /// It cannot be applied, in words.
    Odd(String),
    Valid {
        /// SHA-256 in hexadecimal.
        hash: String,
        /// In microseconds since 1970.
        changed: u64,
    },
}

/// A content that a daemon has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    hash: String,
    /// When, in microseconds since 1970.
    at: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Configs {
    found: BTreeMap<String, Found>,
    applied: BTreeMap<String, Given>,
    /// What of it is on the disk.
    kept: BTreeMap<String, Given>,
    /// Daemons that were without a file when it was last looked for.
    without: Vec<String>,
}

impl Configs {
    /// With what an earlier aegisd knew.
    pub(super) fn remembered(applied: Option<Vec<u8>>) -> Self {
        let applied = applied.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let applied: BTreeMap<String, Given> = applied.unwrap_or_default();
        Self {
            kept: applied.clone(),
            applied,
            ..Self::default()
        }
    }

    /// Takes note of the files as they are.
    pub(super) fn observe(&mut self, found: BTreeMap<String, Found>) {
        let missing = self.found.iter().filter(|(_, f)| **f == Found::Missing);
        self.without = missing.map(|(daemon, _)| daemon.clone()).collect();
        self.found = found;
    }

    /// What daemons are to do about their files, which count as applied from now on.
    pub(super) fn decide(
        &mut self,
        handle: &Handle,
        reload: &BTreeMap<String, Reload>,
        units: &[UnitState],
        now: u64,
    ) -> BTreeMap<String, Reload> {
        let mut wanted = BTreeMap::new();
        for (daemon, found) in &self.found {
            let Found::Valid { hash, changed } = found else {
                continue;
            };
            let unit = UnitId::daemon(handle, daemon);
            let Some(unit) = units.iter().find(|state| state.unit == unit) else {
                // It reads the file when it starts.
                continue;
            };
            if unit.active == Active::Activating && unit.started == 0 {
                continue;
            }
            let known = self.applied.get(daemon);
            let same = known.is_some_and(|given| given.hash == *hash);
            let ended = unit.has_exited() || unit.active == Active::Failed;
            let has_read = unit.started >= *changed;
            let appeared = self.without.contains(daemon) && ended && !has_read;
            if same && !appeared {
                continue;
            }
            if !has_read {
                // A signal reaches a running daemon alone.
                let runs = unit.active == Active::Active && !ended;
                let how = reload.get(daemon).copied().filter(|_| runs);
                wanted.insert(daemon.clone(), how.unwrap_or_default());
            }
            let given = Given {
                hash: hash.clone(),
                at: if has_read { unit.started } else { now },
            };
            self.applied.insert(daemon.clone(), given);
        }
        self.without.clear();
        wanted
    }

    /// Whether something is applied that is not on the disk.
    pub(super) fn is_unkept(&self) -> bool {
        self.applied != self.kept
    }

    /// A daemon's config as clients see it.
    pub(super) fn view(&self, daemon: &str, config: &DaemonConfig, folder: &Path) -> ConfigEntry {
        let given = self.applied.get(daemon);
        ConfigEntry {
            path: folder.join(&config.path).display().to_string(),
            hash: given.map(|given| given.hash.clone()).unwrap_or_default(),
            applied_us: given.map_or(0, |given| given.at),
            problem: match self.found.get(daemon) {
                Some(Found::Odd(words)) => words.clone(),
                Some(Found::Missing) => "the file is missing".to_owned(),
                _ => String::new(),
            },
        }
    }
}

/// How the config of each daemon that has one is applied.
pub(super) fn reloads(work: &Work) -> BTreeMap<String, Reload> {
    let record = work.record.borrow();
    let daemons = record.spec.daemons.iter();
    let with_config = daemons.filter_map(|daemon| {
        let config = daemon.config.as_ref()?;
        Some((daemon.name.clone(), config.reload))
    });
    with_config.collect()
}

/// Reads the config files of the daemons.
pub(super) async fn read(work: &Work) -> BTreeMap<String, Found> {
    let (shared, record) = (work.shared.clone(), work.record.borrow().clone());
    blocking(move || {
        let folder = shared.host.layout.daemon_config(&record.handle);
        let daemons = record.spec.daemons.iter();
        let with_config = daemons.filter_map(|daemon| {
            let path = &daemon.config.as_ref()?.path;
            Some((daemon.name.clone(), read_one(&shared.host, &folder, path)))
        });
        with_config.collect()
    })
    .await
}

/// What an earlier aegisd noted as applied.
pub(super) async fn remembered(work: &Work) -> Configs {
    let files = work.shared.host.layout.instance(&work.handle);
    let read = blocking(move || {
        let name = files.applied_config();
        files::read_inside(files.dir(), Path::new(name.file_name()?))
    });
    Configs::remembered(read.await.map(|(bytes, _)| bytes))
}

/// Keeps what is applied, once the daemons have it: whoever finds less after a crash
/// gives it to them once more.
///
/// # Errors
/// It cannot be written.
pub(super) async fn keep(work: &Work, configs: &mut Configs) -> Result<(), InstanceError> {
    let (shared, handle) = (work.shared.clone(), work.handle.clone());
    let applied = configs.applied.clone();
    configs.kept.clone_from(&applied);
    blocking(move || {
        let path = shared.host.layout.instance(&handle).applied_config();
        files::write_private(&path, &applied)
    })
    .await
}

fn read_one(host: &Host, folder: &Path, path: &Path) -> Found {
    let (bytes, changed) = match files::read_config(host, folder, path) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Missing,
        Err(error) => return Found::Odd(format!("it cannot be read: {error}")),
    };
    judge(path, &bytes, changed)
}

fn judge(path: &Path, bytes: &[u8], changed: SystemTime) -> Found {
    let is_json = path.extension().is_some_and(|end| end == "json");
    if is_json && let Err(error) = serde_json::from_slice::<serde_json::Value>(bytes) {
        return Found::Odd(format!("it is not valid JSON: {error}"));
    }
    Found::Valid {
        hash: Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        changed: since_1970(changed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::unit_state;

    fn valid(hash: &str, changed: u64) -> BTreeMap<String, Found> {
        let hash = hash.to_owned();
        [("gateway".to_owned(), Found::Valid { hash, changed })].into()
    }

    fn missing() -> BTreeMap<String, Found> {
        [("gateway".to_owned(), Found::Missing)].into()
    }

    fn unit(active: Active, started: u64) -> [UnitState; 1] {
        let unit = UnitId::daemon(&"web".parse().unwrap(), "gateway");
        let mut state = unit_state(unit, active);
        state.started = started;
        [state]
    }

    fn decide(configs: &mut Configs, how: Reload, units: &[UnitState]) -> Option<Reload> {
        let handle = "web".parse().unwrap();
        let how = [("gateway".to_owned(), how)].into();
        configs
            .decide(&handle, &how, units, 1_000)
            .remove("gateway")
    }

    #[test]
    fn a_change_is_applied_once_and_as_the_kit_says() {
        for how in [Reload::Restart, Reload::Signal, Reload::Itself] {
            let mut configs = Configs::default();
            configs.observe(valid("a", 10));
            assert_eq!(
                decide(&mut configs, how, &unit(Active::Active, 20)),
                None,
                "it has read the file at its start"
            );
            assert_eq!(configs.applied["gateway"].at, 20);
            configs.observe(valid("a", 99));
            assert_eq!(
                decide(&mut configs, how, &unit(Active::Active, 20)),
                None,
                "the content is the same"
            );
            configs.observe(valid("b", 99));
            let units = unit(Active::Active, 20);
            assert_eq!(decide(&mut configs, how, &units), Some(how));
            assert_eq!(configs.applied["gateway"].at, 1_000);
            configs.observe(valid("b", 99));
            assert_eq!(decide(&mut configs, how, &units), None);
        }
    }

    #[test]
    fn a_change_during_aegisds_absence_is_found() {
        let kept = serde_json::to_vec(&serde_json::json!({"gateway": {"hash": "a", "at": 20}}));
        let mut configs = Configs::remembered(kept.ok());
        configs.observe(valid("b", 99));
        let units = unit(Active::Active, 20);
        let wanted = decide(&mut configs, Reload::Restart, &units);
        assert_eq!(wanted, Some(Reload::Restart));
    }

    #[test]
    fn a_file_that_appears_starts_a_daemon_that_ended() {
        let mut configs = Configs::default();
        configs.observe(valid("a", 10));
        decide(&mut configs, Reload::Signal, &unit(Active::Active, 20));
        configs.observe(missing());
        let ended = unit(Active::Failed, 30);
        assert_eq!(decide(&mut configs, Reload::Signal, &ended), None);
        configs.observe(valid("a", 40));
        let wanted = decide(&mut configs, Reload::Signal, &ended);
        assert_eq!(wanted, Some(Reload::Restart), "the same content as before");
        configs.observe(missing());
        configs.observe(valid("a", 50));
        let runs = unit(Active::Active, 45);
        assert_eq!(decide(&mut configs, Reload::Signal, &runs), None);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_and_not_applied() {
        let now = SystemTime::now();
        let Found::Odd(words) = judge(Path::new("a.json"), b"{\n \"a\": }", now) else {
            panic!("it is not valid");
        };
        assert_eq!(
            words,
            "it is not valid JSON: expected value at line 2 column 7"
        );
        assert!(matches!(
            judge(Path::new("a.toml"), b"{", now),
            Found::Valid { .. }
        ));
        let mut configs = Configs::default();
        configs.observe([("gateway".to_owned(), Found::Odd(words.clone()))].into());
        let units = unit(Active::Active, 20);
        assert_eq!(decide(&mut configs, Reload::Restart, &units), None);
        let config = DaemonConfig {
            path: "a.json".into(),
            reload: Reload::Restart,
            default: None,
        };
        let view = configs.view("gateway", &config, Path::new("/kits/web"));
        assert_eq!(
            (view.path.as_str(), view.problem),
            ("/kits/web/a.json", words)
        );
    }
}
