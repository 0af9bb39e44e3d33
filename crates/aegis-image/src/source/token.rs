//! Answers to a registry's challenge: a password, or a token for it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use zeroize::Zeroizing;

use aegis_core::secret::SecretText;

use super::challenge::{self, Challenge};
use super::pace::Failure;
use super::remote::Remote;
use crate::auth::Credentials;
use crate::error::SourceError;

/// Longest answer with a token: containers/image takes no longer one
/// (`internal/iolimits`).
const MAX_TOKEN_BODY: u64 = 1024 * 1024;
/// Who we are in requests for tokens.
const CLIENT_ID: &str = "aegisvm";

/// <https://distribution.github.io/distribution/spec/auth/token/>: both names are used.
#[derive(Deserialize)]
struct TokenBody {
    token: Option<SecretText>,
    access_token: Option<SecretText>,
}

/// The `Authorization` header that answers a challenge.
pub(super) async fn authorize(
    remote: &Remote,
    headers: &HeaderMap,
    what: &str,
) -> Result<HeaderValue, Failure> {
    let values = headers.get_all(WWW_AUTHENTICATE).into_iter();
    let challenge = challenge::read(values.filter_map(|value| value.to_str().ok()));
    match (challenge, &remote.endpoint.credentials) {
        (Some(Challenge::Bearer { realm, service }), _) => {
            let token = fetch(remote, &realm, service.as_deref(), what).await?;
            header(&format!("Bearer {}", token.reveal())).ok_or_else(|| refused(remote, what))
        }
        (Some(Challenge::Basic), Some(Credentials::Password { username, password })) => {
            basic(username, password).ok_or_else(|| refused(remote, what))
        }
        (Some(Challenge::Basic) | None, _) => Err(refused(remote, what)),
    }
}

/// The header, which does not show itself in `Debug`.
fn header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn basic(username: &str, password: &SecretText) -> Option<HeaderValue> {
    let pair = Zeroizing::new(format!("{username}:{}", password.reveal()));
    let encoded = Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes()));
    header(&Zeroizing::new(format!("Basic {}", *encoded)))
}

fn refused(remote: &Remote, what: &str) -> Failure {
    Failure::last(SourceError::Unauthorized {
        host: remote.endpoint.host.clone(),
        what: what.to_owned(),
        known: remote.endpoint.credentials.is_some(),
    })
}

async fn fetch(
    remote: &Remote,
    realm: &str,
    service: Option<&str>,
    what: &str,
) -> Result<SecretText, Failure> {
    let url = Url::parse(realm).ok();
    // A password goes over an unencrypted connection only where the registry itself
    // has one and the user named it.
    let url = url.filter(|url| match url.scheme() {
        "https" => true,
        "http" => remote.is_plain(),
        _ => false,
    });
    let mut url = url.ok_or_else(|| refused(remote, what))?;
    // The scope is what is needed, whatever the challenge asks for.
    let repository = &remote.endpoint.repository;
    let scope = (!repository.is_empty()).then(|| format!("repository:{repository}:pull"));
    let mut fields = vec![];
    fields.extend(service.map(|service| ("service", service)));
    fields.extend(scope.as_deref().map(|scope| ("scope", scope)));
    let request = match &remote.endpoint.credentials {
        Some(Credentials::IdentityToken(token)) => {
            fields.push(("grant_type", "refresh_token"));
            fields.push(("client_id", CLIENT_ID));
            fields.push(("refresh_token", token.reveal()));
            let form = form(&fields);
            let request = remote.tokens().post(url);
            let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            request.body(form)
        }
        Some(Credentials::Password { username, password }) => {
            url.query_pairs_mut().extend_pairs(&fields);
            let basic = basic(username, password).ok_or_else(|| refused(remote, what))?;
            let request = remote.tokens().get(url);
            request.header(reqwest::header::AUTHORIZATION, basic)
        }
        None => {
            url.query_pairs_mut().extend_pairs(&fields);
            remote.tokens().get(url)
        }
    };
    let what_token = format!("a token for {what}");
    let sent = request.send().await;
    let response = sent.map_err(|source| remote.unsent(&what_token, source, true))?;
    if response.status() == StatusCode::BAD_REQUEST {
        return Err(refused(remote, what));
    }
    let response = match remote.judge(response, &what_token).await {
        Err(failure) if matches!(failure.error, SourceError::Unauthorized { .. }) => {
            return Err(refused(remote, what));
        }
        response => response?,
    };
    let body = remote.body(response, MAX_TOKEN_BODY, &what_token).await?;
    let body = Zeroizing::new(body);
    let token = serde_json::from_slice::<TokenBody>(&body).ok();
    let token = token.and_then(|body| body.token.or(body.access_token));
    token.ok_or_else(|| refused(remote, what))
}

/// `application/x-www-form-urlencoded`, which is how queries are written.
fn form(fields: &[(&str, &str)]) -> String {
    let mut scratch = Url::parse("https://form/").expect("a constant URL");
    scratch.query_pairs_mut().extend_pairs(fields);
    scratch.query().unwrap_or_default().to_owned()
}
