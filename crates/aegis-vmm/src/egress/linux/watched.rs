//! Sockets of kinds that tokio does not know, waited for by it.
#![allow(
    unsafe_code,
    reason = "tokio asks for a promise about a descriptor's life"
)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Has tokio wait for a socket that does not block.
pub(super) fn watched(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd gives the same descriptor until it is dropped, and nobody takes
    // it out of the AsyncFd that it is moved into.
    unsafe { AsyncFd::register(socket) }.map_err(Into::into)
}
