//! Who is told of changes in the system mode.
//!
//! A signal to everybody would tell each user of the instances of the others. So each
//! connection that called, and was let in, is told by itself, as long as it is on the
//! bus. Names of connections are never given twice (D-Bus specification, "Unique
//! Connection Name"), so what is known of one stays true.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use zbus::names::{OwnedUniqueName, UniqueName};
use zbus::{Connection, fdo};

use crate::caller::Sees;

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listener {
    pub(super) uid: u32,
    /// Whether it has the group of those who use the system mode.
    pub(super) is_member: bool,
    pub(super) sees: Sees,
    /// Whether it is told of changes: since a call of its was let in.
    pub(super) is_told: bool,
}

/// See the module. `None` while the bus is asked about a connection.
#[derive(Debug, Default)]
pub(super) struct Listeners(Mutex<BTreeMap<OwnedUniqueName, Option<Listener>>>);

/// A connection that called and of which nothing is known yet.
#[derive(Debug)]
pub(super) struct Coming<'a> {
    listeners: &'a Listeners,
    name: OwnedUniqueName,
}

impl Listeners {
    fn all(&self) -> MutexGuard<'_, BTreeMap<OwnedUniqueName, Option<Listener>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, name: &UniqueName<'_>) -> Option<Listener> {
        let name = OwnedUniqueName::from(name.to_owned());
        self.all().get(&name).copied().flatten()
    }

    /// Makes room for a connection before the bus is asked about it: one that leaves
    /// meanwhile takes its room along.
    pub(super) fn expect(&self, name: &UniqueName<'_>) -> Coming<'_> {
        let name = OwnedUniqueName::from(name.to_owned());
        self.all().entry(name.clone()).or_default();
        Coming {
            listeners: self,
            name,
        }
    }

    /// From now on it is told of changes.
    pub(super) fn tell(&self, name: &UniqueName<'_>) {
        let name = OwnedUniqueName::from(name.to_owned());
        if let Some(Some(listener)) = self.all().get_mut(&name) {
            listener.is_told = true;
        }
    }

    /// All that are known, but root.
    pub(super) fn users(&self) -> Vec<(UniqueName<'static>, u32)> {
        let all = self.all();
        let users = all.iter().filter_map(|(name, listener)| {
            let listener = listener.filter(|listener| listener.uid != 0)?;
            Some((name.to_owned().into(), listener.uid))
        });
        users.collect()
    }

    /// There is another part of everything for this connection from now on.
    pub(super) fn sees(&self, name: &UniqueName<'_>, sees: Sees) {
        let name = OwnedUniqueName::from(name.to_owned());
        if let Some(Some(listener)) = self.all().get_mut(&name) {
            listener.sees = sees;
        }
    }

    /// Those who are told and for whom something of this user is there, or all of them.
    pub(super) fn who_sees(&self, owner: Option<u32>) -> Vec<UniqueName<'static>> {
        let all = self.all();
        let told = all.iter().filter(|(_, listener)| {
            let sees = |sees: Sees| owner.is_none_or(|uid| sees.is_there(uid));
            listener.is_some_and(|listener| listener.is_told && sees(listener.sees))
        });
        told.map(|(name, _)| name.to_owned().into()).collect()
    }

    /// Forgets those who leave, until the connection ends.
    pub(super) async fn watch(&self, connection: &Connection) -> zbus::Result<()> {
        let bus = fdo::DBusProxy::new(connection).await?;
        // The new owner of a name that is gone is the empty one.
        let mut gone = bus.receive_name_owner_changed_with_args(&[(2, "")]).await?;
        while let Some(change) = gone.next().await {
            if let zbus::names::BusName::Unique(name) = change.args()?.name() {
                self.all().remove(&OwnedUniqueName::from(name.to_owned()));
            }
        }
        Ok(())
    }
}

impl Coming<'_> {
    /// It is known now.
    pub(super) fn arrived(self, listener: Listener) {
        if let Some(place) = self.listeners.all().get_mut(&self.name) {
            *place = Some(listener);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> UniqueName<'_> {
        text.try_into().unwrap()
    }

    fn user(uid: u32) -> Listener {
        let sees = if uid == 0 { Sees::All } else { Sees::Own(uid) };
        Listener {
            uid,
            is_member: true,
            sees,
            is_told: false,
        }
    }

    #[test]
    fn each_is_told_of_what_is_there_for_them() {
        let listeners = Listeners::default();
        for (text, uid) in [(":1.1", 0), (":1.2", 1000), (":1.3", 1001)] {
            listeners.expect(&name(text)).arrived(user(uid));
            assert!(!listeners.who_sees(None).contains(&name(text)));
            listeners.tell(&name(text));
        }
        assert_eq!(listeners.who_sees(Some(1000)), [name(":1.1"), name(":1.2")]);
        assert_eq!(listeners.who_sees(Some(0)), [name(":1.1")]);
        assert_eq!(listeners.who_sees(None).len(), 3);
        assert_eq!(listeners.get(&name(":1.3")).unwrap().uid, 1001);
        assert!(listeners.get(&name(":1.4")).is_none());
    }

    #[test]
    fn who_leaves_while_the_bus_is_asked_is_not_kept() {
        let listeners = Listeners::default();
        let coming = listeners.expect(&name(":1.1"));
        assert!(listeners.who_sees(None).is_empty());
        listeners.all().clear();
        coming.arrived(user(1000));
        assert!(listeners.get(&name(":1.1")).is_none());
    }
}
