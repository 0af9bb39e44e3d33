//! The section `telegram` of `gateway.json`.
//!
//! | key | what it is | default |
//! |---|---|---|
//! | `bot_token` | the bot's token itself | none |
//! | `bot_token_env` | the variable that holds the token | `TELEGRAM_BOT_TOKEN` |
//! | `allowed_chats` | ids of the chats that may talk to the agent, or `"*"` | nobody |
//! | `api_base_url` | the Bot API's server | `https://api.telegram.org` |
//! | `shell` | whether `/exec` and `/exit` exist | `false` |
//! | `edit_interval_ms` | least time between two edits of a streamed message, 1000 to 60000 | 1200 |
//! | `instance` | of the original AegisVM, which had one gateway for all instances; ignored | |

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::config::{self, ConfigError};

/// The variable of the token where the config names none.
const TOKEN_VARIABLE: &str = "TELEGRAM_BOT_TOKEN";
const API_BASE_URL: &str = "https://api.telegram.org";
/// Telegram allows about one message a second in a chat, edits included.
const EDIT_INTERVAL: u64 = 1200;
const EDIT_INTERVALS: std::ops::RangeInclusive<u64> = 1000..=60_000;

/// Who may talk to the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    Everybody,
    /// These chats, in the order of the config.
    Chats(Vec<i64>),
}

/// A bot's token. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<String>);

/// The settings of the channel, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The token, or what to do to have one.
    pub token: Result<Token, MissingToken>,
    pub api: Url,
    pub allowed: Allowed,
    pub shell: bool,
    pub edit_interval: Duration,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissingToken {
    #[error(
        "no bot token: the variable {0} is not set; keep it with 'aegis secret set {0}' and give it with '--env {0}'"
    )]
    Variable(String),
    #[error("the bot token is no token: it must look like 123456:ABC-DEF")]
    Form,
}

#[derive(Deserialize)]
struct Section {
    #[serde(default)]
    bot_token: Option<Zeroizing<String>>,
    #[serde(default)]
    bot_token_env: Option<String>,
    #[serde(default)]
    allowed_chats: Option<Vec<Chat>>,
    #[serde(default)]
    api_base_url: Option<BaseUrl>,
    #[serde(default)]
    shell: bool,
    #[serde(default)]
    edit_interval_ms: Option<Interval>,
    #[serde(default)]
    instance: Option<String>,
}

#[derive(Deserialize)]
#[serde(try_from = "Value")]
enum Chat {
    Everybody,
    Id(i64),
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct BaseUrl(Url);

#[derive(Deserialize)]
#[serde(try_from = "u64")]
struct Interval(u64);

impl TryFrom<Value> for Chat {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let id = match &value {
            Value::String(text) if text == "*" => return Ok(Self::Everybody),
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_i64(),
        };
        id.map(Self::Id).ok_or_else(|| {
            format!("{value} is no chat's id: a number such as \"123456789\", or \"*\"")
        })
    }
}

impl TryFrom<String> for BaseUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // The text is not shown: some put passwords into addresses.
        let url = Url::parse(&text).map_err(|error| format!("it is no address: {error}"))?;
        match matches!(url.scheme(), "http" | "https") && url.has_host() {
            true => Ok(Self(url)),
            false => Err("it is no address that begins with https:// or http://".to_owned()),
        }
    }
}

impl TryFrom<u64> for Interval {
    type Error = String;

    fn try_from(number: u64) -> Result<Self, String> {
        match EDIT_INTERVALS.contains(&number) {
            true => Ok(Self(number)),
            false => Err(format!("{number} is not in 1000 to 60000 milliseconds")),
        }
    }
}

/// The keys of a section that nobody knows.
///
/// # Errors
/// The key that is wrong.
pub fn check(section: &Value) -> Result<Vec<String>, ConfigError> {
    config::section::<Section>(super::NAME, section).map(|(_, unknown)| unknown)
}

impl Settings {
    /// Reads a section; `variable` gives the values of environment variables.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn read(
        section: &Value,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let (section, _) = config::section::<Section>(super::NAME, section)?;
        if section.instance.is_some() {
            tracing::warn!("telegram.instance: each instance has a gateway of its own, ignoring");
        }
        let api = match section.api_base_url {
            Some(BaseUrl(url)) => url,
            // The text is that of a constant, which the tests read.
            None => Url::parse(API_BASE_URL).map_err(|_| ConfigError::NotAnObject)?,
        };
        let chats = section.allowed_chats.unwrap_or_default();
        let everybody = chats.iter().any(|chat| matches!(chat, Chat::Everybody));
        let mut seen = BTreeSet::new();
        let ids = chats.iter().filter_map(|chat| match chat {
            Chat::Id(id) => Some(*id),
            Chat::Everybody => None,
        });
        let allowed = match everybody {
            true => Allowed::Everybody,
            false => Allowed::Chats(ids.filter(|id| seen.insert(*id)).collect()),
        };
        let interval = section
            .edit_interval_ms
            .map_or(EDIT_INTERVAL, |Interval(number)| number);
        Ok(Self {
            token: token(section.bot_token, section.bot_token_env, variable),
            api,
            allowed,
            shell: section.shell,
            edit_interval: Duration::from_millis(interval),
        })
    }

    /// Whether the chat may talk to the agent.
    pub fn allows(&self, chat: i64) -> bool {
        match &self.allowed {
            Allowed::Everybody => true,
            Allowed::Chats(chats) => chats.contains(&chat),
        }
    }

    /// The chat of whoever owns the instance, for what is said to nobody in particular:
    /// the first that the config names.
    pub fn owner(&self) -> Option<i64> {
        match &self.allowed {
            Allowed::Everybody => None,
            Allowed::Chats(chats) => chats.first().copied(),
        }
    }
}

