//! A validator for the part of JSON Schema (2020-12) that docs/schemas uses. A
//! keyword it does not know is an error, so nothing is believed to be checked that
//! is not.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Keywords that say nothing about values.
const NOTES: [&str; 3] = ["$schema", "title", "description"];

/// Every way in which a value is not as a schema of a folder says.
pub(crate) fn validate(folder: &Path, file: &str, value: &Value) -> Result<(), Vec<String>> {
    let mut errors = Vec::new();
    let text = fs::read_to_string(folder.join(file)).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    check(folder, &schema, value, "$", &mut errors);
    if errors.is_empty() {
        return Ok(());
    }
    Err(errors)
}

fn check(folder: &Path, schema: &Value, value: &Value, at: &str, errors: &mut Vec<String>) {
    for (keyword, wanted) in schema.as_object().unwrap() {
        let fits = match keyword.as_str() {
            note if NOTES.contains(&note) => true,
            "$ref" => {
                if let Err(inner) = validate(folder, wanted.as_str().unwrap(), value) {
                    errors.extend(inner.iter().map(|error| error.replacen('$', at, 1)));
                }
                true
            }
            "type" => match wanted {
                Value::Array(types) => types.iter().any(|kind| is(value, kind)),
                kind => is(value, kind),
            },
            "const" => value == wanted,
            "enum" => wanted.as_array().unwrap().contains(value),
            "required" => {
                let names = wanted.as_array().unwrap();
                let missing: Vec<_> = names
                    .iter()
                    .filter(|name| value.is_object() && value.get(name.as_str().unwrap()).is_none())
                    .collect();
                missing.is_empty()
            }
            "properties" => {
                for (name, part) in wanted.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        check(folder, part, value, &format!("{at}.{name}"), errors);
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = schema.get("properties");
                let others = value.as_object().into_iter().flatten();
                for (name, value) in
                    others.filter(|(name, _)| known.and_then(|k| k.get(name)).is_none())
                {
                    check(folder, wanted, value, &format!("{at}.{name}"), errors);
                }
                true
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    check(folder, wanted, value, &format!("{at}[{index}]"), errors);
                }
                true
            }
            unknown => panic!("{at}: the keyword '{unknown}' is not known here"),
        };
        if !fits {
            errors.push(format!("{at}: not {keyword} {wanted}: {value}"));
        }
    }
}

fn is(value: &Value, kind: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        unknown => panic!("there is no type '{unknown}'"),
    }
}

#[test]
fn what_does_not_fit_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let schema = r#"{"type":"object","required":["a"],"properties":{
        "a":{"type":["integer","null"]},"b":{"type":"array","items":{"enum":["x"]}}},
        "additionalProperties":{"type":"string"}}"#;
    fs::write(folder.path().join("s.json"), schema).unwrap();
    fs::write(
        folder.path().join("r.json"),
        r#"{"type":"object","properties":{"s":{"$ref":"s.json"}}}"#,
    )
    .unwrap();
    let check = |text: &str| {
        let value = serde_json::from_str(text).unwrap();
        validate(folder.path(), "r.json", &value).map_err(|errors| errors.len())
    };
    assert_eq!(check(r#"{"s":{"a":1,"b":["x"],"c":"y"}}"#), Ok(()));
    assert_eq!(check(r#"{"s":{"a":null}}"#), Ok(()));
    assert_eq!(check(r#"{"s":{"a":"1","b":["y"],"c":5}}"#), Err(3));
    assert_eq!(check(r#"{"s":{}}"#), Err(1));
    assert_eq!(check("[]"), Err(1));
}
