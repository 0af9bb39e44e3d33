//! Use that goes on while something happens: connections with traffic, an exec that tells
//! without end, and messages to the guest one after another. Nothing of it may be lost.
//!
//! ```text
//!  connections ─ a line, and it comes back ─┐
//!  exec ──────── the next number ───────────┼─► so far, each counted; the first error ends it
//!  messages ──── one more is sent ──────────┘
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::instance::{DEADLINE, Instance};
use crate::seat::Seat;
use crate::session::Session;
use crate::wait::wait_until;

/// How many connections an instance has at once.
const CONNECTIONS: usize = 4;

/// What goes on.
#[derive(Debug)]
pub struct Load<'scope> {
    ended: Arc<AtomicBool>,
    users: Vec<User<'scope>>,
}

/// One of those who use an instance.
#[derive(Debug)]
struct User<'scope> {
    what: String,
    count: Arc<AtomicUsize>,
    works: ScopedJoinHandle<'scope, Result<()>>,
}

impl<'scope> Load<'scope> {
    /// Begins to use an instance of the kit `echoing` whose guest gives back each line at
    /// this port of the host.
    ///
    /// # Errors
    /// The exec or a connection cannot be opened.
    pub fn begin<'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        seat: Seat<'scope>,
        handle: &'scope str,
        port: u16,
    ) -> Result<Self> {
        let mut load = Self {
            ended: Arc::default(),
            users: Vec::new(),
        };
        for number in 0..CONNECTIONS {
            let mut line = Session::start(seat, &format!("socat - TCP:127.0.0.1:{port}"))?;
            load.add(
                scope,
                format!("connection {number} of {handle}"),
                move |count| {
                    let text = format!("{number}-{count}");
                    line.write(format!("{text}\n").as_bytes())?;
                    let back = line.line()?;
                    ensure!(back == text, "{back:?} came back for {text:?}");
                    Ok(())
                },
            );
        }
        let tells = "i=0; while :; do echo $i; i=$((i + 1)); sleep 0.05; done";
        let mut exec = Session::start(seat, &format!("aegisctl exec {handle} -- sh -c '{tells}'"))?;
        load.add(scope, format!("an exec in {handle}"), move |count| {
            let line = exec.line()?;
            ensure!(
                line == count.to_string(),
                "{line:?} was told in place of {count}"
            );
            Ok(())
        });
        load.add(scope, format!("messages to {handle}"), move |count| {
            // Whose word is lost while aegisd is another one sends it again: its id is known.
            let send = format!("tether send --msg-id load-{count} {handle} load-{count}");
            wait_until(DEADLINE, "a message to be taken", || {
                Ok(seat.aegis(&send)?.code() == 0)
            })
        });
        Ok(load)
    }

    fn add<'env: 'scope>(
        &mut self,
        scope: &'scope Scope<'scope, 'env>,
        what: String,
        mut step: impl FnMut(usize) -> Result<()> + Send + 'scope,
    ) {
        let (ended, count) = (Arc::clone(&self.ended), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&count);
        let works = scope.spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                step(counted.load(Ordering::Relaxed))?;
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        self.users.push(User { what, count, works });
    }

    /// Waits until each user has got on since now.
    ///
    /// # Errors
    /// One has not: its own error is that of [`Load::end`].
    pub fn gets_on(&self) -> Result<()> {
        for user in &self.users {
            let before = user.count.load(Ordering::Relaxed);
            wait_until(DEADLINE, &format!("{} to get on", user.what), || {
                ensure!(!user.works.is_finished(), "it has ended");
                Ok(user.count.load(Ordering::Relaxed) > before)
            })?;
        }
        Ok(())
    }

    /// Ends it, and gives how often each got on.
    ///
    /// # Errors
    /// Something was lost, or came twice.
    pub fn end(self) -> Result<Vec<(String, usize)>> {
        self.ended.store(true, Ordering::Relaxed);
        let mut counts = Vec::new();
        for User { what, count, works } in self.users {
            match works.join() {
                Ok(result) => result.with_context(|| what.clone())?,
                Err(_) => bail!("{what} panicked"),
            }
            counts.push((what, count.load(Ordering::Relaxed)));
        }
        Ok(counts)
    }
}

/// Each message that was sent is told as taken, was taken by the guest in order, and has an
/// answer.
///
/// # Errors
/// One is missing.
pub fn no_message_is_lost(seat: Seat<'_>, instance: &Instance<'_>) -> Result<()> {
    let handle = instance.handle();
    let kept = |kind: &str, key: &str| -> Result<Vec<String>> {
        let read = format!("--json tether read {handle} --type {kind}");
        let read: Value = serde_json::from_str(&seat.aegis_ok(&read)?)?;
        let frames = read["frames"].as_array().context("frames")?;
        let word = |frame: &Value| frame[key].as_str().unwrap_or_default().to_owned();
        Ok(frames.iter().map(word).collect())
    };
    let sent = kept("user.message", "msg_id")?;
    for (kind, what) in [("event.ack", "taken"), ("assistant.done", "answered")] {
        wait_until(DEADLINE, &format!("every message to be {what}"), || {
            Ok(kept(kind, "msg_id")?.len() >= sent.len())
        })
        .with_context(|| format!("{} messages were sent", sent.len()))?;
    }
    ensure!(kept("event.ack", "msg_id")? == sent, "{sent:?} were sent");
    let taken = instance.exec_ok("cat /var/taken")?;
    let mut taken: Vec<&str> = taken.lines().collect();
    // One whose word was lost comes again, at once.
    taken.dedup();
    ensure!(taken == sent, "sent {sent:?}, taken {taken:?}");
    Ok(())
}
