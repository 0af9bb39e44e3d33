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
//!
//! In system mode a file may also lie in the home of the user who made the instance.
//! Daemons run as another user and see no home, so its content is brought to where
//! they read: once for each change, since what they write there themselves is theirs.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aegis_bus::instance::ConfigEntry;
use aegis_core::daemon::{DaemonConfig, Reload};
use aegis_core::fault::chain;
use aegis_core::handle::Handle;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::work::Work;
use super::{InstanceError, blocking, files, since_1970};
use crate::homes::Home;
use crate::host::Host;
use crate::kits::watcher::HomeConfig;
use crate::registry::Record;
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

/// What was found where a config file may lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    found: Found,
    /// The file that counts.
    path: PathBuf,
    /// SHA-256 of the one in the creator's home, if it counts and is valid.
    brought: Option<String>,
}

/// A content that a daemon has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    hash: String,
    /// When, in microseconds since 1970.
    at: u64,
}

/// What is kept for the next aegisd, by daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Known {
    applied: BTreeMap<String, Given>,
    /// SHA-256 of what was last brought from the creator's home.
    brought: BTreeMap<String, String>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Configs {
    looks: BTreeMap<String, Look>,
    known: Known,
    /// What of it is on the disk.
    kept: Known,
    /// Daemons that were without a file when it was last looked for.
    without: Vec<String>,
}

impl Configs {
    /// With what an earlier aegisd knew.
    pub(super) fn remembered(known: Option<Vec<u8>>) -> Self {
        let known = known.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let known: Known = known.unwrap_or_default();
        Self {
            kept: known.clone(),
            known,
            ..Self::default()
        }
    }

