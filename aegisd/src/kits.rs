//! Kits: finding their manifests and programs, and making specs from them.
//!
//! A kit is a file `NAME.json` in one of the kit folders; the first folder that
//! has the name wins and shadows the others. Files can change at any time, so
//! the catalog is read again on every change the kernel reports (`watcher`) and
//! before an instance is made.
//!
//! | module | what it owns |
//! |---|---|
//! | this one | the catalog of kits |
//! | `program` | finding a kit's programs |
//! | [`install`] | kits that were installed from a folder |
//! | [`expand`] | an instance spec from a request and a kit |
//! | [`watcher`] | a watch on the kit folders and the daemons' config folders |

pub mod expand;
pub mod install;
mod program;
pub mod watcher;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use aegis_bus::kit::{KitDaemon, KitView};
use aegis_core::fault::{Fault, Symbol, chain};
use aegis_core::kit::{CheckedManifest, DaemonEntry, MAX_MANIFEST, Manifest, ManifestError};

use crate::board::Board;
use crate::host::Host;

/// Why a kit cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    #[error("there is no kit '{name}'")]
    NotFound { name: String, known: Vec<String> },
    #[error("the kit '{name}' cannot be used, because of {path}")]
    Manifest {
        name: String,
        path: PathBuf,
        #[source]
        source: ReadError,
    },
    #[error("the kit '{name}' is broken (missing: {})", .missing.join(", "))]
    Missing { name: String, missing: Vec<String> },
}

/// Why a manifest cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    #[error("it cannot be read")]
    Io(#[source] Arc<io::Error>),
    #[error("it is larger than {MAX_MANIFEST} bytes")]
    TooLarge,
    #[error(transparent)]
    Manifest(Arc<ManifestError>),
}

impl KitError {
    /// The error as clients see it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotFound { known, .. } => {
                let hint = if known.is_empty() {
                    "no kit is installed; put a manifest into ~/.aegis/kits".to_owned()
                } else {
                    format!("installed are: {}", known.join(", "))
                };
                Fault::from_error(Symbol::KitNotFound, self).with_hint(hint)
            }
            Self::Manifest { .. } => Fault::from_error(Symbol::KitBroken, self)
                .with_hint("correct the manifest; it is read again at once"),
            Self::Missing { .. } => Fault::from_error(Symbol::KitBroken, self)
                .with_hint("install the missing programs, e.g. into ~/.aegis/bin"),
        }
    }
}

/// A kit as it lies on the disk.
#[derive(Clone, Debug)]
pub struct Kit {
    /// The manifest's file name without `.json`: what `--kit` takes.
    pub name: String,
    /// The manifest's file.
    pub path: PathBuf,
    /// The manifest of that name in an earlier folder, which wins.
    pub shadowed_by: Option<PathBuf>,
    /// `InstallKit` put it there.
    pub installed: bool,
    manifest: Result<CheckedManifest, ReadError>,
    /// Where its programs were found, by file name.
    programs: BTreeMap<String, PathBuf>,
    missing: Vec<String>,
}

impl Kit {
    /// Its manifest and programs, if it can be used.
    ///
    /// # Errors
    /// Says why it is broken.
    pub fn usable(&self) -> Result<(&Manifest, &BTreeMap<String, PathBuf>), KitError> {
        let manifest = self
            .manifest
            .as_ref()
            .map_err(|source| KitError::Manifest {
                name: self.name.clone(),
                path: self.path.clone(),
                source: source.clone(),
            })?;
        if !self.missing.is_empty() {
            return Err(KitError::Missing {
                name: self.name.clone(),
                missing: self.missing.clone(),
            });
        }
        Ok((&manifest.manifest, &self.programs))
    }

    fn view(&self) -> KitView {
        let none = CheckedManifest::default();
        let checked = self.manifest.as_ref().unwrap_or(&none);
        let manifest = &checked.manifest;
        let (status, reason) = match (self.usable(), &self.shadowed_by) {
            (_, Some(winner)) => ("shadowed", format!("by {}", winner.display())),
            (Ok(_), None) => ("ok", String::new()),
            (Err(KitError::Missing { missing, .. }), None) => {
                ("broken", format!("missing: {}", missing.join(", ")))
            }
            (Err(error), None) => ("broken", chain(&error)),
        };
        let programs = manifest.programs().into_iter();
        let place = |name: &str| {
            let found = self
                .programs
                .get(name)
                .map(|path| path.display().to_string());
            (name.to_owned(), found.unwrap_or_default())
        };
        KitView {
            name: self.name.clone(),
            version: manifest.version.clone(),
            description: manifest.description.clone(),
            usage: manifest.usage.clone(),
            status: status.to_owned(),
            status_reason: reason,
            warnings: checked.warnings.clone(),
            path: self.path.display().to_string(),
            installed: self.installed,
            image: manifest.image.base.clone(),
            command: manifest.defaults.command.clone(),
            daemons: manifest.instance_daemons.iter().map(daemon_view).collect(),
            inject: manifest.image.inject.clone(),
            files: manifest
                .config
                .iter()
                .map(|file| file.path.clone())
                .collect(),
            variables: manifest
                .variables()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            programs: programs.map(place).collect(),
        }
    }
}

