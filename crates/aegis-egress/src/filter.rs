//! The sockets of the filter, and the order in which they are served.
//!
//! Nothing is held but one frame in each direction, which waits until it is taken: who
//! does not read stops who writes. What the gateway says comes before the outside, since
//! it is little.

use std::io::{IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use aegis_core::egress::{Carried, DESCRIPTORS, MAX_MESSAGE, Order, ToFilter};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send,
};

use crate::flows::Flows;
use crate::gate::{Outbound, Passed, inbound, outbound};
use crate::gateway::Gateway;
use crate::packet::MAX_FRAME;
use crate::stream::{Reader, TooLong, Writer};

/// Frames of one direction before the other one and the gateway are looked at again.
const TURN: usize = 64;

/// Why the filter ends.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("aegis-vmm gave no order with {DESCRIPTORS} descriptors")]
    NoOrder,
    #[error("cannot {operation}")]
    System {
        operation: &'static str,
        #[source]
        source: Errno,
    },
    #[error("the stream from passt makes no sense")]
    Stream(#[source] TooLong),
}

/// Why serving ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// aegis-vmm is gone.
    Owner,
    /// passt is gone.
    Outside,
}

/// A filter at work.
#[derive(Debug)]
pub struct Filter<'a> {
    control: BorrowedFd<'a>,
    guest: OwnedFd,
    outside: OwnedFd,
    counters: OwnedFd,
    carried: Carried,
    told: Carried,
    order: Order,
    flows: Flows,
    gateway: Gateway,
    began: Instant,
    /// For passt.
    writer: Writer,
    /// From passt.
    reader: Reader,
    /// For the guest.
    held: Option<Vec<u8>>,
    /// A turn ended before all that was read from passt was looked at.
    is_behind: bool,
}

fn system(operation: &'static str) -> impl Fn(Errno) -> FilterError {
    move |source| FilterError::System { operation, source }
}

