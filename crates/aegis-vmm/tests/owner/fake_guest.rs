//! A guest that is played: the real link, no machine. What a test wants of it is
//! in the first word of the command that it is asked to run.

use std::collections::HashMap;
use std::io::Write;
use std::sync::mpsc::Sender;

use aegis_link::message::{
    Boot, Booted, Call, CommandEnd, Event, Fault, Hello, Process, ProcessEnd, Reply, SessionId,
    Stats, Symbol,
};
use aegis_link::{Handle, Incoming, LinkStream, Received, Responder, Role};
use aegis_vmm::hypervisor::{EndCause, MachineEnd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::raw_guest::RawGuest;

/// What the guest noticed.
#[derive(Debug)]
pub(crate) enum Seen {
    Boot(Box<Boot>),
    Signal(i32),
    Resize(u16, u16),
    /// A session began, on a terminal of this size.
    Exec {
        tty: Option<(u16, u16)>,
    },
    /// The streams of a session were reset.
    HangUp,
    Suspend,
    Unsuspend,
    Restored,
    Stop {
        grace_ms: u32,
    },
    /// A request came while the machine was paused.
    Asleep,
}

/// How the guest behaves.
#[derive(Clone, Debug, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent habits, not a state"
)]
pub(crate) struct Script {
    /// Never says hello.
    pub(crate) mute: bool,
    /// The instance's command ends like this right after the boot.
    pub(crate) command_end: Option<ProcessEnd>,
    /// The instance's command writes these lines.
    pub(crate) lines: Vec<String>,
    /// Answers a stop but goes on.
    pub(crate) stubborn: bool,
    /// With the first exec it is taken over: what it does then, before it falls
    /// silent.
    pub(crate) attack: Option<Attack>,
    /// Cannot be suspended.
    pub(crate) wakeful: bool,
    /// So many times its command starts while it is suspended.
    pub(crate) restless: u32,
    /// It was saved and says nothing before the host does.
    pub(crate) restored: bool,
    /// Processes that ended for want of memory.
    pub(crate) oom_kills: u32,
}

/// What a guest does that was taken over, and the id of the exec it was told by.
pub(crate) type Attack = fn(&mut RawGuest, u64);

pub(crate) type MachineEnder = watch::Sender<Option<MachineEnd>>;

/// Plays the guest in a thread of its own until its link ends.
pub(crate) fn play(
    link: std::os::unix::net::UnixStream,
    machine: MachineEnder,
    script: Script,
    seen: Sender<Seen>,
    asleep: watch::Receiver<bool>,
) {
    if let Some(attack) = script.attack {
        let mut guest = RawGuest::new(link);
        guest.boot();
        if let Ok(exec) = guest.call(|call| matches!(call, Call::Exec(_))) {
            attack(&mut guest, exec);
        }
        // It holds the channel as long as its machine is on.
        while machine.borrow().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        link.set_nonblocking(true).unwrap();
        let raw = link.try_clone().unwrap();
        let channel = UnixStream::from_std(link).unwrap();
        let (handle, incoming) = aegis_link::start(channel, Role::Guest);
        let guest = Guest {
            link: handle,
            raw,
            machine,
            script,
            seen,
            asleep,
            sessions: HashMap::new(),
        };
        guest.live(incoming).await;
    });
}

struct Guest {
    link: Handle,
    /// The channel below the link, to break the rules on.
    raw: std::os::unix::net::UnixStream,
    machine: MachineEnder,
    script: Script,
    seen: Sender<Seen>,
    asleep: watch::Receiver<bool>,
    sessions: HashMap<SessionId, Session>,
}

struct Session {
    end: watch::Sender<Option<ProcessEnd>>,
}

impl Guest {
    async fn live(mut self, mut incoming: Incoming) {
        if !self.script.mute && !self.script.restored {
            self.say_hello();
        }
        loop {
            let received = tokio::select! {
                received = incoming.next() => received,
                _ = machine_end(&self.machine) => return,
            };
            match received {
                Ok(Received::Call {
                    call,
                    streams,
                    responder,
                }) => self.call(call, streams, responder),
                Ok(Received::Resynced) => self.say_hello(),
                Ok(Received::Event { .. }) => {}
                Err(_) => return,
            }
        }
    }

