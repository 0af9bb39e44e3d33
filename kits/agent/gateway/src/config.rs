//! `gateway.json`: a JSON object with a section for each channel.
//!
//! ```json
//! {"telegram": {"bot_token_env": "TELEGRAM_BOT_TOKEN", "allowed_chats": ["123456789"]}}
//! ```
//!
//! Keys that nobody here knows are a warning, so that a config of another version works.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The file's name, in the folder the process is started in.
pub const FILE: &str = "gateway.json";
/// Longest config in bytes (the API's limit for config files).
const MAX_CONFIG: u64 = 1 << 20;

/// The sections of the known channels.
pub type Sections = BTreeMap<&'static str, Value>;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {FILE}")]
    Read(#[source] io::Error),
    #[error("{FILE} is longer than {MAX_CONFIG} bytes")]
    TooLong,
    #[error("{FILE} is not valid JSON")]
    Json(#[source] serde_json::Error),
    #[error("{FILE} is not a JSON object")]
    NotAnObject,
    #[error("{FILE}: the key '{key}' is wrong")]
    Key {
        key: String,
        #[source]
        source: serde_json::Error,
    },
}

/// The text of the config in `folder`; `None` where there is none.
///
/// # Errors
/// It cannot be read, or is too long.
pub fn read(folder: &Path) -> Result<Option<String>, ConfigError> {
    let file = match fs::File::open(folder.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ConfigError::Read(error)),
    };
    let mut text = String::new();
    file.take(MAX_CONFIG + 1)
        .read_to_string(&mut text)
        .map_err(ConfigError::Read)?;
    if text.len() as u64 > MAX_CONFIG {
        return Err(ConfigError::TooLong);
    }
    Ok(Some(text))
}

/// The sections of the `known` channels, and the keys that are not known.
///
/// # Errors
/// What is wrong with the text, and where.
pub fn parse(text: &str, known: &[&'static str]) -> Result<(Sections, Vec<String>), ConfigError> {
    let value: Value = serde_json::from_str(text).map_err(ConfigError::Json)?;
    let Value::Object(fields) = value else {
        return Err(ConfigError::NotAnObject);
    };
    let mut sections = Sections::new();
    let mut unknown = Vec::new();
    for (key, section) in fields {
        match known.iter().find(|name| **name == key) {
            // An empty place is as no section.
            Some(_) if section.is_null() => {}
            Some(name) => {
                sections.insert(name, section);
            }
            None => unknown.push(key),
        }
    }
    Ok((sections, unknown))
}

/// A channel's section as its settings, and the keys of it that are not known.
///
/// # Errors
/// The key that is wrong.
pub fn section<T: DeserializeOwned>(
    name: &str,
    value: &Value,
) -> Result<(T, Vec<String>), ConfigError> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let read = serde_ignored::deserialize(tracked, |path| unknown.push(format!("{name}.{path}")));
    match read {
        Ok(settings) => Ok((settings, unknown)),
        Err(source) => {
            let path = track.path().to_string();
            Err(ConfigError::Key {
                key: match path.as_str() {
                    "." => name.to_owned(),
                    path => format!("{name}.{path}"),
                },
                source,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use aegis_core::fault::chain;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Example {
        #[serde(default)]
        list: Vec<String>,
    }

    #[test]
    fn sections_of_known_channels_are_found_and_others_named() {
        let text = r#"{"telegram": {"a": 1}, "discord": {}, "matrix": null}"#;
        let (sections, unknown) = parse(text, &["telegram", "matrix"]).unwrap();
        assert_eq!(sections.keys().collect::<Vec<_>>(), [&"telegram"]);
        assert_eq!(unknown, ["discord"]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let error = parse("{\n  \"telegram\": {,}\n}", &[]).unwrap_err();
        assert!(chain(&error).contains("line 2 column"), "{}", chain(&error));
        assert!(matches!(parse("[1]", &[]), Err(ConfigError::NotAnObject)));
        let value: Value = serde_json::from_str(r#"{"list": ["a", 5]}"#).unwrap();
        let error = section::<Example>("telegram", &value).unwrap_err();
        assert!(
            chain(&error).contains("'telegram.list[1]'"),
            "{}",
            chain(&error)
        );
        let error = section::<Example>("telegram", &Value::from(3)).unwrap_err();
        assert!(chain(&error).contains("'telegram'"), "{}", chain(&error));
    }

    #[test]
    fn keys_that_nobody_knows_are_named_and_no_error() {
        let value: Value = serde_json::from_str(r#"{"list": [], "lsit": 1}"#).unwrap();
        let (read, unknown) = section::<Example>("telegram", &value).unwrap();
        assert!(read.list.is_empty());
        assert_eq!(unknown, ["telegram.lsit"]);
    }

    #[test]
    fn a_config_that_is_not_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap().is_none());
        fs::write(folder.path().join(FILE), "{}").unwrap();
        assert_eq!(read(folder.path()).unwrap().as_deref(), Some("{}"));
        fs::write(folder.path().join(FILE), " ".repeat(2 << 20)).unwrap();
        assert!(matches!(read(folder.path()), Err(ConfigError::TooLong)));
    }
}
