//! A clean slate of signals: nothing ignored. An ignored signal stays ignored over
//! exec, and a daemon that cannot be interrupted is hard to find out.
//!
//! The mask and SIGPIPE, which Rust's runtime ignores, are set back by
//! `Command::exec` itself.

#![allow(unsafe_code, reason = "no safe call sets a signal's disposition")]

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Sets every signal back to its default action. Only before other threads exist.
///
/// # Errors
/// The kernel refused, which it does for no signal but SIGKILL and SIGSTOP; these
/// two are left out, since they always have their default.
pub(crate) fn set_back() -> Result<(), Errno> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    let fixed = [Signal::SIGKILL, Signal::SIGSTOP];
    for signal in Signal::iterator().filter(|signal| !fixed.contains(signal)) {
        // SAFETY: the default action runs no code of this process, so there is no
        // handler whose rules could be broken.
        unsafe { sigaction(signal, &default) }?;
    }
    Ok(())
}