    /// Takes note of the files as they are.
    pub(super) fn observe(&mut self, looks: BTreeMap<String, Look>) {
        let before = self.looks.iter();
        let missing = before.filter(|(_, look)| look.found == Found::Missing);
        self.without = missing.map(|(daemon, _)| daemon.clone()).collect();
        let brought = looks.iter();
        let brought = brought.filter_map(|(daemon, look)| Some((daemon, look.brought.as_ref()?)));
        self.known.brought = brought
            .map(|(daemon, hash)| (daemon.clone(), hash.clone()))
            .collect();
        self.looks = looks;
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
        for (daemon, look) in &self.looks {
            let Found::Valid { hash, changed } = &look.found else {
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
            let known = self.known.applied.get(daemon);
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
            self.known.applied.insert(daemon.clone(), given);
        }
        self.without.clear();
        wanted
    }

    /// Whether something is applied that is not on the disk.
    pub(super) fn is_unkept(&self) -> bool {
        self.known != self.kept
    }

    /// A daemon's config as clients see it.
    pub(super) fn view(&self, daemon: &str, config: &DaemonConfig, folder: &Path) -> ConfigEntry {
        let given = self.known.applied.get(daemon);
        let look = self.looks.get(daemon);
        let path = look.map_or_else(|| folder.join(&config.path), |look| look.path.clone());
        ConfigEntry {
            path: path.display().to_string(),
            hash: given.map(|given| given.hash.clone()).unwrap_or_default(),
            applied_us: given.map_or(0, |given| given.at),
            problem: match look.map(|look| &look.found) {
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

/// Looks at the config files of the daemons, and brings what the creator's home has
/// anew to where they read.
pub(super) async fn look(work: &Work, configs: &Configs) -> BTreeMap<String, Look> {
    let (shared, record) = (work.shared.clone(), work.record.borrow().clone());
    let brought = configs.known.brought.clone();
    blocking(move || look_at(&shared.host, &record, &brought)).await
}

/// The same for a record. `brought` is what was brought before, by daemon.
pub(super) fn look_at(
    host: &Host,
    record: &Record,
    brought: &BTreeMap<String, String>,
) -> BTreeMap<String, Look> {
    let folder = host.layout.daemon_config(&record.handle);
    let home = record.creator.and_then(Home::of);
    let looks = with_config(record).map(|(daemon, path)| {
        let known = brought.get(daemon).map(String::as_str);
        let at_home = home.as_ref();
        let at_home = at_home.and_then(|home| look_home(host, home, record, path, known));
        let look = at_home.unwrap_or_else(|| Look {
            found: read_one(host, &folder, path),
            path: folder.join(path),
            brought: None,
        });
        (daemon.to_owned(), look)
    });
    looks.collect()
}

/// The daemons that have a config file, and where it lies in their folder.
fn with_config(record: &Record) -> impl Iterator<Item = (&str, &Path)> {
    let daemons = record.spec.daemons.iter();
    daemons
        .filter_map(|daemon| Some((daemon.name.as_str(), daemon.config.as_ref()?.path.as_path())))
}

/// The config file in the creator's home, brought if it is another than the one
/// known; `None` if there is none.
fn look_home(
    host: &Host,
    home: &Home,
    record: &Record,
    path: &Path,
    known: Option<&str>,
) -> Option<Look> {
    let below = below_home(&record.handle).join(path);
    let odd = |words| Look {
        found: Found::Odd(words),
        path: home.join(&below),
        brought: None,
    };
    let bytes = match home.read(&below) {
        Ok(bytes) => bytes?,
        Err(error) => return Some(odd(chain(&error))),
    };
    if let Some(words) = mistake(path, &bytes) {
        return Some(odd(words));
    }
    let hash = hash(&bytes);
    let folder = host.layout.daemon_config(&record.handle);
    if known != Some(&hash)
        && let Err(error) = files::bring_config(host, &folder, path, &bytes)
    {
        return Some(odd(chain(&error)));
    }
    Some(Look {
        found: read_one(host, &folder, path),
        path: home.join(&below),
        brought: Some(hash),
    })
}

/// The folder of an instance's config below the home of the user who made it.
fn below_home(handle: &Handle) -> PathBuf {
    Path::new(".aegis/kits").join(handle.as_str())
}

/// The config files that an instance's creator may keep at home; `None` where nobody
/// may.
pub(super) fn in_home(record: &Record) -> Option<HomeConfig> {
    let folder = below_home(&record.handle);
    let files: Vec<PathBuf> = with_config(record)
        .map(|(_, path)| folder.join(path))
        .collect();
    let uid = record.creator.filter(|_| !files.is_empty())?;
    Some(HomeConfig { uid, folder, files })
}

/// Those of them that are there.
pub(crate) fn found_in_home(record: &Record) -> Vec<PathBuf> {
    let Some(config) = in_home(record) else {
        return Vec::new();
    };
    let Some(home) = Home::of(config.uid) else {
        return Vec::new();
    };
    let there = |file: &PathBuf| !matches!(home.read(file), Ok(None));
    let files = config.files.into_iter().filter(there);
    files.map(|file| home.join(&file)).collect()
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
    let known = configs.known.clone();
    configs.kept.clone_from(&known);
    blocking(move || {
        let path = shared.host.layout.instance(&handle).applied_config();
        files::write_private(&path, &known)
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
    match mistake(path, bytes) {
        Some(words) => Found::Odd(words),
        None => Found::Valid {
            hash: hash(bytes),
            changed: since_1970(changed),
        },
    }
}

/// What is wrong with a config, in words.
fn mistake(path: &Path, bytes: &[u8]) -> Option<String> {
    let is_json = path.extension().is_some_and(|end| end == "json");
    let read = is_json.then(|| serde_json::from_slice::<serde_json::Value>(bytes));
    let error = read?.err()?;
    Some(format!("it is not valid JSON: {error}"))
}

fn hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::unit_state;

    fn seen(found: Found) -> BTreeMap<String, Look> {
        let look = Look {
            found,
            path: "/kits/web/a.json".into(),
            brought: None,
        };
        [("gateway".to_owned(), look)].into()
    }

    fn valid(hash: &str, changed: u64) -> BTreeMap<String, Look> {
        let hash = hash.to_owned();
        seen(Found::Valid { hash, changed })
    }

    fn missing() -> BTreeMap<String, Look> {
        seen(Found::Missing)
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
            assert_eq!(configs.known.applied["gateway"].at, 20);
            configs.observe(valid("a", 99));
            assert_eq!(
                decide(&mut configs, how, &unit(Active::Active, 20)),
                None,
                "the content is the same"
            );
            configs.observe(valid("b", 99));
            let units = unit(Active::Active, 20);
            assert_eq!(decide(&mut configs, how, &units), Some(how));
            assert_eq!(configs.known.applied["gateway"].at, 1_000);
            configs.observe(valid("b", 99));
            assert_eq!(decide(&mut configs, how, &units), None);
        }
    }

    #[test]
    fn a_change_during_aegisds_absence_is_found() {
        let kept = serde_json::json!({"applied": {"gateway": {"hash": "a", "at": 20}}});
        let kept = serde_json::to_vec(&kept);
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
        configs.observe(seen(Found::Odd(words.clone())));
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
