//! The D-Bus contract of AegisVM, for both sides: aegisd serves it, aegisctl and
//! any other client call it.
//!
//! | module | what it owns |
//! |---|---|
//! | [`names`] | bus name, interface names, object paths |
//! | [`manager`], [`instance`], [`kit`], [`image`], [`job`], [`secrets`], [`volumes`] | one interface each: its proxy and its values |
//! | [`prune`] | which instances are left over |
//! | [`dict`] | reading and writing `a{sv}` |
//! | [`error`] | faults as D-Bus errors and back |
//! | [`connect`] | the way to the right bus |
//!
//! The interfaces only grow: what is in `interfaces/*.xml` keeps its name and
//! type as long as the bus name ends in 1 (COMPATIBILITY.md).

pub mod connect;
pub mod dict;
pub mod error;
pub mod image;
pub mod instance;
pub mod job;
pub mod kit;
pub mod manager;
pub mod names;
pub mod prune;
pub mod secrets;
pub mod tether;
pub mod volumes;
