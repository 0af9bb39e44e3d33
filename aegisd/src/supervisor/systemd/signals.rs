//! What the manager reports: ended jobs and changed units.
//!
//! One task reads the bus and hands on; nobody else reads signals. It always
//! reads, because a stream that nobody reads blocks its whole connection.
//!
//! ```text
//!  PropertiesChanged(ActiveState) ──► last state of the unit ─┐
//!  JobRemoved(done) ── the unit is down now? ─────────────────┴─► Stopped
//!  UnitRemoved ───────► Gone
//!  Reloading(true) ─ UnitRemoved … UnitNew of each unit ─ Reloading(false) ► nothing is gone
//! ```
//!
//! systemd does not say why a unit went. It sends a unit's pending change before
//! the end of the job that caused it (`bus_job_send_removed_signal` in its
//! source), so a job that ended as done and left the unit down was a stop job.
//!
//! While the manager reads its units again it tells of each that it is removed and
//! new; what is not new again by the end is gone. The ends of jobs may be lost on
//! the way, so who waits for one is told to look ([`Signal::Reloaded`]). Another
//! manager behind the same name knows nothing of who listened to the one before.

use std::collections::{BTreeSet, HashMap};

use futures_util::StreamExt;
use tokio::sync::broadcast;
use zbus::message::{Message, Type};
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant};

use super::manager::Manager;
use crate::supervisor::error::JobEnd;
use crate::supervisor::{Change, UnitId};

/// A unit and how its job ended; `None` is done.
#[derive(Clone, Debug)]
pub(super) struct EndedJob {
    pub(super) job: OwnedObjectPath,
    pub(super) end: Option<JobEnd>,
    /// The unit that it stopped.
    pub(super) stopped: Option<UnitId>,
}

/// What the reading task hands on.
#[derive(Clone, Debug)]
pub(super) enum Signal {
    Job(EndedJob),
    Unit(Change),
    /// The manager has read its units again.
    Reloaded,
    /// The manager is another one.
    Replaced,
}

/// Signals kept for a slow reader before it is told that it missed some. A
/// thousand instances stopping at once send about this many.
const KEPT: usize = 4096;

const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const UNIT_NAMESPACE: &str = "/org/freedesktop/systemd1/unit";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const BUS: &str = "org.freedesktop.DBus";

/// Starts the reading task. It ends with the connection, and the receivers with it.
///
/// # Errors
/// The bus refused the match rules.
pub(super) async fn read(connection: &Connection) -> zbus::Result<broadcast::Receiver<Signal>> {
    // One stream of everything: the order of signals carries meaning, and two
    // streams would not keep it.
    let mut messages = MessageStream::from(connection);
    let rules = [
        MatchRule::builder()
            .interface("org.freedesktop.systemd1.Manager")
            .path(MANAGER_PATH),
        MatchRule::builder()
            .interface("org.freedesktop.DBus.Properties")
            .path_namespace(UNIT_NAMESPACE),
    ];
    let bus = zbus::fdo::DBusProxy::new(connection).await?;
    for rule in rules {
        bus.add_match_rule(rule.msg_type(Type::Signal).sender(SYSTEMD).build()?)
            .await?;
    }
    let owner = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(BUS)
        .interface(BUS)
        .member("NameOwnerChanged")
        .arg(0, SYSTEMD);
    bus.add_match_rule(owner.build()?).await?;
    let (sender, receiver) = broadcast::channel(KEPT);
    let connection = connection.clone();
    tokio::spawn(async move {
        let mut history = History::default();
        while let Some(message) = messages.next().await {
            let Ok(message) = message else { break };
            for signal in history.read(&message) {
                if matches!(signal, Signal::Replaced) {
                    // In a task of its own: an answer is a message too.
                    tokio::spawn(subscribe_again(connection.clone(), sender.clone()));
                } else {
                    // No receiver is no reason to stop: one may come.
                    drop(sender.send(signal));
                }
            }
        }
    });
    Ok(receiver)
}

