//! The trial start of an accelerator.

/// Why an accelerator does not work.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("the guest did not answer")]
    Silent,
}
