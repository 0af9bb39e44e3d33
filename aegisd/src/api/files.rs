//! The workspace and the daemons' config as files of a request.
//!
//! Both folders are in the hands of the guest or of a daemon, so every step of a
//! path is opened by itself and no link is followed, neither on the way nor at its
//! end; a file is replaced in one step, and what a link stood for stays untouched.

#![expect(
    clippy::disallowed_methods,
    reason = "by descriptor, in folders that are not aegisd's: a request is one change, and what is left of one that failed is nothing to aegisd"
)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat, openat, renameat,
    statat, unlinkat,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::answer::{ApiError, Body, bytes, value};
use super::http::{Asked, MAX_FILE};
use crate::host::Owner;
use crate::instance::{blocking, files, shares};

/// Where pictures lie in a workspace.
const BLOBS: &str = ".aegis/blobs";
/// Most entries of a listing.
const MAX_ENTRIES: usize = 10_000;
/// Permissions of what is written to a workspace: a user's ordinary file.
const WORKSPACE_FILE: Mode = Mode::from_raw_mode(0o644);
const WORKSPACE_FOLDER: Mode = Mode::from_raw_mode(0o755);
/// Config may hold tokens.
const CONFIG_FILE: Mode = Mode::from_raw_mode(0o600);

pub(super) async fn tree(asked: &Asked) -> Result<Response<Body>, ApiError> {
    let root = workspace(asked)?;
    let path = asked.query.get("path").map_or("", String::as_str);
    let path = relative(path)?;
    let listed = blocking(move || list(&root, &path)).await;
    let listed = listed.map_err(|error| ApiError::of_io("list the folder", &error))?;
    Ok(value(&listed))
}

pub(super) async fn read(asked: &Asked) -> Result<Response<Body>, ApiError> {
    let root = workspace(asked)?;
    let path = relative(asked.required("path")?)?;
    let content = blocking(move || read_file(&root, &path, MAX_FILE)).await;
    Ok(bytes("application/octet-stream", content?))
}

pub(super) async fn write(asked: &Asked, body: Bytes) -> Result<Response<Body>, ApiError> {
    let root = workspace(asked)?;
    let path = relative(asked.required("path")?)?;
    let owner = asked.engine.shared().host.unit_owner;
    let written = blocking(move || write_file(&root, &path, &body, WORKSPACE_FILE, owner)).await;
    written.map_err(|error| ApiError::of_io("write the file", &error))?;
    Ok(value(&json!({"status": "ok"})))
}

/// A picture that messages name by its content.
pub(super) async fn write_blob(
    asked: &Asked,
    head: &Parts,
    body: Bytes,
) -> Result<Response<Body>, ApiError> {
    let kind = head.headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let (ending, kind) = match kind {
        "image/png" => ("png", kind),
        "image/jpeg" => ("jpg", kind),
        "image/gif" => ("gif", kind),
        "image/webp" => ("webp", kind),
        other => {
            let message = format!("a blob is a png, jpeg, gif or webp image, not '{other}'");
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
    };
    let name = format!("{:x}.{ending}", Sha256::digest(&body));
    let answer = json!({"blob": name, "media_type": kind, "size": body.len()});
    let root = workspace(asked)?;
    let owner = asked.engine.shared().host.unit_owner;
    let path = Path::new(BLOBS).join(name);
    let written = blocking(move || write_file(&root, &path, &body, WORKSPACE_FILE, owner)).await;
    written.map_err(|error| ApiError::of_io("write the blob", &error))?;
    Ok(value(&answer))
}

pub(super) async fn read_config(asked: &Asked) -> Result<Response<Body>, ApiError> {
    let name = config_name(asked)?;
    let folder = asked
        .engine
        .shared()
        .host
        .layout
        .daemon_config(asked.instance.handle());
    let most = usize::try_from(files::MAX_FILE).unwrap_or(MAX_FILE);
    let content = blocking(move || read_file(&folder, &name, most)).await;
    Ok(bytes("application/json", content?))
}

pub(super) async fn write_config(asked: &Asked, body: Bytes) -> Result<Response<Body>, ApiError> {
    let name = config_name(asked)?;
    if let Err(error) = serde_json::from_slice::<Value>(&body) {
        // It would never be applied.
        let message = format!("the body is not JSON: {error}");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, message));
    }
    let host = &asked.engine.shared().host;
    let folder = host.layout.daemon_config(asked.instance.handle());
    let owner = host.unit_owner;
    let written = blocking(move || write_file(&folder, &name, &body, CONFIG_FILE, owner)).await;
    written.map_err(|error| ApiError::of_io("write the config", &error))?;
    Ok(value(&json!({"status": "ok"})))
}

