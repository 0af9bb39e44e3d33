//! The loopback interface, which no one else brings up.
#![allow(
    unsafe_code,
    reason = "interface flags are set by ioctl, which nix does not wrap"
)]

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

const LOOPBACK: &[u8] = b"lo";

/// Brings `lo` up; the kernel then gives it its addresses by itself.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: ifreq is plain data for which all zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(LOOPBACK) {
        *to = from.cast_signed();
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "both flags lie in the low 16 bits"
    )]
    let flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: SIOCSIFFLAGS (netdevice(7)) reads one ifreq, which outlives the call.
    let outcome =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
