//! What every service manager must do for AegisVM, tried on a real one.
//!
//! Runs inside the test machine, as an ordinary user against the user's manager
//! or as root against the system's:
//!
//! ```text
//! supervisor_conformance --ignored
//! ```
//!
//! `tests/tests/supervisor.rs` runs it there; outside a machine it is ignored.
//!
//! Each test has an instance of its own and leaves nothing.

#![allow(clippy::disallowed_methods, reason = "tests make files as they like")]

mod credentials;
mod daemons;
mod reloads;
mod sandbox;
mod sockets;
mod world;
