//! Pipes: named ones below an open folder, and how much fits into one.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;

/// Makes a named pipe with these permissions. Says whether it could: macOS has the call
/// only from 13 on, and makes none here.
///
/// # Errors
/// The kernel refused.
#[cfg(target_os = "linux")]
pub fn make_at(folder: impl AsFd, name: &OsStr, mode: u32) -> io::Result<bool> {
    use rustix::fs::{FileType, Mode, mknodat};

    mknodat(folder, name, FileType::Fifo, Mode::from_raw_mode(mode), 0)?;
    Ok(true)
}

/// Makes no named pipe, and says so.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn make_at(_folder: impl AsFd, _name: &OsStr, _mode: u32) -> io::Result<bool> {
    Ok(false)
}

/// Gives a pipe room for so many bytes, as far as the kernel gives it: a user with many
/// pipes gets less, and a pipe with less is slower and nothing else.
#[cfg(target_os = "linux")]
pub fn widen(pipe: impl AsFd, bytes: usize) {
    rustix::pipe::fcntl_setpipe_size(pipe, bytes).ok();
}

/// Leaves a pipe as it is: the kernel of macOS gives it up to 64 KiB as it fills.
#[cfg(not(target_os = "linux"))]
pub fn widen(_pipe: impl AsFd, _bytes: usize) {}
