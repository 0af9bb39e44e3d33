//! The link between a virtual machine's owner and the harness in its guest.

pub mod endpoint;
pub mod handle;
pub mod log;
pub mod message;
pub mod stream;

pub use endpoint::{Incoming, LinkError, Received, Responder, Role, start, start_restored};
pub use handle::{CallError, ExecSession, Handle};
pub use stream::LinkStream;
