//! The real `aegisctl` against a fake aegisd on a private bus.
//!
//! The fake ([`fake`]) speaks the D-Bus contract and runs "guest" commands as
//! local processes, so streams, signals and exit codes are real. It is a fake for
//! tests of the client alone; the whole is tested in the workspace's `tests/`.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod doctor;
mod fake;
mod harness;
mod images;
mod import;
mod instances;
mod logs;
mod schema;
mod schemas;
mod secrets;
mod sessions;
mod tether;
mod verbs;
mod volumes;
