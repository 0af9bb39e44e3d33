//! Named pipes, made below an open folder.

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
