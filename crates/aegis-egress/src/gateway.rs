//! The guest's gateway: it says who has its addresses, answers echoes, and takes
//! questions of DNS, which aegis-vmm carries on to the host's name servers.
//!
//! smoltcp plays the host that it is; only what [`crate::gate`] lets to the gateway
//! reaches it.

use std::collections::{HashMap, VecDeque};

use aegis_core::egress::{MAX_DNS, Question, Transport};
use aegis_core::network::{GATEWAY_V4, GATEWAY_V6, PREFIX_V4, PREFIX_V6};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use crate::gate::{DNS, GATEWAY_HARDWARE};
use crate::packet::MAX_FRAME;

/// Frames that wait on either side of the gateway; more are lost, as on any network.
const MAX_WAITING: usize = 64;
/// Questions that are not answered yet. A guest that asks more asks again.
const MAX_ASKED: usize = 64;
/// Connections for questions whose answers are long. Who finds none tries again.
const CONNECTIONS: usize = 4;
/// When an answer that has not come is not expected any more: longer than aegis-vmm asks.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
/// How long a connection may say nothing.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of questions by UDP that wait; each has a few dozen.
const UDP_QUESTIONS: usize = 16 * 1024;
/// Room for the longest answer by UDP.
const UDP_ANSWERS: usize = 64 * 1024;
/// Bytes on their way in a connection: a question, and a part of an answer.
const TCP_QUESTIONS: usize = 4096;
const TCP_ANSWERS: usize = 16 * 1024;
/// Bytes before a message of DNS on a connection.
const LENGTH: usize = 2;

/// The gateway.
pub struct Gateway {
    interface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    datagrams: SocketHandle,
    connections: Vec<Connection>,
    asked: HashMap<u32, Asked>,
    last_id: u32,
    questions: VecDeque<Question>,
}

/// Who asked, and when.
#[derive(Debug)]
struct Asked {
    by: Asker,
    at: Instant,
}

#[derive(Debug)]
enum Asker {
    Datagram(udp::UdpMetadata),
    /// The number of the connection, and which of its lives.
    Connection(usize, u32),
}

/// A place for one connection after another.
#[derive(Debug)]
struct Connection {
    socket: SocketHandle,
    life: u32,
    /// What was read and is no question yet.
    read: Vec<u8>,
    /// What is to be written.
    answer: VecDeque<u8>,
    /// A question is on its way; the next one waits for its answer.
    waits: bool,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

impl Gateway {
    pub fn new(seed: u64, now: Instant) -> Self {
        let mut wire = Wire::default();
        let hardware = EthernetAddress(GATEWAY_HARDWARE);
        let mut config = Config::new(HardwareAddress::Ethernet(hardware));
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, now);
        interface.update_ip_addrs(|addresses| {
            for (address, prefix) in [
                (IpAddress::from(GATEWAY_V4), PREFIX_V4),
                (IpAddress::from(GATEWAY_V6), PREFIX_V6),
            ] {
                // There is room for two, smoltcp's default.
                addresses.push(IpCidr::new(address, prefix)).ok();
            }
        });
        let mut sockets = SocketSet::new(Vec::new());
        let datagrams = sockets.add(datagrams());
        let connections = (0..CONNECTIONS)
            .map(|_| Connection {
                socket: sockets.add(connection()),
                life: 0,
                read: Vec::new(),
                answer: VecDeque::new(),
                waits: false,
            })
            .collect();
        Self {
            interface,
            wire,
            sockets,
            datagrams,
            connections,
            asked: HashMap::new(),
            last_id: 0,
            questions: VecDeque::new(),
        }
    }

    /// A frame of the guest.
    pub fn receive(&mut self, frame: &[u8]) {
        if self.wire.received.len() < MAX_WAITING {
            self.wire.received.push_back(frame.to_vec());
        }
    }

    /// Does what is to be done by now.
    pub fn poll(&mut self, now: Instant) {
        self.asked
            .retain(|_, asked| now < asked.at + ANSWER_PATIENCE);
        // What arrived is looked at before the sockets are, and what they say is sent.
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        self.read_datagrams(now);
        for number in 0..self.connections.len() {
            self.serve(number, now);
        }
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
    }

    /// How long there is nothing to do if nothing arrives; `None` means for ever.
    pub fn delay(&mut self, now: Instant) -> Option<Duration> {
        self.interface.poll_delay(now, &self.sockets)
    }

