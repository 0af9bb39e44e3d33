//! The machine protocol client.

/// Why QEMU's answer is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    #[error("the connection has ended")]
    Closed,
}
