//! Terminals for sessions.
#![allow(
    unsafe_code,
    reason = "the size of a terminal is set by ioctl, which nix only generates"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use aegis_link::message::TtySize;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::fchown;

use crate::users::Identity;

nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, Winsize);

/// Opens a terminal that belongs to a user: its master and its slave. Neither
/// is the controlling terminal of anyone yet.
pub(crate) fn open(size: TtySize, owner: &Identity) -> io::Result<(OwnedFd, OwnedFd)> {
    let pair = openpty(Some(&window(size)), None)?;
    // openpty cannot open with O_CLOEXEC. No program starts meanwhile, since
    // programs are started by this thread alone.
    for end in [&pair.master, &pair.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    fchown(&pair.slave, Some(owner.uid), Some(owner.gid))?;
    fchmod(&pair.slave, Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IWGRP)?;
    Ok((pair.master, pair.slave))
}

/// Changes the size of a terminal; its foreground process group gets SIGWINCH.
pub(crate) fn resize(master: BorrowedFd<'_>, size: TtySize) -> io::Result<()> {
    let window = window(size);
    // SAFETY: TIOCSWINSZ (ioctl_tty(2)) reads one winsize, which outlives the call.
    unsafe { set_window_size(master.as_raw_fd(), &raw const window) }?;
    Ok(())
}

fn window(size: TtySize) -> Winsize {
    Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
