//! Starting one program in the guest.
#![allow(
    unsafe_code,
    reason = "what a child does between fork and exec is unsafe to say in Rust"
)]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aegis_link::message::{Fault, Program, Symbol};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Pid, chdir, setgid, setgroups, setsid, setuid};

use crate::early::HARD_DESCRIPTORS;
use crate::users::{self, Identity};

/// PATH of programs that are given none, as Debian's and most images have it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Descriptors a program may have open until it asks for more: programs that
/// use select(2) break above it.
const SOFT_DESCRIPTORS: u64 = 1024;

/// What a program has as standard input, output and error.
#[derive(Debug)]
pub(crate) enum Streams {
    /// One end of a pipe each, or any file.
    Apart {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// The slave of a terminal for all three; it becomes the controlling one.
    Terminal(OwnedFd),
}

/// A program with everything that can be found out before it is started.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) identity: Identity,
    path: PathBuf,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    workdir: PathBuf,
}

/// Finds the program, its user and its directory in the running root.
pub(crate) fn prepare(program: &Program, terminal: bool) -> Result<Prepared, Fault> {
    let identity = users::resolve(program.user.as_deref())?;
    let workdir = workdir(program.workdir.as_deref(), &identity)?;
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOME".to_owned(), identity.home.clone()),
        ("USER".to_owned(), identity.name.clone()),
        ("SHELL".to_owned(), identity.shell.clone()),
    ]);
    if terminal {
        env.insert("TERM".to_owned(), "xterm".to_owned());
    }
    env.extend(program.env.clone());
    let search = env.get("PATH").map_or(PATH, String::as_str);
    let name = program
        .argv
        .first()
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Fault::new(Symbol::BadRequest, "no program was named"))?;
    let path = find(name, search, &workdir)?;
    Ok(Prepared {
        identity,
        path,
        argv: program.argv.clone(),
        env,
        workdir,
    })
}

fn workdir(wanted: Option<&str>, identity: &Identity) -> Result<PathBuf, Fault> {
    let missing = |path: &str, why: &str| {
        Fault::new(
            Symbol::WorkdirNotFound,
            format!("the working directory {path:?} {why}"),
        )
    };
    match wanted {
        None => {
            let home = PathBuf::from(&identity.home);
            Ok(if home.is_dir() {
                home
            } else {
                PathBuf::from("/")
            })
        }
        Some(path) if !path.starts_with('/') => Err(missing(path, "is not an absolute path")),
        Some(path) if !Path::new(path).is_dir() => {
            Err(missing(path, "is no directory in the guest"))
        }
        Some(path) => Ok(PathBuf::from(path)),
    }
}

/// Finds a program as execvp(3) does, but tells a missing one from one that may
/// not be executed.
fn find(name: &str, search: &str, workdir: &Path) -> Result<PathBuf, Fault> {
    let candidates: Vec<PathBuf> = if name.contains('/') {
        vec![PathBuf::from(name)]
    } else {
        let directory = |entry: &str| PathBuf::from(if entry.is_empty() { "." } else { entry });
        search
            .split(':')
            .map(|entry| directory(entry).join(name))
            .collect()
    };
    let mut found = None;
    for candidate in candidates {
        match fs::metadata(workdir.join(&candidate)) {
            Ok(file) if file.is_file() && file.permissions().mode() & 0o111 != 0 => {
                return Ok(candidate);
            }
            Ok(_) => found = Some(candidate),
            Err(_) => {}
        }
    }
    Err(match found {
        Some(path) => Fault::new(
            Symbol::CommandNotExecutable,
            format!("{} is not an executable file", path.display()),
        ),
        None => Fault::new(
            Symbol::CommandNotFound,
            format!("no program {name:?} in the guest"),
        ),
    })
}

