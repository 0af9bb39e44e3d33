//! The shared folder: how a directory of the host reaches the guest.
//!
//! virtiofs where a virtiofsd is installed that can squash users, else QEMU's own
//! 9p server, and always that where the guest is emulated: virtiofsd writes into the
//! guest's memory without QEMU's knowledge, which goes on with what it translated of
//! the code that was there before, so that programs of the folder crash. Either way the
//! server sees the folder and nothing else of the host's files, since it runs in a jail;
//! links in the folder are resolved by the guest, so one that points out of it points
//! into the guest's own files.
//!
//! Users: every user of the guest acts on the folder as the user who owns the VM,
//! whose files are root's in the guest; files of others are nobody's. Modes and
//! links are the real ones on both sides (`security_model=none` of 9p; the mapped
//! models would keep them in attributes that no program of the host reads).
//! Giving a file to another user changes nothing under virtiofs and is refused with
//! EINVAL under 9p. A guest may set the set-user-ID bit on files, as their owner may.

mod virtiofsd;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use aegis_core::spec::Accel;

use crate::hypervisor::process::{Child, Exit};
use crate::hypervisor::{ShareKind, SharePlan};
use crate::jail::{Access, Bind, JailError};

/// Where a jailed server sees the folder.
const JAILED: &str = "/share";

/// Why a folder cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error("the folder {path} does not exist")]
    Missing { path: PathBuf },
    #[error("{path} is not a folder")]
    NotADirectory { path: PathBuf },
    #[error("cannot open the folder {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make the socket of the file server")]
    Socket(#[source] io::Error),
    #[error("cannot start the file server {program}")]
    Jail {
        program: PathBuf,
        #[source]
        source: JailError,
    },
    #[error("the file server ended at its start: {}", last_line(.0))]
    Ended(Exit),
}

fn last_line(exit: &Exit) -> &str {
    exit.last_words.lines().last().unwrap_or("it said nothing")
}

/// A server's own directory in /proc, where it finds open files again by number;
/// of other processes it shows nothing.
fn own_proc() -> Bind {
    Bind {
        from: "/proc/self".into(),
        to: "/proc/self".into(),
        access: Access::Read,
    }
}

/// How QEMU is told of the share.
#[derive(Debug)]
pub enum Carrier {
    /// The vhost-user connection to the server.
    Virtiofs { socket: OwnedFd },
    /// QEMU serves the folder itself.
    NineP { folder: Folder, read_only: bool },
}

/// How QEMU's own server reaches the folder.
#[derive(Debug)]
pub enum Folder {
    /// At this path of its jail.
    Jailed(&'static str),
    /// By descriptor, where there is no jail.
    Open(OwnedFd),
}

/// A folder that is ready to be shared.
#[derive(Debug)]
pub struct Share {
    pub carrier: Carrier,
    /// The server; the share is gone when it ends.
    pub server: Option<Child>,
    /// What QEMU's jail must show.
    pub binds: Vec<Bind>,
}

impl Share {
    pub fn kind(&self) -> ShareKind {
        match self.carrier {
            Carrier::Virtiofs { .. } => ShareKind::Virtiofs,
            Carrier::NineP { .. } => ShareKind::NineP,
        }
    }

    /// Makes a folder ready. `scratch` is a private directory for the socket,
    /// `jail_root` one to mount a jail's root on; without it nothing is jailed.
    ///
    /// # Errors
    /// When the folder is missing, or its server does not start.
    pub async fn prepare(
        plan: &SharePlan,
        accel: Accel,
        scratch: &Path,
        jail_root: Option<&Path>,
    ) -> Result<Self, ShareError> {
        let folder = open_folder(&plan.path)?;
        let Some(jail_root) = jail_root else {
            let folder = Folder::Open(folder.into());
            let carrier = Carrier::NineP {
                folder,
                read_only: plan.read_only,
            };
            return Ok(Self {
                carrier,
                server: None,
                binds: Vec::new(),
            });
        };
        let access = if plan.read_only {
            Access::Read
        } else {
            Access::ReadWrite
        };
        let bind = Bind {
            from: plan.path.clone(),
            to: JAILED.into(),
            access,
        };
        let program = match accel {
            Accel::Tcg => None,
            Accel::Auto | Accel::Kvm | Accel::Hvf => virtiofsd::find().await,
        };
        if let Some(program) = program {
            let (socket, server) =
                virtiofsd::start(&program, bind, plan.read_only, scratch, jail_root).await?;
            let carrier = Carrier::Virtiofs { socket };
            return Ok(Self {
                carrier,
                server: Some(server),
                binds: Vec::new(),
            });
        }
        let folder = Folder::Jailed(JAILED);
        let carrier = Carrier::NineP {
            folder,
            read_only: plan.read_only,
        };
        Ok(Self {
            carrier,
            server: None,
            binds: vec![bind, own_proc()],
        })
    }
}

/// Opens the folder, which says what is wrong with it if anything is.
fn open_folder(path: &Path) -> Result<File, ShareError> {
    let path = path.to_owned();
    let folder = match File::open(&path) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ShareError::Missing { path });
        }
        Err(source) => return Err(ShareError::Open { path, source }),
    };
    match folder.metadata() {
        Ok(meta) if meta.is_dir() => Ok(folder),
        Ok(_) => Err(ShareError::NotADirectory { path }),
        Err(source) => Err(ShareError::Open { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert!(
            matches!(open_folder(&missing), Err(ShareError::Missing { path }) if path == missing)
        );
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert!(matches!(
            open_folder(&file),
            Err(ShareError::NotADirectory { .. })
        ));
        open_folder(dir.path()).unwrap();
    }
}
