//! What of the host an instance shows in its guest: where it is, and whether it may be
//! shown. Blocks: callers are on a blocking thread.

use std::fs;
use std::path::{Path, PathBuf};

use aegis_core::layout::Mode;
use aegis_core::spec::Workspace;
use aegis_core::volume::{Volume, VolumeSource};

use super::InstanceError;
use crate::host::Host;
use crate::registry::Record;

/// What of our home is there to be shown: workspaces, those that the original AegisVM
/// made in the same home, and volumes.
const KEPT_FOR_GUESTS: [&str; 3] = ["workspaces", "data/workspaces", "volumes"];

/// The folder on the host that an instance's workspace is, if it has one.
pub(crate) fn workspace_path(host: &Host, record: &Record) -> Option<PathBuf> {
    let workspace = record.spec.workspace.as_ref()?;
    Some(match workspace {
        Workspace::Path(path) => path.clone(),
        Workspace::Named(name) => host.layout.workspace(record.creator, name),
    })
}

/// What of the host a volume of an instance shows.
pub(crate) fn volume_path(host: &Host, record: &Record, source: &VolumeSource) -> PathBuf {
    match source {
        VolumeSource::Path(path) => path.clone(),
        VolumeSource::Named(name) => host.layout.volume(record.creator, name),
    }
}

/// Checks what an instance is to show of the host.
pub(super) fn check(host: &Host, record: &Record) -> Result<(), InstanceError> {
    let (spec, keeper) = (&record.spec, record.creator);
    check_volumes(host, keeper, &spec.volumes)?;
    let Some(Workspace::Path(path)) = &spec.workspace else {
        return Ok(());
    };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => check_foreign(host, keeper, path),
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
    keeper: Option<u32>,
    volumes: impl IntoIterator<Item = &'a Volume>,
) -> Result<(), InstanceError> {
    for Volume { source, target, .. } in volumes {
        let VolumeSource::Path(path) = source else {
            continue;
        };
        match fs::metadata(path) {
            Ok(found) if found.is_dir() || found.is_file() => check_foreign(host, keeper, path)?,
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
/// slip, and in system mode what other users keep. In user mode a user may show a home
/// of theirs with all that is in it.
fn check_foreign(host: &Host, keeper: Option<u32>, path: &Path) -> Result<(), InstanceError> {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (home, shown) = (real(&host.layout.home), real(path));
    let Ok(inside) = shown.strip_prefix(&home) else {
        let holds_it = host.layout.mode == Mode::System && home.starts_with(&shown);
        return match holds_it {
            true => Err(InstanceError::OwnFolder(path.to_owned())),
            false => Ok(()),
        };
    };
    let kept = real(&host.layout.kept_by(keeper));
    let kept = kept.strip_prefix(&home).unwrap_or(Path::new(""));
    let is_kept_for_guests = KEPT_FOR_GUESTS
        .iter()
        .map(|folder| kept.join(folder))
        .any(|folder| inside.starts_with(&folder) && inside != folder);
    match is_kept_for_guests {
        true => Ok(()),
        false => Err(InstanceError::OwnFolder(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use aegis_core::spec::InstanceSpec;

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
        let may = |host: &Host, path: &Path| check_foreign(host, None, path).is_ok();
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
    fn a_user_of_the_system_mode_shows_what_is_theirs_alone() {
        let root = tempfile::tempdir().unwrap();
        let mut host = host(root.path());
        host.layout.mode = Mode::System;
        for keeper in [None, Some(1000), Some(1001)] {
            fs::create_dir_all(host.layout.workspace(keeper, "w")).unwrap();
            fs::create_dir_all(host.layout.volume(keeper, "v")).unwrap();
        }
        for (keeper, owner, may) in [
            (Some(1000), Some(1000), true),
            (Some(1000), Some(1001), false),
            (Some(1000), None, false),
            (None, None, true),
            (Some(0), None, true),
            (None, Some(1000), false),
        ] {
            for path in [
                host.layout.workspace(owner, "w"),
                host.layout.volume(owner, "v"),
            ] {
                let shown = check_foreign(&host, keeper, &path);
                assert_eq!(shown.is_ok(), may, "{keeper:?} {}", path.display());
            }
        }
        let own = host.layout.volumes(Some(1000));
        assert!(check_foreign(&host, Some(1000), &own).is_err());
    }

    #[test]
    fn a_missing_workspace_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let spec = InstanceSpec {
            workspace: Some(Workspace::Path("/nonexistent".into())),
            ..InstanceSpec::default()
        };
        let record = Record::new("web".parse().unwrap(), spec, 0);
        let fault = check(&host(root.path()), &record).unwrap_err().fault();
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
            let fault = check_volumes(&host, None, &volumes).unwrap_err().fault();
            assert_eq!(fault.symbol, aegis_core::fault::Symbol::VolumeUnavailable);
            let path = missing.split(':').next().unwrap();
            assert!(fault.message.contains(path), "{}", fault.message);
        }
    }
}
