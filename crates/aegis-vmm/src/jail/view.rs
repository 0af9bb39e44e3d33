//! The files a jailed program sees, and the mounts that make them.

use std::ffi::CString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

use super::{JailError, c_path};

/// Where libraries and firmware of packaged programs lie. What a host lacks is
/// left out; links among them are shown as the links they are.
const SYSTEM: [&str; 13] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/share/qemu",
    "/usr/share/ipxe",
    "/usr/share/qemu",
    "/usr/share/seabios",
    "/usr/share/seavgabios",
    "/gnu/store",
    "/nix/store",
    "/etc/ld.so.cache",
];

/// What a jailed program may do with a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and execute.
    Execute,
    Read,
    ReadWrite,
    /// A device node.
    Device,
}

impl Access {
    fn attributes(self) -> u64 {
        MOUNT_ATTR_NOSUID
            | match self {
                Self::Execute => MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV,
                Self::Read => MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
                Self::ReadWrite => MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
                Self::Device => MOUNT_ATTR_NOEXEC,
            }
    }
}

/// A host file or directory and where the program sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    pub from: PathBuf,
    /// Absolute, without `.` and `..`.
    pub to: PathBuf,
    pub access: Access,
}

/// The file system of a jail.
#[derive(Clone, Debug)]
pub struct View {
    root: PathBuf,
    links: Vec<(PathBuf, PathBuf)>,
    binds: Vec<Bind>,
}

impl View {
    /// A view of one program with the libraries and firmware of the system.
    /// `root` is an existing directory; the view is mounted over it in the jail's
    /// own mount namespace, so nothing below it can be shown.
    pub fn of(program: &Path, root: &Path) -> Self {
        let mut view = Self {
            root: root.to_owned(),
            links: Vec::new(),
            binds: Vec::new(),
        };
        for path in SYSTEM.iter().map(Path::new) {
            match fs::read_link(path) {
                Ok(target) => view.links.push((target, path.to_owned())),
                Err(_) if path.exists() => view.show(path, Access::Execute),
                Err(_) => {}
            }
        }
        // A program of another prefix has its libraries and data beside it.
        if let Some(prefix) = program.parent().and_then(Path::parent)
            && !program.starts_with("/usr/bin")
        {
            for path in ["lib", "lib64", "share/qemu"].map(|name| prefix.join(name)) {
                if path.is_dir() {
                    view.show(&path, Access::Execute);
                }
            }
        }
        view.show(program, Access::Execute);
        view
    }

    /// Shows a file or directory at its own path, unless it is visible already.
    fn show(&mut self, path: &Path, access: Access) {
        if !self.binds.iter().any(|bind| path.starts_with(&bind.to)) {
            self.bind(path, path, access);
        }
    }

    /// Shows a host file or directory at a path of the jail.
    pub fn bind(&mut self, from: &Path, to: &Path, access: Access) {
        self.binds.push(Bind {
            from: from.to_owned(),
            to: to.to_owned(),
            access,
        });
    }

    /// The mounts as system calls take them.
    pub(super) fn compile(&self) -> Result<Compiled, JailError> {
        let inside = |path: &Path| {
            let relative: PathBuf = path
                .components()
                .filter(|part| matches!(part, Component::Normal(_)))
                .collect();
            self.root.join(relative)
        };
        let mut directories: Vec<PathBuf> = Vec::new();
        let places = self.links.iter().map(|(_, link)| link);
        for place in places.chain(self.binds.iter().map(|bind| &bind.to)) {
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
            root: c_path(&self.root)?,
            directories: directories
                .iter()
                .map(|path| c_path(path))
                .collect::<Result<_, _>>()?,
            links: self
                .links
                .iter()
                .map(|(target, link)| Ok((c_path(target)?, c_path(&inside(link))?)))
                .collect::<Result<_, JailError>>()?,
            binds: self
                .binds
                .iter()
                .map(|bind| {
                    Ok(CompiledBind {
                        from: c_path(&bind.from)?,
                        to: c_path(&inside(&bind.to))?,
                        is_directory: bind.from.is_dir(),
                        attributes: bind.access.attributes(),
                    })
                })
                .collect::<Result<_, JailError>>()?,
        })
    }
}

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
        let compiled = view.compile().unwrap();
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
                access.attributes() & MOUNT_ATTR_RDONLY == 0,
                writable,
                "{access:?}"
            );
            assert_ne!(access.attributes() & MOUNT_ATTR_NOSUID, 0);
        }
    }
}
