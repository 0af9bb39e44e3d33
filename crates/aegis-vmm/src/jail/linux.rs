//! The jail of Linux: namespaces.
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

mod child;
mod mounts;

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getegid, geteuid};

use super::{Confinement, JailError, Program, Step, View, arguments};

/// There is a jail, where the host lets one be made.
pub(super) const IS_THERE: bool = true;

/// Stack of the child between clone and execve, in bytes. It builds no strings
/// and calls nothing deep; 64 KiB is eight times what was seen in use.
const CHILD_STACK: usize = 64 * 1024;

/// See [`super::spawn`].
pub(super) fn spawn(program: &Program, confinement: &Confinement) -> Result<Pid, JailError> {
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
            view: mounts::compile(view)?,
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
                child::step(step),
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
