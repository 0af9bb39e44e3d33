//! Starting programs on macOS, which has no jail for them.
//!
//! `posix_spawn(2)` gives the child the descriptors it is to have and closes all others
//! (`POSIX_SPAWN_CLOEXEC_DEFAULT`, which is Apple's). Nothing kills a process with its
//! parent there: the child stays in the process group of the job that we are, and
//! launchd kills what is left of a group when its job ends (launchd.plist(5),
//! `AbandonProcessGroup`).

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

use super::{Confinement, JailError, Program, Step, arguments};

/// There is none: what is started has what its user has.
pub(super) const IS_THERE: bool = false;

/// See [`super::spawn`]. That the program dies with the thread is launchd's part, and
/// with the process.
pub(super) fn spawn(program: &Program, confinement: &Confinement) -> Result<Pid, JailError> {
    match confinement {
        Confinement::Open => {}
        Confinement::Jailed(_) | Confinement::Outbound(_) => {
            return Err(JailError::NotHere(program.path.clone()));
        }
    }
    let at = |step| move |source| JailError::Step { step, source };
    let args = arguments(program)?;
    let null = File::open("/dev/null").map_err(JailError::Prepare)?;
    let input = program.input.as_ref().map_or(null.as_fd(), AsFd::as_fd);
    let given: Vec<BorrowedFd<'_>> = [input, program.output.as_fd(), program.output.as_fd()]
        .into_iter()
        .chain(program.descriptors.iter().map(AsFd::as_fd))
        .collect();
    let raised = raise(&given).map_err(at(Step::PlaceDescriptors))?;
    let actions = place(&raised).map_err(at(Step::PlaceDescriptors))?;
    let attributes = attributes().map_err(at(Step::DropPrivileges))?;
    let environment: [CString; 0] = [];
    posix_spawn(
        args[0].as_c_str(),
        &actions,
        &attributes,
        &args,
        &environment,
    )
    .map_err(at(Step::Execute))
}

/// Copies above all targets, so that no target is a source still needed.
fn raise(given: &[BorrowedFd<'_>]) -> nix::Result<Vec<OwnedFd>> {
    use std::os::fd::FromRawFd as _;

    let count = RawFd::try_from(given.len()).map_err(|_| Errno::EMFILE)?;
    let copy = |descriptor: &BorrowedFd<'_>| {
        let raised = fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(count))?;
        // SAFETY: fcntl(2) made this descriptor for us just now.
        #[allow(unsafe_code, reason = "nix gives a plain number")]
        Ok(unsafe { OwnedFd::from_raw_fd(raised) })
    };
    given.iter().map(copy).collect()
}

/// They become 0 and following.
fn place(raised: &[OwnedFd]) -> nix::Result<PosixSpawnFileActions> {
    let mut actions = PosixSpawnFileActions::init()?;
    for (target, raised) in (0..).zip(raised) {
        actions.add_dup2(raised.as_raw_fd(), target)?;
    }
    Ok(actions)
}

/// Signals as the jail has them: those that ask for an end are ours to follow, and
/// SIGPIPE, which Rust's runtime ignores, does what it does everywhere.
fn attributes() -> nix::Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::from_bits_retain(libc::POSIX_SPAWN_CLOEXEC_DEFAULT),
    )?;
    let set = |signals: &[Signal]| signals.iter().copied().collect::<SigSet>();
    attributes.set_sigdefault(&set(&[Signal::SIGPIPE]))?;
    attributes.set_sigmask(&set(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]))?;
    Ok(attributes)
}
