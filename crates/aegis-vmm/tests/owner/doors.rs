//! Ports whose sockets doors bring, while the VM runs.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use aegis_core::control::Call;
use aegis_core::fault::Symbol;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::world::{Client, PATIENCE, Plan, World};

/// A door that has brought a port, and where that listens.
fn bring(world: &World, guest: u16) -> (UnixStream, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut door = UnixStream::connect(world.control()).unwrap();
    let call = format!("{{\"id\":1,\"call\":\"listen\",\"guest\":{guest}}}\n");
    pass(&door, call.as_bytes(), &listener);
    let mut answer = [0; 256];
    let length = door.read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.contains("changed"), "{answer}");
    (door, address)
}

/// Writes bytes with a descriptor beside them.
fn pass(door: &UnixStream, bytes: &[u8], passed: &impl AsFd) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let rights = [passed.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&rights)));
    let parts = [IoSlice::new(bytes)];
    sendmsg(door, &parts, &mut ancillary, SendFlags::empty()).unwrap();
}

fn echoed(client: &mut TcpStream, text: &str) {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(text.as_bytes()).unwrap();
    let mut bytes = vec![0; text.len()];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, text.as_bytes());
}

#[test]
fn a_brought_port_serves_until_its_door_goes_and_its_connections_go_on() {
    let world = World::new(Plan::default());
    let (door, address) = bring(&world, 80);
    let mut client = TcpStream::connect(address).unwrap();
    echoed(&mut client, "ping");
    world
        .connect()
        .watch_until(|status| status.connections == 1);

    drop(door);
    let deadline = std::time::Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_ok() {
        assert!(std::time::Instant::now() < deadline, "it listens on");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    echoed(&mut client, "pong");
    client.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());

    let (_door, address) = bring(&world, 81);
    let mut refused = TcpStream::connect(address).unwrap();
    refused.set_read_timeout(Some(PATIENCE)).unwrap();
    let error = refused.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_port_without_a_socket_is_refused() {
    let world = World::new(Plan::default());
    let fault = world.connect().ask(Call::Listen { guest: 80 }).unwrap_err();
    assert_eq!(fault.symbol, Symbol::InvalidArgument);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let door = UnixStream::connect(world.control()).unwrap();
    pass(&door, b"{\"id\":1,", &ours);
    let mut door = Client::new(door);
    door.send_raw(b"\"call\":\"listen\",\"guest\":80}\n")
        .unwrap();
    let answer = door.receive().unwrap();
    let answer = serde_json::to_string(&answer).unwrap();
    assert!(answer.contains("not a listening TCP socket"), "{answer}");
}
