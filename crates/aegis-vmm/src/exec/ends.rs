//! The two sides of a client's descriptors.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::net::unix::pipe;

use super::control::{self, ControlReader, ControlWriter};

/// Our side.
#[derive(Debug)]
pub struct Ends {
    pub stdin: pipe::Receiver,
    pub stdout: pipe::Sender,
    pub stderr: pipe::Sender,
    pub reader: ControlReader,
    pub writer: ControlWriter,
}

impl Ends {
    /// Makes both sides; the client's is stdin, stdout, stderr, control.
    ///
    /// # Errors
    /// When descriptors cannot be made.
    pub fn make() -> io::Result<(Vec<OwnedFd>, Self)> {
        let (stdin, client_stdin) = io::pipe()?;
        let (client_stdout, stdout) = io::pipe()?;
        let (client_stderr, stderr) = io::pipe()?;
        let (control, client_control) = StdUnixStream::pair()?;
        let (reader, writer) = control::split(control)?;
        let ends = Self {
            stdin: pipe::Receiver::from_file(file(stdin))?,
            stdout: pipe::Sender::from_file(file(stdout))?,
            stderr: pipe::Sender::from_file(file(stderr))?,
            reader,
            writer,
        };
        let client = vec![
            client_stdin.into(),
            client_stdout.into(),
            client_stderr.into(),
            client_control.into(),
        ];
        Ok((client, ends))
    }
}

fn file(end: impl Into<OwnedFd>) -> File {
    File::from(end.into())
}