/// Asks a new manager for its signals, and only then has everybody look: what
/// happens after their look is told.
async fn subscribe_again(connection: Connection, sender: broadcast::Sender<Signal>) {
    let subscribed = async { Manager::new(&connection).await?.subscribe().await };
    if let Err(error) = subscribed.await {
        tracing::warn!("the new service manager does not tell of changes: {error}, ignoring");
    }
    drop(sender.send(Signal::Replaced));
}

/// What must be remembered to tell why a unit is down.
#[derive(Debug, Default)]
struct History {
    /// Units whose last known state is an end.
    down: BTreeSet<UnitId>,
    /// While the manager reads its units again: those not yet read.
    unread: Option<BTreeSet<UnitId>>,
}

impl History {
    fn read(&mut self, message: &Message) -> Vec<Signal> {
        if message.message_type() != Type::Signal {
            return Vec::new();
        }
        if message
            .header()
            .member()
            .is_some_and(|member| member == "Reloading")
        {
            let begins: Result<bool, _> = message.body().deserialize();
            return begins.map_or_else(|_| Vec::new(), |begins| self.reloading(begins));
        }
        self.read_one(message).into_iter().collect()
    }

    fn reloading(&mut self, begins: bool) -> Vec<Signal> {
        if begins {
            self.unread.get_or_insert_default();
            return Vec::new();
        }
        let lost = self.unread.take().unwrap_or_default();
        let gone = lost
            .into_iter()
            .map(|unit| Signal::Unit(self.removed(unit)));
        let mut signals: Vec<Signal> = gone.collect();
        signals.push(Signal::Reloaded);
        signals
    }

    fn read_one(&mut self, message: &Message) -> Option<Signal> {
        let header = message.header();
        match header.member()?.as_str() {
            "JobRemoved" => {
                let (_, job, unit, result): (u32, OwnedObjectPath, String, String) =
                    message.body().deserialize().ok()?;
                let end = job_end(&result);
                let stopped =
                    UnitId::parse(&unit).filter(|unit| end.is_none() && self.down.contains(unit));
                Some(Signal::Job(EndedJob { job, end, stopped }))
            }
            "UnitNew" => {
                let (unit, _): (String, OwnedObjectPath) = message.body().deserialize().ok()?;
                let unit = UnitId::parse(&unit)?;
                if let Some(unread) = &mut self.unread {
                    unread.remove(&unit);
                }
                Some(Signal::Unit(Change::Changed(unit)))
            }
            "UnitRemoved" => {
                let (unit, _): (String, OwnedObjectPath) = message.body().deserialize().ok()?;
                let unit = UnitId::parse(&unit)?;
                if let Some(unread) = &mut self.unread {
                    unread.insert(unit);
                    return None;
                }
                Some(Signal::Unit(self.removed(unit)))
            }
            "NameOwnerChanged" => {
                let (_, _, new): (String, String, String) = message.body().deserialize().ok()?;
                self.unread = None;
                (!new.is_empty()).then_some(Signal::Replaced)
            }
            "PropertiesChanged" => {
                let unit = UnitId::parse(&unit_name(header.path()?.as_str())?)?;
                let (_, changed, _): (String, HashMap<String, OwnedVariant>, Vec<String>) =
                    message.body().deserialize().ok()?;
                if let Some(state) = changed.get("ActiveState") {
                    self.state_changed(&unit, <&str>::try_from(state).ok()?);
                }
                Some(Signal::Unit(Change::Changed(unit)))
            }
            _ => None,
        }
    }

    fn removed(&mut self, unit: UnitId) -> Change {
        self.down.remove(&unit);
        Change::Gone(unit)
    }

    fn state_changed(&mut self, unit: &UnitId, state: &str) {
        if matches!(state, "inactive" | "failed") {
            self.down.insert(unit.clone());
        } else {
            self.down.remove(unit);
        }
    }
}