    fn say_hello(&self) {
        self.link.send_event(Event::Hello(Hello {
            generation: 1,
            harness: "fake".into(),
            kernel: "none".into(),
        }));
    }

    fn call(&mut self, call: Call, streams: Vec<LinkStream>, responder: Responder) {
        let done = Ok(Reply::Done);
        let is_work = !matches!(call, Call::Ping | Call::Stats | Call::SetTime { .. });
        if is_work && *self.asleep.borrow() {
            self.seen.send(Seen::Asleep).unwrap();
        }
        match call {
            Call::Boot(boot) => {
                let has_command = boot.command.is_some();
                self.seen.send(Seen::Boot(boot)).unwrap();
                responder.reply(Ok(Reply::Booted(Booted { uptime_ms: 1 })));
                if has_command {
                    self.start_command();
                }
            }
            Call::Exec(exec) => {
                if exec.program.argv[0] == "violate" {
                    self.raw.write_all(&[0xff; 4096]).unwrap();
                    return;
                }
                if exec.program.argv[0] == "missing" {
                    let fault = Fault::new(Symbol::CommandNotFound, "no such command: missing");
                    return responder.reply(Err(fault));
                }
                let tty = exec.tty.map(|size| (size.rows, size.cols));
                // A world that is over has no more interest.
                drop(self.seen.send(Seen::Exec { tty }));
                let end = watch::Sender::new(None);
                self.sessions
                    .insert(exec.session, Session { end: end.clone() });
                responder.reply(Ok(Reply::Started { pid: 7 }));
                let mut streams = streams.into_iter();
                let stdio = streams.next().unwrap();
                let stderr = streams.next();
                let seen = self.seen.clone();
                tokio::task::spawn_local(run(exec.program.argv, stdio, stderr, end, seen));
            }
            Call::Wait { session } => {
                let mut end = self.sessions[&session].end.subscribe();
                tokio::task::spawn_local(async move {
                    let end = *end.wait_for(Option::is_some).await.unwrap();
                    responder.reply(Ok(Reply::Ended { end: end.unwrap() }));
                });
            }
            Call::Signal { session, signal } => {
                self.seen.send(Seen::Signal(signal)).unwrap();
                self.sessions[&session]
                    .end
                    .send_replace(Some(ProcessEnd::Signaled { signal }));
                responder.reply(done);
            }
            Call::SignalProcess { pid, signal } => {
                assert_eq!(pid, 2, "the command leads its group");
                self.seen.send(Seen::Signal(signal)).unwrap();
                responder.reply(done);
            }
            Call::Processes => responder.reply(Ok(Reply::Processes {
                processes: vec![Process {
                    pid: 42,
                    parent: 1,
                    user: "root".into(),
                    state: "S".into(),
                    cpu_ms: 1,
                    memory_kib: 2,
                    age_ms: 3,
                    command: "job".into(),
                }],
            })),
            Call::Suspend => {
                // A world that is over has no more interest.
                drop(self.seen.send(Seen::Suspend));
                if self.script.restless > 0 {
                    self.script.restless -= 1;
                    self.link.send_event(Event::CommandStarted { pid: 2 });
                }
                if !self.script.wakeful {
                    responder.reply(done);
                } else {
                    let fault = Fault::new(Symbol::Busy, "a program does not take its input");
                    responder.reply(Err(fault));
                }
            }
            Call::Unsuspend { .. } => {
                drop(self.seen.send(Seen::Unsuspend));
                responder.reply(done);
            }
            Call::Restored(_) => {
                drop(self.seen.send(Seen::Restored));
                responder.reply(done);
            }
            // Every session that was saved is a program that repeats what it reads.
            Call::Adopt { session, .. } => {
                let end = watch::Sender::new(None);
                self.sessions.insert(session, Session { end: end.clone() });
                responder.reply(done);
                let stdio = streams.into_iter().next().unwrap();
                let (argv, seen) = (vec!["cat".to_owned()], self.seen.clone());
                tokio::task::spawn_local(run(argv, stdio, None, end, seen));
            }
            Call::Resize { size, .. } => {
                self.seen.send(Seen::Resize(size.rows, size.cols)).unwrap();
                responder.reply(done);
            }
            Call::Dial { port, .. } => {
                let stream = streams.into_iter().next().unwrap();
                if port != 80 {
                    let fault = Fault::new(Symbol::ConnectionRefused, "nothing listens there");
                    return responder.reply(Err(fault));
                }
                responder.reply(done);
                tokio::task::spawn_local(echo(stream));
            }
            Call::Stop { grace_ms } => {
                self.seen.send(Seen::Stop { grace_ms }).unwrap();
                responder.reply(done);
                if !self.script.stubborn {
                    let (link, machine) = (self.link.clone(), self.machine.clone());
                    tokio::task::spawn_local(async move {
                        link.flush().await.unwrap();
                        power_off(&machine);
                    });
                }
            }
            Call::SetTime { .. } | Call::ResetFlows | Call::Ping => responder.reply(done),
            Call::Stats => responder.reply(Ok(Reply::Stats(Stats {
                uptime_ms: 1,
                memory_total_kib: 1,
                memory_available_kib: 1,
                processes: 1,
                sessions: 0,
                oom_kills: self.script.oom_kills,
            }))),
            Call::Unknown => drop(responder),
        }
    }

