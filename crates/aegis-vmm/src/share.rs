//! The share: how files and folders of the host reach the guest.
//!
//! All of them travel on one device, since a microvm has few slots. The server's jail
//! shows each by its number in an otherwise empty folder, those that are read-only so
//! that the host's kernel refuses what changes them; the guest brings each to its place:
//!
//! ```text
//!   host                    jail                       guest
//!   /home/alice/site   ──►  /share/0  ──┐          ┌─► /srv/www
//!                                       ├─ device ─┤
//!   /etc/app.conf, ro  ──►  /share/1  ──┘          └─► /etc/app.conf
//! ```
//!
//! Without a jail nothing can show them so: then the device is one folder itself. macOS
//! has none, so there it is always one.
//!
//! virtiofs where a virtiofsd is installed that can squash users, else QEMU's own
//! 9p server, and always that where the guest is emulated: virtiofsd writes into the
//! guest's memory without QEMU's knowledge, which goes on with what it translated of
//! the code that was there before, so that programs of the folder crash. Either way the
//! server sees these and nothing else of the host's files, since it runs in a jail;
//! links in a folder are resolved by the guest, so one that points out of it points
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
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aegis_core::fault::Symbol;
use aegis_core::spec::Accel;

use crate::hypervisor::process::{Child, Exit};
use crate::hypervisor::system::System;
use crate::hypervisor::{ShareKind, SharePlan};
use crate::jail::{Access, Bind, JailError};

/// Where a jailed server sees what is shared.
const JAILED: &str = "/share";

/// Why something cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error("{path} does not exist")]
    Missing { path: PathBuf, symbol: Symbol },
    #[error("{path} is neither a folder nor a file")]
    Kind { path: PathBuf, symbol: Symbol },
    #[error("cannot open {path}")]
    Open {
        path: PathBuf,
        symbol: Symbol,
        #[source]
        source: io::Error,
    },
    #[error("without a jail one folder can be shared, and nothing else")]
    NoJail,
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

impl ShareError {
    /// What is not to be had.
    pub fn symbol(&self) -> Symbol {
        match self {
            Self::Missing { symbol, .. }
            | Self::Kind { symbol, .. }
            | Self::Open { symbol, .. } => *symbol,
            Self::NoJail => Symbol::SandboxUnavailable,
            Self::Socket(_) | Self::Jail { .. } | Self::Ended(_) => Symbol::WorkspaceUnavailable,
        }
    }
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
    /// QEMU serves it itself.
    NineP { folder: Folder, read_only: bool },
}

/// How QEMU's own server reaches what it serves.
#[derive(Debug)]
pub enum Folder {
    /// At this path of its jail.
    Jailed(&'static str),
    /// By descriptor, where there is no jail.
    Open(OwnedFd),
    /// By its own path, where a descriptor is no path either.
    Named(PathBuf),
}

impl Folder {
    /// How it is reached without a jail.
    fn unjailed(system: System, folder: File, path: &Path) -> Self {
        match system {
            System::Linux => Self::Open(folder.into()),
            System::Darwin => Self::Named(path.to_owned()),
        }
    }
}

/// A share that is ready.
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

