//! The sockets that the service manager passes: by number from systemd
//! (sd_listen_fds(3)), by name from launchd (launch_activate_socket(3)).

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The number of the first passed descriptor (sd_listen_fds(3)).
const FIRST: RawFd = 3;

/// The sockets of launchd's jobs, in the key `Sockets` of their property lists.
#[cfg(target_os = "macos")]
const NAME: &str = "aegis";

/// The listening sockets of this process's unit.
#[derive(Debug)]
pub(crate) struct Sockets(Vec<OwnedFd>);

impl Sockets {
    /// Takes the sockets that were passed to this process.
    ///
    /// # Errors
    /// What the service manager says is no list of sockets.
    pub(crate) fn take() -> io::Result<Self> {
        let passed = passed()?;
        let owned = passed.into_iter().map(|number| {
            // SAFETY: the service manager hands this number to this process, which
            // takes it exactly once: each call of the shim has one caller of this.
            #[allow(unsafe_code, reason = "descriptors arrive as plain numbers")]
            let socket = unsafe { OwnedFd::from_raw_fd(number) };
            socket
        });
        Ok(Self(owned.collect()))
    }

    pub(crate) fn into_inner(self) -> Vec<OwnedFd> {
        self.0
    }

    /// Whether a connection waits, or comes within this time. A poll that fails counts
    /// as one.
    pub(crate) fn waits(&self, time: Duration) -> bool {
        let mut polled: Vec<PollFd<'_>> = (self.0.iter())
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        poll(&mut polled, time).map_or(true, |ready| ready > 0)
    }

    /// Passes them to the program that this process becomes, as systemd would have.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(crate) fn pass_on(self, command: &mut Command) -> io::Result<()> {
        let count = i32::try_from(self.0.len()).map_err(io::Error::other)?;
        // Above all places first: one of them may lie in another's place.
        let above = (self.0.into_iter())
            .map(|socket| fcntl(socket, FcntlArg::F_DUPFD_CLOEXEC(FIRST + count)))
            .collect::<Result<Vec<_>, _>>()?;
        for (place, number) in (FIRST..).zip(above) {
            // SAFETY: the copy was made above and has no other owner.
            #[allow(unsafe_code, reason = "nix gives a plain number")]
            let socket = unsafe { OwnedFd::from_raw_fd(number) };
            // SAFETY: in the places were the sockets that are closed by now, or nothing:
            // this process has opened nothing else that it keeps.
            #[allow(unsafe_code, reason = "the place is a plain number")]
            let placed = unsafe { nix::unistd::dup2_raw(&socket, place) }?;
            // It stays open, for the program.
            std::mem::forget(placed);
        }
        command.env("LISTEN_FDS", count.to_string());
        command.env("LISTEN_PID", std::process::id().to_string());
        Ok(())
    }
}

#[cfg(not(target_os = "macos"))]
fn passed() -> io::Result<Vec<RawFd>> {
    Ok(sd_notify::listen_fds()?.collect())
}

/// Also where launchd has none for this job: there is no such name then.
#[cfg(target_os = "macos")]
fn passed() -> io::Result<Vec<RawFd>> {
    raunch::activate_socket(NAME).map_err(io::Error::other)
}