/// The meaning of `JobRemoved`'s result; `None` is done.
fn job_end(result: &str) -> Option<JobEnd> {
    match result {
        "done" => None,
        "canceled" => Some(JobEnd::Canceled),
        "timeout" => Some(JobEnd::Timeout),
        "dependency" => Some(JobEnd::Dependency),
        "skipped" => Some(JobEnd::Skipped),
        _ => Some(JobEnd::Failed),
    }
}

/// The unit of an object path: the last part with `_XX` for bytes that are
/// neither letters nor digits (`bus_label_escape` in systemd's source).
fn unit_name(path: &str) -> Option<String> {
    let label = path.strip_prefix(UNIT_NAMESPACE)?.strip_prefix('/')?;
    let mut bytes = label.bytes();
    let mut name = Vec::with_capacity(label.len());
    while let Some(byte) = bytes.next() {
        if byte != b'_' {
            name.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        name.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit() -> UnitId {
        UnitId::daemon(&"web".parse().unwrap(), "gateway")
    }

    #[test]
    fn object_paths_name_units() {
        let path = "/org/freedesktop/systemd1/unit/aegis_2dkit_2dmy_2dagent_3agateway_2eservice";
        assert_eq!(
            unit_name(path).unwrap(),
            "aegis-kit-my-agent:gateway.service"
        );
        for path in [
            "/org/freedesktop/systemd1/unit/a_2",
            "/org/freedesktop/systemd1/job/1",
            "/",
        ] {
            assert_eq!(unit_name(path), None, "{path}");
        }
    }

    fn ended_job(history: &mut History, result: &str) -> EndedJob {
        let job = zbus::ObjectPath::try_from("/org/freedesktop/systemd1/job/7").unwrap();
        let message = Message::signal(
            MANAGER_PATH,
            "org.freedesktop.systemd1.Manager",
            "JobRemoved",
        )
        .build(&(7u32, job, unit().name(), result))
        .unwrap();
        match history.read(&message).pop() {
            Some(Signal::Job(ended)) => ended,
            other => panic!("not a job: {other:?}"),
        }
    }

    #[test]
    fn a_job_that_left_the_unit_down_stopped_it() {
        let mut history = History::default();
        history.state_changed(&unit(), "active");
        assert_eq!(ended_job(&mut history, "done").stopped, None, "a start");
        history.state_changed(&unit(), "deactivating");
        history.state_changed(&unit(), "inactive");
        assert_eq!(ended_job(&mut history, "done").stopped, Some(unit()));
    }

    #[test]
    fn a_job_that_failed_stopped_nothing() {
        let mut history = History::default();
        history.state_changed(&unit(), "failed");
        assert_eq!(ended_job(&mut history, "failed").stopped, None);
    }

    #[test]
    fn a_reload_removes_nothing_that_is_new_again() {
        let manager = |member: &'static str| {
            Message::signal(MANAGER_PATH, "org.freedesktop.systemd1.Manager", member)
        };
        let told = |member: &'static str, unit: &UnitId| {
            let object = OwnedObjectPath::try_from("/").unwrap();
            manager(member).build(&(unit.name(), object)).unwrap()
        };
        let other = UnitId::vm(&"other".parse().unwrap());
        let mut history = History::default();
        history.state_changed(&unit(), "inactive");
        let reloading = |begins: bool| manager("Reloading").build(&begins).unwrap();
        assert!(history.read(&reloading(true)).is_empty());
        assert!(history.read(&told("UnitRemoved", &unit())).is_empty());
        assert!(history.read(&told("UnitRemoved", &other)).is_empty());
        let new = history.read(&told("UnitNew", &unit()));
        assert!(
            matches!(&new[..], [Signal::Unit(Change::Changed(_))]),
            "{new:?}"
        );
        let end = history.read(&reloading(false));
        assert!(
            matches!(&end[..], [Signal::Unit(Change::Gone(gone)), Signal::Reloaded] if *gone == other),
            "{end:?}"
        );
        assert_eq!(ended_job(&mut history, "done").stopped, Some(unit()));
    }

    #[test]
    fn a_unit_nobody_saw_go_down_was_not_stopped() {
        assert_eq!(ended_job(&mut History::default(), "done").stopped, None);
    }
}
