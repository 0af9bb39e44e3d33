//! The jail: how QEMU, the file server and the network's programs are started, and what
//! they can reach.
//!
//! A guest that breaks out of QEMU finds itself in new user, mount, PID, network,
//! IPC and UTS namespaces: no network but an unconfigured loopback, no process
//! but itself, no capability, and a file system of a read-only tmpfs with the
//! program, its libraries and firmware and what [`View`] names. Everything else it
//! works with came as a descriptor. It cannot get new privileges, leaves no core
//! file, and is killed with the thread that started it, whatever happens to us.
//!
//! Processes are made by clone(2) rather than by `std::process::Command`: the
//! child is then PID 1 of its namespace and at the same time our direct child, so
//! its PID is known, its end is ours to wait for, and the parent-death signal
//! (prctl(2), PR_SET_PDEATHSIG) needs no process in between.
//!
//! ```text
//!  parent thread                        child (PID 1 of its namespaces)
//!    clone ───────────────────────────►  asks for the parent-death signal
//!    "go" ────────────────────────────►  knows that the parent still lives
//!                                        maps its user, builds the view, pivots,
//!                                        places descriptors, drops privileges
//!    reads the report ◄────────────────  a failed step, or
//!    end of file ◄─────────────────────  execve (the report is close-on-exec)
//! ```
//!
//! passt, which is there for the network, keeps ours and may confine itself further
//! ([`Confinement::Outbound`]).
//!
//! Without a jail ([`Confinement::Open`], the user's explicit choice) only the
//! namespaces and the view are left out.

mod child;
mod view;

use std::ffi::{CString, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getegid, geteuid};

use child::Step;
pub use view::{Access, Bind, View};

/// The number of a program's first passed descriptor; 0 to 2 are the usual ones.
pub const FIRST_DESCRIPTOR: RawFd = 3;

/// Stack of the child between clone and execve, in bytes. It builds no strings
/// and calls nothing deep; 64 KiB is eight times what was seen in use.
const CHILD_STACK: usize = 64 * 1024;

/// A program to start. Its environment is empty.
#[derive(Debug)]
pub struct Program {
    /// Absolute, without links.
    pub path: PathBuf,
    /// Without the program's own name.
    pub args: Vec<String>,
    /// Standard input; `None` means /dev/null.
    pub input: Option<OwnedFd>,
    /// Become [`FIRST_DESCRIPTOR`] and following; every other one is closed.
    pub descriptors: Vec<OwnedFd>,
    /// Standard output and error.
    pub output: OwnedFd,
    /// Capabilities to hold inside the program's own user namespace, as bits by
    /// number (capabilities(7)). They mean nothing outside of it.
    pub capabilities: u64,
}

/// What a program can reach.
#[derive(Debug)]
pub enum Confinement {
    Jailed(View),
    /// The same, but in our network namespace, and the program may make one user
    /// namespace to confine itself further.
    Outbound(View),
    Open,
}

