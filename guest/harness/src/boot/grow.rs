//! Growing the file system of the writable disk to what the disk has become.
//!
//! The guest does it, on the mounted file system: the host never reads what a guest
//! has written there.
#![allow(
    unsafe_code,
    reason = "ext4 is grown by ioctl, which nix only generates"
)]

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sys::statvfs::fstatvfs;

// EXT4_IOC_RESIZE_FS of linux/ext4.h: the number of blocks it shall have.
nix::ioctl_write_ptr!(ext4_resize, b'f', 16, u64);

/// Grows the file system that `mounted` is a directory of to the size of its device.
/// The kernel does nothing where it has that size already.
pub(super) fn to_device(mounted: &File, device: &Path) -> io::Result<()> {
    let size = File::open(device)?.seek(SeekFrom::End(0))?;
    let blocks = size / fstatvfs(mounted)?.block_size().max(1);
    // SAFETY: EXT4_IOC_RESIZE_FS reads one number, which outlives the call.
    unsafe { ext4_resize(mounted.as_raw_fd(), &raw const blocks) }?;
    Ok(())
}
