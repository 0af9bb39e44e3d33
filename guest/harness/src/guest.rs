//! The loop that answers the host.
//!
//! ```text
//!   waiting ── Boot ──► booted ── Stop ──► stopping
//!      └────────────── Stop ───────────────────┘
//! ```
//!
//! A booted guest may be suspended: the valve is shut, and nothing of a program is
//! on its way. It is saved then, and goes on with `Restored`, or `Unsuspend` if
//! nothing came of it.
//!
//! One task owns the phase. Calls that take time run as tasks of their own, so
//! that no call waits for another.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use aegis_link::message::{
    Boot, Booted, Call, Event, Fault, GENERATION, Hello, Reply, Restored, Stats, Symbol,
};
use aegis_link::{Handle, Incoming, LinkError, LinkStream, Received, Responder, Role};
use nix::sys::utsname::uname;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::sync;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::boot::chain;
use crate::fd::Nonblocking;
use crate::reaper::Reaper;
use crate::session::Sessions;
use crate::valve::Valve;
use crate::{api, boot, command, entropy, memory, network, process, processes, stop};

/// How long the reply to Stop may take to reach the host before we go on.
const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

/// How long what programs wrote last may take to reach the host.
const OUTPUT_DEADLINE: Duration = Duration::from_secs(1);

/// How long a suspend may take: the host has to take what programs wrote, programs
/// what was typed, and the disks what is in memory.
const SUSPEND_DEADLINE: Duration = Duration::from_secs(20);

/// How long a try to connect to a program may take.
const DIAL_TRY: Duration = Duration::from_millis(250);

/// How long a program may take no more connections, which is what the kernel has.
const DIAL_PATIENCE: Duration = Duration::from_secs(127);

#[derive(Debug)]
enum Phase {
    Waiting,
    Booted {
        /// The writable disk, if there is one.
        writable: Option<File>,
        /// The task that carries the command's output, if there is a command.
        command: Option<JoinHandle<()>>,
    },
    Stopping,
}

#[derive(Debug)]
struct Guest {
    link: Handle,
    reaper: Reaper,
    sessions: Sessions,
    log: command::Log,
    valve: Valve,
    has_network: bool,
    phase: Phase,
}

/// Serves the host until the link ends; a stop ends the machine instead.
pub(crate) async fn serve(channel: Nonblocking, reaper: Reaper) -> Result<Infallible, LinkError> {
    let (link, mut incoming) = aegis_link::start(channel, Role::Guest);
    let valve = Valve::new();
    let sessions = Sessions::new(reaper.clone(), valve.clone());
    let mut guest = Guest {
        link,
        reaper,
        sessions,
        log: command::Log::default(),
        valve,
        has_network: false,
        phase: Phase::Waiting,
    };
    guest.say_hello();
    loop {
        guest.next(&mut incoming).await?;
    }
}

impl Guest {
    fn say_hello(&self) {
        let kernel = uname().map(|uname| uname.release().to_string_lossy().into_owned());
        self.link.send_event(Event::Hello(Hello {
            generation: GENERATION,
            harness: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: kernel.unwrap_or_default(),
        }));
    }

    async fn next(&mut self, incoming: &mut Incoming) -> Result<(), LinkError> {
        match incoming.next().await? {
            Received::Call {
                call,
                streams,
                responder,
            } => self.call(call, streams, responder),
            // The host has no events in this generation.
            Received::Event { .. } => {}
            Received::Resynced => {
                self.sessions.forget_ended();
                self.say_hello();
                self.log.carry_on(&self.link).await;
            }
        }
        Ok(())
    }