fn daemon_view(daemon: &DaemonEntry) -> KitDaemon {
    let config = daemon.config.clone().unwrap_or_default();
    let limits = daemon.limits();
    KitDaemon {
        name: daemon.daemon_name().to_owned(),
        label: daemon.label().to_owned(),
        binary: daemon.binary.clone(),
        config: config.path,
        reload: config.reload.as_str().to_owned(),
        restart: daemon.restart.as_str().to_owned(),
        restart_max_delay_ms: daemon.restart_max_delay_ms(),
        ready: daemon.ready.as_str().to_owned(),
        memory_mib: limits.memory_mib,
        cpu_percent: limits.cpu_percent,
        tasks: limits.tasks,
        network: daemon.sandbox.network,
        read: daemon.sandbox.read.clone(),
        write: daemon.sandbox.write.clone(),
    }
}

/// All kits that are installed.
#[derive(Debug)]
pub struct Catalog {
    kit_dirs: Vec<PathBuf>,
    program_dirs: Vec<PathBuf>,
    /// Where installed kits lie.
    installed: PathBuf,
    kits: RwLock<Arc<Vec<Kit>>>,
    board: Arc<Board>,
}

impl Catalog {
    /// A catalog of what these folders hold; empty until it is read.
    pub fn new(host: &Host, board: Arc<Board>) -> Self {
        Self {
            kit_dirs: host.kit_dirs.clone(),
            program_dirs: host.program_dirs.clone(),
            installed: host.layout.installed_kits(),
            kits: RwLock::default(),
            board,
        }
    }

    /// Reads the folders again and shows what is there. Blocks.
    pub fn refresh(&self) {
        let kits = Arc::new(self.read_all());
        let mut views = BTreeMap::new();
        for kit in kits.iter() {
            // A shadowed kit is an object of its own, beside the one that wins.
            let mut object = kit.name.clone();
            while views.contains_key(&object) {
                object.push('\'');
            }
            views.insert(object, Arc::new(kit.view()));
        }
        *self.kits.write().unwrap_or_else(PoisonError::into_inner) = kits;
        self.board.change(|shown| shown.kits = views);
    }

    /// The kit of a name, whether it is usable or not.
    ///
    /// # Errors
    /// [`KitError::NotFound`].
    pub fn find(&self, name: &str) -> Result<Kit, KitError> {
        let kits = self
            .kits
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let found = kits
            .iter()
            .find(|kit| kit.name == name && kit.shadowed_by.is_none());
        found.cloned().ok_or_else(|| KitError::NotFound {
            name: name.to_owned(),
            known: kits
                .iter()
                .filter(|kit| kit.shadowed_by.is_none())
                .map(|kit| kit.name.clone())
                .collect(),
        })
    }

    /// Whether there is a kit of a name, usable or not.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// Where programs of kits lie beside the kits' own folders.
    pub fn program_dirs(&self) -> &[PathBuf] {
        &self.program_dirs
    }

    fn read_all(&self) -> Vec<Kit> {
        let mut winners: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut kits = Vec::new();
        for folder in &self.kit_dirs {
            // A folder that is missing or closed to us has no kits.
            let Ok(entries) = fs::read_dir(folder) else {
                continue;
            };
            let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            paths.sort();
            for path in paths {
                let Some(name) = kit_name(&path) else {
                    continue;
                };
                let winner = winners.get(&name).cloned();
                winners.entry(name.clone()).or_insert_with(|| path.clone());
                kits.push(self.read_kit(name, path, winner));
            }
        }
        kits
    }

    fn read_kit(&self, name: String, path: PathBuf, shadowed_by: Option<PathBuf>) -> Kit {
        let manifest = read_manifest(&path);
        let own = program::own_dirs(&path, &self.kit_dirs);
        let installed = path.canonicalize().unwrap_or(path.clone());
        let installed = installed.starts_with(&self.installed);
        let mut programs = BTreeMap::new();
        let mut missing = Vec::new();
        if let Ok(checked) = &manifest {
            for program in checked.manifest.programs() {
                match program::find(program, own.iter().chain(&self.program_dirs)) {
                    Some(found) => drop(programs.insert(program.to_owned(), found)),
                    None => missing.push(program.to_owned()),
                }
            }
        }
        Kit {
            name,
            path,
            shadowed_by,
            installed,
            manifest,
            programs,
            missing,
        }
    }
}

/// The kit a file is the manifest of; `None` for other files and hidden ones.
fn kit_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
    let wanted = aegis_core::kit::is_kit_name(name) && !path.is_dir();
    wanted.then(|| name.to_owned())
}

fn read_manifest(path: &Path) -> Result<CheckedManifest, ReadError> {
    let text = read_text(File::open(path).map_err(|error| ReadError::Io(Arc::new(error)))?)?;
    Manifest::parse(&text).map_err(|error| ReadError::Manifest(Arc::new(error)))
}

