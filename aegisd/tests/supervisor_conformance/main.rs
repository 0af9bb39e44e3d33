//! What every service manager must do for AegisVM, tried on a real one.
//!
//! Runs inside the test machine, as an ordinary user against the user's manager
//! or as root against the system's; or against a stand-in for launchd anywhere:
//!
//! ```text
//! supervisor_conformance --ignored
//! AEGIS_LAUNCHCTL=tests/stand_ins/launchctl.py supervisor_conformance --ignored
//! ```
//!
//! `tests/tests/supervisor.rs` runs it there; by itself it is ignored.
//!
//! | module | for |
//! |---|---|
//! | `daemons`, `sockets`, `groups` | every manager |
//! | `sandbox`, `credentials` | those that can ([`aegisd::supervisor::Capabilities`]) |
//! | `reloads` | systemd |
//! | `declared` | those that cannot: what is said of it |
//!
//! Each test has an instance of its own and leaves nothing.

#![allow(clippy::disallowed_methods, reason = "tests make files as they like")]

mod credentials;
mod daemons;
mod declared;
mod groups;
mod managers;
mod reloads;
mod sandbox;
mod sockets;
mod world;
