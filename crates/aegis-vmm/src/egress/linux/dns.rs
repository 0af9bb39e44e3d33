//! Questions of DNS that the gateway took, asked of the host's name servers.
//!
//! `/etc/resolv.conf` is read for each question, so that a change of it holds for the
//! next one. What a message says is not looked at, but for its number. A name server may
//! be any address, the host's loopback too: that is the host's choice and not the guest's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use aegis_core::egress::{MAX_DNS, Transport};
use nix::net::if_::if_nametoindex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const CONFIGURATION: &str = "/etc/resolv.conf";
/// Most name servers that are asked (resolv.conf(5), `MAXNS`).
const MOST_SERVERS: usize = 3;
/// How long each may take. Guests ask again after five seconds.
const PATIENCE: Duration = Duration::from_secs(4);
const PORT: u16 = 53;
/// Bytes of the header of a message (RFC 1035, section 4.1.1).
const HEADER: usize = 12;

/// Asks the host's name servers one after another. Where none answers, the answer says
/// so; an empty one means that the question was none.
pub(super) async fn ask(transport: Transport, question: &[u8]) -> Vec<u8> {
    if question.len() < HEADER {
        return Vec::new();
    }
    let configuration = tokio::fs::read_to_string(CONFIGURATION).await;
    for server in name_servers(&configuration.unwrap_or_default()) {
        let asked = async {
            match transport {
                Transport::Udp => by_udp(server, question).await,
                Transport::Tcp => by_tcp(server, question).await,
            }
        };
        if let Ok(Ok(answer)) = timeout(PATIENCE, asked).await {
            return answer;
        }
    }
    failure(question)
}

/// The servers that a configuration names; without any it is the one of this host.
fn name_servers(configuration: &str) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = configuration
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then_some(())?;
            address(words.next()?)
        })
        .take(MOST_SERVERS)
        .collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, PORT).into());
    }
    servers
}

/// `ADDRESS`, or `ADDRESS%DEVICE` of a link.
fn address(text: &str) -> Option<SocketAddr> {
    let Some((address, device)) = text.split_once('%') else {
        return Some((text.parse::<IpAddr>().ok()?, PORT).into());
    };
    let address: Ipv6Addr = address.parse().ok()?;
    let index = device
        .parse()
        .ok()
        .or_else(|| if_nametoindex(device).ok())?;
    Some(SocketAddrV6::new(address, PORT, 0, index).into())
}

async fn by_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A port of its own for each question, which the kernel chooses.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; MAX_DNS];
    loop {
        let length = socket.recv(&mut answer).await?;
        if length >= HEADER && answer[..2] == question[..2] {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn by_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(server).await?;
    let mut message = length.to_be_bytes().to_vec();
    message.extend(question);
    stream.write_all(&message).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The question as an answer that says "server failure".
fn failure(question: &[u8]) -> Vec<u8> {
    const IS_ANSWER: u8 = 0x80;
    const SERVER_FAILURE: u8 = 2;
    let mut answer = question.to_vec();
    if let [_, _, flags, more, ..] = &mut answer[..] {
        *flags |= IS_ANSWER;
        *more = SERVER_FAILURE;
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_resolvers_read_them() {
        let text = "# a comment\nsearch example.org\nnameserver 127.0.0.53\n\
                    nameserver\tfd00::53\nnameserver nonsense\nnameserver fe80::1%lo\n\
                    nameserver 9.9.9.9\noptions edns0\n";
        let servers: Vec<String> = name_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(
            servers,
            ["127.0.0.53:53", "[fd00::53]:53", "[fe80::1%1]:53"]
        );
        assert_eq!(name_servers(""), [SocketAddr::from(([127, 0, 0, 1], 53))]);
    }

    #[test]
    fn a_failure_is_an_answer_to_the_question() {
        let question = [7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
        let answer = failure(&question);
        assert_eq!(answer[..4], [7, 9, 0x81, 2]);
        assert_eq!(answer[4..], question[4..]);
    }

    #[tokio::test]
    async fn only_the_answer_to_the_question_counts() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let question = [1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let serve = async {
            let mut asked = [0; 64];
            let (length, from) = server.recv_from(&mut asked).await.unwrap();
            for number in [9, 1] {
                asked[0] = number;
                server.send_to(&asked[..length], from).await.unwrap();
            }
        };
        let (answer, ()) = tokio::join!(by_udp(address, &question), serve);
        assert_eq!(answer.unwrap(), question);
    }
}
