//! Named volumes: folders of ours that instances share and that outlive them.
//!
//! The folders are the truth about which there are, and the records of instances about
//! who uses them. Blocks: callers are on a blocking thread.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aegis_core::fault::{Fault, Symbol};
use aegis_core::volume::{VolumeError as NameError, check_name};

use crate::effects;
use crate::host::Host;
use crate::instance::files::make_user_folder;
use crate::instance::since_1970;

/// Why something cannot be done with a named volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("the volume cannot be called so")]
    Name(#[from] NameError),
    #[error("there is no volume '{0}'")]
    Missing(String),
    #[error("the volume '{name}' is used by {}", .users.join(", "))]
    Used { name: String, users: Vec<String> },
    #[error("records of instances cannot be read, so nobody knows what volumes they use")]
    UnknownUsers,
    #[error("cannot {operation} {path}")]
    Folder {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl VolumeError {
    /// The error as clients see it.
    pub fn fault(&self) -> Fault {
        let fault = |symbol| Fault::from_error(symbol, self);
        match self {
            Self::Name(_) => fault(Symbol::InvalidArgument),
            Self::Missing(_) => {
                fault(Symbol::VolumeNotFound).with_hint("'aegisctl volume list' shows all of them")
            }
            Self::Used { .. } => fault(Symbol::VolumeInUse).with_hint(
                "delete these instances first: aegisctl instance delete NAME; \
                 or take it from them: aegisctl instance update NAME --volume-remove TARGET",
            ),
            Self::UnknownUsers => {
                fault(Symbol::RegistryFailed).with_hint("'aegisctl doctor' names them")
            }
            Self::Folder { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                fault(Symbol::NoSpace).with_hint("free some space on the disk, then try again")
            }
            Self::Folder { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                fault(Symbol::PermissionDenied).with_hint("check the owner of the folder")
            }
            Self::Folder { .. } => fault(Symbol::Internal),
        }
    }
}

/// The handles of the instances that use each volume.
pub type Users = BTreeMap<String, Vec<String>>;

/// A volume that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub path: PathBuf,
    /// In microseconds since 1970; 0 where the file system does not tell.
    pub created_at: u64,
    pub users: Vec<String>,
}

/// Every volume of a keeper, by name.
///
/// # Errors
/// Their folder cannot be read.
pub fn list(host: &Host, keeper: Option<u32>, users: &Users) -> Result<Vec<Listed>, VolumeError> {
    let folder = host.layout.volumes(keeper);
    let mut listed = Vec::new();
    let entries = match fs::read_dir(&folder) {
        // A user who never had one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(listed),
        entries => entries.map_err(failed("read", &folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(failed("read", &folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // One that goes away meanwhile is not there.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if !metadata.is_dir() || check_name(&name).is_err() {
            continue;
        }
        listed.push(Listed {
            path: entry.path(),
            created_at: metadata.created().map_or(0, since_1970),
            users: users.get(&name).cloned().unwrap_or_default(),
            name,
        });
    }
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listed)
}

/// Makes a volume; returns whether there was none of that name.
///
/// # Errors
/// The name is none, or the folder cannot be made.
pub fn make(host: &Host, keeper: Option<u32>, name: &str) -> Result<bool, VolumeError> {
    check_name(name)?;
    let path = host.layout.volume(keeper, name);
    let folder = host.layout.volumes(keeper);
    make_user_folder(host, keeper, &folder).map_err(failed("make", &folder))?;
    let made = match effects::make_folder(&path, 0o700) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(failed("make", &path)(error)),
    };
    // An earlier aegisd may have died before it gave one away.
    if let Some(owner) = host.unit_owner
        && fs::symlink_metadata(&path)
            .map_err(failed("look at", &path))?
            .uid()
            != owner.uid
    {
        effects::give(&path, owner.uid, owner.gid).map_err(failed("give away", &path))?;
    }
    Ok(made)
}

/// Removes a volume that nobody uses, with all that is in it.
///
/// # Errors
/// It is used, or there is none.
pub fn remove(
    host: &Host,
    keeper: Option<u32>,
    name: &str,
    users: &Users,
) -> Result<(), VolumeError> {
    check_name(name)?;
    let path = host.layout.volume(keeper, name);
    if let Some(users) = users.get(name) {
        let (name, users) = (name.to_owned(), users.clone());
        return Err(VolumeError::Used { name, users });
    }
    match effects::remove_tree(&path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(VolumeError::Missing(name.to_owned()))
        }
        Err(error) => Err(failed("remove", &path)(error)),
    }
}

/// Removes the volumes that nobody uses, or only names them.
///
/// # Errors
/// The first that cannot be removed.
pub fn prune(
    host: &Host,
    keeper: Option<u32>,
    users: &Users,
    dry_run: bool,
) -> Result<Vec<String>, VolumeError> {
    let mut unused = list(host, keeper, users)?;
    unused.retain(|volume| volume.users.is_empty());
    if !dry_run {
        for volume in &unused {
            remove(host, keeper, &volume.name, users)?;
        }
    }
    Ok(unused.into_iter().map(|volume| volume.name).collect())
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> VolumeError {
    move |source| VolumeError::Folder {
        operation,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::host;

    #[test]
    fn a_volume_is_made_once_and_removed_only_while_nobody_uses_it() {
        let root = tempfile::tempdir().unwrap();
        let host = host(root.path());
        assert!(make(&host, None, "data").unwrap());
        assert!(!make(&host, None, "data").unwrap());
        assert!(make(&host, None, "free").unwrap());
        fs::write(host.layout.volumes(None).join(".hidden"), "").unwrap();
        fs::write(host.layout.volumes(None).join("file"), "").unwrap();
        let users: Users = [("data".to_owned(), vec!["web".to_owned()])].into();
        let listed = list(&host, None, &users).unwrap();
        let names: Vec<&str> = listed.iter().map(|volume| volume.name.as_str()).collect();
        assert_eq!(names, ["data", "free"]);
        assert_eq!(listed[0].users, ["web"]);

        let used = remove(&host, None, "data", &users).unwrap_err();
        assert_eq!(used.fault().symbol, Symbol::VolumeInUse);
        assert!(used.to_string().ends_with("used by web"), "{used}");
        assert_eq!(prune(&host, None, &users, true).unwrap(), ["free"]);
        assert!(host.layout.volume(None, "free").exists());
        assert_eq!(prune(&host, None, &users, false).unwrap(), ["free"]);
        assert!(!host.layout.volume(None, "free").exists());
        assert!(host.layout.volume(None, "data").exists());
        let missing = remove(&host, None, "free", &users).unwrap_err();
        assert_eq!(missing.fault().symbol, Symbol::VolumeNotFound);
        for name in ["..", "", "a/b", ".hidden"] {
            assert!(matches!(make(&host, None, name), Err(VolumeError::Name(_))));
            assert!(matches!(
                remove(&host, None, name, &users),
                Err(VolumeError::Name(_))
            ));
        }
    }
}
