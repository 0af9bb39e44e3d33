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
//! | [`expand`] | an instance spec from a request and a kit |
//! | [`watcher`] | inotify on the kit folders and the daemons' config folders |

pub mod expand;
pub mod watcher;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use aegis_bus::kit::KitView;
use aegis_core::fault::{Fault, Symbol, chain};
use aegis_core::kit::{MAX_MANIFEST, Manifest, ManifestError};

use crate::board::Board;

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
    /// A manifest of that name in an earlier folder wins.
    pub shadowed: bool,
    manifest: Result<Manifest, ReadError>,
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
        Ok((manifest, &self.programs))
    }

    fn view(&self) -> KitView {
        let none = Manifest::default();
        let manifest = self.manifest.as_ref().unwrap_or(&none);
        let (status, reason) = match (self.usable(), self.shadowed) {
            (_, true) => (
                "shadowed",
                "a kit of that name in an earlier folder wins".into(),
            ),
            (Ok(_), false) => ("ok", String::new()),
            (Err(error), false) => ("broken", chain(&error)),
        };
        let daemons = manifest.instance_daemons.iter();
        KitView {
            name: self.name.clone(),
            version: manifest.version.clone(),
            description: manifest.description.clone(),
            status: status.to_owned(),
            status_reason: reason,
            path: self.path.display().to_string(),
            image: manifest.image.base.clone(),
            command: manifest.defaults.command.clone(),
            daemons: daemons
                .map(|daemon| daemon.daemon_name().to_owned())
                .collect(),
        }
    }
}

/// All kits that are installed.
#[derive(Debug)]
pub struct Catalog {
    kit_dirs: Vec<PathBuf>,
    program_dirs: Vec<PathBuf>,
    kits: RwLock<Arc<Vec<Kit>>>,
    board: Arc<Board>,
}

impl Catalog {
    /// A catalog of what these folders hold; empty until it is read.
    pub fn new(kit_dirs: Vec<PathBuf>, program_dirs: Vec<PathBuf>, board: Arc<Board>) -> Self {
        Self {
            kit_dirs,
            program_dirs,
            kits: RwLock::default(),
            board,
        }
    }

    /// Reads the folders again and shows what is there. Blocks.
    pub fn refresh(&self) {
        let kits = Arc::new(read_all(&self.kit_dirs, &self.program_dirs));
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
        let found = kits.iter().find(|kit| kit.name == name && !kit.shadowed);
        found.cloned().ok_or_else(|| KitError::NotFound {
            name: name.to_owned(),
            known: kits
                .iter()
                .filter(|kit| !kit.shadowed)
                .map(|kit| kit.name.clone())
                .collect(),
        })
    }
}

fn read_all(kit_dirs: &[PathBuf], program_dirs: &[PathBuf]) -> Vec<Kit> {
    let mut names = BTreeSet::new();
    let mut kits = Vec::new();
    for folder in kit_dirs {
        // A folder that is missing or closed to us has no kits.
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if let Some(name) = kit_name(&path) {
                let shadowed = !names.insert(name.clone());
                kits.push(read_kit(name, path, shadowed, program_dirs));
            }
        }
    }
    kits
}

/// The kit a file is the manifest of; `None` for other files and hidden ones.
fn kit_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
    let wanted = !name.is_empty() && !name.starts_with('.') && !path.is_dir();
    wanted.then(|| name.to_owned())
}

fn read_kit(name: String, path: PathBuf, shadowed: bool, program_dirs: &[PathBuf]) -> Kit {
    let manifest = read_manifest(&path);
    let mut programs = BTreeMap::new();
    let mut missing = Vec::new();
    if let Ok(manifest) = &manifest {
        let daemons = manifest
            .instance_daemons
            .iter()
            .map(|daemon| &daemon.binary);
        for program in daemons.chain(&manifest.image.inject) {
            match find_program(program, &path, program_dirs) {
                Some(found) => drop(programs.insert(program.clone(), found)),
                None => missing.push(program.clone()),
            }
        }
    }
    Kit {
        name,
        path,
        shadowed,
        manifest,
        programs,
        missing,
    }
}

fn read_manifest(path: &Path) -> Result<Manifest, ReadError> {
    let io = |error| ReadError::Io(Arc::new(error));
    let mut text = String::new();
    let file = File::open(path).map_err(io)?;
    file.take(MAX_MANIFEST + 1)
        .read_to_string(&mut text)
        .map_err(io)?;
    if text.len() as u64 > MAX_MANIFEST {
        return Err(ReadError::TooLarge);
    }
    let checked = Manifest::parse(&text).map_err(|error| ReadError::Manifest(Arc::new(error)))?;
    for warning in &checked.warnings {
        tracing::debug!(manifest = %path.display(), "{warning}, ignoring");
    }
    Ok(checked.manifest)
}

/// A program of a kit: beside its manifest, in `bin` beside it, or where
/// programs usually lie.
fn find_program(name: &str, manifest: &Path, program_dirs: &[PathBuf]) -> Option<PathBuf> {
    let beside = manifest.parent()?;
    let near = [beside.to_owned(), beside.join("bin")];
    let mut candidates = near
        .iter()
        .chain(program_dirs)
        .map(|folder| folder.join(name));
    candidates.find(|path| {
        let metadata = path.metadata();
        metadata.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}

#[cfg(test)]
mod tests {
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
        Folders {
            catalog: Catalog::new(vec![own, shared], vec![programs], board.clone()),
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
    fn an_unknown_kit_is_answered_with_those_there_are() {
        let folders = folders();
        folders.write("own/agent.json", "{}", 0o644);
        folders.catalog.refresh();
        let fault = folders.catalog.find("agnet").unwrap_err().fault();
        assert_eq!(fault.symbol, Symbol::KitNotFound);
        assert_eq!(fault.hint.as_deref(), Some("installed are: agent"));
    }
}
