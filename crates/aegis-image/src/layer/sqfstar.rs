//! The program that makes a SquashFS of a tar stream: sqfstar of squashfs-tools 4.5
//! or later, which Debian 12 and 13 and Homebrew have.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use aegis_core::tools::SQFSTAR;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::tree::Attributes;
use super::{LayerError, superblock};

/// How blocks are packed. An emulated guest reads these at 1.6 to 2 times the speed of
/// zstd's at any level and nearly at that of plain ones, which take twice the space; and
/// they are made in a twentieth of the time of zstd's at the only level that sqfstar
/// 4.5.1 can be told. Inodes and owners are not packed: they are small, quickly read
/// like this, and [`superblock`] changes one.
const COMPRESSION: [&str; 3] = ["-comp", "lz4", "-noI"];
/// What it may use for blocks under way. By default that is a quarter of the
/// host's memory.
const MEMORY: &str = "128M";
/// Most of its words that are read, in bytes, and that an error repeats, in
/// characters.
const WORDS: usize = 4096;
const LAST_WORDS: usize = 300;
/// How soon a cancellation is noticed while it works on its own.
const TICK: u16 = 100;
/// What it says when a disk or quota is full (write_bytes of its mksquashfs.c, with
/// glibc's texts of the C locale).
const NO_SPACE: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// One that runs. It is killed when this is dropped.
pub(super) struct Sqfstar<'a> {
    child: Child,
    archive: Option<ChildStdin>,
    words: Receiver<String>,
    to: &'a Path,
    root: &'a Attributes,
    cancelled: &'a AtomicBool,
}

impl<'a> Sqfstar<'a> {
    /// Starts it on an empty file that exists.
    pub(super) fn start(
        to: &'a Path,
        root: &'a Attributes,
        cancelled: &'a AtomicBool,
    ) -> Result<Self, LayerError> {
        let tool = SQFSTAR.places.iter().find(|tool| Path::new(tool).exists());
        let tool = tool.ok_or(LayerError::NoTool)?;
        let absolute = std::path::absolute(to).map_err(LayerError::make(to))?;
        let mut child = Command::new(tool)
            .args(["-force", "-quiet", "-no-progress", "-exit-on-error"])
            .args(COMPRESSION)
            .args(["-mem", MEMORY])
            // The same layer gives the same bytes.
            .args(["-reproducible", "-mkfs-time", "0"])
            .args(["-root-mode", &format!("{:o}", root.mode)])
            .arg(absolute)
            .env_clear()
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(LayerError::make(to))?;
        let (said, words) = mpsc::channel();
        if let Some(mut errors) = child.stderr.take() {
            thread::spawn(move || {
                // Nobody waits for them once it was killed.
                said.send(last_words(&mut errors)).ok();
            });
        }
        let archive = child.stdin.take();
        let started = Self {
            child,
            archive,
            words,
            to,
            root,
            cancelled,
        };
        if let Some(archive) = &started.archive {
            // So that a disk that hangs does not keep us from being cancelled.
            let flags = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
            fcntl(archive, flags).map_err(|errno| LayerError::make(to)(errno.into()))?;
        }
        Ok(started)
    }

    /// Waits until it is done, and checks that nothing is missing: that many inodes
    /// it must have made, if it got the whole stream.
    pub(super) fn finish(mut self, inodes: Option<u64>) -> Result<(), LayerError> {
        drop(self.archive.take());
        let tick = Duration::from_millis(TICK.into());
        let last_words = loop {
            match self.words.recv_timeout(tick) {
                Ok(words) => break words,
                Err(RecvTimeoutError::Disconnected) => break String::new(),
                Err(RecvTimeoutError::Timeout) if self.cancelled.load(Ordering::Relaxed) => {
                    return Err(LayerError::Cancelled);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        let status = self.child.wait().map_err(LayerError::make(self.to))?;
        let path = self.to.to_owned();
        if !status.success() {
            let full = NO_SPACE.iter().any(|words| last_words.contains(words));
            return Err(if full {
                LayerError::NoSpace { path }
            } else {
                LayerError::Tool {
                    path,
                    status,
                    last_words,
                }
            });
        }
        let image = File::options().read(true).write(true).open(self.to);
        let image = image.map_err(LayerError::make(self.to))?;
        let made = superblock::finish(&image, self.root).map_err(LayerError::make(self.to))?;
        if inodes.is_some_and(|inodes| made != inodes) {
            return Err(LayerError::Incomplete { path, last_words });
        }
        image.sync_all().map_err(LayerError::make(self.to))
    }
}

impl Drop for Sqfstar<'_> {
    fn drop(&mut self) {
        // Both fail only if it has ended and was waited for.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Write for Sqfstar<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let Some(archive) = &mut self.archive else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        loop {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            match archive.write(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut waiting = [PollFd::new(archive.as_fd(), PollFlags::POLLOUT)];
                    match poll(&mut waiting, PollTimeout::from(TICK)) {
                        Ok(_) | Err(nix::Error::EINTR) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The end of what it says, as one line of text.
fn last_words(errors: &mut impl Read) -> String {
    let mut said: Vec<u8> = Vec::new();
    let mut buffer = [0; WORDS];
    // A pipe that cannot be read has ended, as far as we are concerned.
    while let Ok(read @ 1..) = errors.read(&mut buffer) {
        said.extend_from_slice(&buffer[..read]);
        said.drain(..said.len().saturating_sub(WORDS));
    }
    let said = String::from_utf8_lossy(&said);
    let words: Vec<char> = said.trim().chars().collect();
    let last = words.len().saturating_sub(LAST_WORDS);
    let shown = words[last..].iter();
    shown
        .map(|c| if c.is_control() { ' ' } else { *c })
        .collect()
}
