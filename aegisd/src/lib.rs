//! aegisd, the control plane of AegisVM.
//!
//! It holds what users want in a registry, compares it with what the service
//! manager says, and corrects the difference. It supervises nothing itself: it
//! may die at any instant, and VMs, daemons and connections go on.
//!
//! ```text
//!  clients ──D-Bus──► bus ──► engine ──► instance (actors) ──► reconcile (what to do)
//!                      ▲        │              │
//!                      └─ board ◄──────────────┼──► registry     what is wanted
//!                                              ├──► secrets      values, encrypted
//!                                              ├──► supervisor   what runs
//!                                              ├──► vm           a VM's owner, on its socket
//!                                              └──► kits         manifests and programs
//! ```
//!
//! | module | what it owns |
//! |---|---|
//! | [`daemon`] | the process: start, readiness, end |
//! | [`bus`] | D-Bus, an adapter and nothing else |
//! | [`api`] | HTTP for the daemons of an instance, an adapter too |
//! | [`credentials`] | the credentials of units |
//! | [`sockets`] | aegisd's own listening sockets |
//! | [`board`] | what clients can see, and its one way out |
//! | [`caller`] | who asks, and what there is for them |
//! | [`engine`] | all instances together |
//! | [`instance`] | one instance: its actor and its operations |
//! | [`reconcile`] | what should be done, pure |
//! | [`jobs`] | long operations that clients follow |
//! | [`kits`] | kit manifests, specs made from them, changes of both |
//! | `effects` | changes outside of aegisd, each with its fault points |
//! | [`checks`] | whether the host can do what is needed |
//! | [`secrets`] | secrets: keys, sealing, giving them out |
//! | [`registry`] | what users want, on disk |
//! | [`supervisor`] | the service manager |
//! | [`vm`] | the client of a VM's owner |
//! | [`volumes`] | named volumes: folders that instances share |
//! | [`host`] | directories and programs around it |
//! | `homes` | files in users' homes, read with care |

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests make files as they like")
)]

pub mod api;
pub mod board;
pub mod bus;
pub mod caller;
pub mod checks;
pub mod credentials;
pub mod daemon;
mod effects;
pub mod engine;
mod homes;
pub mod host;
pub mod images;
pub mod instance;
pub mod jobs;
pub mod kits;
pub mod messages;
mod peer;
pub mod ports;
pub mod reconcile;
pub mod registry;
pub mod secrets;
pub mod sockets;
pub mod supervisor;
#[cfg(test)]
mod testing;
pub mod vm;
pub mod volumes;
