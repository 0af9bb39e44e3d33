//! A client of the Bot API (<https://core.telegram.org/bots/api#making-requests>).
//!
//! The token is a part of every address, so no address leaves this file: not in an error,
//! not in a log.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::multipart;
use super::settings::Token;
use super::types::{FilePath, Sent, Update, User};
use crate::trust;

/// How long Telegram holds a question for updates.
const POLL: Duration = Duration::from_secs(30);
/// Longest wait for an answer, beyond what Telegram holds it.
const ANSWER: Duration = Duration::from_secs(20);
/// Longest wait for the transfer of a file of at most 10 MiB, both ways.
const TRANSFER: Duration = Duration::from_secs(120);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(15);
/// Longest answer in bytes. A hundred updates have at most 4096 characters of text each,
/// and entities.
const MAX_ANSWER: usize = 16 << 20;
/// Longest time that Telegram's `retry_after` is obeyed without a look in between.
const MAX_RETRY_AFTER: u64 = 24 * 3600;

/// Why a call has failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("cannot use TLS")]
    Tls(#[source] rustls::Error),
    /// Too many requests: not before that time again (429, `parameters.retry_after`).
    #[error("{method}: Telegram asks to wait {}", seconds(.after))]
    TooMany {
        method: &'static str,
        after: Duration,
    },
    /// The group has another id now (400, `parameters.migrate_to_chat_id`).
    #[error("{method}: the group has become the supergroup {to}")]
    Moved { method: &'static str, to: i64 },
    /// Telegram says no; `description` is its own.
    #[error("{method}: Telegram refuses ({code}): {description}")]
    Refused {
        method: &'static str,
        code: u16,
        description: String,
    },
    /// No answer, or not one of the API. Whether the call was carried out is not known.
    #[error("{method}: Telegram does not answer")]
    Unreachable {
        method: &'static str,
        #[source]
        source: reqwest::Error,
    },
    #[error("{method}: what answers is not the Bot API ({status})")]
    Odd { method: &'static str, status: u16 },
    #[error("{method}: the file is larger than {most} bytes")]
    TooLarge { method: &'static str, most: usize },
}

/// What a failure means for the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// To be asked again, not before that time.
    Wait(Duration),
    /// To be asked again some time later.
    Passing,
    /// The message is as it shall be.
    Unchanged,
    /// The message that is to be changed is not there.
    MessageGone,
    /// The marks of the text are not accepted.
    Marks,
    /// The chat cannot be written to: blocked, left, deleted.
    ChatGone,
    /// The chat has become this one.
    Moved(i64),
    /// The token is not that of a bot (any more).
    Token,
    /// Another program receives the updates of this bot.
    Conflict,
    /// The call makes no sense to Telegram, and will not.
    Refused,
}

impl ApiError {
    /// What it means. The descriptions are those of the Bot API server; it has no codes
    /// for them.
    pub fn meaning(&self) -> Meaning {
        let (code, text) = match self {
            Self::TooMany { after, .. } => return Meaning::Wait(*after),
            Self::Moved { to, .. } => return Meaning::Moved(*to),
            Self::Refused {
                code, description, ..
            } => (*code, description.to_lowercase()),
            Self::Client(_) | Self::Tls(_) | Self::Unreachable { .. } | Self::Odd { .. } => {
                return Meaning::Passing;
            }
            Self::TooLarge { .. } => return Meaning::Refused,
        };
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        match code {
            401 | 404 => Meaning::Token,
            403 => Meaning::ChatGone,
            409 => Meaning::Conflict,
            500.. => Meaning::Passing,
            _ if says(&["message is not modified"]) => Meaning::Unchanged,
            _ if says(&[
                "message to edit not found",
                "message can't be edited",
                "message_id_invalid",
            ]) =>
            {
                Meaning::MessageGone
            }
            _ if says(&["can't parse entities"]) => Meaning::Marks,
            _ if says(&[
                "chat not found",
                "chat_write_forbidden",
                "not enough rights",
                "user is deactivated",
                "peer_id_invalid",
                "group chat was upgraded",
                "group chat was deactivated",
                "have no rights to send",
                "need administrator rights",
                "topic_closed",
            ]) =>
            {
                Meaning::ChatGone
            }
            _ => Meaning::Refused,
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error_code: Option<u16>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    parameters: Option<Parameters>,
}

#[derive(Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    retry_after: Option<u64>,
    #[serde(default)]
    migrate_to_chat_id: Option<i64>,
}

/// A text with its marks.
#[derive(Clone, Copy, Debug)]
pub enum Text<'a> {
    Plain(&'a str),
    Html(&'a str),
}

/// A bot.
#[derive(Clone)]
pub struct Bot {
    http: Client,
    api: Url,
    token: Token,
}

impl std::fmt::Debug for Bot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bot")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl Bot {
    /// # Errors
    /// There is no HTTP client to be had, e.g. without any certificates.
    pub fn new(api: &Url, token: &Token) -> Result<Self, ApiError> {
        let http = Client::builder()
            .tls_backend_preconfigured(trust::tls().map_err(ApiError::Tls)?)
            .user_agent(concat!("aegis-gateway/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .no_proxy()
            .referer(false)
            // An address holds the token; it goes nowhere else.
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(2)
            .build()
            .map_err(|error| ApiError::Client(error.without_url()))?;
        Ok(Self {
            http,
            api: api.clone(),
            token: token.clone(),
        })
    }

    /// Who the bot is.
    pub async fn get_me(&self) -> Result<User, ApiError> {
        self.call("getMe", &json!({}), ANSWER).await
    }

    /// The updates from `offset` on; asking confirms all before. Waits for one if `wait`.
    pub async fn get_updates(&self, offset: i64, wait: bool) -> Result<Vec<Update>, ApiError> {
        let hold = if wait { POLL } else { Duration::ZERO };
        let mut parameters = json!({"timeout": hold.as_secs(), "allowed_updates": ["message"]});
        if offset > 0 {
            parameters["offset"] = offset.into();
        }
        self.call("getUpdates", &parameters, hold + ANSWER).await
    }

    /// The commands that the clients offer, each with a description.
    pub async fn set_my_commands(&self, commands: &[(&str, &str)]) -> Result<(), ApiError> {
        let commands: Vec<_> = commands
            .iter()
            .map(|(command, description)| json!({"command": command, "description": description}))
            .collect();
        let parameters = json!({"commands": commands});
        self.call::<Value>("setMyCommands", &parameters, ANSWER)
            .await
            .map(drop)
    }

    /// Sends a message, as an answer to another one if that is given.
    pub async fn send_message(
        &self,
        chat: i64,
        text: Text<'_>,
        reply_to: Option<i64>,
    ) -> Result<i64, ApiError> {
        let mut parameters = json!({"chat_id": chat});
        put_text(&mut parameters, text);
        if let Some(message) = reply_to {
            parameters["reply_parameters"] = reply(message);
        }
        let sent: Sent = self.call("sendMessage", &parameters, ANSWER).await?;
        Ok(sent.message_id)
    }

    /// Replaces the text of a message.
    pub async fn edit_message(
        &self,
        chat: i64,
        message: i64,
        text: Text<'_>,
    ) -> Result<(), ApiError> {
        let mut parameters = json!({"chat_id": chat, "message_id": message});
        put_text(&mut parameters, text);
        self.call::<Value>("editMessageText", &parameters, ANSWER)
            .await
            .map(drop)
    }

    pub async fn delete_message(&self, chat: i64, message: i64) -> Result<(), ApiError> {
        let parameters = json!({"chat_id": chat, "message_id": message});
        self.call::<Value>("deleteMessage", &parameters, ANSWER)
            .await
            .map(drop)
    }

    /// Shows "typing" for five seconds, or until a message comes.
    pub async fn send_typing(&self, chat: i64) -> Result<(), ApiError> {
        let parameters = json!({"chat_id": chat, "action": "typing"});
        self.call::<Value>("sendChatAction", &parameters, ANSWER)
            .await
            .map(drop)
    }

    /// Sends an image, as a photo or as a document.
    pub async fn send_file(&self, chat: i64, file: &Upload<'_>) -> Result<i64, ApiError> {
        let (method, field) = match file.as_photo {
            true => ("sendPhoto", "photo"),
            false => ("sendDocument", "document"),
        };
        let mut fields = vec![("chat_id", chat.to_string())];
        match file.caption {
            None => {}
            Some(Text::Plain(text)) => fields.push(("caption", text.to_owned())),
            Some(Text::Html(text)) => {
                fields.push(("caption", text.to_owned()));
                fields.push(("parse_mode", "HTML".to_owned()));
            }
        }
        if let Some(message) = file.reply_to {
            fields.push(("reply_parameters", reply(message).to_string()));
        }
        let boundary = multipart::boundary();
        let body = multipart::body(
            &boundary,
            &fields,
            field,
            file.name,
            file.media_type,
            file.bytes,
        );
        let request = self
            .request(method)
            .header(
                "content-type",
                format!("multipart/form-data; boundary={boundary}"),
            )
            .body(body)
            .timeout(TRANSFER);
        let sent: Sent = answer(method, request).await?;
        Ok(sent.message_id)
    }

    /// The bytes of a file that somebody has sent, at most `most`.
    pub async fn download(&self, file_id: &str, most: usize) -> Result<Vec<u8>, ApiError> {
        let file: FilePath = self
            .call("getFile", &json!({"file_id": file_id}), ANSWER)
            .await?;
        let method = "downloading a file";
        if file.file_size.is_some_and(|size| size > most as u64) {
            return Err(ApiError::TooLarge { method, most });
        }
        let path = file.file_path.ok_or(ApiError::Odd {
            method,
            status: 200,
        })?;
        let url = self.url(&["file", &format!("bot{}", self.token.reveal())], &path);
        let response = self.http.get(url).timeout(TRANSFER).send().await;
        let response = response.map_err(|source| unreachable(method, source))?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(ApiError::Odd { method, status });
        }
        body(method, response, most).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        parameters: &Value,
        longest: Duration,
    ) -> Result<T, ApiError> {
        let request = self
            .request(method)
            .header("content-type", "application/json")
            .body(parameters.to_string())
            .timeout(longest);
        answer(method, request).await
    }

    fn request(&self, method: &str) -> RequestBuilder {
        self.http
            .post(self.url(&[&format!("bot{}", self.token.reveal())], method))
    }

    fn url(&self, folders: &[&str], path: &str) -> Url {
        let mut url = self.api.clone();
        // The settings take no address that cannot have a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments
                .pop_if_empty()
                .extend(folders)
                .extend(path.split('/'));
        }
        url
    }
}

/// A file to send.
#[derive(Clone, Copy, Debug)]
pub struct Upload<'a> {
    pub as_photo: bool,
    pub name: &'a str,
    pub media_type: &'a str,
    pub bytes: &'a [u8],
    pub caption: Option<Text<'a>>,
    pub reply_to: Option<i64>,
}

fn put_text(parameters: &mut Value, text: Text<'_>) {
    match text {
        Text::Plain(text) => parameters["text"] = text.into(),
        Text::Html(text) => {
            parameters["text"] = text.into();
            parameters["parse_mode"] = "HTML".into();
        }
    }
    parameters["link_preview_options"] = json!({"is_disabled": true});
}

/// The answer is sent also where the message it answers is gone.
fn reply(message: i64) -> Value {
    json!({"message_id": message, "allow_sending_without_reply": true})
}

async fn answer<T: DeserializeOwned>(
    method: &'static str,
    request: RequestBuilder,
) -> Result<T, ApiError> {
    let response = request
        .send()
        .await
        .map_err(|source| unreachable(method, source))?;
    let status = response.status().as_u16();
    let bytes = body(method, response, MAX_ANSWER).await?;
    let odd = || ApiError::Odd { method, status };
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| odd())?;
    if answer.ok {
        return serde_json::from_value(answer.result).map_err(|_| odd());
    }
    let code = answer.error_code.unwrap_or(status);
    let parameters = answer.parameters.unwrap_or_default();
    if let Some(to) = parameters.migrate_to_chat_id {
        return Err(ApiError::Moved { method, to });
    }
    if code == 429 {
        let seconds = parameters.retry_after;
        let after = Duration::from_secs(seconds.unwrap_or(1).clamp(1, MAX_RETRY_AFTER));
        return Err(ApiError::TooMany { method, after });
    }
    let description = answer.description.unwrap_or_default();
    Err(ApiError::Refused {
        method,
        code,
        description: description
            .chars()
            .filter(|c| !c.is_control())
            .take(300)
            .collect(),
    })
}

async fn body(
    method: &'static str,
    mut response: Response,
    most: usize,
) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|source| unreachable(method, source))?
    {
        if bytes.len() + chunk.len() > most {
            return Err(ApiError::TooLarge { method, most });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn unreachable(method: &'static str, source: reqwest::Error) -> ApiError {
    ApiError::Unreachable {
        method,
        source: source.without_url(),
    }
}

fn seconds(duration: &Duration) -> String {
    format!("{} s", duration.as_secs())
}

#[cfg(test)]
mod tests {
    use aegis_core::fault::chain;

    use super::super::settings::Settings;
    use super::*;

    fn refused(code: u16, description: &str) -> Meaning {
        ApiError::Refused {
            method: "sendMessage",
            code,
            description: description.to_owned(),
        }
        .meaning()
    }

    #[test]
    fn what_telegram_says_is_understood() {
        for (code, description, meaning) in [
            (
                400,
                "Bad Request: message is not modified: specified new",
                Meaning::Unchanged,
            ),
            (
                400,
                "Bad Request: message to edit not found",
                Meaning::MessageGone,
            ),
            (
                400,
                "Bad Request: can't parse entities: Unsupported",
                Meaning::Marks,
            ),
            (400, "Bad Request: chat not found", Meaning::ChatGone),
            (400, "Bad Request: message text is empty", Meaning::Refused),
            (
                403,
                "Forbidden: bot was blocked by the user",
                Meaning::ChatGone,
            ),
            (401, "Unauthorized", Meaning::Token),
            (404, "Not Found", Meaning::Token),
            (
                409,
                "Conflict: terminated by other getUpdates request",
                Meaning::Conflict,
            ),
            (500, "Internal Server Error", Meaning::Passing),
        ] {
            assert_eq!(refused(code, description), meaning, "{description}");
        }
    }

    #[tokio::test]
    async fn no_error_shows_the_token() {
        for api in [
            "http://127.0.0.1:1",
            "http://127.0.0.1:1/base/",
            "http://no.such.host.invalid",
        ] {
            let section = json!({"bot_token": "123:very-secret", "api_base_url": api});
            let settings = Settings::read(&section, |_| None).unwrap();
            let bot = Bot::new(&settings.api, &settings.token.unwrap()).unwrap();
            assert!(!format!("{bot:?}").contains("very-secret"));
            let error = bot.get_me().await.unwrap_err();
            for text in [chain(&error), format!("{error:?}"), format!("{error:#?}")] {
                assert!(!text.contains("very-secret"), "{text}");
            }
        }
    }

    #[test]
    fn addresses_keep_the_path_of_the_server() {
        let section = json!({"bot_token": "1:x", "api_base_url": "http://host:81/base/"});
        let settings = Settings::read(&section, |_| None).unwrap();
        let bot = Bot::new(&settings.api, &settings.token.unwrap()).unwrap();
        assert_eq!(
            bot.url(&["bot1:x"], "getMe").as_str(),
            "http://host:81/base/bot1:x/getMe"
        );
        let file = bot.url(&["file", "bot1:x"], "photos/a b.jpg");
        assert_eq!(
            file.as_str(),
            "http://host:81/base/file/bot1:x/photos/a%20b.jpg"
        );
    }
}
