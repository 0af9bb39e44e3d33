//! What is known of aegisd's objects, and what a change of it means.

use std::collections::{BTreeMap, HashMap};

use aegis_bus::dict::Dict;
use aegis_bus::names;
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::failure::Failure;

/// Every kind of event.
pub(super) const WORDS: [&str; 6] = ["created", "deleted", "changed", "state", "started", "ended"];

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Kind {
    Instance,
    Kit,
    Aegisd,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Kit => "kit",
            Self::Aegisd => "aegisd",
        }
    }

    fn interface(self) -> Option<&'static str> {
        match self {
            Self::Instance => Some(names::INSTANCE),
            Self::Kit => Some(names::KIT),
            Self::Aegisd => None,
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// One of [`WORDS`].
    pub(super) word: &'static str,
    /// Properties by name: what they are now.
    pub(super) changes: Map<String, Value>,
    /// The state before, where the state changed.
    pub(super) before: Option<String>,
}

impl Event {
    /// aegisd started or ended.
    pub(super) fn of_aegisd(word: &'static str) -> Self {
        Self {
            kind: Kind::Aegisd,
            name: "aegisd".to_owned(),
            word,
            changes: Map::new(),
            before: None,
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "type": self.kind.word(),
            "name": self.name,
            "event": self.word,
            "state": self.changes.get("State"),
            "state_before": self.before,
            "changes": self.changes,
        })
    }

    /// What changed, for people.
    pub(super) fn words(&self) -> String {
        let text = |name: &str| self.changes.get(name).and_then(Value::as_str).unwrap_or("");
        match (self.word, &self.before) {
            ("state", Some(before)) => {
                let reason = match text("StateReason") {
                    "" => String::new(),
                    reason => format!(" ({reason})"),
                };
                format!("{before} -> {}{reason}", text("State"))
            }
            ("created", _) => text("State").to_owned(),
            ("changed", _) => {
                let names: Vec<&str> = self.changes.keys().map(String::as_str).collect();
                names.join(", ")
            }
            _ => String::new(),
        }
    }
}

/// The objects as they were last told, as JSON.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<(Kind, String), Map<String, Value>>);

impl Known {
    /// Takes in all objects there are; what is other than known is an event.
    pub(super) async fn look(&mut self, client: &Client) -> Result<Vec<Event>, Failure> {
        let what = "look at the instances";
        let manager = client.object_manager().await.map_err(Failure::call(what))?;
        let objects = manager.get_managed_objects().await;
        let objects = objects.map_err(|error| Failure::call(what)(error.into()))?;
        let mut found = BTreeMap::new();
        for (path, interfaces) in objects {
            for (interface, properties) in interfaces {
                if let Some(key) = key(path.as_str(), interface.as_str()) {
                    found.insert(key, to_map(properties));
                }
            }
        }
        let mut events = Vec::new();
        for key in self.0.keys().filter(|key| !found.contains_key(*key)) {
            events.push(event(key, "deleted", Map::new(), None));
        }
        for (key, now) in &found {
            match self.0.get(key) {
                None => events.push(event(key, "created", now.clone(), None)),
                Some(before) => events.extend(compare(key, before, now.clone())),
            }
        }
        self.0 = found;
        Ok(events)
    }

    pub(super) fn added(
        &mut self,
        path: &str,
        interfaces: &mut HashMap<String, Dict>,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        for (interface, properties) in interfaces.drain() {
            let Some(key) = key(path, &interface) else {
                continue;
            };
            let now = to_map(properties);
            match self.0.insert(key.clone(), now.clone()) {
                None => events.push(event(&key, "created", now, None)),
                // A new aegisd tells of everything it finds.
                Some(before) => events.extend(compare(&key, &before, now)),
            }
        }
        events
    }

    pub(super) fn removed(&mut self, path: &str, interfaces: &[String]) -> Vec<Event> {
        let keys = interfaces
            .iter()
            .filter_map(|interface| key(path, interface));
        let gone = keys.filter(|key| self.0.remove(key).is_some());
        gone.map(|key| event(&key, "deleted", Map::new(), None))
            .collect()
    }

    pub(super) fn changed(&mut self, path: &str, interface: &str, changed: Dict) -> Vec<Event> {
        let Some(key) = key(path, interface) else {
            return Vec::new();
        };
        let known = self.0.entry(key.clone()).or_default();
        let before = known.clone();
        known.extend(to_map(changed));
        let now = known.clone();
        compare(&key, &before, now).into_iter().collect()
    }
}

