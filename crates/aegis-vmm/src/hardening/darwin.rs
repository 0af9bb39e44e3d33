//! What a process gives up on macOS: nothing, since there is nothing of the kind. It has
//! no capabilities, and a set-user-ID program gives its privileges to who starts it, which
//! cannot be forbidden.

/// There is none.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {}

/// Does nothing, and so does not fail.
pub(super) fn give_up() -> Result<(), PrivilegeError> {
    Ok(())
}
