//! What aegisd changes outside of itself, but for the registry and the service
//! manager, whose modules see to their own.
//!
//! Every such change has a fault point before and after it (`aegis_fault_points`),
//! so a test can end aegisd or fail it there. `clippy.toml` refuses the functions
//! that would go around this; the system test of fault points refuses a point that
//! no operation passes.

#![expect(
    clippy::disallowed_methods,
    reason = "the place these calls are to be made in"
)]

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Output, Stdio};

use aegis_fault_points::{around, around_async};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, openat, renameat_with};
use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

/// Bytes that are taken of what a program says on stderr.
const MOST_WORDS: u64 = 16 * 1024;

/// Makes a folder with these permissions; its parent must be there.
pub(crate) fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    step("file.make-folder", || {
        DirBuilder::new().mode(mode).create(path)
    })
}

/// Makes a folder and those above it where they are missing.
pub(crate) fn make_folders(path: &Path) -> io::Result<()> {
    step("file.make-folders", || fs::create_dir_all(path))
}

/// Sets a file's permissions.
pub(crate) fn protect(path: &Path, mode: u32) -> io::Result<()> {
    step("file.protect", || {
        fs::set_permissions(path, Permissions::from_mode(mode))
    })
}

/// Makes a private file that must not be there yet, and has its content on the
/// disk. One that could not be written whole is not left.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = step("file.make", || {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open(path)
    })?;
    let written = step("file.write", || {
        file.write_all(content).and_then(|()| file.sync_all())
    });
    if written.is_err() {
        // What went wrong first is the news.
        drop(remove_file(path));
    }
    written
}

/// Makes a folder in an open one; a link of that name is an error.
pub(crate) fn make_folder_at(at: impl AsFd, name: &OsStr, mode: u32) -> io::Result<()> {
    step("file.make-folder", || {
        // Twelve bits, which every platform's type holds.
        let mode = Mode::from_raw_mode(mode as rustix::fs::RawMode);
        Ok(rustix::fs::mkdirat(at, name, mode)?)
    })
}

/// Makes a private file in an open folder, whole and on the disk before it has its
/// name. One of that name stays as it is: the error is `AlreadyExists`.
pub(crate) fn write_new_at(
    at: impl AsFd,
    name: &OsStr,
    content: &[u8],
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    write_at(at, name, content, owner, name_new)
}

/// The same in the place of one that may have that name.
pub(crate) fn replace_at(
    at: impl AsFd,
    name: &OsStr,
    content: &[u8],
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    write_at(at, name, content, owner, |at, hidden, name| {
        Ok(rustix::fs::renameat(at, hidden, at, name)?)
    })
}

fn write_at(
    at: impl AsFd,
    name: &OsStr,
    content: &[u8],
    owner: Option<(u32, u32)>,
    give_name: impl FnOnce(BorrowedFd<'_>, &OsStr, &OsStr) -> io::Result<()>,
) -> io::Result<()> {
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    let at = at.as_fd();
    let forget = || rustix::fs::unlinkat(at, &hidden, AtFlags::empty()).ok();
    let mut file: File = step("file.make", || {
        // What a crash left.
        forget();
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let flags = new | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(at, &hidden, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(file.into())
    })?;
    let written = step("file.write", || {
        file.write_all(content).and_then(|()| file.sync_all())
    });
    let given = written.and_then(|()| match owner {
        Some((uid, gid)) => give_open(&file, uid, gid),
        None => Ok(()),
    });
    let named = given.and_then(|()| step("file.rename", || give_name(at, &hidden, name)));
    if named.is_err() {
        // What went wrong first is the news.
        forget();
    }
    named
}

/// Gives a file its name unless there is one of that name.
fn name_new(at: BorrowedFd<'_>, hidden: &OsStr, name: &OsStr) -> io::Result<()> {
    match renameat_with(at, hidden, at, name, RenameFlags::NOREPLACE) {
        // Not every file system can.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::linkat(at, hidden, at, name, AtFlags::empty())?;
            Ok(rustix::fs::unlinkat(at, hidden, AtFlags::empty())?)
        }
        outcome => Ok(outcome?),
    }
}

/// Copies an open file to a new one with these permissions, and has it on the disk.
pub(crate) fn copy_file(from: &mut File, place: &Path, mode: u32) -> io::Result<()> {
    step("file.copy", || {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(place)?;
        io::copy(from, &mut file)?;
        // Neither the umask nor bits that give rights.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()
    })
}

/// Empties an open file.
pub(crate) fn empty(file: &File) -> io::Result<()> {
    step("file.empty", || file.set_len(0))
}

/// Gives an open file to another user.
pub(crate) fn give_open(file: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    step("file.give", || {
        std::os::unix::fs::fchown(file, Some(uid), Some(gid))
    })
}

/// Opens a private file to hold on to it, made if it is missing.
pub(crate) fn keep_file(path: &Path) -> io::Result<File> {
    step("file.keep", || {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).open(path)
    })
}

/// Makes a symbolic link that must not be there yet.
pub(crate) fn link(target: &Path, name: &Path) -> io::Result<()> {
    step("file.link", || symlink(target, name))
}

/// Puts a file in the place of another in one step.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step("file.rename", || fs::rename(from, to))
}

/// Removes a file.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    step("file.remove", || fs::remove_file(path))
}

/// Removes a folder and everything in it.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    step("file.remove-tree", || fs::remove_dir_all(path))
}

/// Gives a file to another user; never what a link leads to.
pub(crate) fn give(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    step("file.give", || {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid))
    })
}

/// Runs a program to its end. It is killed if nobody waits for it any more.
pub(crate) async fn run(command: std::process::Command) -> io::Result<Output> {
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    around_async("process.run", |error| error, command.output()).await
}

/// What a program wrote that was given something to read.
#[derive(Debug)]
pub(crate) struct Fed {
    pub(crate) status: std::process::ExitStatus,
    pub(crate) stdout: Zeroizing<Vec<u8>>,
    pub(crate) stderr: Vec<u8>,
}

/// Runs a program to its end with that on its stdin. At most `most` bytes of its stdout
/// are taken, and no copy of them stays in memory. It is killed if nobody waits for it
/// any more.
pub(crate) async fn feed(
    command: std::process::Command,
    input: &[u8],
    most: usize,
) -> io::Result<Fed> {
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let fed = async {
        let mut child = command.spawn()?;
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let mut stdin = child.stdin.take().ok_or_else(gone)?;
        let stdout = child.stdout.take().ok_or_else(gone)?;
        let stderr = child.stderr.take().ok_or_else(gone)?;
        let write = async move {
            match stdin.write_all(input).await {
                // It ended without reading it all; its exit status says why.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
                _ => Ok(()),
            }
        };
        let read = async {
            // As large as it may become and what reading asks for, so that it never moves.
            let mut bytes = Zeroizing::new(Vec::with_capacity(most + 64));
            stdout.take(most as u64).read_to_end(&mut bytes).await?;
            Ok(bytes)
        };
        let told = async {
            let mut bytes = Vec::new();
            stderr.take(MOST_WORDS).read_to_end(&mut bytes).await?;
            Ok(bytes)
        };
        let ((), stdout, stderr) = tokio::try_join!(write, read, told)?;
        let status = child.wait().await?;
        Ok(Fed {
            status,
            stdout,
            stderr,
        })
    };
    around_async("process.feed", |error| error, fed).await
}

fn step<T>(name: &str, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    around(name, |error| error, act)
}
