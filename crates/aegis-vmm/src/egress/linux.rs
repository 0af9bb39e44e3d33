//! What carries a network on Linux: passt behind the filter.

mod dns;
mod keeper;
mod passt;
mod uplink;
mod watched;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use aegis_core::egress::Carried;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{EgressError, Ground, NetworkPlan, NetworkState};
use keeper::Keeper;

/// Bytes of frames that may wait in each direction: some of the longest. The kernel may
/// give less.
const QUEUE: usize = 1 << 20;

/// The task that keeps the two running. They end when it is dropped.
#[derive(Debug)]
pub(super) struct Carrier {
    counters: Arc<File>,
    keeper: JoinHandle<()>,
}

impl Carrier {
    /// Makes the sockets, and starts the two by itself.
    pub(super) fn start(
        plan: NetworkPlan,
        ground: Ground,
        state: watch::Sender<NetworkState>,
    ) -> Result<(OwnedFd, Self), EgressError> {
        let system = |operation| {
            move |source: nix::Error| EgressError::System {
                operation,
                source: source.into(),
            }
        };
        let (qemu, guest) = socketpair(
            AddressFamily::Unix,
            SockType::Datagram,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(system("make a socket"))?;
        for end in [&qemu, &guest] {
            setsockopt(end, sockopt::SndBuf, &QUEUE).map_err(system("give a socket room"))?;
        }
        let counters = memfd_create(c"carried", MFdFlags::MFD_CLOEXEC);
        let counters = Arc::new(File::from(counters.map_err(system("make the counters"))?));
        let keeper = Keeper {
            plan,
            ground,
            guest,
            counters: Arc::clone(&counters),
            state,
        };
        let keeper = tokio::spawn(keeper.keep());
        Ok((qemu, Self { counters, keeper }))
    }

    /// What was carried since the machine began. It costs one read of memory.
    pub(super) fn carried(&self) -> Carried {
        let mut bytes = [0; Carried::SIZE];
        // While nothing was carried there is nothing to read.
        match self.counters.read_exact_at(&mut bytes, 0) {
            Ok(()) => Carried::from_bytes(bytes),
            Err(_) => Carried::default(),
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        // The processes die with the task that holds them.
        self.keeper.abort();
    }
}