fn workspace(asked: &Asked) -> Result<PathBuf, ApiError> {
    let record = asked.instance.record();
    let path = shares::workspace_path(&asked.engine.shared().host, &record);
    path.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "the instance has no workspace"))
}

/// The name of a config file: one that lies in the folder itself.
fn config_name(asked: &Asked) -> Result<PathBuf, ApiError> {
    let name = asked.required("file")?;
    let path = relative(name)?;
    match path.components().count() == 1 && !name.contains('/') {
        true => Ok(path),
        false => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "'file' is the name of a file, without a folder",
        )),
    }
}

/// A path below a folder.
fn relative(text: &str) -> Result<PathBuf, ApiError> {
    let normal = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    let path = Path::new(text);
    if text.contains('\0') || !path.components().all(|part| normal(&part)) {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "the path leaves its folder: it must be relative and without '..'",
        ));
    }
    let normal = path.components().filter(|part| *part != Component::CurDir);
    Ok(normal.collect())
}

/// The entries of a folder: folders first, then by name.
fn list(root: &Path, path: &Path) -> io::Result<Value> {
    let folder = files::open_inside(root, path)?;
    if !folder.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let mut entries = Vec::new();
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        // It may be gone again.
        let Ok(found) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let kind = FileType::from_raw_mode(found.st_mode);
        let size = match kind {
            FileType::RegularFile => found.st_size,
            _ => 0,
        };
        let name = name.to_string_lossy().into_owned();
        entries.push((kind != FileType::Directory, name, size));
        if entries.len() > MAX_ENTRIES {
            return Err(io::Error::other(format!(
                "it has more than {MAX_ENTRIES} entries"
            )));
        }
    }
    entries.sort();
    let shown = entries
        .into_iter()
        .map(|(is_no_dir, name, size)| json!({"name": name, "is_dir": !is_no_dir, "size": size}));
    Ok(shown.collect())
}

fn read_file(root: &Path, path: &Path, most: usize) -> Result<Vec<u8>, ApiError> {
    let failed = |error: io::Error| ApiError::of_io("read the file", &error);
    let file = files::open_inside(root, path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        return Err(ApiError::new(StatusCode::CONFLICT, "it is not a file"));
    }
    let mut content = Vec::new();
    file.take(most as u64 + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    match content.len() > most {
        true => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the file is longer than {most} bytes"),
        )),
        false => Ok(content),
    }
}

/// Replaces a file, or makes it and the folders it lies in.
fn write_file(
    root: &Path,
    path: &Path,
    content: &[u8],
    mode: Mode,
    owner: Option<Owner>,
) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let folder = folder_inside(root, path.parent().unwrap_or(Path::new("")), owner)?;
    if let Ok(found) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)
        && FileType::from_raw_mode(found.st_mode) == FileType::Directory
    {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let fresh = format!(".aegis-{:016x}", u64::from_ne_bytes(random));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&folder, fresh.as_str(), flags, Mode::RUSR | Mode::WUSR)?;
    let written = fill(File::from(file), content, mode, owner)
        .and_then(|()| Ok(renameat(&folder, fresh.as_str(), &folder, name)?));
    if written.is_err() {
        // What is left over is of no use; that it is there is not the failure.
        unlinkat(&folder, fresh.as_str(), AtFlags::empty()).ok();
    }
    written
}

