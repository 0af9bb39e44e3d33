//! Plain names for the paths of an instance that its units cannot carry.
//!
//! A folder of the user's may be called anything, and so may their home; the
//! properties of a unit hold plain paths only ([`is_plain_path`]). Such a path gets
//! a link with a plain name of ours:
//!
//! ```text
//!   /run/user/UID/aegis/names/HANDLE/workspace ──► /home/alice/My Project
//! ```
//!
//! The unit binds the link onto its own name: the manager follows a link it binds
//! from, and to the unit the name is the folder itself. So the specs of the units
//! name the same path with a sandbox and without one. The links lie where no
//! confined unit sees them, or it could lead its own next start elsewhere.

use std::cmp::Reverse;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aegis_core::daemon::InstanceDaemon;
use aegis_core::volume::VolumeSource;
use sha2::{Digest, Sha256};

use super::reach;
use super::shares::workspace_path;
use crate::effects;
use crate::host::Host;
use crate::registry::Record;
use crate::supervisor::plan::is_plain_path;

/// The names of one instance.
#[derive(Debug)]
pub(super) struct Names {
    folder: PathBuf,
    links: Vec<Link>,
}

#[derive(Debug, PartialEq, Eq)]
struct Link {
    target: PathBuf,
    name: PathBuf,
}

impl Names {
    /// The names of all paths that the units of an instance are given.
    pub(super) fn of(host: &Host, record: &Record) -> Self {
        let layout = &host.layout;
        let handle = &record.handle;
        let paths = [
            ("files", layout.instance(handle).dir().to_owned()),
            ("accel.json", layout.accel_cache()),
            ("templates", layout.templates()),
            ("libexec", host.libexec.clone()),
            ("guest", host.guest_dir.clone()),
            ("images", layout.images()),
            ("volumes", layout.volumes(record.creator)),
            ("config", layout.daemon_config(handle)),
        ];
        let workspace = workspace_path(host, record).map(|path| ("workspace", path));
        let odd = paths
            .into_iter()
            .chain(workspace)
            .filter(|(_, path)| !is_plain_path(path))
            .map(|(name, path)| (name.to_owned(), path));
        let volumes = record.unit_volumes().iter();
        let volumes = volumes.filter_map(|volume| match &volume.source {
            VolumeSource::Path(path) if !is_plain_path(path) => Some((digest(path), path.clone())),
            _ => None,
        });
        let programs = record.spec.daemons.iter().flat_map(|daemon| {
            let needed = reach::program(&daemon.program, host).into_iter();
            let needed = needed.filter(|path| !is_plain_path(path)).enumerate();
            needed.map(|(number, path)| (format!("program-{}-{number}", daemon.name), path))
        });
        let folder = layout.names(handle);
        let links = odd.chain(volumes).chain(programs);
        let mut links: Vec<Link> = links
            .map(|(name, target)| Link {
                name: folder.join(name),
                target,
            })
            .collect();
        // A path goes by the name of what is nearest above it.
        links.sort_by_key(|link| Reverse(link.target.as_os_str().len()));
        Self { links, folder }
    }

    /// A path as units are told it.
    pub(super) fn plain(&self, path: &Path) -> PathBuf {
        self.links
            .iter()
            .find_map(|link| {
                let rest = path.strip_prefix(&link.target).ok()?;
                // Joining nothing would end the name with a slash.
                Some(match rest.as_os_str().is_empty() {
                    true => link.name.clone(),
                    false => link.name.join(rest),
                })
            })
            .unwrap_or_else(|| path.to_owned())
    }

    /// A daemon's program as the daemon is told it: one that a link brings to where a
    /// unit can name nothing is told by where it lies.
    pub(super) fn program(&self, daemon: &InstanceDaemon) -> PathBuf {
        let target = daemon.program.canonicalize().ok();
        let odd = target.filter(|target| !is_plain_path(target));
        self.plain(odd.as_deref().unwrap_or(&daemon.program))
    }

