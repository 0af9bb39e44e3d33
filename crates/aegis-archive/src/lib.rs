//! Trees of files as a tar stream: made on one side of a copy, read on the other.
//!
//! Used by the client on the host and by the harness in the guest, so any image
//! can be copied from and to, also one without tar(1). Memory does not grow with
//! the tree: what is held at a time is a buffer, the open directories and a bounded
//! number of names of hard links.
//!
//! | module | what it owns |
//! |---|---|
//! | [`place`] | pure: where a copy goes (the rules of docker-cp(1)) |
//! | [`pack`] | from files to a stream |
//! | [`unpack`] | from a stream to files, never outside the destination |

mod beneath;
pub mod pack;
pub mod place;
pub mod unpack;

use std::io;
use std::path::PathBuf;

use place::PlaceError;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files, folders, links.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Sockets and devices, which are left out.
    pub skipped: u64,
}

/// Why a copy ended early.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("cannot {operation} {path}", path = path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    #[error("the archive is empty: the other side sent nothing")]
    Empty,
    #[error("the archive names {path:?}, which is outside the destination")]
    Outside { path: PathBuf },
    #[error("the archive would write through {path:?}, which is a link or no folder")]
    Through { path: PathBuf },
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("interrupted")]
    Interrupted,
}

impl ArchiveError {
    fn file(operation: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            operation,
            path,
            source,
        }
    }
}
