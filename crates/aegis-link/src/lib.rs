//! The link between the owner of a virtual machine and the harness in its
//! guest: one byte channel, cut into frames, carrying calls and byte streams.
//!
//! Used by aegis-vmm ([`Role::Host`]) and aegis-harness ([`Role::Guest`]); it
//! knows nothing of either. The channel is a virtio-serial port over a
//! socketpair, but any ordered, reliable byte channel will do.
//!
//! | module | what it owns |
//! |---|---|
//! | [`frame`] | the layout of a frame; finding frames in bytes |
//! | [`mux`] | the protocol: streams, credit, epochs, every bound. No I/O |
//! | [`message`] | what is said: typed calls, replies and events |
//! | [`endpoint`] | the task between a channel and the multiplexer |
//! | [`handle`], [`incoming`], [`stream`] | what a program holds of a link |
//! | [`log`] | records of the command's output on a stream |
//!
//! Neither side trusts the other with memory or time: every buffer has a bound
//! kept by credit, and a peer that oversteps one ends the link with a
//! [`mux::Violation`]. What a peer cannot be kept from is silence; who waits
//! for it needs a deadline.

pub mod endpoint;
pub mod frame;
pub mod handle;
pub mod incoming;
pub mod log;
pub mod message;
pub mod mux;
pub mod stream;

pub use endpoint::{LinkError, start, start_restored};
pub use handle::{CallError, ExecSession, Handle};
pub use incoming::{Incoming, Received, Responder};
pub use mux::Role;
pub use stream::{LinkStream, ResetWatch, Vanished};
