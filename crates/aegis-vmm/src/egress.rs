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
//!
//! | | what carries a network |
//! |---|---|
//! | `linux` | the two, kept by `linux::keeper` |
//! | `darwin` | nothing: the guest's device leads nowhere, and its status says so |

#[cfg(not(target_os = "linux"))]
mod darwin;
#[cfg(target_os = "linux")]
mod linux;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use aegis_core::egress::Carried;
use aegis_core::fault::{Fault, Symbol};
use aegis_core::network::AllowedHost;
use tokio::sync::watch;

use crate::hypervisor::process::Exit;
use crate::jail::JailError;
#[cfg(not(target_os = "linux"))]
use darwin::Carrier;
#[cfg(target_os = "linux")]
use linux::Carrier;

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
    #[error("guests have no network on macOS: there is no passt for it, which would carry it")]
    NotHere,
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
            EgressError::NotHere => fault.with_hint(
                "use --network none; exposed ports lead to the guest all the same",
            ),
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
    carrier: Carrier,
    state: watch::Receiver<NetworkState>,
}

impl Egress {
    /// Makes a network and QEMU's end of it. What carries it is started by itself.
    ///
    /// # Errors
    /// The host gives no sockets.
    pub fn start(plan: NetworkPlan, ground: Ground) -> Result<(OwnedFd, Self), EgressError> {
        let (state_tx, state) = watch::channel(NetworkState::default());
        let (qemu, carrier) = Carrier::start(plan, ground, state_tx)?;
        Ok((qemu, Self { carrier, state }))
    }

    /// What was carried since the machine began.
    pub fn carried(&self) -> Carried {
        self.carrier.carried()
    }

    /// Follows whether the guest has its network.
    pub fn state(&self) -> watch::Receiver<NetworkState> {
        self.state.clone()
    }
}
