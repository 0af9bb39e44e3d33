//! Whether the original's daemon runs.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::OriginalError;

/// What its process is called.
const NAME: &str = "aegisd";

/// What shows that it runs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Its socket is answered.
    Socket(PathBuf),
    /// Its socket is there, and we may not ask who answers.
    Closed(PathBuf),
    /// The process it noted is there.
    Process { pid: i32, file: PathBuf },
}

impl Sign {
    /// What to do about it.
    pub(super) fn hint(&self) -> String {
        let stop = "stop it (`aegis down` of that installation";
        let rest = "and call this again; nothing was touched";
        match self {
            Self::Socket(_) => format!("{stop}) {rest}"),
            Self::Closed(path) => {
                format!("{stop}, or remove {} if none runs) {rest}", path.display())
            }
            Self::Process { pid, file } => format!(
                "{stop}, or `kill {pid}`; if that is another program remove {}) {rest}",
                file.display()
            ),
        }
    }
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "it answers at {}", path.display()),
            Self::Closed(path) => write!(
                f,
                "its socket {} is there, which this user may not ask",
                path.display()
            ),
            Self::Process { pid, file } => {
                write!(f, "it is process {pid}, as {} says", file.display())
            }
        }
    }
}

/// Looks for signs of it.
pub(super) fn check(socket: &Path, pid_file: &Path) -> Result<(), OriginalError> {
    // A socket that a crash left behind refuses.
    let answered = match UnixStream::connect(socket) {
        Ok(_) => Some(Sign::Socket(socket.to_owned())),
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => None,
            ErrorKind::PermissionDenied => Some(Sign::Closed(socket.to_owned())),
            _ => return Err(unreadable(socket, error)),
        },
    };
    if let Some(sign) = answered {
        return Err(OriginalError::Runs(sign));
    }
    let noted = match fs::read_to_string(pid_file) {
        Ok(text) => text.trim().parse().ok(),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(unreadable(pid_file, error)),
    };
    match noted.filter(|pid| *pid > 0 && is_it(*pid)) {
        None => Ok(()),
        Some(pid) => Err(OriginalError::Runs(Sign::Process {
            pid,
            file: pid_file.to_owned(),
        })),
    }
}

/// Whether a process is there that may be it: a number is given again, to others too.
fn is_it(pid: i32) -> bool {
    let is_there = !matches!(kill(Pid::from_raw(pid), None), Err(Errno::ESRCH));
    // Without /proc (macOS) a process has no name for us.
    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
    is_there && name.map_or(true, |name| name.trim() == NAME)
}

fn unreadable(path: &Path, source: io::Error) -> OriginalError {
    OriginalError::Read {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_that_answers_is_a_daemon_that_runs() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, pid) = (dir.path().join("aegisd.sock"), dir.path().join("pid"));
        check(&socket, &pid).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let error = check(&socket, &pid).unwrap_err();
        assert!(matches!(error, OriginalError::Runs(Sign::Socket(_))));
        drop(listener);
        check(&socket, &pid).expect("a crash leaves its socket behind");
    }

    #[test]
    fn the_process_that_is_noted_counts_if_it_can_be_it() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, file) = (dir.path().join("aegisd.sock"), dir.path().join("pid"));
        // Neither this test nor a number that no process has is an aegisd.
        for text in [&std::process::id().to_string(), "999999999", "", "x", "-1"] {
            fs::write(&file, text).unwrap();
            check(&socket, &file).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }
}
