//! What of the host an instance shows in its guest: where it is, and whether it may be
//! shown. Blocks: callers are on a blocking thread.

use std::fs;
use std::path::{Path, PathBuf};

use aegis_core::layout::Mode;
use aegis_core::spec::{InstanceSpec, Workspace};
use aegis_core::volume::{Volume, VolumeSource};

use super::InstanceError;
use crate::host::Host;

/// What of our home is there to be shown: workspaces, those that the original AegisVM
/// made in the same home, and volumes.
const KEPT_FOR_GUESTS: [&str; 3] = ["workspaces", "data/workspaces", "volumes"];

/// The folder on the host that an instance's workspace is.
pub(crate) fn workspace_path(host: &Host, workspace: &Workspace) -> PathBuf {
    match workspace {
        Workspace::Path(path) => path.clone(),
        Workspace::Named(name) => host.layout.workspace(name),
    }
}

/// What of the host a volume shows.
pub(crate) fn volume_path(host: &Host, source: &VolumeSource) -> PathBuf {
    match source {
        VolumeSource::Path(path) => path.clone(),
        VolumeSource::Named(name) => host.layout.volume(name),
    }
}

/// Checks what an instance is to show of the host.
pub(super) fn check(host: &Host, spec: &InstanceSpec) -> Result<(), InstanceError> {
    check_volumes(host, &spec.volumes)?;
    let Some(Workspace::Path(path)) = &spec.workspace else {
        return Ok(());
    };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => check_foreign(host, path),
        Ok(_) => Err(InstanceError::WorkspaceKind(path.clone())),
        Err(source) => Err(InstanceError::Workspace {
            path: path.clone(),
            source,
        }),
    }
}

/// Checks that there is something for volumes to show.
pub(super) fn check_volumes<'a>(
    host: &Host,
    volumes: impl IntoIterator<Item = &'a Volume>,
) -> Result<(), InstanceError> {
    for Volume { source, target, .. } in volumes {
        let VolumeSource::Path(path) = source else {
            continue;
        };
        match fs::metadata(path) {
            Ok(found) if found.is_dir() || found.is_file() => check_foreign(host, path)?,
            Ok(_) => {
                return Err(InstanceError::VolumeKind {
                    path: path.clone(),
                    target: target.clone(),
                });
            }
            Err(source) => {
                return Err(InstanceError::VolumeSource {
                    path: path.clone(),
                    target: target.clone(),
                    source,
                });
            }
        }
    }
    Ok(())
}

/// Keeps the registry, the secrets and other instances' disks from being shown by a
/// slip. In user mode a user may show a home of theirs with all that is in it.
fn check_foreign(host: &Host, path: &Path) -> Result<(), InstanceError> {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (home, shown) = (real(&host.layout.home), real(path));
    let Ok(inside) = shown.strip_prefix(&home) else {
        let holds_it = host.layout.mode == Mode::System && home.starts_with(&shown);
        return match holds_it {
            true => Err(InstanceError::OwnFolder(path.to_owned())),
            false => Ok(()),
        };
    };
    let is_kept_for_guests = KEPT_FOR_GUESTS
        .iter()
        .any(|folder| inside.starts_with(folder) && inside != Path::new(folder));
    match is_kept_for_guests {
        true => Ok(()),
        false => Err(InstanceError::OwnFolder(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::host;

    #[test]
    fn aegisvm_s_own_files_are_not_shown() {
        let root = tempfile::tempdir().unwrap();
        let mut host = host(root.path());
        let home = host.layout.home.clone();
        for folder in [
            "workspaces/w",
            "data/workspaces/w",
            "volumes/v",
            "instances/x",
        ] {
            fs::create_dir_all(home.join(folder)).unwrap();
        }
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&home, &link).unwrap();
        let may = |host: &Host, path: &Path| check_foreign(host, path).is_ok();
        for own in [
            "",
            "instances",
            "instances/x",
            "workspaces",
            "data",
            "data/workspaces",
            "volumes",
        ] {
            assert!(!may(&host, &home.join(own)), "{own}");
        }
        assert!(!may(&host, &link) && !may(&host, &link.join("instances")));
        assert!(may(&host, &home.join("data/workspaces/w")));
        assert!(may(&host, &home.join("workspaces/w")) && may(&host, &home.join("volumes/v")));
        assert!(may(&host, root.path()) && may(&host, Path::new("/etc/passwd")));
        host.layout.mode = Mode::System;
        assert!(!may(&host, root.path()) && !may(&host, Path::new("/")));
    }

    #[test]
    fn a_missing_workspace_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let spec = InstanceSpec {
            workspace: Some(Workspace::Path("/nonexistent".into())),
            ..InstanceSpec::default()
        };
        let fault = check(&host(root.path()), &spec).unwrap_err().fault();
        assert_eq!(
            fault.symbol,
            aegis_core::fault::Symbol::WorkspaceUnavailable
        );
    }

    #[test]
    fn a_source_is_a_folder_or_file_that_is_there() {
        let root = tempfile::tempdir().unwrap();
        let host = host(root.path());
        for missing in ["/nonexistent:/x", "/dev/null:/x"] {
            let volumes = [missing.parse().unwrap()];
            let fault = check_volumes(&host, &volumes).unwrap_err().fault();
            assert_eq!(fault.symbol, aegis_core::fault::Symbol::VolumeUnavailable);
            let path = missing.split(':').next().unwrap();
            assert!(fault.message.contains(path), "{}", fault.message);
        }
    }
}
