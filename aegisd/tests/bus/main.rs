//! aegisd whole, but for the outer world: the bus is a peer-to-peer connection,
//! the service manager and the VMs' owners are fakes in this process. Registry,
//! files, sockets and D-Bus are real.

#![allow(clippy::disallowed_methods, reason = "tests make files as they like")]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails where its world is not as it was made"
)]

mod fake_owner;
mod fake_supervisor;
mod interfaces;
mod life;
mod peers;
mod ports;
mod recovery;
mod stale;
mod verbs;
mod world;