    fn call(&mut self, call: Call, streams: Vec<LinkStream>, responder: Responder) {
        match call {
            Call::Ping => responder.reply(Ok(Reply::Done)),
            Call::Stats => responder.reply(Ok(Reply::Stats(self.stats()))),
            Call::SetTime { time_ns } => responder.reply(set_time(time_ns)),
            Call::Stop { grace_ms } => self.stop(grace_ms, responder),
            Call::Boot(boot) => self.boot(*boot, responder),
            // Also before it boots, which is when a template is saved.
            Call::Restored(restored) => {
                responder.reply(begin_again(&restored, self.has_network));
                self.valve.open();
            }
            Call::Unknown => responder.reply(Err(Fault::new(
                Symbol::Unsupported,
                "the guest is older than this call",
            ))),
            _ if !matches!(self.phase, Phase::Booted { .. }) => {
                let message = "the guest has not booted, or is stopping";
                responder.reply(Err(Fault::new(Symbol::NotReady, message)));
            }
            Call::Suspend => self.suspend(responder),
            Call::Unsuspend { time_ns } => {
                self.valve.open();
                responder.reply(set_time(time_ns));
            }
            Call::Adopt { session, .. } => responder.reply(self.sessions.adopt(session, streams)),
            Call::Exec(exec) => responder.reply(self.sessions.exec(&exec, streams)),
            Call::Wait { session } => self.sessions.wait(session, responder),
            Call::Signal { session, signal } => {
                responder.reply(self.sessions.signal(session, signal));
            }
            Call::SignalProcess { pid, signal } => responder.reply(signal_group(pid, signal)),
            Call::ResetFlows => responder.reply(reset_flows()),
            Call::Processes => responder.reply(Ok(Reply::Processes {
                processes: processes::list(Path::new("/proc"), uptime_ms()),
            })),
            Call::Resize { session, size } => responder.reply(self.sessions.resize(session, size)),
            Call::Dial { port, .. } => {
                // The link hands over every stream that a call names.
                if let Some(stream) = streams.into_iter().next() {
                    tokio::spawn(dial(port, stream, responder));
                }
            }
        }
    }

    fn boot(&mut self, request: Boot, responder: Responder) {
        if !matches!(self.phase, Phase::Waiting) {
            let message = "the guest was told what to become already";
            responder.reply(Err(Fault::new(Symbol::BadRequest, message)));
            return;
        }
        match boot::boot(&request) {
            Ok(writable) => {
                responder.reply(Ok(Reply::Booted(Booted {
                    uptime_ms: uptime_ms(),
                })));
                self.has_network = request.network.is_some();
                let (link, valve) = (self.link.clone(), self.valve.clone());
                // Before the command runs, which may ask at once.
                let listener = request.api.and_then(|port| api::listen(port).ok());
                if let Some(listener) = listener {
                    tokio::spawn(api::serve(listener, link, valve));
                }
                let command = request.command.map(|program| {
                    let (link, reaper) = (self.link.clone(), self.reaper.clone());
                    let (log, valve) = (self.log.clone(), self.valve.clone());
                    tokio::spawn(command::run(link, reaper, program, log, valve))
                });
                self.phase = Phase::Booted { writable, command };
            }
            Err(error) => responder.reply(Err(error.fault())),
        }
    }

    /// Answers when nothing is on its way any more. A host that takes it back
    /// meanwhile is answered too.
    fn suspend(&self, responder: Responder) {
        self.valve.shut();
        let (link, valve) = (self.link.clone(), self.valve.clone());
        tokio::spawn(async move {
            let settled = async {
                loop {
                    valve.empty().await;
                    // Its end ends us.
                    link.settled().await.ok();
                    // Without threads to block on there is nothing to sync either.
                    tokio::task::spawn_blocking(sync).await.ok();
                    if valve.is_empty() {
                        return;
                    }
                }
            };
            let message = tokio::select! {
                biased;
                () = valve.opened() => "the host went on",
                settled = timeout(SUSPEND_DEADLINE, settled) => match settled {
                    Ok(()) => return responder.reply(Ok(Reply::Done)),
                    Err(_) => "something does not take its input, or the disks are slow",
                },
            };
            valve.open();
            responder.reply(Err(Fault::new(Symbol::Busy, message)));
        });
    }

    fn stop(&mut self, grace_ms: u32, responder: Responder) {
        responder.reply(Ok(Reply::Done));
        self.valve.open();
        let (writable, command) = match std::mem::replace(&mut self.phase, Phase::Stopping) {
            Phase::Stopping => return,
            Phase::Waiting => (None, None),
            Phase::Booted { writable, command } => (writable, command),
        };
        let grace = Duration::from_millis(grace_ms.into());
        let (link, reaper) = (self.link.clone(), self.reaper.clone());
        let sessions = self.sessions.clone();
        tokio::spawn(async move {
            timeout(FLUSH_DEADLINE, link.flush()).await.ok();
            stop::end_processes(&reaper, grace).await;
            let last_words = async {
                if let Some(command) = command {
                    command.await.ok();
                }
                sessions.all_over().await;
                link.flush().await.ok();
            };
            timeout(OUTPUT_DEADLINE, last_words).await.ok();
            stop::leave_disks_clean(writable.as_ref());
            stop::reset_machine()
        });
    }

