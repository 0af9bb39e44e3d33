//! The machine that AegisVM is tested and shown in, for the system tests in
//! `tests/` and for `xtask`.
//!
//! A [`machine::Machine`] is a real systemd as PID 1 of a set of namespaces,
//! over a cached Debian tree, with an ordinary user `alice` whose user manager
//! runs. [`install`] puts the built programs into it, or anywhere else.
//!
//! Everything here needs root on Linux; nothing of it is part of the product.

pub mod agreement;
pub mod api_daemon;
pub mod bulk;
pub mod cache;
pub mod canary;
pub mod clients;
pub mod compile;
pub mod document;
pub mod fault_walk;
pub mod install;
pub mod instance;
pub mod inventory;
pub mod kill_storm;
pub mod kit;
pub mod layout;
pub mod load;
pub mod machine;
pub mod odd_image;
pub mod outside;
pub mod packages;
pub mod registry;
pub mod seat;
pub mod session;
pub mod skip;
pub mod soak;
pub mod stand_in;
pub mod wait;
