//! Faults: errors as they cross a process boundary.
//!
//! Inside a program errors are typed enums with linked sources. At its edge (the
//! control socket, D-Bus, the exec control stream) they become a [`Fault`]: a
//! [`Symbol`] that programs test, a message and a hint that people read. On
//! D-Bus the symbol is the last part of the error name.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! symbols {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What went wrong, for programs. The names are stable: they are D-Bus
        /// error names and exit in `--json` output.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Symbol { $($(#[$doc])* $name),+ }

        impl Symbol {
            /// Every symbol, in the order of their definition.
            pub const ALL: &'static [Symbol] = &[$(Symbol::$name),+];

            /// The symbol as D-Bus error names spell it, e.g. `NotFound`.
            pub fn name(self) -> &'static str {
                match self { $(Symbol::$name => stringify!($name)),+ }
            }
        }
    };
}

symbols! {
    /// No object of that name.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The text is not a handle.
    InvalidHandle,
    /// A value of a request is not acceptable; the message names it.
    InvalidArgument,
    /// The operation does not fit the state the object is in.
    WrongState,
    /// The instance is disabled.
    Disabled,
    /// Another operation on the same object has not ended yet.
    Busy,
    /// The operation was cancelled.
    Cancelled,
    /// Not available in this version or on this host.
    Unsupported,
    /// The caller may not do this.
    PermissionDenied,
    /// No kit of that name.
    KitNotFound,
    /// The kit's manifest or a binary it needs is missing or wrong.
    KitBroken,
    /// The image is not there or is not one this version can run.
    ImageUnavailable,
    /// The text is not the name of an image.
    ImageName,
    /// The registry, folder or file has no such image.
    ImageNotFound,
    /// The registry gives the image to nobody, or not to this user.
    ImageUnauthorized,
    /// The image is not made for the platform that was asked for.
    ImagePlatform,
    /// What came is not what the image's digests and sizes promise.
    ImageCorrupt,
    /// The image is of a kind that this version cannot run.
    ImageUnsupported,
    /// The image registry does not answer, or with errors only.
    RegistryUnreachable,
    /// The image registry takes no more requests for now.
    RegistryBusy,
    /// The workspace folder is missing or not usable.
    WorkspaceUnavailable,
    /// The source of a volume is missing or not usable.
    VolumeUnavailable,
    /// There is no volume of that name.
    VolumeNotFound,
    /// Instances use the volume.
    VolumeInUse,
    /// A port of the instance is taken by somebody else.
    PortInUse,
    /// No service manager answers.
    SupervisorUnavailable,
    /// The service manager refused or failed an operation.
    SupervisorFailed,
    /// A unit was killed for want of memory on the host.
    OutOfMemory,
    /// The host forbids the sandbox that the unit needs.
    SandboxUnavailable,
    /// The registry cannot be read or written.
    RegistryFailed,
    /// The registry was written by a newer version.
    RegistryTooNew,
    /// No secret of that name.
    SecretNotFound,
    /// An instance uses the secret.
    SecretInUse,
    /// The key that a secret was encrypted with is lost.
    SecretKeyLost,
    /// Secrets cannot be encrypted or decrypted.
    SecretsFailed,
    /// The disk is full.
    NoSpace,
    /// Neither the project's kernel nor a distribution kernel is installed.
    KernelMissing,
    /// A file of the guest (initramfs, base image) is missing.
    GuestFilesMissing,
    /// QEMU is not installed.
    QemuMissing,
    /// QEMU is older than the oldest supported version.
    QemuTooOld,
    /// QEMU ended or answered with an error.
    QemuFailed,
    /// The requested accelerator does not work on this host.
    AccelUnusable,
    /// The guest has no network although it should have one.
    NetworkUnavailable,
    /// The guest did not answer within the boot deadline.
    GuestTimeout,
    /// The guest reported that it could not boot.
    GuestBootFailed,
    /// The guest broke the link protocol.
    LinkViolation,
    /// A hibernated VM could not be restored and was booted.
    SnapshotUnusable,
    /// The VM ended while the operation was under way.
    VmEnded,
    /// No such command in the guest.
    CommandNotFound,
    /// The command in the guest cannot be executed.
    CommandNotExecutable,
    /// No such user in the guest.
    UserNotFound,
    /// No such working directory in the guest.
    WorkdirNotFound,
    /// A mistake of ours.
    Internal,
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error as it crosses a process boundary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// For programs.
    pub symbol: Symbol,
    /// What failed and why, one line, for people. Never holds a secret.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Fault {
    /// A fault with its message.
    pub fn new(symbol: Symbol, message: impl Into<String>) -> Self {
        Self {
            symbol,
            message: message.into(),
            hint: None,
        }
    }

    /// A fault from an error and all its sources, joined with `: `.
    pub fn from_error(symbol: Symbol, error: &dyn Error) -> Self {
        Self::new(symbol, chain(error))
    }

    /// The same fault with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// An error and its sources in one line, joined with `: `.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_have_unique_names_on_both_wires() {
        let mut names: Vec<_> = Symbol::ALL.iter().map(|s| s.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Symbol::ALL.len());
        assert_eq!(
            serde_json::to_string(&Symbol::NoSpace).unwrap(),
            "\"no-space\""
        );
    }

    #[test]
    fn the_chain_names_every_source_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read the spec")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("no such file"));
        assert_eq!(chain(&error), "cannot read the spec: no such file");
    }
}
