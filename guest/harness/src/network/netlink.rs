//! Messages to the kernel about the network (netlink(7)): one question at a time.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// Of the message header: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// Everything is a multiple of this.
const ALIGNMENT: usize = 4;
/// Room for a part of an answer; the kernel sends at most 32 KiB.
const ROOM: usize = 32 * 1024;

/// What is there already is replaced, what is not is made.
pub(super) const MAKE: u16 = NLM_F_CREATE | NLM_F_REPLACE;
/// Everything of a kind is asked for.
pub(super) const DUMP: u16 = 0x300;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// A question.
#[derive(Debug)]
pub(super) struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    pub(super) fn new(kind: u16, flags: u16) -> Self {
        Self {
            kind,
            flags,
            body: Vec::new(),
        }
    }

    /// A part of the fixed structure that it begins with.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.body.extend(bytes);
    }

    /// What comes after that.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        // Addresses and numbers are short.
        let length = u16::try_from(ALIGNMENT + value.len()).unwrap_or(u16::MAX);
        self.body.extend(length.to_ne_bytes());
        self.body.extend(kind.to_ne_bytes());
        self.body.extend(value);
        self.body
            .resize(self.body.len().next_multiple_of(ALIGNMENT), 0);
    }

    fn encode(&self, flags: u16) -> Vec<u8> {
        let length = u32::try_from(HEADER + self.body.len()).unwrap_or(u32::MAX);
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | self.flags | flags).to_ne_bytes());
        // One question at a time needs no number, and the kernel knows who asks.
        bytes.extend([0; 8]);
        bytes.extend(&self.body);
        bytes
    }
}

/// A part of the kernel's answer.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Content(&'a [u8]),
    /// The end: zero, or the number of what went wrong.
    End(i32),
}

/// Takes the first part off.
fn split(bytes: &[u8]) -> Option<(Part<'_>, &[u8])> {
    let (header, _) = bytes.split_first_chunk::<HEADER>()?;
    let [a, b, c, d, low, high, ..] = *header;
    let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).ok()?;
    let body = bytes.get(HEADER..length)?;
    let rest = bytes
        .get(length.next_multiple_of(ALIGNMENT)..)
        .unwrap_or_default();
    let number = || Some(i32::from_ne_bytes(*body.first_chunk()?));
    let part = match u16::from_ne_bytes([low, high]) {
        NLMSG_ERROR => Part::End(number()?),
        NLMSG_DONE => Part::End(number().unwrap_or(0)),
        _ => Part::Content(body),
    };
    Some((part, rest))
}

/// A socket to the kernel.
#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    pub(super) fn open(protocol: SockProtocol) -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).map(Self)
    }

    /// Has the kernel do something.
    pub(super) fn ask(&mut self, request: &Request) -> io::Result<()> {
        self.exchange(&request.encode(NLM_F_ACK), |_| {})
    }

    /// Asks for everything of a kind.
    pub(super) fn dump(&mut self, request: &Request) -> io::Result<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        self.exchange(&request.encode(0), |content| found.push(content.to_vec()))?;
        Ok(found)
    }

    fn exchange(&mut self, question: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        send(self.0.as_raw_fd(), question, MsgFlags::empty())?;
        let mut buffer = vec![0; ROOM];
        loop {
            let length = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                received => received?,
            };
            let mut rest = &buffer[..length];
            while let Some((part, more)) = split(rest) {
                match part {
                    Part::Content(content) => take(content),
                    Part::End(0) => return Ok(()),
                    Part::End(number) => {
                        return Err(io::Error::from_raw_os_error(number.saturating_neg()));
                    }
                }
                rest = more;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_understands_a_question_and_says_what_is_wrong_with_another() {
        let mut netlink = Netlink::open(SockProtocol::NetlinkRoute).unwrap();
        let mut dump = Request::new(libc::RTM_GETLINK, DUMP);
        dump.bytes(&[0; 16]);
        assert!(!netlink.dump(&dump).unwrap().is_empty(), "there is lo");
        let mut none = Request::new(libc::RTM_GETLINK, 0);
        none.bytes(&[0; 4]);
        none.bytes(&u32::MAX.to_ne_bytes());
        none.bytes(&[0; 8]);
        netlink.ask(&none).unwrap_err();
    }

    #[test]
    fn what_is_cut_short_is_no_part() {
        let mut request = Request::new(NLMSG_ERROR, 0);
        request.bytes(&(-2_i32).to_ne_bytes());
        let bytes = request.encode(0);
        assert_eq!(split(&bytes), Some((Part::End(-2), &[][..])));
        for length in 0..bytes.len() {
            assert_eq!(split(&bytes[..length]), None);
        }
    }
}
