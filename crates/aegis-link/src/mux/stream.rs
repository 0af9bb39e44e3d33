//! One stream of the multiplexer: two buffers and what may still happen.

use std::collections::VecDeque;

use super::{ReadState, WINDOW, WriteState};

/// Who has the stream on this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The peer opened it and nobody has taken it yet.
    Unclaimed,
    /// The program.
    Program,
    /// The program finished it and let go; what it wrote is still delivered.
    Nobody,
}

/// The sending half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Open,
    /// Finished by the program; the end goes out after the buffer.
    Finished,
    /// The end is sent.
    Ended,
}

/// The receiving half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    Open,
    /// The peer will send no more.
    Ended,
    /// The peer reset the stream; both halves are dead.
    Reset,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) owner: Owner,
    /// The peer knows of it.
    pub(super) announced: bool,
    /// It stands in the queue of streams with something to send.
    pub(super) scheduled: bool,
    outgoing: VecDeque<u8>,
    sending: Sending,
    /// Bytes we may send.
    credit: u32,
    incoming: VecDeque<u8>,
    receiving: Receiving,
    /// Bytes the peer may send.
    allowance: u32,
    /// Bytes read and not yet given back as credit.
    consumed: u32,
}

impl Stream {
    pub(super) fn new(owner: Owner) -> Stream {
        Stream {
            owner,
            announced: owner == Owner::Unclaimed,
            scheduled: false,
            outgoing: VecDeque::new(),
            sending: Sending::Open,
            credit: WINDOW,
            incoming: VecDeque::new(),
            receiving: Receiving::Open,
            allowance: WINDOW,
            consumed: 0,
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> ReadState {
        if self.is_reset() {
            return ReadState::Reset;
        }
        let mut count = 0;
        for half in <[&[u8]; 2]>::from(self.incoming.as_slices()) {
            let part = half.len().min(buffer.len() - count);
            buffer[count..count + part].copy_from_slice(&half[..part]);
            count += part;
        }
        self.incoming.drain(..count);
        self.consume(count);
        match count {
            0 if self.incoming.is_empty() && self.receiving == Receiving::Ended => ReadState::End,
            0 => ReadState::Empty,
            count => ReadState::Data(count),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], capacity: usize) -> WriteState {
        if self.is_reset() {
            return WriteState::Reset;
        }
        if self.sending != Sending::Open {
            return WriteState::Finished;
        }
        let count = bytes
            .len()
            .min(capacity.saturating_sub(self.outgoing.len()));
        if count == 0 {
            return WriteState::Full;
        }
        self.outgoing.extend(&bytes[..count]);
        WriteState::Taken(count)
    }

    pub(super) fn finish(&mut self) {
        if self.sending == Sending::Open {
            self.sending = Sending::Finished;
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.sending != Sending::Open
    }

    pub(super) fn is_reset(&self) -> bool {
        self.receiving == Receiving::Reset
    }

    /// Nobody will touch it again on either side.
    pub(super) fn is_over(&self) -> bool {
        self.owner == Owner::Nobody
            && self.sending == Sending::Ended
            && self.receiving == Receiving::Ended
    }

    pub(super) fn unsent(&self) -> usize {
        self.outgoing.len()
    }

    /// Nothing of it waits on this side, neither for the peer nor for the program.
    pub(super) fn is_settled(&self) -> bool {
        self.is_reset()
            || self.outgoing.is_empty()
                && self.sending != Sending::Finished
                && self.incoming.is_empty()
    }

    pub(super) fn has_something_to_send(&self) -> bool {
        !self.is_reset()
            && if self.outgoing.is_empty() {
                self.sending == Sending::Finished
            } else {
                self.credit > 0
            }
    }

    /// What may go out next; empty if there is nothing or no credit.
    pub(super) fn next_chunk(&self, most: usize) -> &[u8] {
        let credit = usize::try_from(self.credit).unwrap_or(usize::MAX);
        let (front, _) = self.outgoing.as_slices();
        &front[..front.len().min(most).min(credit)]
    }

    /// Takes note that a chunk of so many bytes went out.
    pub(super) fn sent(&mut self, length: usize) {
        self.outgoing.drain(..length);
        self.credit = self
            .credit
            .saturating_sub(u32::try_from(length).unwrap_or(u32::MAX));
    }

    /// True if the end is due now; it counts as sent then.
    pub(super) fn send_end(&mut self) -> bool {
        let due = self.sending == Sending::Finished && self.outgoing.is_empty() && !self.is_reset();
        if due {
            self.sending = Sending::Ended;
        }
        due
    }

    pub(super) fn add_credit(&mut self, amount: u32) -> bool {
        match self
            .credit
            .checked_add(amount)
            .filter(|credit| *credit <= WINDOW)
        {
            Some(credit) => {
                self.credit = credit;
                true
            }
            None => false,
        }
    }

    /// Takes bytes of the peer; false if it had no credit or had ended.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> bool {
        let Some(allowance) = u32::try_from(bytes.len())
            .ok()
            .and_then(|length| self.allowance.checked_sub(length))
        else {
            return false;
        };
        if self.receiving == Receiving::Ended {
            return false;
        }
        self.allowance = allowance;
        if !self.is_reset() {
            self.incoming.extend(bytes);
        }
        true
    }

    /// Takes the peer's end; false if there was one already.
    pub(super) fn receive_end(&mut self) -> bool {
        let first = self.receiving != Receiving::Ended;
        if self.receiving == Receiving::Open {
            self.receiving = Receiving::Ended;
        }
        first
    }

    pub(super) fn receive_reset(&mut self) {
        self.receiving = Receiving::Reset;
        self.incoming = VecDeque::new();
        self.outgoing = VecDeque::new();
    }

    pub(super) fn discard_received(&mut self) {
        let length = self.incoming.len();
        self.incoming = VecDeque::new();
        self.consume(length);
    }

    /// Credit to give back to the peer, once it is worth a frame.
    pub(super) fn take_credit(&mut self, step: u32) -> Option<u32> {
        if self.consumed < step || self.receiving != Receiving::Open {
            return None;
        }
        self.allowance += self.consumed;
        Some(std::mem::take(&mut self.consumed))
    }

    fn consume(&mut self, length: usize) {
        self.consumed = self
            .consumed
            .saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
    }
}