/// The text of a manifest.
fn read_text(file: File) -> Result<String, ReadError> {
    let io = |error| ReadError::Io(Arc::new(error));
    let mut text = String::new();
    file.take(MAX_MANIFEST + 1)
        .read_to_string(&mut text)
        .map_err(io)?;
    if text.len() as u64 > MAX_MANIFEST {
        return Err(ReadError::TooLarge);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Folders {
        root: tempfile::TempDir,
        board: Arc<Board>,
        catalog: Catalog,
    }

    fn folders() -> Folders {
        let root = tempfile::tempdir().unwrap();
        let [own, shared, programs] = ["own", "shared", "bin"].map(|name| root.path().join(name));
        for folder in [&own, &shared, &programs] {
            fs::create_dir(folder).unwrap();
        }
        let board = Arc::new(Board::default());
        let host = Host {
            kit_dirs: vec![own, shared],
            program_dirs: vec![programs],
            ..crate::testing::host(root.path())
        };
        Folders {
            catalog: Catalog::new(&host, board.clone()),
            board,
            root,
        }
    }

    impl Folders {
        fn write(&self, path: &str, text: &str, mode: u32) {
            let path = self.root.path().join(path);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }

        fn status(&self, object: &str) -> String {
            self.catalog.refresh();
            self.board.kit(object).unwrap().status.clone()
        }
    }

    #[test]
    fn the_first_folder_wins_and_shadows() {
        let folders = folders();
        folders.write("own/a.json", r#"{"version":"2"}"#, 0o644);
        folders.write("shared/a.json", r#"{"version":"1"}"#, 0o644);
        assert_eq!(folders.status("a"), "ok");
        assert_eq!(folders.board.kit("a").unwrap().version, "2");
        assert_eq!(folders.status("a'"), "shadowed");
        let reason = &folders.board.kit("a'").unwrap().status_reason;
        assert!(reason.ends_with("own/a.json"), "{reason}");
        assert_eq!(
            folders
                .catalog
                .find("a")
                .unwrap()
                .usable()
                .unwrap()
                .0
                .version,
            "2"
        );
    }

    #[test]
    fn a_kit_without_its_daemon_is_broken_until_it_is_installed() {
        let folders = folders();
        let manifest = r#"{"instance_daemons":[{"binary":"aegis-x"}]}"#;
        folders.write("own/x.json", manifest, 0o644);
        assert_eq!(folders.status("x"), "broken");
        let reason = &folders.board.kit("x").unwrap().status_reason;
        assert_eq!(reason, "missing: aegis-x");
        folders.write("bin/aegis-x", "", 0o644);
        assert_eq!(folders.status("x"), "broken", "not executable");
        folders.write("bin/aegis-x", "", 0o755);
        assert_eq!(folders.status("x"), "ok");
    }

    #[test]
    fn a_broken_manifest_says_what_is_wrong_and_does_not_hide_others() {
        let folders = folders();
        folders.write("own/bad.json", "{", 0o644);
        folders.write("own/good.json", "{}", 0o644);
        folders.write("own/.hidden.json", "{", 0o644);
        assert_eq!(folders.status("bad"), "broken");
        assert_eq!(folders.status("good"), "ok");
        assert!(folders.board.kit(".hidden").is_none());
        let fault = folders
            .catalog
            .find("bad")
            .unwrap()
            .usable()
            .unwrap_err()
            .fault();
        assert_eq!(fault.symbol, Symbol::KitBroken);
        assert!(fault.message.contains("bad.json"), "{}", fault.message);
    }

    #[test]
    fn unknown_keys_are_shown_as_warnings() {
        let folders = folders();
        folders.write("own/a.json", r#"{"image":{"tag":"x"}}"#, 0o644);
        assert_eq!(folders.status("a"), "ok");
        let view = folders.board.kit("a").unwrap();
        assert_eq!(view.warnings, ["the key \"image.tag\" is not known"]);
    }

    #[test]
    fn programs_lie_beside_the_manifest_or_where_a_link_to_it_leads() {
        let folders = folders();
        let manifest = r#"{"instance_daemons":[{"binary":"gate"}]}"#;
        folders.write("own/beside.json", manifest, 0o644);
        folders.write("own/gate", "", 0o755);
        assert_eq!(folders.status("beside"), "ok");
        let source = folders.root.path().join("source");
        fs::create_dir_all(source.join("bin")).unwrap();
        folders.write("source/linked.json", manifest, 0o644);
        folders.write("source/bin/gate", "", 0o755);
        let link = folders.root.path().join("own/linked.json");
        std::os::unix::fs::symlink(source.join("linked.json"), link).unwrap();
        assert_eq!(folders.status("linked"), "ok");
        let view = folders.board.kit("linked").unwrap();
        assert!(view.programs["gate"].ends_with("source/bin/gate"));
    }

    #[test]
    fn an_unknown_kit_is_answered_with_those_there_are() {
        let folders = folders();
        folders.write("own/agent.json", "{}", 0o644);
        folders.catalog.refresh();
        let fault = folders.catalog.find("agnet").unwrap_err().fault();
        assert_eq!(fault.symbol, Symbol::KitNotFound);
        assert_eq!(fault.hint.as_deref(), Some("installed are: agent"));
    }
}
