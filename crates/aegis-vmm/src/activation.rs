//! The listening sockets of a VM. The control socket is inherited from the service
//! manager, which listens while no VM exists; those of the ports are brought to it by
//! their doors ([`aegis_core::control::Call::Listen`]). Where there is no service
//! manager (`--listen`) all are made here.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aegis_core::port::PortMapping;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockaddrLike, SockaddrStorage, accept, getsockname, setsockopt, sockopt,
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
    /// Where it leads.
    pub guest: u16,
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
    #[error("the descriptor {0} is not a listening {1} socket")]
    NotListening(RawFd, &'static str),
    #[error("cannot prepare a socket")]
    Prepare(#[source] io::Error),
    #[error(
        "one control socket has to be inherited, not {0} sockets: start the VM by its socket \
         unit, or use --listen PATH"
    )]
    NoControl(usize),
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
    /// Takes the socket that the service manager passed (sd_listen_fds(3)). To be
    /// called once, before anything else opens descriptors.
    ///
    /// # Errors
    /// When something else than one control socket was passed.
    pub fn inherit() -> Result<Self, ActivationError> {
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
        Self::take(fds.collect())
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
            listening.push(PortListener::new(listener, mapping.guest)?);
        }
        Ok(Self {
            control,
            ports: listening,
        })
    }

    fn take(mut fds: Vec<OwnedFd>) -> Result<Self, ActivationError> {
        let count = fds.len();
        let (Some(control), true) = (fds.pop(), fds.is_empty()) else {
            return Err(ActivationError::NoControl(count));
        };
        if !is_listening(&control, &[AddressFamily::Unix])? {
            return Err(ActivationError::NotListening(control.as_raw_fd(), "unix"));
        }
        let control = UnixListener::from(control);
        control
            .set_nonblocking(true)
            .map_err(ActivationError::Prepare)?;
        Ok(Self {
            control,
            ports: Vec::new(),
        })
    }
}

impl PortListener {
    /// The port of a socket that a door brought.
    ///
    /// # Errors
    /// When it is no listening TCP socket.
    pub fn brought(fd: OwnedFd, guest: u16) -> Result<Self, ActivationError> {
        if !is_listening(&fd, &[AddressFamily::Inet, AddressFamily::Inet6])? {
            return Err(ActivationError::NotListening(fd.as_raw_fd(), "TCP"));
        }
        Self::new(TcpListener::from(fd), guest)
    }

    fn new(listener: TcpListener, guest: u16) -> Result<Self, ActivationError> {
        listener
            .set_nonblocking(true)
            .map_err(ActivationError::Prepare)?;
        let address = listener.local_addr().map_err(ActivationError::Prepare)?;
        Ok(Self {
            listener,
            address,
            guest,
        })
    }
}

fn is_listening(fd: &OwnedFd, families: &[AddressFamily]) -> Result<bool, ActivationError> {
    let examine = |source| ActivationError::Examine {
        fd: fd.as_raw_fd(),
        source,
    };
    let address: SockaddrStorage = getsockname(fd.as_raw_fd()).map_err(examine)?;
    let is_of_family = address
        .family()
        .is_some_and(|family| families.contains(&family));
    Ok(is_of_family && aegis_os::sockets::listens(fd))
}

/// Looks for connections that nobody has accepted yet. Holds copies of the
/// listening descriptors, since the listeners themselves are in other tasks.
#[derive(Clone, Debug)]
pub struct Queues {
    control: Arc<UnixListener>,
    ports: Arc<Mutex<Vec<OwnedFd>>>,
}

/// A port whose queue is looked at; no more when this is dropped.
#[derive(Debug)]
pub struct Watched {
    queues: Queues,
    fd: RawFd,
}

impl Queues {
    /// The queue of the control socket; the ports come and go.
    ///
    /// # Errors
    /// When the descriptor cannot be copied.
    pub fn of(control: &UnixListener) -> io::Result<Self> {
        Ok(Self {
            control: Arc::new(control.try_clone()?),
            ports: Arc::default(),
        })
    }

    /// Looks at a port's queue too.
    ///
    /// # Errors
    /// When the descriptor cannot be copied.
    pub fn watch(&self, port: &PortListener) -> io::Result<Watched> {
        let copy = port.listener.as_fd().try_clone_to_owned()?;
        let fd = copy.as_raw_fd();
        self.lock().push(copy);
        Ok(Watched {
            queues: self.clone(),
            fd,
        })
    }

    /// Whether a connection waits on a port.
    pub fn port_waits(&self) -> bool {
        waiting(self.lock().iter().map(AsFd::as_fd))
    }

    /// Whether a connection waits anywhere.
    pub fn any_waits(&self) -> bool {
        self.port_waits() || waiting([self.control.as_fd()])
    }

    /// Resets the connections that wait on the ports.
    pub fn reset_ports(&self) {
        for port in self.lock().iter() {
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

    fn lock(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.queues.lock().retain(|fd| fd.as_raw_fd() != self.fd);
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
    fn the_queues_of_the_control_socket_and_of_ports_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let control = UnixListener::bind(&path).unwrap();
        let listeners = Listeners::take(vec![control.into()]).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = PortListener::brought(port.into(), 80).unwrap();

        let queues = Queues::of(&listeners.control).unwrap();
        let watched = queues.watch(&port).unwrap();
        assert!(!queues.any_waits());
        let _client = TcpStream::connect(port.address).unwrap();
        assert!(queues.port_waits());
        drop(watched);
        assert!(!queues.any_waits());
        let _admin = UnixStream::connect(&path).unwrap();
        assert!(queues.any_waits());
        queues.refuse_control();
        assert!(!queues.any_waits());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let none = Listeners::take(Vec::new());
        assert!(matches!(none, Err(ActivationError::NoControl(0))));
        let datagram: OwnedFd = UnixDatagram::unbound().unwrap().into();
        let refused = Listeners::take(vec![datagram]);
        assert!(matches!(refused, Err(ActivationError::NotListening(..))));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let refused = PortListener::brought(client.into(), 80);
        assert!(matches!(refused, Err(ActivationError::NotListening(..))));
        let refused = Listeners::take(vec![listener.into()]);
        assert!(matches!(refused, Err(ActivationError::NotListening(..))));
    }
}
