//! Images by reference: `{workspace}/.aegis/blobs/{sha256}.{png|jpg|gif|webp}`.

use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::frame::hex;

/// The most bytes of one image.
pub(crate) const LIMIT: u64 = 10 << 20;
/// The most images of one message.
pub(crate) const PER_MESSAGE: usize = 4;

/// An image that lies in the folder of blobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Blob {
    pub media_type: String,
    /// The name of its file.
    pub blob: String,
    /// Bytes.
    #[serde(default)]
    pub size: u64,
}

/// Why an image cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    #[error("{0:?} is not the name of an image's blob")]
    Name(String),
    #[error("The file is not a PNG, JPEG, GIF or WebP image")]
    NotImage,
    #[error("The image is larger than 10 MiB")]
    TooLarge,
    #[error("Cannot read the image {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("Cannot keep the image {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// The folder of blobs.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    /// The blobs of a workspace.
    #[must_use]
    pub(crate) fn of(workspace: &Path) -> Blobs {
        Blobs {
            folder: workspace.join(".aegis/blobs"),
        }
    }

    /// Keeps an image, whose type is found in its bytes.
    ///
    /// # Errors
    /// See [`BlobError`].
    pub(crate) fn keep(&self, bytes: &[u8]) -> Result<Blob, BlobError> {
        if bytes.len() as u64 > LIMIT {
            return Err(BlobError::TooLarge);
        }
        let (media_type, extension) = kind(bytes).ok_or(BlobError::NotImage)?;
        let name = format!("{}.{extension}", hex(&Sha256::digest(bytes)));
        let path = self.folder.join(&name);
        let failed = |source| BlobError::Write {
            path: path.clone(),
            source,
        };
        if !path.symlink_metadata().is_ok_and(|facts| facts.is_file()) {
            std::fs::create_dir_all(&self.folder).map_err(failed)?;
            // Under another name first: a crash never leaves half an image under its hash.
            let unfinished = self.folder.join(format!(".{name}.unfinished"));
            std::fs::write(&unfinished, bytes).map_err(failed)?;
            std::fs::rename(&unfinished, &path).map_err(failed)?;
        }
        Ok(Blob {
            media_type: media_type.to_owned(),
            blob: name,
            size: bytes.len() as u64,
        })
    }

    /// The bytes of a blob. Links are not followed: names come from messages.
    ///
    /// # Errors
    /// See [`BlobError`].
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, BlobError> {
        if !is_blob_name(name) {
            return Err(BlobError::Name(name.to_owned()));
        }
        let path = self.folder.join(name);
        let failed = |source| BlobError::Read {
            path: path.clone(),
            source,
        };
        let file = rustix::fs::open(
            &path,
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
        )
        .map_err(|error| failed(error.into()))?;
        let mut bytes = Vec::new();
        std::fs::File::from(file)
            .take(LIMIT + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if bytes.len() as u64 > LIMIT {
            return Err(BlobError::TooLarge);
        }
        Ok(bytes)
    }
}

/// Whether it is a SHA-256 in hexadecimal and an image's extension.
#[must_use]
pub(crate) fn is_blob_name(name: &str) -> bool {
    name.split_once('.').is_some_and(|(hash, extension)| {
        hash.len() == 64
            && hash
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            && matches!(extension, "png" | "jpg" | "gif" | "webp")
    })
}

/// The media type and the extension, by the first bytes.
#[must_use]
pub(crate) fn kind(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(("image/png", "png")),
        [0xff, 0xd8, 0xff, ..] => Some(("image/jpeg", "jpg")),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(("image/gif", "gif")),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => Some(("image/webp", "webp")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\nrest";

    #[test]
    fn an_image_is_kept_under_its_hash_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::of(folder.path());
        let blob = blobs.keep(PNG).unwrap();
        assert_eq!(blob, blobs.keep(PNG).unwrap());
        assert!(is_blob_name(&blob.blob));
        assert_eq!(blobs.read(&blob.blob).unwrap(), PNG);
    }

    #[test]
    fn what_is_not_an_image_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = Blobs::of(folder.path()).keep(b"#!/bin/sh");
        assert!(matches!(refused, Err(BlobError::NotImage)));
    }

    #[test]
    fn a_blob_that_is_a_link_or_has_a_path_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::of(folder.path());
        let blob = blobs.keep(PNG).unwrap();
        let path = folder.path().join(".aegis/blobs").join(&blob.blob);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(matches!(
            blobs.read(&blob.blob),
            Err(BlobError::Read { .. })
        ));
        assert!(matches!(
            blobs.read("../../etc/passwd"),
            Err(BlobError::Name(_))
        ));
    }
}
