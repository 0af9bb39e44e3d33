//! The wire form of each generation is frozen in `schema/link-N.json`.
//!
//! A failure here means that a message changed its shape. Of a released
//! generation none may; `AEGIS_UPDATE_SCHEMA=1` writes the file of an unreleased
//! one anew.

use std::collections::BTreeMap;
use std::path::Path;

use aegis_link::message::{
    Boot, Booted, Call, CommandEnd, Event, Exec, Fault, GENERATION, Hello, Message, Network,
    NetworkAddress, Process, ProcessEnd, Program, Reply, Restored, Root, Share, ShareKind,
    SharePlace, Stats, Symbol, TtySize, Upper,
};

fn program() -> Program {
    Program {
        argv: vec!["sh".into(), "-c".into(), "exit 3".into()],
        env: BTreeMap::from([("NAME".into(), "value".into())]),
        workdir: Some("/workspace".into()),
        user: Some("nobody:nogroup".into()),
        stop_signal: Some(3),
    }
}

fn boot(upper: Upper, kind: ShareKind) -> Call {
    Call::Boot(Box::new(Boot {
        generation: 1,
        hostname: "box".into(),
        time_ns: 1_700_000_000_000_000_000,
        root: Root {
            layers: vec!["base".into()],
            partitions: Some(40),
            upper,
            read_only: true,
        },
        workdir: Some("/srv/app".into()),
        share: Some(Share {
            kind,
            tag: "share".into(),
            places: vec![SharePlace {
                name: "0".into(),
                target: "/workspace".into(),
                read_only: false,
                filled: true,
            }],
        }),
        network: Some(Network {
            hardware: "02:ae:00:00:00:01".into(),
            mtu: 65520,
            ipv4: NetworkAddress {
                address: "192.0.0.2".into(),
                prefix: 29,
                gateway: "192.0.0.1".into(),
            },
            ipv6: NetworkAddress {
                address: "fd61:6567:6973::2".into(),
                prefix: 64,
                gateway: "fd61:6567:6973::1".into(),
            },
            name_server: "192.0.0.1".into(),
        }),
        api: Some(7777),
        command: Some(program()),
    }))
}

/// One sample of every message, with every optional field set.
fn samples() -> Vec<Message> {
    let size = TtySize { rows: 24, cols: 80 };
    let exec = Exec {
        session: 4_294_967_297,
        stdio: 1,
        stderr: Some(3),
        program: program(),
        tty: Some(size),
    };
    let calls = [
        boot(
            Upper::Disk {
                serial: "upper".into(),
            },
            ShareKind::Virtiofs,
        ),
        boot(Upper::Tmpfs, ShareKind::NineP),
        Call::Exec(Box::new(exec)),
        Call::Wait { session: 1 },
        Call::Signal {
            session: 1,
            signal: 15,
        },
        Call::Resize { session: 1, size },
        Call::Dial {
            stream: 5,
            port: 8080,
        },
        Call::SetTime { time_ns: 1 },
        Call::ResetFlows,
        Call::SignalProcess { pid: 42, signal: 9 },
        Call::Suspend,
        Call::Unsuspend { time_ns: 1 },
        Call::Restored(Restored {
            time_ns: 1,
            entropy: vec![0, 255],
        }),
        Call::Adopt {
            session: 1,
            stream: 7,
        },
        Call::Processes,
        Call::Stats,
        Call::Ping,
        Call::Stop { grace_ms: 10_000 },
    ];
    let replies = [
        Reply::Done,
        Reply::Booted(Booted { uptime_ms: 500 }),
        Reply::Started { pid: 42 },
        Reply::Ended {
            end: ProcessEnd::Exited { code: 3 },
        },
        Reply::Stats(Stats {
            uptime_ms: 1,
            memory_total_kib: 2,
            memory_available_kib: 3,
            processes: 4,
            sessions: 5,
            oom_kills: 6,
        }),
        Reply::Processes {
            processes: vec![Process {
                pid: 42,
                parent: 1,
                user: "nobody".into(),
                state: "S".into(),
                cpu_ms: 20,
                memory_kib: 900,
                age_ms: 1000,
                command: "sleep 60".into(),
            }],
        },
    ];
    let events = [
        Event::Hello(Hello {
            generation: 1,
            harness: "0.1.0".into(),
            kernel: "6.12".into(),
        }),
        Event::CommandStarted { pid: 42 },
        Event::CommandEnded {
            end: CommandEnd::Ended(ProcessEnd::Signaled { signal: 9 }),
        },
        Event::CommandEnded {
            end: CommandEnd::Failed(fault(Symbol::CommandNotFound)),
        },
        Event::Log { stream: 2 },
        Event::Api { stream: 4 },
    ];
    let symbols = [
        Symbol::CommandNotFound,
        Symbol::CommandNotExecutable,
        Symbol::UserNotFound,
        Symbol::WorkdirNotFound,
        Symbol::SpawnFailed,
        Symbol::ConnectionRefused,
        Symbol::NoSuchSession,
        Symbol::StreamGone,
        Symbol::Busy,
        Symbol::BadRequest,
        Symbol::NotReady,
        Symbol::Unsupported,
        Symbol::BootDeviceMissing,
        Symbol::BootMountFailed,
        Symbol::BootShareFailed,
        Symbol::BootFailed,
        Symbol::Internal,
    ];
    let calls = calls.map(|call| Message::Call { id: 7, call });
    let replies = replies.map(|ok| Message::Ok { id: 7, ok });
    let faults = symbols.map(|symbol| Message::Fault {
        id: 7,
        fault: fault(symbol),
    });
    let events = events.map(|event| Message::Event { event });
    calls
        .into_iter()
        .chain(replies)
        .chain(faults)
        .chain(events)
        .collect()
}

fn fault(symbol: Symbol) -> Fault {
    Fault::new(symbol, "why it failed")
}

fn schema(generation: u32) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schema/link-{generation}.json"))
}

#[test]
fn the_newest_generation_is_written_as_its_schema_says() {
    let rendered = serde_json::to_string_pretty(&samples()).unwrap() + "\n";
    let path = schema(GENERATION);
    if std::env::var_os("AEGIS_UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &rendered).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        rendered,
        "{}",
        path.display()
    );
}

#[test]
fn every_generation_can_still_be_read() {
    for generation in 1..=GENERATION {
        let text = std::fs::read_to_string(schema(generation)).unwrap();
        let messages: Vec<Message> = serde_json::from_str(&text).unwrap();
        let unknown = messages.iter().filter(|message| {
            matches!(
                message,
                Message::Call {
                    call: Call::Unknown,
                    ..
                } | Message::Event {
                    event: Event::Unknown
                }
            )
        });
        assert_eq!(unknown.count(), 0, "generation {generation}");
    }
}

#[test]
fn what_a_newer_side_says_is_read_as_unknown() {
    let newer = r#"{"id":1,"call":{"type":"teleport","where":[1,{"x":2}]}}"#;
    let message: Message = serde_json::from_str(newer).unwrap();
    assert_eq!(
        message,
        Message::Call {
            id: 1,
            call: Call::Unknown
        }
    );
    let newer = r#"{"id":1,"fault":{"symbol":"too-far","message":"a\nb"}}"#;
    let message: Message = serde_json::from_str(newer).unwrap();
    assert_eq!(
        message,
        Message::Fault {
            id: 1,
            fault: Fault::new(Symbol::Internal, "a b")
        }
    );
}
