//! Who uses the VM, and whether new connections are let in.
//!
//! Every exec and every connection on an exposed port is a visit, from the moment
//! it was accepted to its end. Accepting a connection and deciding that nobody
//! needs the VM any more exclude each other: both happen under one lock. So the
//! owner cannot end with a connection that was accepted and not served, and a
//! connection that was not accepted stays in the kernel's queue, where the next
//! VM (or the service manager) finds it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, ready};

use tokio::sync::{Notify, watch};

/// Counts visits and holds the gate of the exposed ports.
#[derive(Debug, Default)]
pub struct Doorway {
    visits: Mutex<Visits>,
    changed: Notify,
    gate: watch::Sender<Gate>,
}

/// What the doorway knows, at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visits {
    /// Exec sessions, those that wait for the guest included.
    pub execs: u32,
    /// Connections on exposed ports, those that wait for the guest included.
    pub connections: u32,
    /// Clients on the command's terminal, those that wait for it included.
    pub attached: u32,
    /// Who looks at the guest's processes or signals one.
    pub looks: u32,
    /// Messages on their way to a program, those that wait for it included.
    pub messages: u32,
    /// Requests of the guest's programs to the API of their instance.
    pub requests: u32,
    /// Whether there ever was an exec.
    pub exec_seen: bool,
}

impl Visits {
    /// Whether nobody is there.
    pub fn nobody(&self) -> bool {
        let all = [
            self.execs,
            self.connections,
            self.attached,
            self.looks,
            self.messages,
            self.requests,
        ];
        all == [0; 6]
    }
}

/// Whether connections are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    #[default]
    Open,
    /// They wait in the kernel's queue.
    Closed,
}

/// What a visitor wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Exec,
    Attach,
    Connection,
    Look,
    Message,
    Request,
}

/// One use of the VM; it ends when this is dropped.
#[derive(Debug)]
pub struct Visit {
    doorway: Arc<Doorway>,
    purpose: Purpose,
}

impl Doorway {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn visits(&self) -> Visits {
        *self.lock()
    }

    /// Resolves after the visits have changed. One waiter: the owner.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// An exec begins.
    pub fn enter_exec(self: &Arc<Self>) -> Visit {
        let mut visits = self.lock();
        visits.execs += 1;
        visits.exec_seen = true;
        drop(visits);
        self.visit(Purpose::Exec)
    }

    /// A client comes to the command's terminal.
    pub fn enter_terminal(self: &Arc<Self>) -> Visit {
        self.lock().attached += 1;
        self.visit(Purpose::Attach)
    }

    /// Somebody looks at the guest.
    pub fn enter_look(self: &Arc<Self>) -> Visit {
        self.lock().looks += 1;
        self.visit(Purpose::Look)
    }

    /// A message is brought.
    pub fn enter_message(self: &Arc<Self>) -> Visit {
        self.lock().messages += 1;
        self.visit(Purpose::Message)
    }

    /// A program in the guest asks for something.
    pub fn enter_request(self: &Arc<Self>) -> Visit {
        self.lock().requests += 1;
        self.visit(Purpose::Request)
    }

    /// Accepts a connection by `accept`, unless the gate is closed (`None`).
    pub fn poll_accept<T>(
        self: &Arc<Self>,
        accept: impl FnOnce() -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<Option<(T, Visit)>>> {
        let mut visits = self.lock();
        if *self.gate.borrow() == Gate::Closed {
            return Poll::Ready(Ok(None));
        }
        let accepted = ready!(accept())?;
        visits.connections += 1;
        drop(visits);
        Poll::Ready(Ok(Some((accepted, self.visit(Purpose::Connection)))))
    }

    /// Closes the gate if nobody is there and `queue_is_empty`; says whether it did.
    pub fn close_if_idle(&self, queue_is_empty: impl FnOnce() -> bool) -> bool {
        let visits = self.lock();
        let idle = visits.nobody() && queue_is_empty();
        if idle {
            self.gate.send_replace(Gate::Closed);
        }
        idle
    }

    /// Lets no more connections in.
    pub fn close(&self) {
        let _exclusive = self.lock();
        self.gate.send_replace(Gate::Closed);
    }

    pub fn open(&self) {
        let _exclusive = self.lock();
        self.gate.send_replace(Gate::Open);
    }

    /// Follows the gate.
    pub fn gate(&self) -> watch::Receiver<Gate> {
        self.gate.subscribe()
    }

    fn visit(self: &Arc<Self>, purpose: Purpose) -> Visit {
        self.changed.notify_one();
        Visit {
            doorway: Arc::clone(self),
            purpose,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Visits> {
        // The counts stay true even where a holder panicked.
        self.visits
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut visits = self.doorway.lock();
        match self.purpose {
            Purpose::Exec => visits.execs -= 1,
            Purpose::Attach => visits.attached -= 1,
            Purpose::Connection => visits.connections -= 1,
            Purpose::Look => visits.looks -= 1,
            Purpose::Message => visits.messages -= 1,
            Purpose::Request => visits.requests -= 1,
        }
        drop(visits);
        self.doorway.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_keeps_the_gate_open_and_a_closed_gate_accepts_nothing() {
        let doorway = Doorway::new();
        let accept = || match doorway.poll_accept(|| Poll::Ready(Ok(()))) {
            Poll::Ready(Ok(accepted)) => accepted,
            other => panic!("{other:?}"),
        };
        let exec = doorway.enter_exec();
        assert!(!doorway.close_if_idle(|| true));
        drop(exec);
        assert!(!doorway.close_if_idle(|| false));
        let connection = accept().unwrap();
        assert_eq!(doorway.visits().connections, 1);
        assert!(!doorway.close_if_idle(|| true));
        drop(connection);
        assert!(doorway.close_if_idle(|| true));
        assert!(accept().is_none());
        doorway.open();
        assert!(accept().is_some());
        assert!(doorway.visits().exec_seen);
    }
}