/// The literal token, else the named variable, else the usual one. A variable that is
/// named and not set is not made up for by the usual one, as in the original.
fn token(
    literal: Option<Zeroizing<String>>,
    named: Option<String>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Token, MissingToken> {
    if let Some(literal) = literal.filter(|literal| !literal.is_empty()) {
        return Token::new(&literal);
    }
    let name = named
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| TOKEN_VARIABLE.to_owned());
    match variable(&name) {
        Some(value) => Token::new(&Zeroizing::new(value)),
        None => Err(MissingToken::Variable(name)),
    }
}

impl Token {
    /// A token is `<bot id>:<secret>`; what has another form would be a part of an address
    /// that it must not be.
    fn new(text: &str) -> Result<Self, MissingToken> {
        let good = text.trim().split_once(':').is_some_and(|(id, secret)| {
            !id.is_empty()
                && id.bytes().all(|byte| byte.is_ascii_digit())
                && !secret.is_empty()
                && secret
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        });
        match good {
            true => Ok(Self(Zeroizing::new(text.trim().to_owned()))),
            false => Err(MissingToken::Form),
        }
    }

    /// The token itself, for an address that is not shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use aegis_core::fault::chain;
    use serde_json::json;

    use super::*;

    fn read(section: &Value, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        Settings::read(section, |name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_token_is_searched_for_as_in_the_original() {
        let usual = ("TELEGRAM_BOT_TOKEN", "1:usual");
        let token = |section: Value, variables: &[(&str, &str)]| {
            let token = read(&section, variables).unwrap().token;
            token.map(|token| token.reveal().to_owned())
        };
        let literal = json!({"bot_token": "1:literal", "bot_token_env": "MINE"});
        assert_eq!(token(literal, &[usual]).unwrap(), "1:literal");
        let named = json!({"bot_token_env": "MINE"});
        assert_eq!(
            token(named.clone(), &[("MINE", "1:mine"), usual]).unwrap(),
            "1:mine"
        );
        assert_eq!(
            token(named, &[usual]),
            Err(MissingToken::Variable("MINE".into()))
        );
        assert_eq!(token(json!({}), &[usual]).unwrap(), "1:usual");
        assert_eq!(
            token(json!({"bot_token": ""}), &[usual]).unwrap(),
            "1:usual"
        );
        assert_eq!(
            token(json!({"bot_token": "x/../y"}), &[]),
            Err(MissingToken::Form)
        );
    }

    #[test]
    fn nobody_is_allowed_unless_the_config_says_so() {
        for nobody in [
            json!({}),
            json!({"allowed_chats": []}),
            json!({"allowed_chats": null}),
        ] {
            let settings = read(&nobody, &[]).unwrap();
            assert!(!settings.allows(1));
            assert_eq!(settings.owner(), None);
        }
        let some = read(&json!({"allowed_chats": ["42", -100, "42"]}), &[]).unwrap();
        assert_eq!(some.allowed, Allowed::Chats(vec![42, -100]));
        assert!(some.allows(42) && some.allows(-100) && !some.allows(7));
        assert_eq!(some.owner(), Some(42));
        let all = read(&json!({"allowed_chats": ["42", "*"]}), &[]).unwrap();
        assert!(all.allows(7));
    }

    #[test]
    fn a_wrong_value_is_said_with_its_key() {
        for (section, key) in [
            (
                json!({"allowed_chats": ["me"]}),
                "telegram.allowed_chats[0]",
            ),
            (json!({"allowed_chats": "*"}), "telegram.allowed_chats"),
            (json!({"api_base_url": "ftp://x"}), "telegram.api_base_url"),
            (
                json!({"edit_interval_ms": 200}),
                "telegram.edit_interval_ms",
            ),
            (json!({"shell": "yes"}), "telegram.shell"),
        ] {
            let error = chain(&check(&section).unwrap_err());
            assert!(error.contains(key), "{error}");
        }
        assert_eq!(check(&json!({"shel": true})).unwrap(), ["telegram.shel"]);
    }

    #[test]
    fn a_token_is_never_shown() {
        let settings = read(&json!({"bot_token": "1:very-secret"}), &[]).unwrap();
        assert!(!format!("{settings:?}").contains("very-secret"));
        let error = check(&json!({"bot_token": ["1:very-secret"]})).unwrap_err();
        assert!(!chain(&error).contains("very-secret"), "{}", chain(&error));
    }
}
