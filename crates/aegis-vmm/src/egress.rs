//! The guest's way out: the filter with its policy, and passt(1), which carries what the
//! filter lets through with an ordinary user's rights.
//!
//! ```text
//!   QEMU ◄─ datagrams ─► aegis-egress ◄─ stream ─► passt ──► the host's network
//!   no network             no network                │
//!                             ▲  orders, answers      └ loopback unreachable but by order
//!                             ▼  questions of DNS
//!                          this process ──► the host's name servers
//! ```
//!
//! Both are started together, run together and end together: without either the guest
//! has no network, and everything else of it goes on. The end of QEMU's socket that the
//! filter has is kept here too, so that QEMU never notices that another filter has it,
//! and since each frame is a datagram none is ever cut. They are started anew after a
//! delay; where the host has no way out, as soon as it has one; and when the way out has
//! become another one, at once. No start of a VM waits for any of that.

mod dns;
mod keeper;
mod passt;
mod uplink;
mod watched;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use aegis_core::egress::Carried;
use aegis_core::fault::{Fault, Symbol};
use aegis_core::network::AllowedHost;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::hypervisor::process::Exit;
use crate::jail::JailError;
use keeper::Keeper;

/// Bytes of frames that may wait in each direction: some of the longest. The kernel may
/// give less.
const QUEUE: usize = 1 << 20;

/// The network that a guest is to have.
#[derive(Clone, Debug)]
pub struct NetworkPlan {
    /// The hardware address of its device.
    pub hardware: [u8; 6],
    /// What it reaches beside public addresses.
    pub allowed: Vec<AllowedHost>,
}

/// Where the processes of a network find their place.
#[derive(Debug)]
pub struct Ground {
    /// A private directory that lives as long as the machine.
    pub scratch: PathBuf,
    /// Where jails mount their roots; without it nothing is jailed.
    pub jail_root: Option<PathBuf>,
}

/// Why a guest has no network.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error("passt is not installed: there is none in {searched}")]
    NoPasst { searched: String },
    #[error("the host has no way out: no default route")]
    NoUplink,
    #[error("cannot {operation} for the network of the guest")]
    System {
        operation: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot start {program} for the network of the guest")]
    Start {
        program: PathBuf,
        #[source]
        source: JailError,
    },
    #[error("{program}, which the network of the guest needs, ended: {}", last_line(.exit))]
    Ended { program: &'static str, exit: Exit },
}

fn last_line(exit: &Exit) -> &str {
    exit.last_words.lines().last().unwrap_or("it said nothing")
}

impl From<&EgressError> for Fault {
    fn from(error: &EgressError) -> Self {
        let fault = Fault::from_error(Symbol::NetworkUnavailable, error);
        match error {
            EgressError::NoPasst { .. } => fault.with_hint(
                "install the package passt; the guest has its network within a minute, or use --network none",
            ),
            EgressError::NoUplink => {
                fault.with_hint("connect the host; the guest has its network as soon as the host has")
            }
            EgressError::Start { source, .. } if source.is_forbidden() => fault.with_hint(
                "allow unprivileged user namespaces (aegisctl doctor names the setting), or use --network none",
            ),
            EgressError::System { .. } | EgressError::Start { .. } | EgressError::Ended { .. } => {
                fault.with_hint("it is tried again by itself; the journal of the VM's unit tells how often")
            }
        }
    }
}

/// Whether the guest has its network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkState {
    /// Why it has none.
    pub fault: Option<Fault>,
    /// How often what carries it was started anew: each time the connections that it had
    /// carried are lost, and the guest does not know.
    pub renewals: u32,
}

/// A guest's network. Dropping it ends the network.
#[derive(Debug)]
pub struct Egress {
    counters: Arc<File>,
    state: watch::Receiver<NetworkState>,
    keeper: JoinHandle<()>,
}

impl Egress {
    /// Makes a network and QEMU's end of it. What carries it is started by itself.
    ///
    /// # Errors
    /// The host gives no sockets.
    pub fn start(plan: NetworkPlan, ground: Ground) -> Result<(OwnedFd, Self), EgressError> {
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
        let (state_tx, state) = watch::channel(NetworkState::default());
        let keeper = Keeper {
            plan,
            ground,
            guest,
            counters: Arc::clone(&counters),
            state: state_tx,
        };
        let keeper = tokio::spawn(keeper.keep());
        let egress = Self {
            counters,
            state,
            keeper,
        };
        Ok((qemu, egress))
    }

    /// What was carried since the machine began. It costs one read of memory.
    pub fn carried(&self) -> Carried {
        let mut bytes = [0; Carried::SIZE];
        // While nothing was carried there is nothing to read.
        match self.counters.read_exact_at(&mut bytes, 0) {
            Ok(()) => Carried::from_bytes(bytes),
            Err(_) => Carried::default(),
        }
    }

    /// Follows whether the guest has its network.
    pub fn state(&self) -> watch::Receiver<NetworkState> {
        self.state.clone()
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        // The processes die with the task that holds them.
        self.keeper.abort();
    }
}