    fn start_command(&self) {
        self.link.send_event(Event::CommandStarted { pid: 2 });
        let (link, script) = (self.link.clone(), self.script.clone());
        tokio::task::spawn_local(async move {
            let mut stream = link.open().unwrap();
            link.send_event(Event::Log {
                stream: stream.id(),
            });
            for (sequence, line) in script.lines.into_iter().enumerate() {
                let record = aegis_link::log::LogRecord {
                    sequence: sequence as u64,
                    time_ns: 1,
                    output: aegis_link::log::Output::Stdout,
                    partial: false,
                    line: line.into_bytes(),
                };
                aegis_link::log::write_record(&mut stream, &record)
                    .await
                    .unwrap();
            }
            if let Some(end) = script.command_end {
                stream.shutdown().await.unwrap();
                link.send_event(Event::CommandEnded {
                    end: CommandEnd::Ended(end),
                });
            }
            let mut rest = Vec::new();
            let _reset = stream.read_to_end(&mut rest).await;
        });
    }
}

async fn machine_end(machine: &MachineEnder) {
    let mut end = machine.subscribe();
    let _gone = end.wait_for(Option::is_some).await;
}

pub(crate) fn power_off(machine: &MachineEnder) {
    machine.send_replace(Some(MachineEnd {
        cause: EndCause::Guest,
        last_words: String::new(),
    }));
}

async fn echo(mut stream: LinkStream) {
    let mut buffer = vec![0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if buffer.starts_with(b"reset") {
            return;
        }
        if stream.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
    let _reset = stream.shutdown().await;
}

async fn run(
    argv: Vec<String>,
    mut stdio: LinkStream,
    stderr: Option<LinkStream>,
    end: watch::Sender<Option<ProcessEnd>>,
    seen: Sender<Seen>,
) {
    let mut code = 0;
    match argv[0].as_str() {
        "cat" => {
            let mut buffer = vec![0; 32 * 1024];
            let mut ended = end.subscribe();
            loop {
                let read = tokio::select! {
                    read = stdio.read(&mut buffer) => read,
                    _ = ended.wait_for(Option::is_some) => break,
                };
                match read {
                    Ok(0) => break,
                    Ok(length) => {
                        if stdio.write_all(&buffer[..length]).await.is_err() {
                            break;
                        }
                    }
                    Err(_) => {
                        seen.send(Seen::HangUp).unwrap();
                        break;
                    }
                }
            }
        }
        "fail" => {
            let mut stderr = stderr.unwrap();
            stderr.write_all(b"oops").await.unwrap();
            stderr.shutdown().await.unwrap();
            code = 3;
        }
        "sleep" => {
            let mut ended = end.subscribe();
            let mut byte = [0];
            let hung_up = async {
                if stdio.read(&mut byte).await.is_ok() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                _ = ended.wait_for(Option::is_some) => {}
                () = hung_up => seen.send(Seen::HangUp).unwrap(),
            }
        }
        other => panic!("the fake guest cannot run {other}"),
    }
    let _reset = stdio.shutdown().await;
    end.send_if_modified(|end| {
        end.get_or_insert(ProcessEnd::Exited { code });
        true
    });
    // What the client still sends is taken, as a closed pipe would refuse it.
    let mut rest = vec![0; 4096];
    while let Ok(1..) = stdio.read(&mut rest).await {}
}
