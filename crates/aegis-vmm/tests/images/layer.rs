//! Layers of images, made as archives and turned into SquashFS files.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tar::{Builder, EntryType, Header};

/// A layer that is being written.
pub(crate) struct Layer {
    archive: Builder<Vec<u8>>,
}

impl Layer {
    pub(crate) fn new() -> Self {
        Self {
            archive: Builder::new(Vec::new()),
        }
    }

    fn add(
        mut self,
        kind: EntryType,
        path: &str,
        mode: u32,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        change(&mut header);
        self.archive
            .append_data(&mut header, path, content)
            .unwrap();
        self
    }

    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        self.add(EntryType::Regular, path, 0o644, content, |_| {})
    }

    pub(crate) fn directory(self, path: &str, mode: u32, owner: u64) -> Self {
        self.add(EntryType::Directory, path, mode, b"", |header| {
            header.set_uid(owner);
            header.set_gid(owner);
        })
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, path, 0o777, b"", |header| {
            header.set_link_name(target).unwrap();
        })
    }

    /// Hides what lower layers have there (overlayfs.rst, "whiteouts").
    pub(crate) fn whiteout(self, path: &str) -> Self {
        self.device(path, 0, 0)
    }

    pub(crate) fn device(self, path: &str, major: u32, minor: u32) -> Self {
        self.add(EntryType::Char, path, 0o666, b"", |header| {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        })
    }

    /// A directory that hides the lower layers' one (overlayfs.rst, "opaque").
    pub(crate) fn opaque(mut self, path: &str) -> Self {
        let attribute = [("SCHILY.xattr.trusted.overlay.opaque", b"y".as_slice())];
        self.archive.append_pax_extensions(attribute).unwrap();
        self.directory(path, 0o755, 0)
    }

    /// Writes the layer. Its length is what it happens to be.
    pub(crate) fn write(self, path: PathBuf) -> PathBuf {
        let archive = self.archive.into_inner().unwrap();
        let mut tool = Command::new("sqfstar")
            .args(["-quiet", "-no-progress", "-nopad", "-processors", "1"])
            .args(["-root-mode", "755"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        tool.stdin.take().unwrap().write_all(&archive).unwrap();
        assert!(tool.wait().unwrap().success());
        path
    }
}

/// A layer that is the root's mode and owner alone. (The sqfstar of Debian 12 does
/// not know `-root-uid`.)
pub(crate) fn bare(path: PathBuf, mode: u32, owner: u32) -> PathBuf {
    let root = tempfile::tempdir().unwrap();
    chown(root.path(), Some(owner), Some(owner)).unwrap();
    fs::set_permissions(root.path(), Permissions::from_mode(mode)).unwrap();
    let status = Command::new("mksquashfs")
        .arg(root.path())
        .arg(&path)
        .args(["-quiet", "-no-progress"])
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    path
}

/// The layers of an image that fills `count` of them: the lowest has the programs,
/// each adds a file and a word to `/all`, hides the file of the one three below it,
/// and makes a directory anew that the others write to.
pub(crate) fn many(programs: &Path, dir: &Path, count: usize) -> Vec<PathBuf> {
    let mut layers = vec![programs.to_owned()];
    for number in 1..count {
        let mut layer = Layer::new()
            .directory("files/", 0o755, 0)
            .file(&format!("files/{number}"), &vec![b'x'; number * 37])
            .file("all", format!("{number}").as_bytes());
        if number > 3 {
            layer = layer.whiteout(&format!("files/{}", number - 3));
        }
        layer = match number % 20 {
            0 => layer.opaque("anew/"),
            _ => layer.directory("anew/", 0o755, 0),
        };
        layer = layer.file(&format!("anew/{number}"), b"");
        layers.push(layer.write(dir.join(format!("layer-{number}"))));
    }
    layers
}
