//! Capabilities as they travel: `b`, `u` or `as` by their kind.

use std::collections::BTreeMap;

use aegis_core::capabilities::{self, CapabilityError};
use serde_json::Value;
use zbus::OwnedVariant;

use crate::dict::{Dict, DictError, put};

type Capabilities = BTreeMap<String, Value>;

pub(super) fn to_dict(fields: &Capabilities) -> Dict {
    let mut dict = Dict::new();
    for (name, value) in fields {
        match value {
            Value::Bool(flag) => put(&mut dict, name, *flag),
            Value::Number(number) => {
                let number = number
                    .as_u64()
                    .and_then(|number| u32::try_from(number).ok());
                put(&mut dict, name, number.unwrap_or(u32::MAX));
            }
            Value::Array(names) => {
                let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
                put(&mut dict, name, names);
            }
            _ => {}
        }
    }
    dict
}

/// # Errors
/// A field that is unknown or of a wrong kind.
pub(super) fn from_dict(dict: Dict) -> Result<Capabilities, DictError> {
    let refused = |source: CapabilityError| DictError::Value {
        what: "spec key",
        key: "capabilities",
        source: source.into(),
    };
    let mut fields = serde_json::Map::new();
    for (name, value) in dict {
        if !capabilities::is_known(&name) {
            return Err(refused(CapabilityError::Unknown(name)));
        }
        fields.insert(name, read(value));
    }
    capabilities::check(&fields).map_err(refused)?;
    Ok(fields.into_iter().collect())
}

/// A value of another type becomes null, which no field accepts.
fn read(value: OwnedVariant) -> Value {
    if let Ok(flag) = bool::try_from(&value) {
        return flag.into();
    }
    if let Ok(number) = u32::try_from(&value) {
        return number.into();
    }
    Vec::<String>::try_from(value).map_or(Value::Null, Value::from)
}
