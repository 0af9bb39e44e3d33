//! What can go wrong with an instance.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use aegis_core::fault::{Fault, Symbol, chain};
use aegis_core::handle::Handle;
use aegis_core::idle::LeaseError;
use aegis_core::port::PortSelector;

use crate::images::ImageError;
use crate::kits::expand::ExpandError;
use crate::kits::install::InstallError;
use crate::ports::Holder;
use crate::registry::RegistryError;
use crate::secrets::SecretsError;
use crate::supervisor::SupervisorError;
use crate::supervisor::error::JobEnd;
use crate::vm::VmError;

/// Who listens on a port that an instance is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortHolder {
    /// Another instance.
    Instance(Handle),
    /// A program that has nothing to do with us.
    Process(Holder),
    /// Nobody that we may see.
    Unknown,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(handle) => write!(f, "the instance '{handle}'"),
            Self::Process(holder) => holder.fmt(f),
            Self::Unknown => f.write_str("a process of another user"),
        }
    }
}

impl PortHolder {
    fn hint(&self, address: SocketAddr) -> String {
        let port = address.port();
        match self {
            Self::Instance(handle) => format!(
                "choose another port, or close it there: aegisctl instance unexpose {handle} {port}"
            ),
            Self::Process(_) => "choose another port, or end that process".to_owned(),
            Self::Unknown => format!(
                "choose another port; 'sudo ss -ltnp sport = :{port}' shows who has this one"
            ),
        }
    }
}

