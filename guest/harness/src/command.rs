//! The program of the instance: started after boot, its output numbered line
//! by line.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aegis_link::log::{LogRecord, Output, Splitter, write_record};
use aegis_link::message::{CommandEnd, Event, Fault, ProcessEnd, Program, Symbol};
use aegis_link::{Handle, LinkStream};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, watch};

use crate::process::{self, Streams};
use crate::pump::Drain;
use crate::reaper::Reaper;
use crate::valve::Valve;

/// Runs the program and tells the host of its start and end. Its end is told
/// after the end of its log.
pub(crate) async fn run(link: Handle, reaper: Reaper, program: Program, log: Log, valve: Valve) {
    let end = match start(&link, &reaper, &program, log, valve).await {
        Ok(running) => CommandEnd::Ended(running.await),
        Err(fault) => CommandEnd::Failed(fault),
    };
    link.send_event(Event::CommandEnded { end });
}

async fn start(
    link: &Handle,
    reaper: &Reaper,
    program: &Program,
    log: Log,
    valve: Valve,
) -> Result<impl Future<Output = ProcessEnd> + use<>, Fault> {
    let prepared = process::prepare(program, false)?;
    let (streams, stdout, stderr) = open().map_err(|error| {
        Fault::new(
            Symbol::SpawnFailed,
            format!("the guest has no pipe: {error}"),
        )
    })?;
    let pid = process::start(prepared, streams)?;
    let end = reaper.end_of(pid, program.stop_signal);
    link.send_event(Event::CommandStarted {
        pid: pid.as_raw().cast_unsigned(),
    });
    // Without a log the program still runs, into a closed pipe.
    log.begin(link).await;
    let (tell, ended) = watch::channel(false);
    let carried = tokio::spawn(async move {
        let drain = Drain::new(stdout, ended.clone(), valve.clone());
        let errors = Drain::new(stderr, ended, valve);
        tokio::join!(
            lines(drain, Output::Stdout, &log),
            lines(errors, Output::Stderr, &log),
        );
        log.finish().await;
    });
    Ok(async move {
        // The reaper drops a sender only with the runtime.
        let end = end.await.unwrap_or(ProcessEnd::Signaled {
            signal: libc::SIGKILL,
        });
        tell.send_replace(true);
        // A panic there would be ours; the end is told all the same.
        carried.await.ok();
        end
    })
}

fn open() -> io::Result<(Streams, pipe::Receiver, pipe::Receiver)> {
    let (stdout_reader, stdout) = pipe2(OFlag::O_CLOEXEC)?;
    let (stderr_reader, stderr) = pipe2(OFlag::O_CLOEXEC)?;
    let streams = Streams::Apart {
        stdin: File::open("/dev/null")?.into(),
        stdout,
        stderr,
    };
    Ok((
        streams,
        pipe::Receiver::from_owned_fd(stdout_reader)?,
        pipe::Receiver::from_owned_fd(stderr_reader)?,
    ))
}

/// Numbers lines and writes them to the host. Cheap to clone; all clones are the
/// same log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Option<Writer>>>);

#[derive(Debug)]
struct Writer {
    stream: LinkStream,
    sequence: u64,
}

impl Log {
    async fn begin(&self, link: &Handle) {
        *self.0.lock().await = announce(link).map(|stream| Writer {
            stream,
            sequence: 0,
        });
    }

    /// Goes on where it was for a host that is a new one, if it is not over.
    pub(crate) async fn carry_on(&self, link: &Handle) {
        if let Some(writer) = &mut *self.0.lock().await
            && let Some(stream) = announce(link)
        {
            writer.stream = stream;
        }
    }

    async fn write(&self, output: Output, partial: bool, line: &[u8]) -> io::Result<()> {
        let mut writer = self.0.lock().await;
        let writer = writer.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let record = LogRecord {
            sequence: writer.sequence,
            time_ns: now_ns(),
            output,
            partial,
            line: line.to_vec(),
        };
        writer.sequence += 1;
        write_record(&mut writer.stream, &record).await
    }

    async fn finish(&self) {
        if let Some(mut writer) = self.0.lock().await.take() {
            writer.stream.shutdown().await.ok();
        }
    }
}

fn announce(link: &Handle) -> Option<LinkStream> {
    let stream = link.open().ok()?;
    link.send_event(Event::Log {
        stream: stream.id(),
    });
    Some(stream)
}

/// Cuts one output into lines until it is over. A log that the host gave up
/// ends it; the program then gets SIGPIPE.
async fn lines(mut drain: Drain<impl AsyncRead + Unpin>, output: Output, log: &Log) {
    let mut splitter = Splitter::default();
    // An output that cannot be read any more is over as well.
    while let Ok(Some(mut bytes)) = drain.next().await {
        while let Some((line, partial)) = splitter.next_line(&mut bytes) {
            if log.write(output, partial, &line).await.is_err() {
                return;
            }
        }
    }
    let last = splitter.finish();
    if !last.is_empty() {
        log.write(output, false, &last).await.ok();
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
