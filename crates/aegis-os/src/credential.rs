//! The credential of this process's unit, as its text.
//!
//! | the service manager | it comes |
//! |---|---|
//! | systemd | as a file in `$CREDENTIALS_DIRECTORY` (systemd.exec(5), `LoadCredential=`) |
//! | launchd, which has none | from aegisd's socket, named by `$AEGIS_CREDENTIALS` in the job |
//!
//! aegisd knows whose credential is asked for by the process that asks: the text is all
//! that goes over the socket, and its end is the end of the connection.

use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Names the socket in the environment of a job.
pub const SOCKET_ENV: &str = "AEGIS_CREDENTIALS";

/// How long is waited for an aegisd that is not there: launchd starts it again within
/// seconds. It is as long as systemd waits for the start of a VM's unit.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(250);
/// The largest text, in bytes, as systemd has it of all credentials of a unit.
const LARGEST: u64 = 1 << 20;

/// Why there is no credential.
#[derive(Debug)]
pub enum CredentialError {
    /// The service manager named none.
    None,
    /// It named one that cannot be read.
    Read { path: PathBuf, source: io::Error },
}

/// Reads the credential of this name.
///
/// # Errors
/// There is none, or aegisd does not give it.
pub fn read(name: &str) -> Result<Vec<u8>, CredentialError> {
    let variable = |name| std::env::var_os(name);
    let (path, read) = match (variable("CREDENTIALS_DIRECTORY"), variable(SOCKET_ENV)) {
        (Some(folder), _) => {
            let path = Path::new(&folder).join(name);
            let read = std::fs::read(&path);
            (path, read)
        }
        (None, Some(socket)) => (PathBuf::from(&socket), ask(&socket, PATIENCE)),
        (None, None) => return Err(CredentialError::None),
    };
    read.map_err(|source| CredentialError::Read { path, source })
}

/// Asks at a socket. Who does not know us answers nothing.
fn ask(socket: &OsStr, patience: Duration) -> io::Result<Vec<u8>> {
    let end = Instant::now() + patience;
    let stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() >= end => return Err(error),
            Err(_) => std::thread::sleep(PAUSE),
        }
    };
    stream.set_read_timeout(Some(patience))?;
    let mut text = Vec::new();
    stream.take(LARGEST).read_to_end(&mut text)?;
    match text.is_empty() {
        true => Err(io::ErrorKind::PermissionDenied.into()),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_socket_answers_with_the_text_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock");
        let late = path.clone();
        let server = std::thread::spawn(move || {
            // It is asked before it listens.
            std::thread::sleep(PAUSE);
            let listener = UnixListener::bind(late).unwrap();
            listener.accept().unwrap().0.write_all(b"{}").unwrap();
            drop(listener.accept().unwrap());
        });
        assert_eq!(ask(path.as_os_str(), PATIENCE).unwrap(), b"{}");
        let refused = ask(path.as_os_str(), PATIENCE).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        server.join().unwrap();
        assert!(ask(path.as_os_str(), Duration::ZERO).is_err());
    }
}
