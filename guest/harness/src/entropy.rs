//! Fresh randomness for the kernel, which a restored guest shares with its save.
#![allow(
    unsafe_code,
    reason = "the random device is fed by ioctl, which nix does not wrap"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Bytes taken at a time; twice what the kernel's generator holds.
pub(crate) const MOST: usize = 64;

/// `RNDADDENTROPY` and `RNDRESEEDCRNG`, `_IOW('R', 3, int[2])` and `_IO('R', 7)`
/// (random(4), linux/random.h).
const ADD: libc::c_ulong = 0x4008_5203;
const RESEED: libc::c_ulong = 0x5207;

/// `struct rand_pool_info` with its bytes.
#[repr(C)]
struct Pool {
    entropy_bits: libc::c_int,
    length: libc::c_int,
    bytes: [u8; MOST],
}

/// Mixes bytes in, credits them, and has the generator draw on them at once. Bytes
/// beyond [`MOST`] are left out.
pub(crate) fn add(bytes: &[u8]) -> io::Result<()> {
    let bytes = &bytes[..bytes.len().min(MOST)];
    let length = libc::c_int::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut pool = Pool {
        entropy_bits: length * 8,
        length,
        bytes: [0; MOST],
    };
    pool.bytes[..bytes.len()].copy_from_slice(bytes);
    let device = File::options().write(true).open("/dev/urandom")?;
    // SAFETY: RNDADDENTROPY reads a rand_pool_info and the bytes after it that it
    // names, all within `pool`, which outlives the call.
    let added = unsafe { libc::ioctl(device.as_raw_fd(), ADD as _, &raw const pool) };
    if added != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: RNDRESEEDCRNG takes no argument.
    let drawn = unsafe { libc::ioctl(device.as_raw_fd(), RESEED as _) };
    if drawn != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
