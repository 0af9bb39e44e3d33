//! Values that a client passes by descriptor: a pipe or a file in memory. The
//! message of the call is for everybody who may watch the bus; what is behind a
//! descriptor of it is not.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use aegis_core::secret::{MAX_ALL, MAX_VALUE, SecretEnv, SecretError, SecretText};
use rustix::fd::OwnedFd;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use zeroize::Zeroizing;

use crate::instance::blocking;

/// How long a client may take to write what it passed the end of.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest document in bytes: credentials, and certificates of many authorities.
const MAX_DOCUMENT: usize = 4 << 20;

/// Why what was passed cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PassedError {
    #[error("the passed descriptor cannot be read")]
    Read(#[source] io::Error),
    #[error("the passed descriptor is neither a pipe nor a file")]
    Kind,
    #[error("nothing came through the passed descriptor within {} s", PATIENCE.as_secs())]
    Slow,
    #[error("more than {0} bytes were passed")]
    TooLong(usize),
    /// The text is not repeated: it holds values.
    #[error("what was passed is not a JSON object of variables and their values")]
    Json,
    #[error("the passed value is not acceptable")]
    Value(#[from] SecretError),
}

/// One value, as bytes to the end.
///
/// # Errors
/// See [`PassedError`].
pub async fn value(descriptor: OwnedFd) -> Result<SecretText, PassedError> {
    // One newline more than a value.
    let bytes = read(descriptor, MAX_VALUE + 2).await?;
    Ok(SecretText::read(bytes.to_vec())?)
}

/// Text that is no variable's value, e.g. a document with credentials.
///
/// # Errors
/// See [`PassedError`].
pub async fn document(descriptor: OwnedFd) -> Result<SecretText, PassedError> {
    let bytes = read(descriptor, MAX_DOCUMENT).await?;
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::Encoding)?;
    Ok(text.to_owned().into())
}

/// Variables and their values, as a JSON object.
///
/// # Errors
/// See [`PassedError`].
pub async fn env(descriptor: OwnedFd) -> Result<SecretEnv, PassedError> {
    // JSON writes a control character in six bytes.
    let bytes = read(descriptor, MAX_ALL * 6).await?;
    serde_json::from_slice(&bytes).map_err(|_| PassedError::Json)
}

async fn read(descriptor: OwnedFd, limit: usize) -> Result<Zeroizing<Vec<u8>>, PassedError> {
    let file = File::from(descriptor);
    let kind = file.metadata().map_err(PassedError::Read)?.file_type();
    // As large as it may become, so that no copy of it is left where it grew from.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    let most = limit as u64 + 1;
    if kind.is_fifo() {
        let receiver = pipe::Receiver::from_file(file).map_err(PassedError::Read)?;
        let mut receiver = receiver.take(most);
        let read = receiver.read_to_end(&mut bytes);
        let read = tokio::time::timeout(PATIENCE, read).await;
        read.map_err(|_| PassedError::Slow)?
            .map_err(PassedError::Read)?;
    } else if kind.is_file() {
        let read = blocking(move || {
            let mut file = file;
            file.rewind()?;
            file.take(most).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        bytes = read.await.map_err(PassedError::Read)?;
    } else {
        return Err(PassedError::Kind);
    }
    match bytes.len() > limit {
        true => Err(PassedError::TooLong(limit)),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn pipe_with(text: &[u8]) -> OwnedFd {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(text).unwrap();
        reader.into()
    }

    #[tokio::test]
    async fn pipes_and_files_are_read_to_their_end() {
        assert_eq!(value(pipe_with(b"v\n")).await.unwrap().reveal(), "v");
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"v").unwrap();
        assert_eq!(value(file.into()).await.unwrap().reveal(), "v");
        let read = env(pipe_with(br#"{"A":"b"}"#)).await.unwrap();
        assert_eq!(read["A"].reveal(), "b");
    }

    #[tokio::test]
    async fn an_error_does_not_repeat_what_was_passed() {
        let error = env(pipe_with(br#"{"A":hunter2}"#)).await.unwrap_err();
        assert!(!aegis_core::fault::chain(&error).contains("hunter2"));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![b'a'; MAX_VALUE + 3]).unwrap();
        assert!(matches!(
            value(file.into()).await,
            Err(PassedError::TooLong(_))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_writes_nothing_is_not_waited_for() {
        let (reader, _writer) = io::pipe().unwrap();
        assert!(matches!(value(reader.into()).await, Err(PassedError::Slow)));
    }
}
