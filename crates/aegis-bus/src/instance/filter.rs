//! Which instances are meant: `KEY=VALUE` as podman and Docker filter.
//!
//! | key | matches |
//! |---|---|
//! | `name` | handles that hold the value; with `*` or `?` it is a pattern for the whole |
//! | `state` | the state, e.g. `running` |
//! | `kit` | the kit's name; an empty value: no kit |
//! | `enabled` | `true` or `false` |
//! | `label` | `KEY`: there is such a label; `KEY=VALUE`: with this value |
//! | `label!` | (written `label!=KEY` or `label!=KEY=VALUE`) not so |
//!
//! Values of one key are alternatives, except labels, which must all match;
//! different keys must all match.

use std::fmt;
use std::str::FromStr;

use aegis_core::state::{InstanceState, UnknownState};

use crate::instance::InstanceView;

const KEYS: &str = "name, state, kit, enabled, label and label!";

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    key: Key,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Name,
    State,
    Kit,
    Enabled,
    Label,
    NotLabel,
}

/// Why a condition is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("the filter '{0}' is not KEY=VALUE; known keys are {KEYS}")]
    Shape(String),
    #[error("there is no filter '{0}'; known are {KEYS}")]
    Key(String),
    #[error("the filter 'enabled' is true or false, not '{0}'")]
    Enabled(String),
    #[error(transparent)]
    State(#[from] UnknownState),
    #[error("the filter '{0}' names no label")]
    Label(String),
}

impl FromStr for Condition {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let shape = || FilterError::Shape(text.to_owned());
        let (key, value) = text.split_once('=').ok_or_else(shape)?;
        let key = match key {
            "name" | "handle" => Key::Name,
            "state" | "status" => Key::State,
            "kit" => Key::Kit,
            "enabled" => Key::Enabled,
            "label" => Key::Label,
            "label!" => Key::NotLabel,
            other => return Err(FilterError::Key(other.to_owned())),
        };
        let value = value.to_owned();
        match key {
            Key::Enabled if !matches!(value.as_str(), "true" | "false") => {
                Err(FilterError::Enabled(value))
            }
            Key::State => {
                value.parse::<InstanceState>()?;
                Ok(Self { key, value })
            }
            Key::Label | Key::NotLabel if value.is_empty() || value.starts_with('=') => {
                Err(FilterError::Label(text.to_owned()))
            }
            key => Ok(Self { key, value }),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match self.key {
            Key::Name => "name",
            Key::State => "state",
            Key::Kit => "kit",
            Key::Enabled => "enabled",
            Key::Label => "label",
            Key::NotLabel => "label!",
        };
        write!(f, "{key}={}", self.value)
    }
}

impl Condition {
    fn holds(&self, view: &InstanceView) -> bool {
        let value = self.value.as_str();
        match self.key {
            Key::Name if value.contains(['*', '?']) => {
                matches_pattern(value.as_bytes(), view.handle.as_bytes())
            }
            Key::Name => view.handle.contains(value),
            Key::State => view.state == value,
            Key::Kit => view.kit == value,
            Key::Enabled => view.enabled == (value == "true"),
            Key::Label => has_label(view, value),
            Key::NotLabel => !has_label(view, value),
        }
    }
}

/// Whether an instance is meant by a set of conditions; all are, by none.
pub fn matches(conditions: &[Condition], view: &InstanceView) -> bool {
    conditions.iter().all(|condition| match condition.key {
        Key::Label | Key::NotLabel => condition.holds(view),
        key => conditions
            .iter()
            .any(|other| other.key == key && other.holds(view)),
    })
}

fn has_label(view: &InstanceView, wanted: &str) -> bool {
    match wanted.split_once('=') {
        None => view.labels.contains_key(wanted),
        Some((key, value)) => view.labels.get(key).is_some_and(|found| found == value),
    }
}

/// `*` stands for any text, `?` for one byte.
fn matches_pattern(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches_pattern(rest, text)
                || (!text.is_empty() && matches_pattern(pattern, &text[1..]))
        }
        (Some((b'?', rest)), Some((_, text))) => matches_pattern(rest, text),
        (Some((byte, rest)), Some((found, text))) => byte == found && matches_pattern(rest, text),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::dict::{Dict, put};

    use super::*;

    fn view() -> InstanceView {
        let mut dict = Dict::new();
        put(&mut dict, "Handle", "web-1");
        put(&mut dict, "State", "running");
        put(&mut dict, "Enabled", true);
        put(&mut dict, "Kit", "agent");
        let labels = std::collections::BTreeMap::from([("team", "a"), ("canary", "")]);
        put(&mut dict, "Labels", labels);
        InstanceView::from_properties(dict).unwrap()
    }

    fn meant(conditions: &[&str]) -> bool {
        let conditions: Vec<Condition> = conditions
            .iter()
            .map(|condition| condition.parse().unwrap())
            .collect();
        matches(&conditions, &view())
    }

    #[test]
    fn every_key_matches_what_it_is_about() {
        for yes in [
            "name=web",
            "name=w*1",
            "name=web-?",
            "state=running",
            "kit=agent",
            "enabled=true",
            "label=team",
            "label=team=a",
            "label=canary=",
            "label!=other",
            "label!=team=b",
        ] {
            assert!(meant(&[yes]), "{yes}");
        }
        for no in [
            "name=db",
            "name=w*2",
            "name=web?",
            "state=stopped",
            "kit=",
            "enabled=false",
            "label=other",
            "label=team=b",
            "label!=team",
        ] {
            assert!(!meant(&[no]), "{no}");
        }
    }

    #[test]
    fn values_of_one_key_are_alternatives_and_labels_are_not() {
        assert!(meant(&[]));
        assert!(meant(&["state=stopped", "state=running"]));
        assert!(!meant(&["state=running", "kit=other"]));
        assert!(!meant(&["label=team", "label=other"]));
    }

    #[test]
    fn what_is_no_condition_says_what_is() {
        for (text, error) in [
            ("running", FilterError::Shape("running".into())),
            ("size=5", FilterError::Key("size".into())),
            ("enabled=yes", FilterError::Enabled("yes".into())),
            ("label=", FilterError::Label("label=".into())),
        ] {
            assert_eq!(text.parse::<Condition>(), Err(error));
        }
        assert!(matches!(
            "state=up".parse::<Condition>(),
            Err(FilterError::State(_))
        ));
        assert_eq!(
            "label!=a=b".parse::<Condition>().unwrap().to_string(),
            "label!=a=b"
        );
    }
}
