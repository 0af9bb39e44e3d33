//! `aegis-vmm`: started by the service manager, once per VM that runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aegis_core::credential::{Credential, CredentialError, NAME};
use aegis_core::fault::chain;
use aegis_core::restart::RESTART_STATUS;
use aegis_core::vm_spec::VmSpec;
use aegis_vmm::activation::{ActivationError, Listeners, MadeSocket};
use aegis_vmm::hardening::{self, HardeningError};
use aegis_vmm::hypervisor::qemu::Qemu;
use aegis_vmm::owner::Verdict;
use aegis_vmm::{logging, runtime};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use zeroize::Zeroizing;

/// Owns one VM: starts its guest, serves its control socket and ports, ends with it
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// The VM's spec, written by aegisd
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
    /// Listen on this control socket and on the ports of the spec, instead of taking
    /// the sockets that a service manager passes
    #[arg(long, value_name = "PATH")]
    listen: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the process cannot be made harmless")]
    Hardening(#[source] HardeningError),
    #[error("cannot read the spec {}", path.display())]
    ReadSpec {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the spec {} is not valid", path.display())]
    ParseSpec {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("the service manager gave the unit no credential")]
    NoCredential,
    #[error("cannot read the credential {}", path.display())]
    ReadCredential {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot take the secrets of the VM")]
    Credential(#[source] CredentialError),
    #[error("cannot take the sockets of the VM")]
    Sockets(#[source] ActivationError),
    #[error("cannot prepare the runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot serve the sockets of the VM")]
    Serve(#[source] io::Error),
}

/// Something that is no VM's fault is wrong (`EX_SOFTWARE` of sysexits(3)). The
/// unit tries again after this whatever the restart policy is: nothing has run.
const CANNOT_BEGIN: u8 = 70;

fn main() -> ExitCode {
    let options = Options::parse();
    // First of all, and before there is a second thread.
    let hardened = hardening::apply().map_err(Error::Hardening);
    let spec = hardened.and_then(|()| read_spec(&options.spec));
    if let Ok(spec) = &spec {
        aegis_fault_points::arm(&spec.dir);
    }
    let spec = spec.and_then(with_credential);
    logging::start(spec.as_ref().ok().map(|spec| &spec.handle));
    match spec.and_then(|spec| own(spec, options.listen.as_deref())) {
        Ok(Verdict::Finished) => ExitCode::SUCCESS,
        Ok(Verdict::Restart) => ExitCode::from(RESTART_STATUS),
        // The owner has said why.
        Ok(Verdict::Lost(_)) => ExitCode::FAILURE,
        Err(failure) => {
            error!("{}", chain(&failure));
            ExitCode::from(CANNOT_BEGIN)
        }
    }
}

fn read_spec(path: &Path) -> Result<VmSpec, Error> {
    let json = fs::read(path).map_err(|source| Error::ReadSpec {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&json).map_err(|source| Error::ParseSpec {
        path: path.to_owned(),
        source,
    })
}

/// The spec with the secrets of the unit's credential.
fn with_credential(spec: VmSpec) -> Result<VmSpec, Error> {
    if !spec.needs_secrets {
        return Ok(spec);
    }
    let text = aegis_os::credential::read(NAME).map_err(|error| match error {
        aegis_os::credential::CredentialError::None => Error::NoCredential,
        aegis_os::credential::CredentialError::Read { path, source } => {
            Error::ReadCredential { path, source }
        }
    })?;
    let credential = Credential::read(&Zeroizing::new(text)).map_err(Error::Credential)?;
    Ok(VmSpec { credential, ..spec })
}

fn own(spec: VmSpec, listen: Option<&Path>) -> Result<Verdict, Error> {
    let listeners = match listen {
        None => Listeners::inherit(),
        Some(path) => Listeners::listen(path, &spec.ports),
    };
    let listeners = listeners.map_err(Error::Sockets)?;
    let _made = listen.map(|path| MadeSocket(path.to_owned()));
    let hypervisor = Qemu::new(spec.accel_cache.clone());
    // One thread carries all bytes; the others exist while a file is synced.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(Error::Runtime)?;
    let verdict = runtime.block_on(async {
        let stop = stop_signal().map_err(Error::Runtime)?;
        runtime::run(spec, listeners, hypervisor, stop)
            .await
            .map_err(Error::Serve)
    });
    // A client that reads nothing must not hold the process.
    runtime.shutdown_background();
    verdict
}

/// Resolves at SIGTERM, or at SIGINT for who runs it by hand.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        let name = loop {
            tokio::select! {
                _ = terminate.recv() => break "SIGTERM",
                _ = interrupt.recv() => break "SIGINT",
                // To most services it means: read your config again.
                _ = hangup.recv() => info!("SIGHUP: there is nothing to read again, ignoring"),
            }
        };
        info!("{name}: stopping");
    })
}