/// Why an operation on an instance failed.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    #[error("there is no instance '{0}'")]
    Unknown(String),
    #[error("the instance '{0}' is disabled")]
    Disabled(Handle),
    #[error("the instance '{0}' is being deleted")]
    Deleting(Handle),
    #[error("the instance '{0}' has too many operations waiting")]
    Busy(Handle),
    #[error("there is no VM of the instance '{0}' at the moment")]
    NoVm(Handle),
    #[error("the instance '{0}' has no command to attach to")]
    NothingToAttach(Handle),
    #[error("the command of the instance '{0}' runs without a terminal")]
    NoTerminal(Handle),
    #[error("the instance cannot be kept awake")]
    Lease(#[source] LeaseError),
    #[error("the operation was cancelled")]
    Cancelled,
    #[error("a {0} overtook the operation")]
    Overtaken(&'static str),
    #[error("the name of the instance is not acceptable")]
    Handle(#[from] aegis_core::handle::HandleError),
    #[error("the command is not acceptable")]
    Exec(#[from] aegis_core::spec::SpecError),
    #[error("the settings cannot be as asked")]
    Settings(#[source] aegis_core::spec::SpecError),
    #[error("nothing to change was given")]
    NoChange,
    #[error("there is no signal {0}; signals are 1 to 64")]
    Signal(i32),
    #[error("the command of the instance '{0}' does not run")]
    NoCommand(Handle),
    #[error("an exec needs a command")]
    EmptyExec,
    #[error("an ephemeral instance always starts at once")]
    EphemeralStart,
    #[error("the workspace {path} cannot be used")]
    Workspace {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the workspace {0} is not a folder")]
    WorkspaceKind(PathBuf),
    #[error("the source {path} of the volume at {target} cannot be used")]
    VolumeSource {
        path: PathBuf,
        target: String,
        #[source]
        source: io::Error,
    },
    #[error("the source {path} of the volume at {target} is neither a folder nor a file")]
    VolumeKind { path: PathBuf, target: String },
    #[error("{0} holds AegisVM's own files, which no guest may have")]
    OwnFolder(PathBuf),
    #[error("the instance has no port {0}")]
    NoPort(PortSelector),
    #[error("no port of this host is free to be chosen")]
    NoFreePort,
    #[error("cannot listen on {address}: {holder} does")]
    PortTaken {
        address: SocketAddr,
        holder: PortHolder,
    },
    #[error("the instance has no volume at {0}")]
    NoVolume(String),
    #[error(transparent)]
    Volume(#[from] crate::volumes::VolumeError),
    #[error(transparent)]
    Message(#[from] crate::messages::MessageError),
    #[error("the daemons' config folder cannot be {0}, which is a file")]
    ConfigFolder(PathBuf),
    #[error("the socket's path {0} is too long for a unix socket")]
    SocketPath(PathBuf),
    #[error("cannot {operation} {path}")]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot put {path} into words")]
    Encode {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// The VM's owner said why the VM does not start.
    #[error(transparent)]
    Start(Fault),
    #[error("the VM ended before the guest was ready")]
    EndedEarly,
    #[error(transparent)]
    Expand(#[from] ExpandError),
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    #[error(transparent)]
    Vm(#[from] VmError),
    /// A failed operation whose undoing failed too, or a teardown that went on
    /// through failures: the first error first.
    #[error("{}", .0.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; then: "))]
    Several(Vec<InstanceError>),
}

impl InstanceError {
    /// One error from the failures of a series of steps; `Ok` from none.
    ///
    /// # Errors
    /// The failures.
    pub fn all(mut errors: Vec<InstanceError>) -> Result<(), InstanceError> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }

    /// The error as clients see it.
    pub fn fault(&self) -> Fault {
        if is_full(self) {
            return Fault::from_error(Symbol::NoSpace, self)
                .with_hint("free some space on the disk, then try again");
        }
        let fault = |symbol| Fault::from_error(symbol, self);
        match self {
            Self::Unknown(_) => {
                fault(Symbol::NotFound).with_hint("'aegisctl instance list' shows all of them")
            }
            Self::Disabled(handle) => fault(Symbol::Disabled)
                .with_hint(format!("enable it: aegisctl instance enable {handle}")),
            Self::Busy(_) => fault(Symbol::Busy).with_hint("try again in a moment"),
            Self::NoVm(handle) => fault(Symbol::WrongState)
                .with_hint(format!("start it: aegisctl instance start --name {handle}")),
            Self::NothingToAttach(handle) => fault(Symbol::WrongState).with_hint(format!(
                "open a shell in it: aegisctl exec -t {handle} -- sh"
            )),
            Self::NoTerminal(handle) => fault(Symbol::WrongState).with_hint(format!(
                "follow what it writes: aegisctl logs --follow {handle}; \
                 open a shell beside it: aegisctl exec -t {handle} -- sh"
            )),
            Self::Deleting(_) => fault(Symbol::WrongState),
            Self::Cancelled | Self::Overtaken(_) => fault(Symbol::Cancelled),
            Self::Handle(_) => fault(Symbol::InvalidHandle),
            Self::Exec(_)
            | Self::Settings(_)
            | Self::NoChange
            | Self::Lease(_)
            | Self::Signal(_)
            | Self::EmptyExec
            | Self::EphemeralStart => fault(Symbol::InvalidArgument),
            Self::NoCommand(handle) => fault(Symbol::WrongState)
                .with_hint(format!("its state: aegisctl instance info {handle}")),
            Self::Workspace { .. } | Self::WorkspaceKind(_) => {
                fault(Symbol::WorkspaceUnavailable).with_hint("name a folder that exists")
            }
            Self::VolumeSource { .. } | Self::VolumeKind { .. } => fault(Symbol::VolumeUnavailable)
                .with_hint("name a folder or file that exists; none is made"),
            Self::OwnFolder(_) => {
                fault(Symbol::PermissionDenied).with_hint("share a folder elsewhere")
            }
            Self::NoFreePort => {
                fault(Symbol::PortInUse).with_hint("name one that is: --expose HOST:GUEST")
            }
            Self::PortTaken { address, holder } => {
                fault(Symbol::PortInUse).with_hint(holder.hint(*address))
            }
            Self::NoVolume(_) | Self::NoPort(_) => fault(Symbol::InvalidArgument)
                .with_hint("'aegisctl instance info' shows what is where"),
            Self::Volume(error) => error.fault(),
            Self::Message(error) => error.fault(),
            Self::ConfigFolder(_) => {
                fault(Symbol::InvalidHandle).with_hint("choose another name, or move the file away")
            }
            Self::SocketPath(_) => fault(Symbol::InvalidArgument)
                .with_hint("choose a shorter name or a shorter XDG_RUNTIME_DIR"),
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                fault(Symbol::PermissionDenied).with_hint("check the owner of the folder")
            }
            Self::File { .. } | Self::Encode { .. } => fault(Symbol::Internal),
            Self::Start(fault) => fault.clone(),
            Self::EndedEarly => fault(Symbol::VmEnded),
            Self::Expand(error) => error.fault(),
            Self::Install(error) => error.fault(),
            Self::Image(error) => error.fault(),
            Self::Registry(error) => error.fault(),
            Self::Secrets(error) => error.fault(),
            Self::Supervisor(error) => supervisor_fault(error),
            Self::Vm(error) => error.fault(),
            Self::Several(errors) => {
                let first = errors.first().map(Self::fault);
                let symbol = first
                    .as_ref()
                    .map_or(Symbol::Internal, |fault| fault.symbol);
                let hint = first.and_then(|fault| fault.hint);
                Fault {
                    hint,
                    ..fault(symbol)
                }
            }
        }
    }
}

/// Whether a full disk is behind an error.
fn is_full(error: &InstanceError) -> bool {
    if let InstanceError::Several(errors) = error {
        return errors.iter().any(is_full);
    }
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::StorageFull) {
            return true;
        }
        next = error.source();
    }
    false
}

/// An error of the service manager as clients see it.
pub fn supervisor_fault(error: &SupervisorError) -> Fault {
    let fault = |symbol| Fault::from_error(symbol, error);
    match error {
        SupervisorError::Unreachable { .. } => fault(Symbol::SupervisorUnavailable)
            .with_hint("'aegisctl doctor' says what AegisVM needs of the system"),
        SupervisorError::Process { .. } => fault(Symbol::Internal),
        SupervisorError::ForeignBus { .. } => fault(Symbol::SupervisorUnavailable)
            .with_hint("log in as this user instead of using su or sudo"),
        SupervisorError::TooOld { .. } => fault(Symbol::SupervisorUnavailable),
        SupervisorError::Bind {
            address, source, ..
        } if source.kind() == io::ErrorKind::AddrInUse => fault(Symbol::PortInUse).with_hint(
            format!("'ss -ltnp' shows who listens on {address}; or choose another port"),
        ),
        SupervisorError::Bind { source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            fault(Symbol::PermissionDenied).with_hint("ports below 1024 are the administrator's")
        }
        SupervisorError::Bind { .. } => fault(Symbol::InvalidArgument),
        SupervisorError::NotConfined { .. } | SupervisorError::NoUserNamespaces { .. } => {
            fault(Symbol::SandboxUnavailable).with_hint(
                "'aegisctl doctor' names the cure; --insecure runs the instance without a sandbox",
            )
        }
        SupervisorError::NoCredentials { .. } => fault(Symbol::Unsupported)
            .with_hint("with launchd only the instances of user mode can have secrets"),
        SupervisorError::Word { .. } => fault(Symbol::InvalidArgument).with_hint(
            "XDG_RUNTIME_DIR and the folders around a home take letters, digits and _.,=@+- only",
        ),
        SupervisorError::Job {
            end: JobEnd::Canceled,
            unit,
            ..
        } => fault(Symbol::Cancelled).with_hint(format!("somebody stopped {unit} meanwhile")),
        SupervisorError::Job { unit, .. } => {
            fault(Symbol::SupervisorFailed).with_hint(format!("its log: journalctl -u {unit}"))
        }
        SupervisorError::OutOfMemory { .. } => fault(Symbol::OutOfMemory).with_hint(
            "a VM's limit: aegisctl instance update NAME --memory-max SIZE; \
             a daemon's: limits.memory_mb in its kit",
        ),
        SupervisorError::StillRuns { .. } => {
            fault(Symbol::WrongState).with_hint("stop the instance, then start it")
        }
        SupervisorError::Call { .. } | SupervisorError::NotFound { .. } => {
            fault(Symbol::SupervisorFailed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(kind: io::ErrorKind) -> InstanceError {
        InstanceError::File {
            operation: "write",
            path: "/home/a/.aegis/x".into(),
            source: kind.into(),
        }
    }

    #[test]
    fn a_full_disk_is_told_as_itself_wherever_it_is_met() {
        let fault = write(io::ErrorKind::StorageFull).fault();
        assert_eq!(fault.symbol, Symbol::NoSpace);
        assert!(
            fault.message.contains("/home/a/.aegis/x"),
            "{}",
            fault.message
        );
        let both = InstanceError::all(vec![
            write(io::ErrorKind::StorageFull),
            write(io::ErrorKind::NotFound),
        ]);
        assert_eq!(both.unwrap_err().fault().symbol, Symbol::NoSpace);
    }

    #[test]
    fn several_failures_are_all_told_and_the_first_gives_the_symbol() {
        let denied = write(io::ErrorKind::PermissionDenied);
        let errors = vec![denied, InstanceError::Busy("web".parse().unwrap())];
        let fault = InstanceError::all(errors).unwrap_err().fault();
        assert_eq!(fault.symbol, Symbol::PermissionDenied);
        assert!(fault.message.contains("; then: "), "{}", fault.message);
    }
}
