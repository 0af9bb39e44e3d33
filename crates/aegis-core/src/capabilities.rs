//! Capabilities: what a guest may do beyond its own VM. Manifests, flags and the
//! bus carry them as an object of these fields.

use serde_json::{Map, Value};

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Flag,
    Count,
    Names,
}

/// The fields and what they hold.
const FIELDS: [(&str, Kind); 9] = [
    ("spawn", Kind::Flag),
    ("spawn_depth", Kind::Count),
    ("max_children", Kind::Count),
    ("allowed_images", Kind::Names),
    ("max_memory_mb", Kind::Count),
    ("max_vcpus", Kind::Count),
    ("allowed_secrets", Kind::Names),
    ("max_expose_ports", Kind::Count),
    ("llm", Kind::Flag),
];

/// Why a capability is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    #[error("'{0}' is not NAME=VALUE")]
    Form(String),
    #[error("there is no capability '{0}'; known are {known}", known = known())]
    Unknown(String),
    #[error("the capability '{name}' must be {wanted}")]
    Value { name: String, wanted: &'static str },
}

/// Reads `NAME=VALUE`: true or false, a number, or names with commas between.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<(String, Value), CapabilityError> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| CapabilityError::Form(text.to_owned()))?;
    let kind = kind(name).ok_or_else(|| CapabilityError::Unknown(name.to_owned()))?;
    let parsed = match kind {
        Kind::Flag => value.parse().ok().map(Value::Bool),
        Kind::Count => value.parse::<u32>().ok().map(|n| Value::Number(n.into())),
        Kind::Names => {
            let names = value.split(',').filter(|name| !name.is_empty());
            Some(names.map(|name| Value::String(name.to_owned())).collect())
        }
    };
    let parsed = parsed.ok_or_else(|| refused(name, kind))?;
    Ok((name.to_owned(), parsed))
}

/// Checks what the known fields hold; fields of later versions pass.
///
/// # Errors
/// The first field of a wrong kind.
pub fn check(fields: &Map<String, Value>) -> Result<(), CapabilityError> {
    for (name, value) in fields {
        let Some(kind) = kind(name) else { continue };
        let fits = match kind {
            Kind::Flag => value.is_boolean(),
            Kind::Count => value.as_u64().is_some_and(|n| u32::try_from(n).is_ok()),
            Kind::Names => value
                .as_array()
                .is_some_and(|names| names.iter().all(Value::is_string)),
        };
        if !fits {
            return Err(refused(name, kind));
        }
    }
    Ok(())
}

/// Why a guest may not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    #[error("this instance has no capability for it: it was given none")]
    None,
    #[error(
        "this instance may expose {0} ports, and has as many (its capability max_expose_ports)"
    )]
    Ports(u64),
    #[error("this instance may not use models of the host (its capability llm is false)")]
    Models,
}

/// Whether a guest may have so many ports of its instance exposed. A limit of 0, or
/// none, is no limit, as the original has it; without any capability there is no right.
///
/// # Errors
/// Why it may not.
pub fn may_expose(capabilities: &Value, ports: usize) -> Result<(), Denial> {
    let fields = capabilities.as_object().ok_or(Denial::None)?;
    let most = fields.get("max_expose_ports").and_then(Value::as_u64);
    match most.filter(|most| *most > 0) {
        Some(most) if ports as u64 > most => Err(Denial::Ports(most)),
        _ => Ok(()),
    }
}

/// Whether a guest may use models that run on the host: where it was given
/// capabilities, unless they say otherwise.
///
/// # Errors
/// Why it may not.
pub fn may_use_models(capabilities: &Value) -> Result<(), Denial> {
    let fields = capabilities.as_object().ok_or(Denial::None)?;
    match fields.get("llm") {
        Some(Value::Bool(false)) => Err(Denial::Models),
        _ => Ok(()),
    }
}

/// Whether there is such a field.
pub fn is_known(name: &str) -> bool {
    kind(name).is_some()
}

fn kind(name: &str) -> Option<Kind> {
    let found = FIELDS.iter().find(|(field, _)| *field == name);
    found.map(|(_, kind)| *kind)
}

fn known() -> String {
    FIELDS.map(|(name, _)| name).join(", ")
}

fn refused(name: &str, kind: Kind) -> CapabilityError {
    CapabilityError::Value {
        name: name.to_owned(),
        wanted: match kind {
            Kind::Flag => "true or false",
            Kind::Count => "a whole number",
            Kind::Names => "a list of names",
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_read_from_words() {
        let value = |text: &str| parse(text).unwrap().1;
        assert_eq!(value("spawn=true"), json!(true));
        assert_eq!(value("max_children=3"), json!(3));
        assert_eq!(value("allowed_images=*,alpine"), json!(["*", "alpine"]));
        assert_eq!(value("allowed_images="), json!([]));
    }

    #[test]
    fn a_guest_may_what_it_was_given() {
        assert_eq!(may_expose(&Value::Null, 1), Err(Denial::None));
        assert_eq!(may_expose(&json!({}), 9), Ok(()));
        let two = json!({"max_expose_ports": 2});
        assert_eq!(may_expose(&two, 2), Ok(()));
        assert_eq!(may_expose(&two, 3), Err(Denial::Ports(2)));
        assert_eq!(may_expose(&json!({"max_expose_ports": 0}), 9), Ok(()));
        assert_eq!(may_use_models(&Value::Null), Err(Denial::None));
        assert_eq!(may_use_models(&json!({"spawn": true})), Ok(()));
        assert_eq!(may_use_models(&json!({"llm": false})), Err(Denial::Models));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (text, words) in [
            ("spawn", "'spawn' is not NAME=VALUE"),
            (
                "fly=true",
                "there is no capability 'fly'; known are spawn, ",
            ),
            ("spawn=yes", "the capability 'spawn' must be true or false"),
            (
                "max_children=-1",
                "the capability 'max_children' must be a whole number",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}");
        }
        let fields = json!({"later": 1, "allowed_secrets": "*"});
        let error = check(fields.as_object().unwrap()).unwrap_err().to_string();
        assert_eq!(
            error,
            "the capability 'allowed_secrets' must be a list of names"
        );
    }
}
