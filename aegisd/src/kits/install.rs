//! Installing a kit from a folder, and removing it.
//!
//! ```text
//!  folder ──copy──► installed/NAME-RANDOM/    nothing refers to it yet
//!                          ▲
//!        kits/NAME.json ───┘                  one rename of a link: now it is the kit
//! ```
//!
//! So a kit is there as a whole or not at all, whenever aegisd dies. A folder that
//! no link leads to and no instance runs programs of is swept away: what a crash
//! left, what a newer version replaced, what was removed. Blocks: callers are on a
//! blocking thread.

mod copy;

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use aegis_core::fault::{Fault, Symbol};
use aegis_core::handle::Handle;
use aegis_core::kit::Manifest;
use aegis_core::kit::bundle::{self, BundleError};

use super::{Catalog, ReadError, program, read_text};
use crate::effects;
use crate::host::Host;
use copy::{CopyError, Folder};

/// Why a kit is not installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("the folder cannot be read")]
    Read(#[source] io::Error),
    #[error("the folder is not a kit")]
    Bundle(#[from] BundleError),
    #[error("the manifest {name}.json cannot be used")]
    Manifest {
        name: String,
        #[source]
        source: ReadError,
    },
    #[error("the kit '{kit}' lacks programs: {}", .programs.join(", "))]
    Programs { kit: String, programs: Vec<String> },
    #[error("cannot copy the folder")]
    Copy(#[from] CopyError),
    #[error("there is a manifest {0} already, which was not installed from a folder")]
    Foreign(PathBuf),
    #[error("the kit '{name}' at {path} was not installed from a folder")]
    NotInstalled { name: String, path: PathBuf },
    #[error("the kit '{kit}' is used by: {}", .instances.iter().map(Handle::as_str).collect::<Vec<_>>().join(", "))]
    Used { kit: String, instances: Vec<Handle> },
    #[error("cannot {operation} {path}")]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl InstallError {
    /// The error as clients see it.
    pub fn fault(&self) -> Fault {
        let fault = |symbol| Fault::from_error(symbol, self);
        match self {
            Self::Bundle(BundleError::Several(_)) => {
                fault(Symbol::InvalidArgument).with_hint("say which is the kit's: --name NAME")
            }
            Self::Bundle(_) => fault(Symbol::InvalidArgument)
                .with_hint("a kit is a folder with NAME.json and the programs it names"),
            Self::Manifest { .. } => fault(Symbol::KitBroken),
            Self::Programs { .. } => fault(Symbol::KitBroken)
                .with_hint("put them beside the manifest, executable, or install them first"),
            Self::Foreign(_) => {
                fault(Symbol::AlreadyExists).with_hint("move it away, then install")
            }
            Self::NotInstalled { path, .. } => fault(Symbol::Unsupported).with_hint(format!(
                "delete the file, or remove the package it came with: {}",
                path.display()
            )),
            Self::Used { .. } => fault(Symbol::WrongState)
                .with_hint("delete these instances first, or remove it all the same: --force"),
            Self::Copy(CopyError::Link { .. } | CopyError::Kind { .. } | CopyError::TooMuch) => {
                fault(Symbol::InvalidArgument)
            }
            Self::Read(source)
            | Self::File { source, .. }
            | Self::Copy(CopyError::Io { source, .. })
                if source.kind() == io::ErrorKind::StorageFull =>
            {
                fault(Symbol::NoSpace).with_hint("free some space on the disk, then try again")
            }
            Self::Read(_) => fault(Symbol::InvalidArgument),
            Self::File { .. } | Self::Copy(CopyError::Io { .. }) => fault(Symbol::Internal),
        }
    }
}

/// Installs the kit of an open folder and gives its name. The catalog does not
/// know it before its next refresh.
///
/// # Errors
/// Nothing is changed then.
pub fn install(
    host: &Host,
    catalog: &Catalog,
    folder: File,
    wanted: Option<&str>,
) -> Result<String, InstallError> {
    let folder = Folder::of(folder);
    let name = check(catalog, &folder, wanted)?;
    let link = host.layout.kits().join(format!("{name}.json"));
    let installed = host.layout.installed_kits();
    if link.symlink_metadata().is_ok() && !leads_into(&link, &installed) {
        return Err(InstallError::Foreign(link));
    }
    make_dir(&installed)?;
    let target = installed.join(format!("{name}-{}", random()));
    let copied = make_dir(&target)
        .and_then(|()| folder.copy_to(&target).map_err(InstallError::from))
        .and_then(|()| publish(&target.join(format!("{name}.json")), &link));
    match copied {
        Ok(()) => Ok(name),
        Err(error) => {
            // What cannot be removed now is swept later.
            drop(effects::remove_tree(&target));
            Err(error)
        }
    }
}

/// Everything that can be known before anything is changed.
fn check(catalog: &Catalog, folder: &Folder, wanted: Option<&str>) -> Result<String, InstallError> {
    let files = folder.files().map_err(InstallError::Read)?;
    let name = bundle::kit_name(files.iter().map(String::as_str), wanted)?.to_owned();
    let manifest = |source| InstallError::Manifest {
        name: name.clone(),
        source,
    };
    let file = folder.open(&format!("{name}.json"));
    let file = file.map_err(|error| manifest(ReadError::Io(error.into())))?;
    let text = read_text(file).map_err(manifest)?;
    let checked =
        Manifest::parse(&text).map_err(|error| manifest(ReadError::Manifest(error.into())))?;
    let here = |path: &str| folder.is_program(path);
    let mut missing = bundle::missing(&checked.manifest, here);
    missing.retain(|name| program::find(name, catalog.program_dirs()).is_none());
    if !missing.is_empty() {
        return Err(InstallError::Programs {
            kit: name,
            programs: missing,
        });
    }
    Ok(name)
}

/// Takes a kit that was installed out of the catalog's sight; its programs are
/// swept when nothing runs them.
///
/// # Errors
/// It was not installed from a folder.
pub fn remove(host: &Host, catalog: &Catalog, name: &str) -> Result<(), InstallError> {
    let link = host.layout.kits().join(format!("{name}.json"));
    if !leads_into(&link, &host.layout.installed_kits()) {
        let path = catalog.find(name).map_or(link, |kit| kit.path);
        return Err(InstallError::NotInstalled {
            name: name.to_owned(),
            path,
        });
    }
    effects::remove_file(&link).map_err(failed("remove", &link))
}

/// Removes the folders of installed kits that no manifest leads to and that hold
/// none of these programs. Goes on through failures and tells the first.
///
/// # Errors
/// Something is left.
pub fn sweep(host: &Host, used: &[PathBuf]) -> Result<(), InstallError> {
    let installed = host.layout.installed_kits();
    let entries = match fs::read_dir(&installed) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("read", &installed)(error)),
    };
    let kits = host.layout.kits();
    let manifests = fs::read_dir(&kits).into_iter().flatten().flatten();
    let targets: Vec<PathBuf> = manifests
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect();
    let mut outcome = Ok(());
    for entry in entries.flatten() {
        let folder = entry.path();
        let within = |path: &PathBuf| path.starts_with(&folder);
        if targets.iter().any(within) || used.iter().any(within) {
            continue;
        }
        let removed = effects::remove_tree(&folder).map_err(failed("remove", &folder));
        outcome = outcome.and(removed);
    }
    outcome
}

