//! virtiofsd: the file server for virtiofs.
//!
//! Options are those of `virtiofsd --help`, version 1.13.

use std::env;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{fs, io};

use tokio::process::Command;

use super::{JAILED, ShareError, own_proc};
use crate::hypervisor::process::Child;
use crate::jail::{Access, Bind, Confinement, FIRST_DESCRIPTOR, Program, View};

/// Where packages put it, which is seldom in the PATH.
const PLACES: [&str; 4] = [
    "/usr/libexec/virtiofsd",
    "/usr/lib/virtiofsd",
    "/usr/lib/qemu/virtiofsd",
    "/usr/local/libexec/virtiofsd",
];

/// The first version with `--translate-uid`: without it a guest user other than
/// root cannot create files under a user namespace that maps one user.
const OLDEST: (u32, u32) = (1, 13);

/// Every user and group of the guest is user 0 of the jail, our own.
const SQUASH: &str = "squash-guest:0:0:4294967295";

/// What virtiofsd holds while it serves, and what it needs to get there: chown,
/// dac_override, fowner, fsetid, setgid, setuid, setpcap, sys_chroot, mknod and
/// setfcap of capabilities(7). They act on our own files only.
const CAPABILITIES: u64 =
    1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 18 | 1 << 27 | 1 << 31;

/// The first virtiofsd that runs on this host and is new enough.
pub(super) async fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let candidates = PLACES
        .iter()
        .map(PathBuf::from)
        .chain(env::split_paths(&path).map(|dir| dir.join("virtiofsd")));
    for candidate in candidates {
        let Ok(program) = candidate.canonicalize() else {
            continue;
        };
        if version_of(&program)
            .await
            .is_some_and(|version| version >= OLDEST)
        {
            return Some(program);
        }
    }
    None
}

async fn version_of(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// Reads `virtiofsd 1.13.2`. The older program of the same name that was part of
/// QEMU says `virtiofsd version 7.2.9`, and has other options.
fn parse_version(output: &str) -> Option<(u32, u32)> {
    let mut numbers = output.trim().strip_prefix("virtiofsd ")?.split('.');
    let major = numbers.next()?.parse().ok()?;
    Some((major, numbers.next()?.parse().ok()?))
}

/// Starts a server for one connection and makes the connection.
pub(super) async fn start(
    program: &Path,
    shown: Vec<Bind>,
    read_only: bool,
    scratch: &Path,
    jail_root: &Path,
) -> Result<(OwnedFd, Child), ShareError> {
    let (listener, socket) = connection(scratch).map_err(ShareError::Socket)?;
    let mut view = View::of(program, jail_root);
    // The limit on open files is read even by a server that is told to leave it alone.
    let limit = Path::new("/proc/sys/fs/nr_open");
    view.bind(limit, limit, Access::Read);
    for bind in shown.into_iter().chain([own_proc()]) {
        view.bind(&bind.from, &bind.to, bind.access);
    }
    let mut args = vec![
        format!("--fd={FIRST_DESCRIPTOR}"),
        format!("--shared-dir={JAILED}"),
        // Within the jail, which holds the libraries too, down to what is shared.
        "--sandbox=chroot".to_owned(),
        format!("--translate-uid={SQUASH}"),
        format!("--translate-gid={SQUASH}"),
        "--inode-file-handles=never".to_owned(),
        "--rlimit-nofile=0".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    if read_only {
        args.push("--readonly".to_owned());
    }
    let server = Child::spawn(
        "virtiofsd",
        |output| Program {
            path: program.to_owned(),
            args,
            input: None,
            descriptors: vec![listener],
            output,
            capabilities: CAPABILITIES,
        },
        Confinement::Jailed(view),
    )
    .await
    .map_err(|source| ShareError::Jail {
        program: program.to_owned(),
        source,
    })?;
    Ok((socket, server))
}

/// A listening socket and the one connection to it. The server wants to accept,
/// so the socket needs a name for a moment; nobody else can enter the directory.
fn connection(scratch: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let directory = fs::File::open(scratch)?;
    // By descriptor, since a socket's path may have 107 bytes only (unix(7)).
    let name = format!("/proc/self/fd/{}/share.sock", directory.as_raw_fd());
    // A start that was killed may have left one.
    match fs::remove_file(&name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&name)?;
    let socket = UnixStream::connect(&name)?;
    fs::remove_file(&name)?;
    Ok((listener.into(), socket.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_program_with_its_own_versions_is_read() {
        assert_eq!(parse_version("virtiofsd 1.13.2\n"), Some((1, 13)));
        assert_eq!(
            parse_version("virtiofsd version 7.2.9 (Debian 1:7.2)\n"),
            None
        );
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn the_connection_leaves_no_name() {
        let dir = tempfile::tempdir().unwrap();
        connection(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
