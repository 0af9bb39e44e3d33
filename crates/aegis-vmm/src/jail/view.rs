//! The files that a jailed program sees.

use std::fs;
use std::path::{Path, PathBuf};

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
    /// An existing directory that it is mounted over.
    pub root: PathBuf,
    /// What each symbolic link says, and where it is.
    pub links: Vec<(PathBuf, PathBuf)>,
    pub binds: Vec<Bind>,
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
}
