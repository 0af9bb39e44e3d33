#![allow(
    clippy::cast_possible_truncation,
    reason = "patterns of bytes wrap on purpose"
)]

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;

use super::*;
use crate::frame::{Frame, Kind, encode};
use crate::message::{Call, Event, Hello};
use crate::{CallError, Incoming};

const SOON: Duration = Duration::from_secs(30);

fn pair() -> ((Handle, Incoming), (Handle, Incoming)) {
    let (host, guest) = tokio::io::duplex(100_000);
    (start(host, Role::Host), start(guest, Role::Guest))
}

async fn call(incoming: &mut Incoming) -> (Call, Vec<LinkStream>, Responder) {
    match timeout(SOON, incoming.next()).await.unwrap().unwrap() {
        Received::Call {
            call,
            streams,
            responder,
        } => (call, streams, responder),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_call_hands_its_stream_over_and_bytes_flow_both_ways() {
    let ((host, _host_incoming), (_guest, mut incoming)) = pair();
    let dial = tokio::spawn(async move { (host.dial(80).await, host) });
    let (asked, mut streams, responder) = call(&mut incoming).await;
    assert!(matches!(asked, Call::Dial { port: 80, .. }));
    responder.reply(Ok(Reply::Done));
    let mut guest_end = streams.pop().unwrap();
    let echo = tokio::spawn(async move {
        let (mut reader, mut writer) = tokio::io::split(&mut guest_end);
        let count = tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
        count
    });
    let (stream, _host) = dial.await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream.unwrap());
    let sender = tokio::spawn(async move {
        for number in 0..300u32 {
            writer.write_all(&[number as u8; 10_000]).await.unwrap();
        }
        writer.shutdown().await.unwrap();
    });
    let mut all = Vec::new();
    timeout(SOON, reader.read_to_end(&mut all))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(all.len(), 3_000_000);
    assert!(
        all.chunks(10_000)
            .enumerate()
            .all(|(at, part)| part == [at as u8; 10_000])
    );
    sender.await.unwrap();
    assert_eq!(echo.await.unwrap(), 3_000_000);
}

#[tokio::test]
async fn faults_unanswered_calls_and_gone_streams_are_told_apart() {
    let ((host, _host_incoming), (_guest, mut incoming)) = pair();
    let task = tokio::spawn(async move {
        let refused = host.dial(1).await;
        let dropped = host.ping().await;
        let gone = host
            .call(Call::Dial {
                stream: 999,
                port: 1,
            })
            .await;
        [refused.map(drop), dropped, gone.map(drop)].map(|outcome| match outcome {
            Err(CallError::Fault(fault)) => fault.symbol,
            other => panic!("{other:?}"),
        })
    });
    let (_, _, responder) = call(&mut incoming).await;
    responder.reply(Err(Fault::new(
        Symbol::ConnectionRefused,
        "nothing listens",
    )));
    drop(call(&mut incoming).await);
    let symbols = timeout(SOON, task).await.unwrap().unwrap();
    assert_eq!(
        symbols,
        [
            Symbol::ConnectionRefused,
            Symbol::Unsupported,
            Symbol::StreamGone
        ]
    );
}

#[tokio::test]
async fn what_was_said_before_the_end_is_still_heard() {
    let ((host, mut incoming), (guest, guest_incoming)) = pair();
    let mut stream = guest.open().unwrap();
    stream.write_all(b"last words").await.unwrap();
    guest.send_event(Event::Log {
        stream: stream.id(),
    });
    guest.flush().await.unwrap();
    drop(guest_incoming);
    let Ok(Received::Event {
        stream: Some(mut heard),
        ..
    }) = timeout(SOON, incoming.next()).await.unwrap()
    else {
        panic!("no event")
    };
    assert!(matches!(incoming.next().await, Err(LinkError::Eof)));
    let mut words = [0; 10];
    heard.read_exact(&mut words).await.unwrap();
    assert_eq!(&words, b"last words");
    assert_eq!(
        heard.read(&mut words).await.unwrap_err().kind(),
        io::ErrorKind::ConnectionAborted
    );
    assert!(matches!(
        host.ping().await,
        Err(CallError::Link(LinkError::Eof))
    ));
    assert!(matches!(host.closed().await, LinkError::Eof));
}

#[tokio::test]
async fn what_a_peer_said_before_it_stopped_listening_arrives() {
    let (mine, theirs) = tokio::io::duplex(1 << 20);
    let (deaf, gone) = tokio::io::duplex(64);
    drop(gone);
    let (host, mut incoming) = start(tokio::io::join(theirs, deaf), Role::Host);
    let unheard = tokio::spawn(async move { host.ping().await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (guest, guest_incoming) = start(mine, Role::Guest);
    guest.send_event(Event::Log { stream: 1 });
    guest.flush().await.unwrap();
    drop((guest, guest_incoming));
    let heard = timeout(SOON, incoming.next()).await.unwrap();
    assert!(matches!(heard, Ok(Received::Event { .. })), "{heard:?}");
    let end = timeout(SOON, incoming.next()).await.unwrap();
    assert!(matches!(end, Err(LinkError::Io(_))), "{end:?}");
    assert!(unheard.await.unwrap().is_err());
}

#[tokio::test]
async fn a_call_given_up_before_it_is_sent_leaves_nothing() {
    let (channel, _silent) = tokio::io::duplex(64);
    let (host, _incoming) = start(channel, Role::Host);
    for _ in 0..10_000 {
        tokio::select! {
            biased;
            _ = host.dial(80) => panic!("nobody answers"),
            () = tokio::task::yield_now() => {}
        }
    }
    let state = host.state_for_tests();
    assert!(
        state.mux.queued_messages() <= 1,
        "{}",
        state.mux.queued_messages()
    );
    assert!(state.calls.is_empty());
}

async fn hostile() -> (DuplexStream, Handle, Incoming) {
    let (mine, theirs) = tokio::io::duplex(1 << 20);
    let (host, incoming) = start(theirs, Role::Host);
    (mine, host, incoming)
}

#[tokio::test]
async fn a_hostile_guest_ends_its_link_and_no_more() {
    let message = |json: &str| {
        let mut out = Vec::new();
        let payload = json.as_bytes();
        encode(
            &mut out,
            Frame {
                kind: Kind::Message,
                epoch: 1,
                stream: 0,
                payload,
            },
        );
        out
    };
    for (bytes, expected) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "protocol"),
        (message("{\"id\":1}"), "message"),
        (message(&"[".repeat(60_000)), "message"),
        (
            (0..70)
                .flat_map(|id| message(&format!(r#"{{"id":{id},"call":{{"type":"ping"}}}}"#)))
                .collect(),
            "calls",
        ),
    ] {
        let (mut guest, host, _incoming) = hostile().await;
        guest.write_all(&bytes).await.unwrap();
        let end = timeout(SOON, host.closed()).await.unwrap();
        assert!(end.to_string().contains(expected), "{end}");
    }
}

#[tokio::test]
async fn a_guest_s_text_is_made_harmless() {
    let (mut guest, _host, mut incoming) = hostile().await;
    let json = format!(
        r#"{{"event":{{"type":"hello","generation":9,"harness":"\u001b[31m{}","kernel":"6","new":1}}}}"#,
        "x".repeat(5_000)
    );
    let mut out = Vec::new();
    encode(
        &mut out,
        Frame {
            kind: Kind::Message,
            epoch: 1,
            stream: 0,
            payload: json.as_bytes(),
        },
    );
    guest.write_all(&out).await.unwrap();
    let Received::Event {
        event:
            Event::Hello(Hello {
                harness,
                generation: 9,
                ..
            }),
        ..
    } = timeout(SOON, incoming.next()).await.unwrap().unwrap()
    else {
        panic!("no hello")
    };
    assert!(
        harness.starts_with(" [31mxx") && harness.len() == 1024,
        "{harness}"
    );
}

#[tokio::test]
async fn a_side_is_settled_when_all_is_out_and_all_is_read() {
    let ((host, mut host_incoming), (guest, _guest_incoming)) = pair();
    timeout(SOON, guest.settled()).await.unwrap().unwrap();
    let mut stream = guest.open().unwrap();
    guest.send_event(Event::Log {
        stream: stream.id(),
    });
    // More than the window: the rest waits for the host to read.
    let writer = tokio::spawn(async move {
        stream.write_all(&[1; 300_000]).await.unwrap();
        stream
    });
    let heard = timeout(SOON, host_incoming.next()).await.unwrap().unwrap();
    let Received::Event {
        stream: Some(mut read),
        ..
    } = heard
    else {
        panic!("{heard:?}")
    };
    let early = Duration::from_millis(50);
    assert!(timeout(early, guest.settled()).await.is_err());
    assert!(timeout(early, host.settled()).await.is_err());
    read.read_exact(&mut vec![0; 300_000]).await.unwrap();
    timeout(SOON, guest.settled()).await.unwrap().unwrap();
    timeout(SOON, host.settled()).await.unwrap().unwrap();
    drop(writer.await.unwrap());
}

#[tokio::test]
async fn a_restored_guest_loses_its_streams_and_says_hello_again() {
    let (mut between_host, host_end) = tokio::io::duplex(1 << 20);
    let (host, incoming) = start(host_end, Role::Host);
    let (mut between_guest, guest_end) = tokio::io::duplex(1 << 20);
    let (guest, mut guest_incoming) = start(guest_end, Role::Guest);
    let mut stream = guest.open().unwrap();
    let vanished = stream.reset_watch();
    let watched = tokio::spawn(async move { vanished.reset().await });
    stream.write_all(b"x").await.unwrap();
    {
        let quiesced = host.quiesce();
        tokio::pin!(quiesced);
        let pump = tokio::io::copy_bidirectional(&mut between_host, &mut between_guest);
        tokio::select! {
            outcome = &mut quiesced => outcome.unwrap(),
            _ = pump => panic!("a side ended"),
            () = tokio::time::sleep(SOON) => panic!("no silence"),
        }
    }
    let epoch = host.epoch();
    drop((host, incoming));

    let (mut between_host, host_end) = tokio::io::duplex(1 << 20);
    let (host, _incoming) = start_restored(host_end, epoch);
    // A call waits for the guest to look, right behind the word that all is new.
    let early = tokio::spawn({
        let host = host.clone();
        async move { host.ping().await }
    });
    tokio::task::yield_now().await;
    let pump = tokio::spawn(async move {
        tokio::io::copy_bidirectional(&mut between_host, &mut between_guest).await
    });
    let resynced = timeout(SOON, guest_incoming.next()).await.unwrap();
    assert!(matches!(resynced, Ok(Received::Resynced)));
    assert_eq!(watched.await.unwrap(), crate::Vanished::Host);
    assert_eq!(
        stream.write(b"y").await.unwrap_err().kind(),
        io::ErrorKind::ConnectionReset
    );
    drop(stream);
    let (_, _, responder) = call(&mut guest_incoming).await;
    responder.reply(Ok(Reply::Done));
    timeout(SOON, early).await.unwrap().unwrap().unwrap();
    let ping = tokio::spawn(async move { host.ping().await });
    let (_, _, responder) = call(&mut guest_incoming).await;
    responder.reply(Ok(Reply::Done));
    timeout(SOON, ping).await.unwrap().unwrap().unwrap();
    pump.abort();
}
