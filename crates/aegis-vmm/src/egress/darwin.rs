//! What carries a network on macOS: nothing.
//!
//! passt is for Linux, and QEMU's own network (`-netdev user`) would let a guest reach
//! whatever its user reaches, the host's own services among that: no policy could be held.
//! So the guest has its device, as it has where passt is not installed, and what it sends
//! goes nowhere.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use aegis_core::egress::Carried;
use aegis_core::fault::Fault;
use tokio::sync::watch;
use tracing::warn;

use super::{EgressError, Ground, NetworkPlan, NetworkState};

/// The other end of QEMU's socket, which nobody reads, and whom it is told.
#[derive(Debug)]
pub(super) struct Carrier {
    _guest: UnixDatagram,
    _state: watch::Sender<NetworkState>,
}

impl Carrier {
    /// Makes the sockets and says that there is no network.
    pub(super) fn start(
        _plan: NetworkPlan,
        _ground: Ground,
        state: watch::Sender<NetworkState>,
    ) -> Result<(OwnedFd, Self), EgressError> {
        let pair = UnixDatagram::pair().and_then(|(qemu, guest)| {
            qemu.set_nonblocking(true)?;
            Ok((qemu, guest))
        });
        let (qemu, guest) = pair.map_err(|source| EgressError::System {
            operation: "make a socket",
            source,
        })?;
        let fault = Fault::from(&EgressError::NotHere);
        warn!("the guest has no network: {fault}");
        state.send_modify(|state| state.fault = Some(fault));
        let carrier = Self {
            _guest: guest,
            _state: state,
        };
        Ok((qemu.into(), carrier))
    }

    /// Nothing.
    pub(super) fn carried(&self) -> Carried {
        Carried::default()
    }
}
