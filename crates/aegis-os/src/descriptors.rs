//! Descriptors: those that arrive over a socket, and those that stand for a place.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::OFlags;
use rustix::net::{RecvFlags, SendFlags};

/// Whom no program is to inherit from us. To be given to recvmsg(2), with
/// [`keep`] for each descriptor that came.
#[cfg(target_os = "linux")]
pub const RECEIVE: RecvFlags = RecvFlags::CMSG_CLOEXEC;
/// macOS has no flag for it: [`keep`] does it afterwards.
#[cfg(not(target_os = "linux"))]
pub const RECEIVE: RecvFlags = RecvFlags::empty();

/// To be given to sendmsg(2): that the other end has gone is an error, not a signal.
#[cfg(target_os = "linux")]
pub const SEND: SendFlags = SendFlags::NOSIGNAL;
/// macOS has no flag for it: Rust's runtime ignores the signal.
#[cfg(not(target_os = "linux"))]
pub const SEND: SendFlags = SendFlags::empty();

/// To be opened with by who only looks at a place, whatever it may read of it.
#[cfg(target_os = "linux")]
pub const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
/// macOS knows no look without reading. What cannot be read is not there, then; a FIFO is
/// not waited for.
#[cfg(not(target_os = "linux"))]
pub const LOOK: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// Keeps a descriptor that arrived from the programs that are started from here.
///
/// # Errors
/// The kernel refused.
#[cfg(target_os = "linux")]
pub fn keep(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    Ok(descriptor)
}

/// Keeps a descriptor that arrived from the programs that are started from here.
///
/// # Errors
/// The kernel refused.
#[cfg(not(target_os = "linux"))]
pub fn keep(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC)?;
    Ok(descriptor)
}

/// A path of what a descriptor stands for, valid for this process and for as long as the
/// descriptor is open.
///
/// # Errors
/// None on Linux. On macOS it may have no name any more.
#[cfg(target_os = "linux")]
pub fn path(descriptor: impl AsFd) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd as _;

    let number = descriptor.as_fd().as_raw_fd();
    Ok(format!("/proc/self/fd/{number}").into())
}

/// A path of what a descriptor stands for, at this moment: it may be renamed.
///
/// # Errors
/// It has no name any more.
#[cfg(not(target_os = "linux"))]
pub fn path(descriptor: impl AsFd) -> io::Result<PathBuf> {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    let path = rustix::fs::getpath(descriptor)?;
    Ok(OsString::from_vec(path.into_bytes()).into())
}