    /// A frame for the guest.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        self.wire.sent.pop_front()
    }

    /// A question for the host's name servers.
    pub fn next_question(&mut self) -> Option<Question> {
        self.questions.pop_front()
    }

    /// The answer to a question; an empty one where there is none.
    pub fn answered(&mut self, id: u32, message: &[u8]) {
        let Some(asked) = self.asked.remove(&id) else {
            return;
        };
        match asked.by {
            Asker::Datagram(from) => {
                let socket: &mut udp::Socket<'_> = self.sockets.get_mut(self.datagrams);
                if !message.is_empty() {
                    // No room means that it is lost, which DNS is made for.
                    socket.send_slice(message, from).ok();
                }
            }
            Asker::Connection(number, life) => {
                let connection = self.connections.get_mut(number);
                let Some(connection) = connection.filter(|found| found.life == life) else {
                    return;
                };
                connection.waits = false;
                match u16::try_from(message.len()) {
                    Ok(length) if length > 0 => {
                        connection.answer.extend(length.to_be_bytes());
                        connection.answer.extend(message);
                    }
                    _ => {
                        let socket: &mut tcp::Socket<'_> = self.sockets.get_mut(connection.socket);
                        socket.abort();
                    }
                }
            }
        }
    }

    fn read_datagrams(&mut self, now: Instant) {
        loop {
            let socket: &mut udp::Socket<'_> = self.sockets.get_mut(self.datagrams);
            let Ok((message, from)) = socket.recv() else {
                return;
            };
            let message = message.to_vec();
            self.ask(Asker::Datagram(from), Transport::Udp, message, now);
        }
    }

    fn serve(&mut self, number: usize, now: Instant) {
        let Some(connection) = self.connections.get_mut(number) else {
            return;
        };
        let socket: &mut tcp::Socket<'_> = self.sockets.get_mut(connection.socket);
        if !socket.is_open() {
            connection.life = connection.life.wrapping_add(1);
            connection.read.clear();
            connection.answer.clear();
            connection.waits = false;
            // A closed socket with a port that is none but zero listens.
            socket.listen(DNS).ok();
            return;
        }
        while !connection.answer.is_empty() && socket.can_send() {
            let (some, _) = connection.answer.as_slices();
            let Ok(count) = socket.send_slice(some) else {
                break;
            };
            connection.answer.drain(..count);
        }
        if connection.waits || !connection.answer.is_empty() {
            return;
        }
        if connection.read.len() < LENGTH + MAX_DNS {
            let read = socket.recv(|bytes| (bytes.len(), bytes.to_vec()));
            connection.read.extend(read.unwrap_or_default());
        }
        let question = match connection.read.split_first_chunk::<LENGTH>() {
            Some((length, rest)) => {
                let length = usize::from(u16::from_be_bytes(*length));
                rest.get(..length).map(<[u8]>::to_vec)
            }
            None => None,
        };
        let Some(question) = question else {
            if !socket.may_recv() && socket.may_send() {
                socket.close();
            }
            return;
        };
        connection.read.drain(..LENGTH + question.len());
        connection.waits = true;
        let asker = Asker::Connection(number, connection.life);
        if !self.ask(asker, Transport::Tcp, question, now)
            && let Some(connection) = self.connections.get_mut(number)
        {
            let socket: &mut tcp::Socket<'_> = self.sockets.get_mut(connection.socket);
            socket.abort();
        }
    }

    /// Notes who asked. `false` where too much is asked already.
    fn ask(&mut self, by: Asker, transport: Transport, message: Vec<u8>, now: Instant) -> bool {
        if self.asked.len() >= MAX_ASKED {
            return false;
        }
        self.last_id = self.last_id.wrapping_add(1);
        let id = self.last_id;
        self.asked.insert(id, Asked { by, at: now });
        self.questions.push_back(Question {
            id,
            transport,
            message,
        });
        true
    }
}

fn datagrams() -> udp::Socket<'static> {
    let buffer =
        |bytes| udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; MAX_ASKED], vec![0; bytes]);
    let mut socket = udp::Socket::new(buffer(UDP_QUESTIONS), buffer(UDP_ANSWERS));
    // A new socket with a port that is none but zero is bound.
    socket.bind(DNS).ok();
    socket
}

fn connection() -> tcp::Socket<'static> {
    let buffer = |bytes| tcp::SocketBuffer::new(vec![0; bytes]);
    let mut socket = tcp::Socket::new(buffer(TCP_QUESTIONS), buffer(TCP_ANSWERS));
    // With keep-alive packets a peer that is gone is found out by the limit.
    socket.set_timeout(Some(CONNECTION_PATIENCE));
    socket.set_keep_alive(Some(CONNECTION_PATIENCE / 3));
    socket
}

/// The gateway's end of the guest's network.
#[derive(Debug, Default)]
struct Wire {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);

struct Sent<'a>(&'a mut VecDeque<Vec<u8>>);

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received, Sent<'_>)> {
        if self.sent.len() >= MAX_WAITING {
            return None;
        }
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sent(&mut self.sent)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Sent<'_>> {
        (self.sent.len() < MAX_WAITING).then_some(Sent(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MAX_FRAME;
        capabilities
    }
}

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl phy::TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        self.0.push_back(frame);
        result
    }
}
