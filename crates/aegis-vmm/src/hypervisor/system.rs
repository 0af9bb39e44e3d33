//! The system of the host, as far as QEMU's command line depends on it.

/// Where QEMU runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    Linux,
    /// macOS.
    Darwin,
}

impl System {
    /// The one this program was made for.
    pub const HERE: Self = if cfg!(target_os = "linux") {
        Self::Linux
    } else {
        Self::Darwin
    };
}