fn fill(mut file: File, content: &[u8], mode: Mode, owner: Option<Owner>) -> io::Result<()> {
    file.write_all(content)?;
    // By descriptor: the process's umask is for files of its own.
    fchmod(&file, mode)?;
    give(&file, owner)?;
    file.sync_all()
}

fn give(file: impl AsFd, owner: Option<Owner>) -> io::Result<()> {
    let Some(owner) = owner else {
        return Ok(());
    };
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    Ok(fchown(file, Some(uid), Some(gid))?)
}

/// Opens a folder below another one and makes what is missing of the way.
fn folder_inside(root: &Path, path: &Path, owner: Option<Owner>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at: OwnedFd = File::open(root)?.into();
    for part in path.components() {
        let Component::Normal(part) = part else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        match mkdirat(&at, part, WORKSPACE_FOLDER) {
            Ok(()) => {
                let made = openat(&at, part, flags, Mode::empty())?;
                fchmod(&made, WORKSPACE_FOLDER)?;
                give(&made, owner)?;
                at = made;
            }
            Err(rustix::io::Errno::EXIST) => at = openat(&at, part, flags, Mode::empty())?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn put(root: &Path, path: &str, content: &[u8]) -> io::Result<()> {
        write_file(root, Path::new(path), content, WORKSPACE_FILE, None)
    }

    fn get(root: &Path, path: &str) -> Result<Vec<u8>, StatusCode> {
        read_file(root, Path::new(path), 100).map_err(|error| error.status)
    }

    #[test]
    fn files_are_written_read_and_listed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        put(root, "src/deep/a.txt", b"a").unwrap();
        put(root, "b.txt", b"1").unwrap();
        put(root, "b.txt", b"22").unwrap();
        assert_eq!(get(root, "src/deep/a.txt").unwrap(), b"a");
        let mode = fs::metadata(root.join("b.txt"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
        let listed = list(root, Path::new("")).unwrap();
        assert_eq!(
            listed,
            json!([
                {"name": "src", "is_dir": true, "size": 0},
                {"name": "b.txt", "is_dir": false, "size": 2},
            ])
        );
        assert_eq!(get(root, "src"), Err(StatusCode::CONFLICT));
        assert_eq!(get(root, "none"), Err(StatusCode::NOT_FOUND));
        assert!(put(root, "src", b"").is_err());
        fs::write(root.join("big"), [0; 101]).unwrap();
        assert_eq!(get(root, "big"), Err(StatusCode::PAYLOAD_TOO_LARGE));
    }

    #[test]
    fn no_link_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        let root = folder.path().join("workspace");
        fs::create_dir(&outside).unwrap();
        fs::create_dir(&root).unwrap();
        fs::write(outside.join("secret"), "s").unwrap();
        symlink(outside.join("secret"), root.join("file")).unwrap();
        symlink(&outside, root.join("folder")).unwrap();
        for path in ["file", "folder/secret"] {
            assert!(get(&root, path).is_err(), "{path}");
        }
        assert!(put(&root, "folder/new", b"x").is_err());
        assert!(!outside.join("new").exists());
        assert!(list(&root, Path::new("folder")).is_err());
        // The link is replaced, and what it led to stays.
        put(&root, "file", b"x").unwrap();
        assert_eq!(get(&root, "file").unwrap(), b"x");
        assert_eq!(fs::read(outside.join("secret")).unwrap(), b"s");
        let left: Vec<_> = fs::read_dir(&root).unwrap().collect();
        assert_eq!(left.len(), 2);
    }

    #[test]
    fn paths_stay_below_their_folder() {
        assert_eq!(relative("./a/b").unwrap(), Path::new("a/b"));
        assert_eq!(relative("").unwrap(), Path::new(""));
        for text in ["/etc/passwd", "..", "a/../../b", "a\0"] {
            assert!(relative(text).is_err(), "{text:?}");
        }
    }
}