    /// Makes files and folders ready; `None` if there are none. `scratch` is a private
    /// directory for the socket, `jail_root` one to mount a jail's root on; without it
    /// nothing is jailed.
    ///
    /// # Errors
    /// When one of them is missing, or their server does not start.
    pub async fn prepare(
        plans: &[SharePlan],
        accel: Accel,
        scratch: &Path,
        jail_root: Option<&Path>,
    ) -> Result<Option<Self>, ShareError> {
        let opened = plans.iter().map(open_source);
        let opened = opened.collect::<Result<Vec<Source>, _>>()?;
        if plans.is_empty() {
            return Ok(None);
        }
        let read_only = plans.iter().all(|plan| plan.read_only);
        let nine_p = |folder, binds| Self {
            carrier: Carrier::NineP { folder, read_only },
            server: None,
            binds,
        };
        let Some(jail_root) = jail_root else {
            let mut opened = opened.into_iter();
            return match (opened.next(), opened.next()) {
                (Some(Source::Folder(folder)), None) => {
                    let folder = Folder::unjailed(System::HERE, folder, &plans[0].path);
                    Ok(Some(nine_p(folder, Vec::new())))
                }
                _ => Err(ShareError::NoJail),
            };
        };
        let mut binds: Vec<Bind> = plans.iter().enumerate().map(numbered).collect();
        let program = match accel {
            Accel::Tcg => None,
            Accel::Auto | Accel::Kvm | Accel::Hvf => virtiofsd::find().await,
        };
        if let Some(program) = program {
            let (socket, server) =
                virtiofsd::start(&program, binds, read_only, scratch, jail_root).await?;
            return Ok(Some(Self {
                carrier: Carrier::Virtiofs { socket },
                server: Some(server),
                binds: Vec::new(),
            }));
        }
        binds.push(own_proc());
        Ok(Some(nine_p(Folder::Jailed(JAILED), binds)))
    }
}

/// How a jail shows one of several.
fn numbered((number, plan): (usize, &SharePlan)) -> Bind {
    Bind {
        from: plan.path.clone(),
        to: Path::new(JAILED).join(number.to_string()),
        access: match plan.read_only {
            true => Access::Read,
            false => Access::ReadWrite,
        },
    }
}

/// What is there to be shared.
#[derive(Debug)]
enum Source {
    Folder(File),
    File,
}

/// Opens a file or folder, which says what is wrong with it if anything is.
fn open_source(plan: &SharePlan) -> Result<Source, ShareError> {
    let (path, symbol) = (plan.path.clone(), plan.symbol);
    // A pipe is not waited for.
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path);
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ShareError::Missing { path, symbol });
        }
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            return Err(ShareError::Kind { path, symbol });
        }
        Err(source) => {
            return Err(ShareError::Open {
                path,
                symbol,
                source,
            });
        }
    };
    match opened.metadata() {
        Ok(meta) if meta.is_dir() => Ok(Source::Folder(opened)),
        Ok(meta) if meta.is_file() => Ok(Source::File),
        Ok(_) => Err(ShareError::Kind { path, symbol }),
        Err(source) => Err(ShareError::Open {
            path,
            symbol,
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(path: &Path) -> SharePlan {
        SharePlan {
            path: path.to_owned(),
            read_only: false,
            symbol: Symbol::VolumeUnavailable,
        }
    }

    #[test]
    fn a_folder_without_a_jail_is_told_as_the_system_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |system| {
            let file = File::open(dir.path()).unwrap();
            Folder::unjailed(system, file, dir.path())
        };
        assert!(matches!(folder(System::Linux), Folder::Open(_)));
        assert!(matches!(folder(System::Darwin), Folder::Named(path) if path == dir.path()));
    }

    #[test]
    fn what_cannot_be_shared_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let error = open_source(&plan(&missing)).unwrap_err();
        assert!(matches!(&error, ShareError::Missing { path, .. } if *path == missing));
        assert_eq!(error.symbol(), Symbol::VolumeUnavailable);
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert!(matches!(open_source(&plan(&file)), Ok(Source::File)));
        assert!(matches!(
            open_source(&plan(dir.path())),
            Ok(Source::Folder(_))
        ));
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for path in [socket.as_path(), Path::new("/dev/null")] {
            let error = open_source(&plan(path)).unwrap_err();
            assert!(matches!(error, ShareError::Kind { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn without_a_jail_there_is_one_folder_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let share =
            async |plans: &[SharePlan]| Share::prepare(plans, Accel::Tcg, dir.path(), None).await;
        let folder = plan(dir.path());
        assert!(share(&[]).await.unwrap().is_none());
        assert!(
            share(std::slice::from_ref(&folder))
                .await
                .unwrap()
                .is_some()
        );
        for plans in [vec![plan(&file)], vec![folder.clone(), folder]] {
            assert!(matches!(share(&plans).await, Err(ShareError::NoJail)));
        }
    }
}
