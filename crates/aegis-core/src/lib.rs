//! The pure part of AegisVM: names, specs and rules that every program shares.
//!
//! Nothing here does I/O, reads a clock or knows tokio or D-Bus; time, paths
//! and environment are arguments. What crosses a process boundary (specs in
//! files, frames on the control socket) is defined here once, for both sides.
//!
//! | module | what it owns |
//! |---|---|
//! | [`handle`] | the name of an instance |
//! | [`spec`] | what a user asked for: the instance spec |
//! | [`vm_spec`], [`daemon_spec`] | what a unit's program reads at its start |
//! | [`secret`], [`credential`] | secrets, and how a unit is given them |
//! | [`audit`] | the record of their uses |
//! | [`daemon`] | how an instance daemon is run |
//! | [`platform`] | what the programs of a guest are built for |
//! | [`port`] | exposed ports |
//! | [`network`] | what of the network a guest reaches, and its own addresses |
//! | [`egress`] | what aegis-vmm and the filter of that network tell each other |
//! | [`volume`] | what of the host's files an instance sees |
//! | [`label`] | what users note on instances |
//! | [`limits`] | what a VM may use of the host |
//! | [`kit`] | kit manifests |
//! | [`capabilities`] | what a guest may do beyond its own VM |
//! | [`layout`] | where everything lies on disk |
//! | [`units`] | the names of units |
//! | [`launchd`] | what launchd and aegis-shim tell of jobs |
//! | [`restart`] | what the end of a command leads to |
//! | [`idle`] | when an instance that nobody needs falls asleep |
//! | [`snapshot`] | the file of a hibernated machine: whether it counts, and its key |
//! | [`duration`] | durations as people type them |
//! | [`lifecycle`] | the life of a VM: states, admission, transitions |
//! | [`state`] | what an instance is, derived from intent, unit and VM |
//! | [`control`] | the control socket of a VM's owner |
//! | [`door`] | how an API socket is brought to aegisd |
//! | [`tools`] | where programs of others may be |
//! | [`fault`] | errors that cross a process boundary |

pub mod audit;
pub mod capabilities;
pub mod control;
pub mod credential;
pub mod daemon;
pub mod daemon_spec;
pub mod door;
pub mod duration;
pub mod egress;
pub mod fault;
pub mod handle;
pub mod idle;
pub mod image;
pub mod kit;
pub mod label;
pub mod launchd;
pub mod layout;
pub mod lifecycle;
pub mod limits;
pub mod network;
pub mod platform;
pub mod port;
pub mod restart;
pub mod secret;
pub mod snapshot;
pub mod spec;
pub mod state;
pub mod tether;
pub mod tools;
pub mod units;
pub mod vm_spec;
pub mod volume;