impl<'a> Filter<'a> {
    /// Waits for the first order and what comes with it.
    ///
    /// # Errors
    /// There is none.
    pub fn begin(control: BorrowedFd<'a>) -> Result<Self, FilterError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let got = recvmsg(
            control,
            &mut slices,
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        );
        let got = got.map_err(system("receive the order"))?.bytes;
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        let Some(ToFilter::Order(order)) = ToFilter::decode(&bytes[..got]) else {
            return Err(FilterError::NoOrder);
        };
        let descriptors: Result<[OwnedFd; DESCRIPTORS], _> = descriptors.try_into();
        let Ok([guest, outside, counters]) = descriptors else {
            return Err(FilterError::NoOrder);
        };
        for socket in [control, guest.as_fd(), outside.as_fd()] {
            let flags =
                fcntl_getfl(socket).and_then(|flags| fcntl_setfl(socket, flags | OFlags::NONBLOCK));
            flags.map_err(system("prepare a socket"))?;
        }
        let mut before = [0; Carried::SIZE];
        // A new file holds nothing, which is nothing carried.
        rustix::io::pread(&counters, &mut before, 0).map_err(system("read the counters"))?;
        let carried = Carried::from_bytes(before);
        let began = Instant::now();
        // What the guest could guess of the gateway's connections hurts the guest alone.
        let seed = u64::from(std::process::id()) ^ carried.sent;
        Ok(Self {
            control,
            guest,
            outside,
            counters,
            carried,
            told: carried,
            order,
            flows: Flows::default(),
            gateway: Gateway::new(seed, smoltcp::time::Instant::ZERO),
            began,
            writer: Writer::default(),
            reader: Reader::default(),
            held: None,
            is_behind: false,
        })
    }

    /// Serves until one side is gone.
    ///
    /// # Errors
    /// A socket fails, or passt writes nonsense.
    pub fn serve(mut self) -> Result<End, FilterError> {
        let mut frame = vec![0; MAX_FRAME + 1];
        let mut message = vec![0; MAX_MESSAGE];
        loop {
            self.wait()?;
            if self.hear(&mut message)? {
                return Ok(End::Owner);
            }
            self.serve_guest(&mut frame)?;
            self.run_gateway()?;
            let is_over = self.serve_outside()?;
            self.count()?;
            if is_over {
                return Ok(End::Outside);
            }
        }
    }

    /// Waits until there is something to do.
    fn wait(&mut self) -> Result<(), FilterError> {
        let now = self.now();
        let delay = match self.is_behind {
            true => Some(smoltcp::time::Duration::ZERO),
            false => self.gateway.delay(now),
        };
        let timeout = delay.map(|delay| {
            let delay = Duration::from_micros(delay.total_micros());
            Timespec {
                // A gateway's timers are seconds.
                tv_sec: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(delay.subsec_nanos()),
            }
        });
        let mut guest = PollFlags::empty();
        guest.set(PollFlags::IN, self.writer.is_free());
        guest.set(PollFlags::OUT, self.held.is_some());
        let mut outside = PollFlags::empty();
        outside.set(PollFlags::IN, self.held.is_none());
        outside.set(PollFlags::OUT, !self.writer.is_free());
        let mut polled = [
            PollFd::from_borrowed_fd(self.control, PollFlags::IN),
            PollFd::new(&self.guest, guest),
            PollFd::new(&self.outside, outside),
        ];
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(source) => Err(system("wait for the sockets")(source)),
        }
    }

    fn now(&self) -> smoltcp::time::Instant {
        let millis = self.began.elapsed().as_millis();
        smoltcp::time::Instant::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
    }

    /// Takes what aegis-vmm says. `true` when it is gone.
    fn hear(&mut self, buffer: &mut [u8]) -> Result<bool, FilterError> {
        loop {
            match recv(self.control, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) | Err(Errno::CONNRESET) => return Ok(true),
                Ok((length, _)) => match ToFilter::decode(&buffer[..length]) {
                    Some(ToFilter::Order(order)) => self.order = order,
                    Some(ToFilter::Answer { id, message }) => self.gateway.answered(id, &message),
                    // aegis-vmm and this program are of one build.
                    None => return Err(FilterError::NoOrder),
                },
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(source) => return Err(system("hear aegis-vmm")(source)),
            }
        }
    }

    /// Carries what the guest sends while passt takes it.
    fn serve_guest(&mut self, frame: &mut [u8]) -> Result<(), FilterError> {
        for _ in 0..TURN {
            self.write_outside()?;
            if !self.writer.is_free() {
                return Ok(());
            }
            let length = match recv(&self.guest, &mut *frame, RecvFlags::empty()) {
                // A frame of nothing is none.
                Ok((length, _)) => length,
                Err(Errno::INTR | Errno::CONNRESET) => continue,
                Err(Errno::AGAIN) => return Ok(()),
                Err(source) => return Err(system("read a frame of the guest")(source)),
            };
            let frame = &frame[..length];
            match outbound(&self.order, frame) {
                Outbound::Pass(out) => {
                    if let Some(flow) = out.flow {
                        self.flows.note(flow, Instant::now());
                    }
                    self.carried.sent = self.carried.sent.wrapping_add(out.frame.len() as u64);
                    self.writer.take(&out.frame);
                }
                Outbound::Gateway => self.gateway.receive(frame),
                // A guest that reads nothing loses it.
                Outbound::Refuse(answer) => drop(self.give(&answer)?),
                Outbound::Drop => {}
            }
        }
        Ok(())
    }

    fn write_outside(&mut self) -> Result<(), FilterError> {
        while !self.writer.is_free() {
            match send(&self.outside, self.writer.rest(), SendFlags::NOSIGNAL) {
                Ok(count) => self.writer.wrote(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                // Its end is read, and told, by who reads.
                Err(Errno::PIPE | Errno::CONNRESET) => self.writer = Writer::default(),
                Err(source) => return Err(system("write a frame to passt")(source)),
            }
        }
        Ok(())
    }

    fn run_gateway(&mut self) -> Result<(), FilterError> {
        let now = self.now();
        self.gateway.poll(now);
        while let Some(question) = self.gateway.next_question() {
            match send(self.control, &question.encode(), SendFlags::NOSIGNAL) {
                Ok(_) => {}
                // It is as if the question had been lost on its way.
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Its end is told by who hears.
                Err(Errno::PIPE | Errno::CONNRESET) => {}
                Err(source) => return Err(system("pass a question on to aegis-vmm")(source)),
            }
        }
        while let Some(frame) = self.gateway.next_frame() {
            self.give(&frame)?;
        }
        Ok(())
    }

    /// Carries what passt sends while the guest takes it. `true` when passt is gone.
    fn serve_outside(&mut self) -> Result<bool, FilterError> {
        self.is_behind = false;
        for _ in 0..TURN {
            if let Some(frame) = self.held.take()
                && !self.give(&frame)?
            {
                self.held = Some(frame);
                return Ok(false);
            }
            if let Some(frame) = self.reader.next_frame().map_err(FilterError::Stream)? {
                if let Some(Passed { frame, flow }) = inbound(&self.order, frame)
                    && flow.is_none_or(|flow| self.flows.answers(flow, Instant::now()))
                {
                    self.carried.received = self.carried.received.wrapping_add(frame.len() as u64);
                    self.held = Some(frame);
                }
                continue;
            }
            match recv(&self.outside, self.reader.room(), RecvFlags::empty()) {
                Ok((0, _)) | Err(Errno::CONNRESET) => return Ok(true),
                Ok((count, _)) => self.reader.filled(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(source) => return Err(system("read a frame of passt")(source)),
            }
        }
        self.is_behind = true;
        Ok(false)
    }

    /// Sends the guest a frame. `false` where it takes none now.
    fn give(&self, frame: &[u8]) -> Result<bool, FilterError> {
        loop {
            match send(&self.guest, frame, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                // QEMU is gone, and so is this program soon.
                Err(Errno::CONNREFUSED | Errno::PIPE | Errno::CONNRESET) => return Ok(true),
                Err(source) => return Err(system("send the guest a frame")(source)),
            }
        }
    }

    /// Writes down what was carried, once for all frames of a turn.
    fn count(&mut self) -> Result<(), FilterError> {
        if self.carried != self.told {
            rustix::io::pwrite(&self.counters, &self.carried.to_bytes(), 0)
                .map_err(system("write the counters"))?;
            self.told = self.carried;
        }
        Ok(())
    }
}

/// Writes an error with its causes in one line.
pub fn tell(error: &dyn std::error::Error) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    // It is for aegis-vmm, which may be gone.
    writeln!(std::io::stderr(), "{text}").ok();
}
