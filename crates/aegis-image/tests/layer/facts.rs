//! What a tree of files is, one line for each, to be compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::{fs, str};

use aegis_image::layer::{Convert, Layer, LayerError, Limits, Links, convert};
use tempfile::TempDir;

pub(crate) type Facts = BTreeMap<String, String>;

/// Owners, devices and attributes are only restored by root. Says so if the
/// test cannot run.
pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: {test} needs root");
    }
    root
}

/// Converts an archive, packed or not.
pub(crate) fn convert_in(dir: &Path, blob: &[u8], limits: Limits) -> Result<Layer, LayerError> {
    convert_over(dir, blob, limits, None)
}

/// The same for the links of layers below.
pub(crate) fn convert_over(
    dir: &Path,
    blob: &[u8],
    limits: Limits,
    below: Option<&Links>,
) -> Result<Layer, LayerError> {
    let path = dir.join("blob");
    fs::write(&path, blob).unwrap();
    convert(&Convert {
        blob: &path,
        to: &dir.join("layer"),
        diff_id: None,
        limits,
        below,
        progress: &|_| (),
        cancelled: &AtomicBool::new(false),
    })
}

/// Why an archive is refused. Nothing may be left of it.
pub(crate) fn refusal(blob: &[u8]) -> LayerError {
    let dir = tempfile::tempdir().unwrap();
    let error = convert_in(dir.path(), blob, Limits::default()).unwrap_err();
    assert!(!dir.path().join("layer").exists());
    error
}

/// What a layer is once it was converted.
pub(crate) fn converted(blob: &[u8]) -> Facts {
    let dir = tempfile::tempdir().unwrap();
    convert_in(dir.path(), blob, Limits::default()).unwrap();
    unsquashed(&dir)
}

pub(crate) fn unsquashed(dir: &TempDir) -> Facts {
    unsquash(&dir.path().join("layer"), dir.path())
}

/// What a file system holds, unpacked in a folder.
pub(crate) fn unsquash(image: &Path, dir: &Path) -> Facts {
    let tree = dir.join("tree");
    run(Command::new("unsquashfs")
        .args(["-quiet", "-no-progress", "-dest"])
        .arg(&tree)
        .arg(image));
    facts(&tree)
}

pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// What umoci unpacks of these layers, the lowest first.
pub(crate) fn umoci(layers: &[Vec<u8>]) -> Facts {
    let dir = tempfile::tempdir().unwrap();
    facts(&umoci_in(dir.path(), layers))
}

/// The same as a folder.
pub(crate) fn umoci_in(dir: &Path, layers: &[Vec<u8>]) -> PathBuf {
    let image = layout(dir, layers);
    let tree = dir.join("by-umoci");
    run(Command::new("umoci")
        .args(["raw", "unpack", "--image", &image])
        .arg(&tree));
    tree
}

/// An image of these layers in an OCI layout: `LAYOUT:TAG`.
pub(crate) fn layout(dir: &Path, layers: &[Vec<u8>]) -> String {
    let layout = dir.join("layout");
    let image = format!("{}:test", layout.display());
    run(Command::new("umoci").args(["init", "--layout"]).arg(layout));
    run(Command::new("umoci").args(["new", "--image", &image]));
    for layer in layers {
        let path = dir.join("layer.tar");
        fs::write(&path, layer).unwrap();
        run(Command::new("umoci")
            .args(["raw", "add-layer", "--image", &image])
            .arg(path));
    }
    image
}

/// Everything below a folder. Hard links have a number in common.
pub(crate) fn facts(root: &Path) -> Facts {
    let (mut found, mut inodes) = (Facts::new(), BTreeMap::new());
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let meta = fs::symlink_metadata(&path).unwrap();
            let kind = meta.file_type();
            let mut fact = fact(&path);
            if kind.is_dir() {
                folders.push(path.clone());
            }
            if !kind.is_dir() && meta.nlink() > 1 {
                let next = inodes.len();
                let number = inodes.entry(meta.ino()).or_insert(next);
                write!(fact, " #{number}").unwrap();
            }
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
            found.insert(name.escape_ascii().to_string(), fact);
        }
    }
    found
}

/// What is at a path, but for its names.
pub(crate) fn fact(path: &Path) -> String {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let mut fact = if kind.is_dir() {
        "dir".to_owned()
    } else if kind.is_symlink() {
        format!("-> {}", fs::read_link(path).unwrap().display())
    } else if kind.is_file() {
        let bytes = fs::read(path).unwrap();
        let shown = str::from_utf8(&bytes).ok().filter(|text| text.len() < 20);
        let shown = shown.map_or_else(|| hash(&bytes), str::to_owned);
        format!("file {} {shown:?}", bytes.len())
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else {
        let letter = if kind.is_char_device() { 'c' } else { 'b' };
        let device = meta.rdev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        format!("{letter} {major}:{minor}")
    };
    let (mode, time) = (meta.mode() & 0o7777, meta.mtime());
    write!(fact, " {mode:o} {}:{} @{time}", meta.uid(), meta.gid()).unwrap();
    for (name, value) in xattrs(path) {
        write!(fact, " {name}={value:?}").unwrap();
    }
    fact
}

fn hash(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(bytes).to_vec();
    digest[..4].escape_ascii().to_string()
}

fn xattrs(path: &Path) -> BTreeMap<String, String> {
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        // A SquashFS in which nothing has any.
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        length => length.unwrap(),
    };
    let names = names[..length].split(|byte| *byte == 0);
    let names = names.filter(|name| !name.is_empty());
    let read = names.map(|name| {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        (text(name), text(&value[..length]))
    });
    read.collect()
}
