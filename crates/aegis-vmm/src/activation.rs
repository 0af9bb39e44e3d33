//! The listening sockets of a VM: inherited from the service manager, which
//! listens while no VM exists, or made here where there is none (`--listen`).
//!
//! All inherited sockets bear one name (FileDescriptorName= holds for a whole
//! socket unit), so they are told apart by their address: AF_UNIX is the control
//! socket, AF_INET and AF_INET6 are the ports of the spec.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use aegis_core::port::PortMapping;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockaddrLike, SockaddrStorage, accept, getsockname, getsockopt, setsockopt,
    sockopt,
};
use tracing::warn;

/// The sockets of one VM, listening and non-blocking.
#[derive(Debug)]
pub struct Listeners {
    pub control: UnixListener,
    pub ports: Vec<PortListener>,
}

/// One exposed port.
#[derive(Debug)]
pub struct PortListener {
    pub listener: TcpListener,
    pub address: SocketAddr,
    /// Where it leads; `None` for a socket that the spec does not know: its
    /// clients are reset.
    pub guest: Option<u16>,
}

/// Why there are no sockets.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    #[error("cannot read the list of inherited sockets")]
    List(#[source] io::Error),
    #[error("cannot examine the inherited descriptor {fd}")]
    Examine {
        fd: RawFd,
        #[source]
        source: Errno,
    },
    #[error("the inherited descriptor {0} is not a listening stream socket")]
    NotListening(RawFd),
    #[error("cannot prepare an inherited socket")]
    Prepare(#[source] io::Error),
    #[error(
        "no control socket was inherited: start the VM by its socket unit, or use --listen PATH"
    )]
    NoControl,
    #[error("two control sockets were inherited")]
    TwoControls,
    #[error("cannot listen on {0}", path.display())]
    ListenUnix {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen on {address}")]
    ListenPort {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

impl Listeners {
    /// Takes the sockets that the service manager passed (sd_listen_fds(3)). To be
    /// called once, before anything else opens descriptors.
    ///
    /// # Errors
    /// When something else than one control socket and ports was passed.
    pub fn inherit(ports: &[PortMapping]) -> Result<Self, ActivationError> {
        let fds: Vec<RawFd> = sd_notify::listen_fds()
            .map_err(ActivationError::List)?
            .collect();
        let fds = fds.into_iter().map(|fd| {
            // SAFETY: sd_listen_fds(3) hands these numbers to this process, which
            // takes each of them exactly once: this is the only caller.
            #[allow(unsafe_code, reason = "descriptors arrive as plain numbers")]
            let owned = unsafe { OwnedFd::from_raw_fd(fd) };
            owned
        });
        Self::sort(fds, ports)
    }

    /// Makes the sockets here.
    ///
    /// # Errors
    /// What the system says, with the address.
    pub fn listen(path: &Path, ports: &[PortMapping]) -> Result<Self, ActivationError> {
        let control = UnixListener::bind(path).map_err(|source| ActivationError::ListenUnix {
            path: path.to_owned(),
            source,
        })?;
        control
            .set_nonblocking(true)
            .map_err(ActivationError::Prepare)?;
        let mut listening = Vec::new();
        for mapping in ports {
            let address = mapping.host;
            let listener = TcpListener::bind(address)
                .map_err(|source| ActivationError::ListenPort { address, source })?;
            listening.push(PortListener::new(listener, address, ports)?);
        }
        Ok(Self {
            control,
            ports: listening,
        })
    }

    fn sort(
        fds: impl IntoIterator<Item = OwnedFd>,
        mappings: &[PortMapping],
    ) -> Result<Self, ActivationError> {
        let mut control = None;
        let mut ports = Vec::new();
        for fd in fds {
            let examine = |source| ActivationError::Examine {
                fd: fd.as_raw_fd(),
                source,
            };
            let address: SockaddrStorage = getsockname(fd.as_raw_fd()).map_err(examine)?;
            if !getsockopt(&fd, sockopt::AcceptConn).map_err(examine)? {
                return Err(ActivationError::NotListening(fd.as_raw_fd()));
            }
            if address.family() == Some(AddressFamily::Unix) {
                let listener = UnixListener::from(fd);
                listener
                    .set_nonblocking(true)
                    .map_err(ActivationError::Prepare)?;
                if control.replace(listener).is_some() {
                    return Err(ActivationError::TwoControls);
                }
                continue;
            }
            let listener = TcpListener::from(fd);
            let address = listener.local_addr().map_err(ActivationError::Prepare)?;
            ports.push(PortListener::new(listener, address, mappings)?);
        }
        for mapping in mappings {
            if !ports.iter().any(|port| port.address == mapping.host) {
                warn!("no socket was inherited for the port {mapping}, ignoring");
            }
        }
        Ok(Self {
            control: control.ok_or(ActivationError::NoControl)?,
            ports,
        })
    }
}

impl PortListener {
    fn new(
        listener: TcpListener,
        address: SocketAddr,
        mappings: &[PortMapping],
    ) -> Result<Self, ActivationError> {
        listener
            .set_nonblocking(true)
            .map_err(ActivationError::Prepare)?;
        let guest = mappings
            .iter()
            .find(|mapping| mapping.host == address)
            .map(|mapping| mapping.guest);
        Ok(Self {
            listener,
            address,
            guest,
        })
    }
}

/// Looks for connections that nobody has accepted yet. Holds copies of the
/// listening descriptors, since the listeners themselves are in other tasks.
#[derive(Debug)]
pub struct Queues {
    control: UnixListener,
    ports: Vec<OwnedFd>,
}

impl Queues {
    /// # Errors
    /// When the descriptors cannot be copied.
    pub fn of(listeners: &Listeners) -> io::Result<Self> {
        let copy = |port: &PortListener| port.listener.as_fd().try_clone_to_owned();
        Ok(Self {
            control: listeners.control.try_clone()?,
            ports: listeners
                .ports
                .iter()
                .map(copy)
                .collect::<io::Result<_>>()?,
        })
    }

    /// Whether a connection waits on a port.
    pub fn port_waits(&self) -> bool {
        waiting(self.ports.iter().map(AsFd::as_fd))
    }

    /// Whether a connection waits anywhere.
    pub fn any_waits(&self) -> bool {
        self.port_waits() || waiting([self.control.as_fd()])
    }

    /// Resets the connections that wait on the ports.
    pub fn reset_ports(&self) {
        for port in &self.ports {
            while let Ok(client) = accept(port.as_raw_fd()) {
                // SAFETY: accept(2) made this descriptor for us just now.
                #[allow(unsafe_code, reason = "nix gives a plain number")]
                let client = unsafe { OwnedFd::from_raw_fd(client) };
                let at_once = nix::libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                };
                // Without it the client sees an orderly end, which is all that is lost.
                if let Err(error) = setsockopt(&client, sockopt::Linger, &at_once) {
                    warn!("cannot reset a connection: {error}, ignoring");
                }
            }
        }
    }

    /// Ends the connections that wait on the control socket. The process is about
    /// to end by request: the service manager would take them for a new use.
    pub fn refuse_control(&self) {
        while self.control.accept().is_ok() {}
    }
}

/// Whether a connection waits on one of these listeners. A poll that fails counts
/// as one: staying awake is the safe side.
fn waiting<'a>(listeners: impl IntoIterator<Item = BorrowedFd<'a>>) -> bool {
    let mut polled: Vec<PollFd<'_>> = listeners
        .into_iter()
        .map(|listener| PollFd::new(listener, PollFlags::POLLIN))
        .collect();
    poll(&mut polled, PollTimeout::ZERO).map_or(true, |ready| ready > 0)
}