/// An event, if anything is other than before.
fn compare(
    key: &(Kind, String),
    before: &Map<String, Value>,
    mut now: Map<String, Value>,
) -> Option<Event> {
    now.retain(|name, value| before.get(name) != Some(value));
    if now.is_empty() {
        return None;
    }
    let old = before
        .get("State")
        .and_then(Value::as_str)
        .unwrap_or_default();
    match now.contains_key("State") {
        true => Some(event(key, "state", now, Some(old.to_owned()))),
        false => Some(event(key, "changed", now, None)),
    }
}

fn event(
    (kind, name): &(Kind, String),
    word: &'static str,
    changes: Map<String, Value>,
    before: Option<String>,
) -> Event {
    Event {
        kind: *kind,
        name: name.clone(),
        word,
        changes,
        before,
    }
}

fn key(path: &str, interface: &str) -> Option<(Kind, String)> {
    let kind = [Kind::Instance, Kind::Kit]
        .into_iter()
        .find(|kind| kind.interface() == Some(interface))?;
    let name = match kind {
        Kind::Instance => names::instance_of(path)?.to_string(),
        Kind::Kit => names::kit_of(path)?,
        Kind::Aegisd => return None,
    };
    Some((kind, name))
}

fn to_map(properties: Dict) -> Map<String, Value> {
    let entries = properties
        .into_iter()
        .map(|(name, value)| (name, to_json(&value)));
    entries.collect()
}

/// A D-Bus value as JSON.
fn to_json(value: &zbus::Variant<'_>) -> Value {
    use zbus::Variant as V;
    match value {
        V::U8(number) => (*number).into(),
        V::Bool(flag) => (*flag).into(),
        V::I16(number) => (*number).into(),
        V::U16(number) => (*number).into(),
        V::I32(number) => (*number).into(),
        V::U32(number) => (*number).into(),
        V::I64(number) => (*number).into(),
        V::U64(number) => (*number).into(),
        V::F64(number) => (*number).into(),
        V::Str(text) => text.as_str().into(),
        V::Variant(inner) => to_json(inner),
        V::Array(items) => items.iter().map(to_json).collect(),
        V::Dict(entries) => {
            let entries = entries.iter().map(|(key, value)| {
                let key = match to_json(key) {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                (key, to_json(value))
            });
            Value::Object(entries.collect())
        }
        V::Structure(fields) => fields.fields().iter().map(to_json).collect(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use aegis_bus::dict::put;

    use super::*;

    const WEB: &str = "/org/aegisvm/Aegis1/instance/web";

    fn dict(state: &str) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "State", state);
        put(&mut dict, "Execs", 0u32);
        dict
    }

    fn add(known: &mut Known, state: &str) -> Vec<Event> {
        let mut interfaces = HashMap::from([(names::INSTANCE.to_owned(), dict(state))]);
        known.added(WEB, &mut interfaces)
    }

    #[test]
    fn a_life_is_told_once() {
        let mut known = Known::default();
        let words = |events: &[Event]| events.iter().map(|event| event.word).collect::<Vec<_>>();
        assert_eq!(words(&add(&mut known, "stopped")), ["created"]);
        assert!(
            add(&mut known, "stopped").is_empty(),
            "a new aegisd tells it again"
        );
        let events = known.changed(WEB, names::INSTANCE, dict("running"));
        assert_eq!(words(&events), ["state"]);
        assert_eq!(events[0].words(), "stopped -> running");
        assert_eq!(events[0].changes.len(), 1);
        let mut execs = Dict::new();
        put(&mut execs, "Execs", 2u32);
        let events = known.changed(WEB, names::INSTANCE, execs);
        assert_eq!(
            (words(&events), events[0].words()),
            (vec!["changed"], "Execs".into())
        );
        let gone = known.removed(WEB, &[names::INSTANCE.to_owned()]);
        assert_eq!(words(&gone), ["deleted"]);
        assert!(known.removed(WEB, &[names::INSTANCE.to_owned()]).is_empty());
    }

    #[test]
    fn dictionaries_become_objects() {
        let mut inner = Dict::new();
        put(&mut inner, "code", 3);
        let mut outer = Dict::new();
        put(&mut outer, "LastExit", inner);
        put(&mut outer, "Ports", vec!["1:2"]);
        let map = to_map(outer);
        assert_eq!(map["LastExit"], json!({"code": 3}));
        assert_eq!(map["Ports"], json!(["1:2"]));
    }
}
