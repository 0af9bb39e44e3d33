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
use crate::pump::{Drain, Ended};
use crate::reaper::Reaper;

/// Runs the program and tells the host of its start and end. Its end is told
/// after the end of its log.
pub(crate) async fn run(link: Handle, reaper: Reaper, program: Program) {
    let end = match start(&link, &reaper, &program) {
        Ok(running) => CommandEnd::Ended(running.await),
        Err(fault) => CommandEnd::Failed(fault),
    };
    link.send_event(Event::CommandEnded { end });
}

fn start(
    link: &Handle,
    reaper: &Reaper,
    program: &Program,
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
    let log = link.open().ok().map(|stream| {
        link.send_event(Event::Log {
            stream: stream.id(),
        });
        Arc::new(Mutex::new(Log {
            stream,
            sequence: 0,
        }))
    });
    let (tell, ended) = watch::channel(false);
    let carried = log.map(|log| {
        tokio::spawn(async move {
            tokio::join!(
                lines(stdout, Output::Stdout, &log, ended.clone()),
                lines(stderr, Output::Stderr, &log, ended),
            );
            log.lock().await.stream.shutdown().await.ok();
        })
    });
    Ok(async move {
        // The reaper drops a sender only with the runtime.
        let end = end.await.unwrap_or(ProcessEnd::Signaled {
            signal: libc::SIGKILL,
        });
        tell.send_replace(true);
        if let Some(carried) = carried {
            carried.await.ok();
        }
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

/// Numbers lines and writes them to the host.
#[derive(Debug)]
struct Log {
    stream: LinkStream,
    sequence: u64,
}

impl Log {
    async fn write(&mut self, output: Output, partial: bool, line: &[u8]) -> io::Result<()> {
        let record = LogRecord {
            sequence: self.sequence,
            time_ns: now_ns(),
            output,
            partial,
            line: line.to_vec(),
        };
        self.sequence += 1;
        write_record(&mut self.stream, &record).await
    }
}

/// Cuts one output into lines until it is over. A log that the host gave up
/// ends it; the program then gets SIGPIPE.
async fn lines(from: impl AsyncRead + Unpin, output: Output, log: &Mutex<Log>, ended: Ended) {
    let mut splitter = Splitter::default();
    let mut drain = Drain::new(from, ended);
    // An output that cannot be read any more is over as well.
    while let Ok(Some(mut bytes)) = drain.next().await {
        while let Some((line, partial)) = splitter.next_line(&mut bytes) {
            if log
                .lock()
                .await
                .write(output, partial, &line)
                .await
                .is_err()
            {
                return;
            }
        }
    }
    let last = splitter.finish();
    if !last.is_empty() {
        log.lock().await.write(output, false, &last).await.ok();
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