/// Removes the control socket that [`Listeners::listen`] made.
#[derive(Debug)]
pub struct MadeSocket(pub PathBuf);

impl Drop for MadeSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            warn!("cannot remove {}: {error}, ignoring", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    #[test]
    fn sockets_are_told_apart_by_their_address() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let control = UnixListener::bind(&path).unwrap();
        let known = TcpListener::bind("127.0.0.1:0").unwrap();
        let unknown = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = known.local_addr().unwrap();
        let mapping = PortMapping {
            host: address,
            guest: 80,
        };
        let fds: Vec<OwnedFd> = vec![unknown.into(), control.into(), known.into()];
        let listeners = Listeners::sort(fds, &[mapping]).unwrap();
        let guests: Vec<_> = listeners.ports.iter().map(|port| port.guest).collect();
        assert_eq!(guests, [None, Some(80)]);

        let queues = Queues::of(&listeners).unwrap();
        assert!(!queues.any_waits());
        let _client = TcpStream::connect(address).unwrap();
        assert!(queues.port_waits());
        let _admin = UnixStream::connect(&path).unwrap();
        queues.refuse_control();
        assert!(!waiting([queues.control.as_fd()]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(matches!(
            Listeners::sort(Vec::new(), &[]),
            Err(ActivationError::NoControl)
        ));
        let datagram: OwnedFd = UnixDatagram::unbound().unwrap().into();
        assert!(matches!(
            Listeners::sort([datagram], &[]),
            Err(ActivationError::NotListening(_))
        ));
    }
}
