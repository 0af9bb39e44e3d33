//! How a door brings a listening socket to aegisd.
//!
//! ```text
//!  door                                   aegisd
//!    │ one line of JSON (Knock), the       │  asks the kernel whose unit the door is
//!    │ listening descriptor beside it ────►│  and serves the socket
//!    │ ◄──────────────────────── REST      │  nobody has used it for a while
//!    │ ◄──────────────────────── (end)     │  aegisd is gone: knock again
//! ```
//!
//! A door says nothing about whose it is: which unit a process belongs to is the
//! kernel's to say. It keeps its own copy of the descriptor, so a connection that
//! comes while there is no aegisd waits in the socket's queue.

use serde::{Deserialize, Serialize};

/// The longest knock in bytes, its newline included.
pub const MAX_KNOCK: usize = 1024;

/// The byte that sends a door to rest.
pub const REST: u8 = b'.';

/// The byte after which a [`Knock::Guest`] is a guest's connection.
pub const WELCOME: u8 = b'+';

/// What a door stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "door", rename_all = "kebab-case")]
pub enum Knock {
    /// The API socket of an instance's daemons.
    Api,
    /// A connection of a program in the guest to the API of its own instance, which the
    /// owner of the VM carries. It brings no descriptor: once aegisd has answered with
    /// [`WELCOME`], the connection is the guest's.
    Guest,
}

impl Knock {
    /// The line that is sent.
    pub fn to_line(self) -> Vec<u8> {
        // Writing to memory cannot fail, and there is nothing in it that is no JSON.
        let mut line = serde_json::to_vec(&self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_knock_is_a_line() {
        assert_eq!(Knock::Api.to_line(), b"{\"door\":\"api\"}\n");
        let read: Knock = serde_json::from_slice(&Knock::Api.to_line()).unwrap();
        assert_eq!(read, Knock::Api);
    }
}
