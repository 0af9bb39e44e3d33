//! Where verified bytes go.

use std::fmt;
use std::io::SeekFrom;
use std::path::PathBuf;

use oci_spec::image::Descriptor;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use crate::digest::Verifier;
use crate::error::{Corruption, SourceError};

/// Told how many bytes of a blob have come. The number falls where a download has to
/// begin anew.
pub type Progress<'a> = &'a mut (dyn FnMut(u64) + Send);

/// A blob as it comes: checked, counted, written.
pub(super) struct Sink<'a> {
    target: Target<'a>,
    verifier: Verifier,
    progress: Progress<'a>,
    what: String,
    place: String,
}

pub(super) enum Target<'a> {
    File(&'a mut File),
    Memory(&'a mut Vec<u8>),
}

impl<'a> Sink<'a> {
    pub(super) async fn new(
        target: Target<'a>,
        descriptor: &Descriptor,
        progress: Progress<'a>,
        place: String,
    ) -> Result<Self, SourceError> {
        let what = format!("the blob {}", descriptor.digest());
        let verifier = match Verifier::new(descriptor) {
            Ok(verifier) => verifier,
            Err(source) => {
                return Err(SourceError::Corrupt {
                    what,
                    place,
                    source,
                });
            }
        };
        let mut sink = Self {
            target,
            verifier,
            progress,
            what,
            place,
        };
        sink.restart().await?;
        Ok(sink)
    }

    /// What this is, for messages.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    pub(super) fn received(&self) -> u64 {
        self.verifier.received()
    }

    pub(super) fn is_whole(&self) -> bool {
        self.verifier.is_whole()
    }

    /// An error about the bytes.
    pub(super) fn corrupt(&self, source: Corruption) -> SourceError {
        SourceError::Corrupt {
            what: self.what.clone(),
            place: self.place.clone(),
            source,
        }
    }

    /// Forgets all bytes so far.
    pub(super) async fn restart(&mut self) -> Result<(), SourceError> {
        self.verifier.restart();
        match &mut self.target {
            Target::File(file) => {
                let emptied = async {
                    file.seek(SeekFrom::Start(0)).await?;
                    file.set_len(0).await
                };
                emptied.await.map_err(writing)?;
            }
            Target::Memory(bytes) => bytes.clear(),
        }
        (self.progress)(0);
        Ok(())
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        let counted = self.verifier.update(bytes);
        counted.map_err(|source| self.corrupt(source))?;
        match &mut self.target {
            Target::File(file) => file.write_all(bytes).await.map_err(writing)?,
            Target::Memory(memory) => memory.extend_from_slice(bytes),
        }
        (self.progress)(self.verifier.received());
        Ok(())
    }

    /// Says that the bytes are good.
    pub(super) async fn finish(&mut self) -> Result<(), SourceError> {
        if let Target::File(file) = &mut self.target {
            file.flush().await.map_err(writing)?;
        }
        let checked = self.verifier.finish();
        checked.map_err(|source| self.corrupt(source))
    }
}

fn writing(source: std::io::Error) -> SourceError {
    SourceError::File {
        operation: "write the blob to",
        path: PathBuf::from("its file"),
        source,
    }
}

impl fmt::Debug for Sink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("what", &self.what)
            .field("verifier", &self.verifier)
            .finish_non_exhaustive()
    }
}