    /// Makes the links, each in one step, so that a start never meets half of one.
    pub(super) fn write(&self) -> io::Result<()> {
        if !self.links.is_empty() && !self.folder.exists() {
            // Passable, whatever our umask, for units without a sandbox that another
            // user runs.
            effects::make_folder(&self.folder, 0o711)?;
            effects::protect(&self.folder, 0o711)?;
        }
        for link in &self.links {
            if fs::read_link(&link.name).is_ok_and(|target| target == link.target) {
                continue;
            }
            let fresh = link.name.with_extension("new");
            // A crash may have left one.
            if fs::symlink_metadata(&fresh).is_ok() {
                effects::remove_file(&fresh)?;
            }
            effects::link(&link.target, &fresh)?;
            effects::rename(&fresh, &link.name)?;
        }
        Ok(())
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The name of a volume's source. It does not depend on what other volumes there are,
/// so that a unit keeps its names until it is made anew.
fn digest(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    let digits = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
    format!("volume-{}", digits.collect::<String>())
}

#[cfg(test)]
mod tests {
    use aegis_core::spec::{InstanceSpec, Workspace};

    use super::*;
    use crate::testing::host;

    fn record(workspace: &Path) -> Record {
        let spec = InstanceSpec {
            workspace: Some(Workspace::Path(workspace.to_owned())),
            ..Default::default()
        };
        Record::new("web".parse().unwrap(), spec, 0)
    }

    #[test]
    fn a_plain_path_is_its_own_name_and_needs_no_link() {
        let root = tempfile::tempdir().unwrap();
        let host = host(root.path());
        let names = Names::of(&host, &record(Path::new("/srv/site-1")));
        assert_eq!(
            names.plain(Path::new("/srv/site-1")),
            Path::new("/srv/site-1")
        );
        names.write().unwrap();
        assert!(!names.folder().exists());
    }

    #[test]
    fn an_odd_folder_is_reached_by_a_plain_name() {
        let root = tempfile::tempdir().unwrap();
        let host = host(root.path());
        for odd in [
            "My Project",
            "it's",
            "a:b",
            "back\\slash",
            "\"q\"",
            "ünï",
            "100%",
            "new\nline",
        ] {
            let folder = root.path().join(odd);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("file"), odd).unwrap();
            let names = Names::of(&host, &record(&folder));
            names.write().unwrap();
            let plain = names.plain(&folder);
            assert!(is_plain_path(&plain), "{plain:?}");
            assert_eq!(fs::read_to_string(plain.join("file")).unwrap(), odd);
        }
    }

    #[test]
    fn a_volume_goes_by_the_nearest_name_whatever_others_there_are() {
        let root = tempfile::tempdir().unwrap();
        let host = host(root.path());
        let mut record = record(Path::new("/my site"));
        let volumes = ["/my site/a b:/1", "/my site/plain:/2", "/a:b:/3"];
        record.spec.volumes = volumes.map(|text| text.parse().unwrap()).into();
        let names = Names::of(&host, &record);
        let plain = |path: &str| names.plain(Path::new(path));
        for path in ["/my site", "/my site/a b", "/my site/plain", "/a:b"] {
            assert!(is_plain_path(&plain(path)), "{path}");
        }
        assert_ne!(plain("/my site/a b"), plain("/my site").join("a b"));
        record.spec.volumes.remove(0);
        let fewer = Names::of(&host, &record);
        assert_eq!(plain("/a:b"), fewer.plain(Path::new("/a:b")));
    }

    #[test]
    fn a_program_in_an_odd_folder_is_reached_with_what_lies_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let top = root.path().canonicalize().unwrap();
        let host = host(&top);
        let folder = top.join("My Tools");
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir(top.join("bin")).unwrap();
        fs::write(folder.join("gate"), "#!/bin/sh\n").unwrap();
        fs::write(folder.join("words"), "w").unwrap();
        let link = top.join("bin/gate");
        std::os::unix::fs::symlink(folder.join("gate"), &link).unwrap();
        for program in [folder.join("gate"), link] {
            let mut record = record(Path::new("/srv"));
            let daemon = InstanceDaemon::new("gate", program);
            record.spec.daemons = vec![daemon.clone()];
            let names = Names::of(&host, &record);
            names.write().unwrap();
            let program = names.program(&daemon);
            assert!(is_plain_path(&program), "{program:?}");
            let beside = program.with_file_name("words");
            assert_eq!(fs::read_to_string(beside).unwrap(), "w");
        }
    }

    #[test]
    fn a_home_with_a_space_gives_all_paths_below_it_plain_names() {
        let root = tempfile::tempdir().unwrap();
        let host = host(&root.path().join("my user"));
        let mut host = host;
        host.layout.runtime = root.path().join("run");
        let record = record(Path::new("/srv"));
        let names = Names::of(&host, &record);
        let files = host.layout.instance(&record.handle);
        let folder = host.layout.names(&record.handle);
        assert_eq!(names.plain(&files.vm_spec()), folder.join("files/vm.json"));
        assert_eq!(names.plain(files.dir()), folder.join("files"));
        assert_eq!(
            names.plain(&host.layout.accel_cache()),
            folder.join("accel.json")
        );
    }
}
