//! What aegisd and the program that pulls and imports say to each other: lines of JSON over a
//! socket pair, which is the program's standard input.
//!
//! ```text
//!  aegisd ──byte───► aegis-image        with the mark of the work, and what is open of
//!                                       the image on this host
//!         ──Order──►
//!         ◄─Report── …                  progress, then the end
//!         ──Cancel─►                    or the connection's end, which cancels nothing
//! ```
//!
//! An aegisd that dies takes no pull with it: the image is in the store when the
//! next one asks.

use std::io::{self, IoSlice, IoSliceMut};
use std::iter;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use aegis_core::fault::Fault;
use aegis_core::platform::Platform;
use aegis_core::secret::SecretText;
use aegis_os::descriptors;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, SendAncillaryBuffer, SendAncillaryMessage, recvmsg,
    sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::import::Request;
use crate::record::Image;

/// The longest line, in bytes: the certificates of many authorities, or what an image
/// says about itself.
pub const LONGEST_LINE: usize = 8 << 20;

/// What aegisd asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    Pull(Box<Pull>),
    Import(Box<Import>),
    /// Give it up.
    Cancel,
}

impl Order {
    /// The folder of the store that it is about.
    pub fn store(&self) -> Option<&Path> {
        match self {
            Self::Pull(pull) => Some(&pull.store),
            Self::Import(import) => Some(&import.store),
            Self::Cancel => None,
        }
    }
}

/// One pull.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pull {
    /// The store's folder.
    pub store: PathBuf,
    /// What to pull, in full. The path in that of a local image is what people are
    /// told; what is read is the open file or folder that came with the order.
    pub name: String,
    /// How to get at it as the client's surroundings have it, JSON of an
    /// `access::Access`; without it as those of this program have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<SecretText>,
    /// Which of the images of that name.
    #[serde(default)]
    pub platform: Platform,
}

/// One import, of the archive that came with the order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Import {
    /// The store's folder.
    pub store: PathBuf,
    pub request: Request,
}

/// What the program reports.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    Progress(Progress),
    /// The image is in the store.
    Done(Box<Image>),
    Failed(Fault),
}

/// What the program is given open, before anything else is said.
#[derive(Debug)]
pub struct Opened {
    /// The mark of the pull or import ([`crate::store::Store::mark_pull`]).
    pub mark: OwnedFd,
    /// The file or folder of a local image, or the archive to import.
    pub source: Option<OwnedFd>,
}

impl Opened {
    /// Sends it. One byte goes with it, so this waits for nothing.
    ///
    /// # Errors
    /// The other side is gone.
    pub fn send(&self, socket: &UnixStream) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let both: Vec<_> = iter::once(&self.mark)
            .chain(&self.source)
            .map(OwnedFd::as_fd)
            .collect();
        // There is room for two.
        ancillary.push(SendAncillaryMessage::ScmRights(&both));
        let parts = [IoSlice::new(b"\n")];
        sendmsg(socket, &parts, &mut ancillary, descriptors::SEND)?;
        Ok(())
    }

    /// Receives it.
    ///
    /// # Errors
    /// The other side is gone.
    pub fn receive(socket: &UnixStream) -> io::Result<Self> {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut byte)];
        recvmsg(socket, &mut parts, &mut ancillary, descriptors::RECEIVE)?;
        let messages = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        });
        let mut rights = messages.flatten();
        Ok(Self {
            mark: descriptors::keep(rights.next().ok_or(io::ErrorKind::UnexpectedEof)?)?,
            source: rights.next().map(descriptors::keep).transpose()?,
        })
    }
}

/// How far a pull is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The lowest first.
    pub layers: Vec<LayerProgress>,
}

/// How far one layer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerProgress {
    /// The first digits of the digest of its blob.
    pub id: String,
    pub stage: Stage,
    /// Bytes done in this stage.
    pub done: u64,
    /// Bytes of this stage; 0 if unknown.
    pub total: u64,
}

impl Stage {
    /// The stage in one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Pulling => "pulling",
            Self::Reading => "reading",
            Self::Converting => "converting",
            Self::Here => "here",
        }
    }
}

/// What is done with a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Another pull makes it, or its turn has not come.
    Waiting,
    /// Its blob comes over the network.
    Pulling,
    /// It is read from a file or pipe.
    Reading,
    /// It becomes a file system.
    Converting,
    /// It is in the store.
    Here,
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_source_travels_open() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let open = |text: &[u8]| -> OwnedFd {
            let file = tempfile::tempfile().unwrap();
            rustix::io::write(&file, text).unwrap();
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
            file.into()
        };
        let read = |open: OwnedFd| {
            let mut text = String::new();
            std::fs::File::from(open).read_to_string(&mut text).unwrap();
            text
        };
        let source = Some(open(b"layers"));
        let mark = open(b"mark");
        Opened { mark, source }.send(&ours).unwrap();
        let received = Opened::receive(&theirs).unwrap();
        assert_eq!(read(received.mark), "mark");
        assert_eq!(read(received.source.unwrap()), "layers");
        let (mark, source) = (open(b"mark"), None);
        Opened { mark, source }.send(&ours).unwrap();
        assert!(Opened::receive(&theirs).unwrap().source.is_none());
    }

    #[test]
    fn a_side_that_is_gone_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        assert!(Opened::receive(&theirs).is_err());
        let (mark, source) = (tempfile::tempfile().unwrap().into(), None);
        assert!(Opened { mark, source }.send(&theirs).is_err());
    }
}