/// Why a process could not be started in its jail.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    #[error("cannot make new namespaces")]
    Namespaces(#[source] Errno),
    #[error("cannot {step} for the jail")]
    Step {
        step: Step,
        #[source]
        source: Errno,
    },
    #[error("cannot prepare the jail")]
    Prepare(#[source] io::Error),
    #[error("the path {0:?} holds a NUL")]
    Path(PathBuf),
}

impl JailError {
    /// Whether the host forbids the namespaces a jail is made of: none may be made
    /// (EPERM, ENOSPC and EUSERS of clone(2)), or what is made has no privileges
    /// in itself (AppArmor's restriction of unprivileged user namespaces).
    pub fn is_forbidden(&self) -> bool {
        match self {
            Self::Namespaces(errno) => {
                matches!(
                    errno,
                    Errno::EPERM | Errno::ENOSPC | Errno::EUSERS | Errno::EINVAL
                )
            }
            Self::Step { step, source } => {
                matches!(step, Step::MapUser | Step::DetachMounts | Step::MountRoot)
                    && matches!(source, Errno::EPERM | Errno::EACCES)
            }
            Self::Prepare(_) | Self::Path(_) => false,
        }
    }
}

/// Starts a program and returns its PID once it executes. Blocks for some 10 ms.
///
/// The program is killed when the calling thread ends, so the caller keeps the
/// thread and waits for the child on it.
///
/// # Errors
/// The step that failed; no process is left.
pub fn spawn(program: &Program, confinement: &Confinement) -> Result<Pid, JailError> {
    let (ours, theirs) = UnixStream::pair().map_err(JailError::Prepare)?;
    let null = std::fs::File::open("/dev/null").map_err(JailError::Prepare)?;
    let args = arguments(program)?;
    let pointers: Vec<*const libc::c_char> = args
        .iter()
        .map(|arg| arg.as_ptr())
        .chain([std::ptr::null()])
        .collect();
    let jail = |view: &View, user_namespaces: &'static [u8]| {
        Ok(child::JailOrders {
            uid_map: format!("0 {} 1\n", geteuid()).into_bytes(),
            gid_map: format!("0 {} 1\n", getegid()).into_bytes(),
            user_namespaces,
            view: view.compile()?,
        })
    };
    let jail = match confinement {
        Confinement::Jailed(view) => Some(jail(view, b"0\n")?),
        Confinement::Outbound(view) => Some(jail(view, b"1\n")?),
        Confinement::Open => None,
    };
    let input = program.input.as_ref().map_or(null.as_fd(), AsFd::as_fd);
    let descriptors: Vec<RawFd> = [input, program.output.as_fd(), program.output.as_fd()]
        .into_iter()
        .chain(program.descriptors.iter().map(AsFd::as_fd))
        .chain([theirs.as_fd()])
        .map(|fd: BorrowedFd<'_>| fd.as_raw_fd())
        .collect();
    let mut orders = child::Orders {
        parent_end: ours.as_raw_fd(),
        report: theirs.as_raw_fd(),
        raised: vec![-1; descriptors.len()],
        descriptors,
        jail,
        capabilities: program.capabilities,
        program: args[0].as_ptr(),
        argv: pointers.as_ptr(),
    };
    let namespaces = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    let flags = match confinement {
        Confinement::Jailed(_) => namespaces | CloneFlags::CLONE_NEWNET,
        Confinement::Outbound(_) => namespaces,
        Confinement::Open => CloneFlags::empty(),
    };
    let mut stack = vec![0_u8; CHILD_STACK];
    let pid = child::clone_into(&mut orders, &mut stack, flags).map_err(JailError::Namespaces)?;
    drop(theirs);
    match read_report(ours) {
        Ok(None) => Ok(pid),
        Ok(Some((step, source))) => {
            reap(pid);
            Err(JailError::Step { step, source })
        }
        Err(error) => {
            reap(pid);
            Err(JailError::Prepare(error))
        }
    }
}

fn arguments(program: &Program) -> Result<Vec<CString>, JailError> {
    std::iter::once(c_path(&program.path))
        .chain(program.args.iter().map(|arg| c_path(Path::new(arg))))
        .collect()
}

fn c_path(path: &Path) -> Result<CString, JailError> {
    CString::new(OsString::from(path).into_vec()).map_err(|_| JailError::Path(path.to_owned()))
}

/// Lets the child go and reads what it reports: nothing, which is the success of
/// execve, or the failed step and its errno.
fn read_report(mut stream: UnixStream) -> io::Result<Option<(Step, Errno)>> {
    match stream.write_all(&[child::GO]) {
        Ok(()) => {}
        // The child ended first; its report is there to be read.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => return Err(error),
    }
    let mut report = [0_u8; child::REPORT_LENGTH];
    match stream.read_exact(&mut report) {
        Ok(()) => {
            let [step, errno @ ..] = report;
            Ok(Some((
                Step::from_byte(step),
                Errno::from_raw(i32::from_ne_bytes(errno)),
            )))
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Ends a child that never became its program.
fn reap(pid: Pid) {
    // It may be a zombie already, and it is nobody else's child: neither call can
    // reach another process, and there is nothing to do if they fail.
    kill(pid, Signal::SIGKILL).ok();
    waitpid(pid, None).ok();
}