    fn stats(&self) -> Stats {
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Stats {
            uptime_ms: uptime_ms(),
            memory_total_kib: memory::figure(&text, "MemTotal:"),
            memory_available_kib: memory::figure(&text, "MemAvailable:"),
            processes: processes(&load),
            sessions: u32::try_from(self.sessions.count()).unwrap_or(u32::MAX),
            oom_kills: memory::oom_kills(),
        }
    }
}

/// Connects a stream to a port of the guest's own loopback.
async fn dial(port: u16, mut stream: LinkStream, responder: Responder) {
    match connect(port).await {
        Ok(mut connection) => {
            connection.set_nodelay(true).ok();
            responder.reply(Ok(Reply::Done));
            let copied = tokio::io::copy_bidirectional(&mut stream, &mut connection).await;
            // Dropping the stream resets it. A connection is closed in order unless told
            // otherwise, and a program must not take what was broken off for the end.
            if copied.is_err() {
                connection.set_zero_linger().ok();
            }
        }
        Err(error) => {
            let message = format!("nothing answers on port {port} of the guest: {error}");
            responder.reply(Err(Fault::new(Symbol::ConnectionRefused, message)));
        }
    }
}

/// A connection within the guest is there at once, unless the program has as many waiting
/// already as it listens for. Then the kernel says nothing and tries again after a
/// second, two, four: many that came together would sit idle while the program does.
async fn connect(port: u16) -> io::Result<TcpStream> {
    let connected = async {
        loop {
            let tried = timeout(DIAL_TRY, TcpStream::connect((Ipv4Addr::LOCALHOST, port)));
            if let Ok(connected) = tried.await {
                return connected;
            }
        }
    };
    let connected = timeout(DIAL_PATIENCE, connected).await;
    connected.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}

/// Signals a group, never every process (0 and 1 would mean that, kill(2)).
fn signal_group(pid: u32, signal: i32) -> Result<Reply, Fault> {
    let bad = |message: String| Fault::new(Symbol::BadRequest, message);
    let leader = i32::try_from(pid).ok().filter(|&pid| pid > 1);
    let leader = leader.ok_or_else(|| bad(format!("the process {pid} leads no group")))?;
    process::signal_group(leader, signal)
        .map(|()| Reply::Done)
        .map_err(|error| bad(format!("the signal {signal} cannot be sent: {error}")))
}

fn reset_flows() -> Result<Reply, Fault> {
    let told = |error: network::NetworkError| Fault::new(Symbol::Internal, chain(&error));
    network::reset_flows().map(|_| Reply::Done).map_err(told)
}

fn set_time(time_ns: u64) -> Result<Reply, Fault> {
    boot::set_clock(time_ns)
        .map(|()| Reply::Done)
        .map_err(|error| {
            Fault::new(
                Symbol::BadRequest,
                format!("the clock cannot be set to that: {error}"),
            )
        })
}

/// What the world has become while the guest was away. What cannot be is told, and
/// the guest goes on without.
fn begin_again(restored: &Restored, has_network: bool) -> Result<Reply, Fault> {
    let fed = entropy::add(&restored.entropy).map_err(|error| {
        let message = format!("the kernel takes no entropy: {error}");
        Fault::new(Symbol::Internal, message)
    });
    if has_network {
        // What carried them is gone.
        reset_flows()?;
    }
    // The clock last, for it is the later the better.
    set_time(restored.time_ns)?;
    fed.map(|()| Reply::Done)
}

fn uptime_ms() -> u64 {
    let since = clock_gettime(ClockId::CLOCK_BOOTTIME).map(std::time::Duration::from);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// The number of processes in /proc/loadavg (proc_loadavg(5), fourth field).
fn processes(text: &str) -> u32 {
    text.split_whitespace()
        .nth(3)
        .and_then(|field| field.split_once('/')?.1.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_the_kernel_s_text() {
        assert_eq!(processes("0.00 0.01 0.05 1/53 77\n"), 53);
        assert_eq!(processes(""), 0);
    }
}