/// Has a manifest's name lead to an installed one, in one step.
fn publish(manifest: &Path, link: &Path) -> Result<(), InstallError> {
    // Hidden, so that it is no kit's manifest meanwhile.
    let fresh = link.with_file_name(format!(".{}", random()));
    effects::link(manifest, &fresh).map_err(failed("make", &fresh))?;
    let renamed = effects::rename(&fresh, link).map_err(failed("replace", link));
    if renamed.is_err() {
        drop(effects::remove_file(&fresh));
    }
    renamed
}

fn leads_into(link: &Path, folder: &Path) -> bool {
    fs::read_link(link).is_ok_and(|target| target.starts_with(folder))
}

/// Makes a folder that the units' user may pass through and read.
fn make_dir(path: &Path) -> Result<(), InstallError> {
    match effects::make_folder(path, 0o755) {
        // The umask is the service's and private.
        Ok(()) => effects::protect(path, 0o755).map_err(failed("protect", path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed("make", path)(error)),
    }
}

/// Six letters nobody has used: the standard library's hash keys are random.
fn random() -> String {
    format!(
        "{:06x}",
        RandomState::new().build_hasher().finish() & 0xff_ffff
    )
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> InstallError {
    move |source| InstallError::File {
        operation,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::Arc;

    use super::*;
    use crate::board::Board;

    const MANIFEST: &str = r#"{"version":"1","instance_daemons":[{"binary":"gate"}]}"#;

    struct World {
        root: tempfile::TempDir,
        host: Host,
        catalog: Catalog,
    }

    fn world() -> World {
        let root = tempfile::tempdir().unwrap();
        let host = crate::testing::host(root.path());
        let catalog = Catalog::new(&host, Arc::new(Board::default()));
        World {
            root,
            host,
            catalog,
        }
    }

    impl World {
        /// A folder with the kit `echo` in it.
        fn source(&self, manifest: &str) -> PathBuf {
            let source = self.root.path().join("source");
            fs::create_dir_all(source.join("lib")).unwrap();
            fs::write(source.join("echo.json"), manifest).unwrap();
            fs::write(source.join("lib/words.txt"), "words").unwrap();
            fs::write(source.join("gate"), "#!/bin/sh").unwrap();
            fs::set_permissions(source.join("gate"), Permissions::from_mode(0o700)).unwrap();
            source
        }

        fn install(&self, source: &Path) -> Result<String, InstallError> {
            install(&self.host, &self.catalog, File::open(source).unwrap(), None)
        }

        fn gate(&self) -> PathBuf {
            self.catalog.refresh();
            let kit = self.catalog.find("echo").unwrap();
            kit.usable().unwrap().1["gate"].clone()
        }

        fn folders(&self) -> usize {
            let installed = self.host.layout.installed_kits();
            fs::read_dir(installed).map_or(0, Iterator::count)
        }
    }

    #[test]
    fn a_kit_is_installed_replaced_and_removed() {
        let world = world();
        let source = world.source(MANIFEST);
        assert_eq!(world.install(&source).unwrap(), "echo");
        let first = world.gate();
        assert!(first.with_file_name("lib/words.txt").exists());
        let mode = fs::metadata(&first).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);

        fs::write(source.join("gate"), "#!/bin/sh\n# newer").unwrap();
        world.install(&source).unwrap();
        let second = world.gate();
        assert_ne!(first, second);
        assert_eq!(world.folders(), 2, "instances may still run the first");
        sweep(&world.host, std::slice::from_ref(&first)).unwrap();
        assert_eq!(world.folders(), 2);
        sweep(&world.host, &[]).unwrap();
        assert!(!first.exists() && second.exists());

        remove(&world.host, &world.catalog, "echo").unwrap();
        world.catalog.refresh();
        assert!(!world.catalog.has("echo"));
        sweep(&world.host, &[]).unwrap();
        assert_eq!(world.folders(), 0);
    }

    #[test]
    fn what_is_wrong_is_found_before_anything_is_changed() {
        let world = world();
        for (manifest, words) in [
            (
                "{",
                "the manifest echo.json cannot be used: it is not valid JSON",
            ),
            (
                r#"{"image":{"inject":["absent"]}}"#,
                "the kit 'echo' lacks programs: absent",
            ),
        ] {
            let source = world.source(manifest);
            let fault = world.install(&source).unwrap_err().fault();
            assert!(fault.message.starts_with(words), "{}", fault.message);
            assert_eq!(world.folders(), 0);
        }
        let source = world.source(MANIFEST);
        symlink("/etc/passwd", source.join("leak")).unwrap();
        let fault = world.install(&source).unwrap_err().fault();
        assert!(fault.message.contains("leak"), "{}", fault.message);
        assert_eq!(world.folders(), 0, "undone as a whole");
        world.catalog.refresh();
        assert!(!world.catalog.has("echo"));
    }

    #[test]
    fn a_manifest_of_the_users_own_is_left_alone() {
        let world = world();
        let own = world.host.layout.kits().join("echo.json");
        fs::write(&own, "{}").unwrap();
        let source = world.source(MANIFEST);
        let fault = world.install(&source).unwrap_err().fault();
        assert_eq!(fault.symbol, Symbol::AlreadyExists);
        world.catalog.refresh();
        let fault = remove(&world.host, &world.catalog, "echo")
            .unwrap_err()
            .fault();
        assert_eq!(fault.symbol, Symbol::Unsupported);
        assert_eq!(fs::read_to_string(own).unwrap(), "{}");
    }

    #[test]
    fn what_a_crash_left_is_swept() {
        let world = world();
        let left = world.host.layout.installed_kits().join("echo-000000");
        fs::create_dir_all(left.join("bin")).unwrap();
        sweep(&world.host, &[]).unwrap();
        assert!(!left.exists());
    }
}
