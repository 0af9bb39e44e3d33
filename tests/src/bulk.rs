//! A long stream through `aegisctl exec HANDLE -- cat` and back, and the memory
//! of the programs it passes through.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};

use crate::instance::Instance;
use crate::seat::Seat;
use crate::session::{kilobytes, memory_of};

/// The size of one write.
const CHUNK: usize = 64 * 1024;

/// An exec of `cat` whose ends are both here.
#[derive(Debug)]
pub struct Echo {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    pid: u32,
}

impl Echo {
    /// Starts it and sees one byte come back.
    ///
    /// # Errors
    /// The client fails.
    pub fn open(seat: Seat<'_>, handle: &str) -> Result<Self> {
        let line = format!("echo $$ && exec aegisctl exec {handle} -- cat");
        let mut child = seat
            .machine()
            .command(seat.user(), &line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting an exec of cat")?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let mut stdout = child.stdout.take().context("no standard output")?;
        let mut pid = String::new();
        while !pid.ends_with('\n') {
            pid.push(char::from(byte(&mut stdout)?));
        }
        stdin.write_all(b"?").context("writing to cat")?;
        if byte(&mut stdout)? != b'?' {
            bail!("cat in the guest gave back another byte");
        }
        Ok(Self {
            child,
            stdin,
            stdout,
            pid: pid.trim().parse().context("the client's pid")?,
        })
    }

    /// The client's pid in the machine.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends `length` bytes and compares what comes back, in the background.
    #[must_use]
    pub fn transfer(self, length: usize) -> JoinHandle<Result<Self>> {
        std::thread::spawn(move || self.transfer_now(length))
    }

    fn transfer_now(mut self, length: usize) -> Result<Self> {
        let (stdin, stdout) = (&mut self.stdin, &mut self.stdout);
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || -> Result<()> {
                let mut noise = Noise::default();
                let mut chunk = vec![0; CHUNK];
                let mut left = length;
                while left > 0 {
                    let part = &mut chunk[..left.min(CHUNK)];
                    noise.fill(part);
                    stdin.write_all(part).context("sending to cat")?;
                    left -= part.len();
                }
                stdin.flush().context("sending to cat")
            });
            let mut noise = Noise::default();
            let (mut chunk, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
            let mut received = 0;
            while received < length {
                let limit = CHUNK.min(length - received);
                let count = stdout
                    .read(&mut chunk[..limit])
                    .context("reading from cat")?;
                if count == 0 {
                    bail!("the output of cat ended after {received} bytes");
                }
                noise.fill(&mut expected[..count]);
                if chunk[..count] != expected[..count] {
                    bail!("other bytes came back behind byte {received}");
                }
                received += count;
            }
            match writer.join() {
                Ok(result) => result,
                Err(_) => bail!("the sender panicked"),
            }
        })?;
        Ok(self)
    }

    /// Ends its input and gives the exit code; nothing more may come back.
    ///
    /// # Errors
    /// More comes back.
    pub fn close(self) -> Result<i32> {
        let Self {
            mut child,
            stdin,
            mut stdout,
            ..
        } = self;
        drop(stdin);
        let mut rest = Vec::new();
        stdout.read_to_end(&mut rest).context("reading from cat")?;
        if !rest.is_empty() {
            bail!("{} bytes too many came back", rest.len());
        }
        let status = child.wait().context("waiting for an exec of cat")?;
        Ok(crate::machine::exit_code(status))
    }
}

fn byte(source: &mut impl Read) -> Result<u8> {
    let mut byte = [0];
    source
        .read_exact(&mut byte)
        .context("an exec of cat said nothing")?;
    Ok(byte[0])
}

/// Bytes that no part on the way can compress or guess: a xorshift generator
/// (Marsaglia 2003, triple 13, 7, 17), one byte a step.
struct Noise(u64);

impl Default for Noise {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = self.0.to_le_bytes()[3];
        }
    }
}

/// Memory of the three programs that a stream passes through, in KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory(Vec<(&'static str, u64)>);

impl Memory {
    /// What they hold now.
    ///
    /// # Errors
    /// One of them does not run.
    pub fn now(seat: Seat<'_>, instance: &Instance<'_>, client: u32) -> Result<Self> {
        Self::take(seat, instance, client, "VmRSS")
    }

    /// The most they ever held.
    ///
    /// # Errors
    /// One of them does not run.
    pub fn peak(seat: Seat<'_>, instance: &Instance<'_>, client: u32) -> Result<Self> {
        Self::take(seat, instance, client, "VmHWM")
    }

    fn take(seat: Seat<'_>, instance: &Instance<'_>, client: u32, field: &str) -> Result<Self> {
        let owner = seat
            .main_pid(&instance.vm_unit())?
            .context("there is no VM")?;
        let harness = instance.exec_ok("cat /proc/1/status")?;
        Ok(Self(vec![
            ("aegisctl", memory_of(seat, client, field)?),
            ("aegis-vmm", memory_of(seat, owner, field)?),
            ("aegis-harness", kilobytes(&harness, field)?),
        ]))
    }

    /// Each program's name, what it holds here and in `later`.
    pub fn beside<'a>(
        &'a self,
        later: &'a Self,
    ) -> impl Iterator<Item = (&'static str, u64, u64)> + 'a {
        let pairs = self.0.iter().zip(&later.0);
        pairs.map(|(&(name, before), &(_, after))| (name, before, after))
    }
}
