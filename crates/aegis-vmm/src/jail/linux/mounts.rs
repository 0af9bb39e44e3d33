//! The mounts that make a view, as system calls take them.

use std::ffi::CString;
use std::path::{Component, Path, PathBuf};

use libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

use crate::jail::{Access, JailError, View, c_path};

/// A view with every path as the child needs it, below the root.
pub(super) struct Compiled {
    pub(super) root: CString,
    pub(super) directories: Vec<CString>,
    /// Target and place of each symbolic link.
    pub(super) links: Vec<(CString, CString)>,
    pub(super) binds: Vec<CompiledBind>,
}

pub(super) struct CompiledBind {
    pub(super) from: CString,
    pub(super) to: CString,
    pub(super) is_directory: bool,
    /// Of mount_setattr(2).
    pub(super) attributes: u64,
}

/// The mounts of a view.
pub(super) fn compile(view: &View) -> Result<Compiled, JailError> {
    let inside = |path: &Path| {
        let relative: PathBuf = path
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .collect();
        view.root.join(relative)
    };
    let mut directories: Vec<PathBuf> = Vec::new();
    let places = view.links.iter().map(|(_, link)| link);
    for place in places.chain(view.binds.iter().map(|bind| &bind.to)) {
        // Parents first, each once.
        let mut parents: Vec<&Path> = place.ancestors().skip(1).collect();
        parents.pop();
        for parent in parents.into_iter().rev() {
            let parent = inside(parent);
            if !directories.contains(&parent) {
                directories.push(parent);
            }
        }
    }
    Ok(Compiled {
        root: c_path(&view.root)?,
        directories: directories
            .iter()
            .map(|path| c_path(path))
            .collect::<Result<_, _>>()?,
        links: view
            .links
            .iter()
            .map(|(target, link)| Ok((c_path(target)?, c_path(&inside(link))?)))
            .collect::<Result<_, JailError>>()?,
        binds: view
            .binds
            .iter()
            .map(|bind| {
                Ok(CompiledBind {
                    from: c_path(&bind.from)?,
                    to: c_path(&inside(&bind.to))?,
                    is_directory: bind.from.is_dir(),
                    attributes: attributes(bind.access),
                })
            })
            .collect::<Result<_, JailError>>()?,
    })
}

/// Of mount_setattr(2).
fn attributes(access: Access) -> u64 {
    MOUNT_ATTR_NOSUID
        | match access {
            Access::Execute => MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV,
            Access::Read => MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
            Access::ReadWrite => MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
            Access::Device => MOUNT_ATTR_NOEXEC,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_once_and_everything_lies_below_the_root() {
        let mut view = View {
            root: "/scratch".into(),
            links: Vec::new(),
            binds: Vec::new(),
        };
        view.links.push(("usr/lib".into(), "/lib".into()));
        view.bind(Path::new("/opt/a"), Path::new("/usr/share/a"), Access::Read);
        view.bind(
            Path::new("/opt/b"),
            Path::new("/usr/share/../b"),
            Access::Device,
        );
        let compiled = compile(&view).unwrap();
        let text = |path: &CString| path.to_str().unwrap().to_owned();
        let directories: Vec<String> = compiled.directories.iter().map(text).collect();
        assert_eq!(directories[..2], ["/scratch/usr", "/scratch/usr/share"]);
        assert!(
            compiled
                .binds
                .iter()
                .all(|bind| text(&bind.to).starts_with("/scratch/usr/"))
        );
        assert_eq!(text(&compiled.links[0].1), "/scratch/lib");
    }

    #[test]
    fn only_devices_and_read_write_folders_are_writable() {
        for (access, writable) in [
            (Access::Execute, false),
            (Access::Read, false),
            (Access::ReadWrite, true),
            (Access::Device, true),
        ] {
            assert_eq!(
                attributes(access) & MOUNT_ATTR_RDONLY == 0,
                writable,
                "{access:?}"
            );
            assert_ne!(attributes(access) & MOUNT_ATTR_NOSUID, 0);
        }
    }
}