/// Starts a prepared program in a session and process group of its own, whose
/// number is its process id. The reaper gets its end.
pub(crate) fn start(prepared: Prepared, streams: Streams) -> Result<Pid, Fault> {
    let Prepared {
        identity,
        path,
        argv,
        env,
        workdir,
    } = prepared;
    let Ok(workdir) = CString::new(workdir.into_os_string().into_encoded_bytes()) else {
        return Err(Fault::new(
            Symbol::BadRequest,
            "the working directory holds a NUL byte",
        ));
    };
    let mut command = Command::new(&path);
    command.env_clear().envs(env);
    if let Some((name, arguments)) = argv.split_first() {
        command.arg0(name).args(arguments);
    }
    let terminal = match streams {
        Streams::Apart {
            stdin,
            stdout,
            stderr,
        } => {
            command.stdin(stdin).stdout(stdout).stderr(stderr);
            false
        }
        Streams::Terminal(slave) => {
            let clone = || {
                slave
                    .try_clone()
                    .map(Stdio::from)
                    .map_err(|error| spawn_failed(&error))
            };
            command.stdin(clone()?).stdout(clone()?).stderr(clone()?);
            true
        }
    };
    let enter = move || -> io::Result<()> {
        setsid()?;
        if terminal {
            control_terminal()?;
        }
        setrlimit(Resource::RLIMIT_NOFILE, SOFT_DESCRIPTORS, HARD_DESCRIPTORS)?;
        setgroups(&identity.groups)?;
        setgid(identity.gid)?;
        setuid(identity.uid)?;
        // The one error that exec cannot give for a path that was just found.
        chdir(workdir.as_c_str()).map_err(|_| io::Error::from_raw_os_error(libc::ENOTDIR))
    };
    // SAFETY: the closure allocates nothing and makes async-signal-safe system
    // calls only, as the time between fork and exec demands (signal-safety(7)).
    unsafe { command.pre_exec(enter) };
    let child = command.spawn().map_err(|error| refused(&path, &error))?;
    let pid = i32::try_from(child.id()).map_err(|_| {
        Fault::new(
            Symbol::Internal,
            "the kernel gave a process id out of range",
        )
    })?;
    Ok(Pid::from_raw(pid))
}

/// Sends a signal to a process group.
pub(crate) fn signal_group(leader: i32, signal: i32) -> io::Result<()> {
    send_signal(-leader, signal)
}

/// Sends a signal to what kill(2) means by the number. The signals beyond nix's are
/// the real-time ones, which programs use as well.
pub(crate) fn send_signal(to: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill(2) takes two numbers and touches no memory of ours.
    match unsafe { libc::kill(to, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes standard input the controlling terminal of a new session.
fn control_terminal() -> io::Result<()> {
    // SAFETY: TIOCSCTTY (ioctl_tty(2)) takes a number and touches no memory.
    let outcome = unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn refused(path: &Path, error: &io::Error) -> Fault {
    let path = path.display();
    match error.raw_os_error() {
        Some(libc::ENOENT) => Fault::new(
            Symbol::CommandNotFound,
            format!("{path} asks for an interpreter that the guest does not have"),
        ),
        Some(libc::EACCES | libc::ENOEXEC | libc::EISDIR) => Fault::new(
            Symbol::CommandNotExecutable,
            format!("{path} cannot be executed: {error}"),
        ),
        Some(libc::ENOTDIR) => Fault::new(
            Symbol::WorkdirNotFound,
            "the user may not enter the working directory".to_owned(),
        ),
        None => Fault::new(
            Symbol::BadRequest,
            "an argument or variable holds a NUL byte",
        ),
        Some(_) => spawn_failed(error),
    }
}

fn spawn_failed(error: &io::Error) -> Fault {
    Fault::new(
        Symbol::SpawnFailed,
        format!("the guest cannot start a process: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol<T>(outcome: Result<T, Fault>) -> Option<Symbol> {
        outcome.err().map(|fault| fault.symbol)
    }

    #[test]
    fn programs_are_found_or_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str, mode| {
            let path = root.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        fs::create_dir_all(root.path().join("a")).unwrap();
        fs::create_dir_all(root.path().join("b")).unwrap();
        let plain = file("a/tool", 0o644);
        let tool = file("b/tool", 0o755);
        let search = format!("{0}/a:{0}/b", root.path().display());
        assert_eq!(find("tool", &search, Path::new("/")), Ok(tool));
        assert_eq!(
            find("./tool", "", &root.path().join("b")),
            Ok(PathBuf::from("./tool"))
        );
        assert_eq!(
            symbol(find("none", &search, Path::new("/"))),
            Some(Symbol::CommandNotFound)
        );
        assert_eq!(
            symbol(find(plain.to_str().unwrap(), "", Path::new("/"))),
            Some(Symbol::CommandNotExecutable)
        );
        assert_eq!(
            symbol(find("/", "", Path::new("/"))),
            Some(Symbol::CommandNotExecutable)
        );
    }

    #[test]
    fn a_working_directory_has_to_be_one() {
        let root = users::resolve(None).unwrap();
        assert_eq!(workdir(Some("/etc"), &root), Ok(PathBuf::from("/etc")));
        for wrong in ["etc", "/etc/passwd", "/no/such", ""] {
            assert_eq!(
                symbol(workdir(Some(wrong), &root)),
                Some(Symbol::WorkdirNotFound),
                "{wrong}"
            );
        }
    }
}
