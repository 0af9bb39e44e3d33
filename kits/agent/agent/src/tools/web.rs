//! The tool web_fetch.

use std::time::Duration;

use reqwest::{Client, Url};

use super::{Said, cut, html};
use crate::provider::exchange::chain;

/// How long it may take in all.
const TIME: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read.
const BODY: usize = 1 << 20;
/// Bytes of text that are shown.
const TEXT: usize = 10 * 1024;

pub(super) async fn fetch(client: &Client, address: &str) -> Said {
    let url = Url::parse(address).map_err(|error| format!("This is no address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("Only http and https can be fetched.".to_owned());
    }
    match tokio::time::timeout(TIME, get(client, url)).await {
        Ok(said) => said,
        Err(_) => Err(format!("It took longer than {} seconds.", TIME.as_secs())),
    }
}

async fn get(client: &Client, url: Url) -> Said {
    let failed =
        |error: reqwest::Error| format!("Cannot fetch it: {}", chain(&error.without_url()));
    let mut response = client.get(url).send().await.map_err(failed)?;
    let status = response.status();
    let kind = response
        .headers()
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let mut body = Vec::new();
    while body.len() < BODY
        && let Some(part) = response.chunk().await.map_err(failed)?
    {
        body.extend_from_slice(&part);
    }
    body.truncate(BODY);
    if body.contains(&0) {
        return Err(format!("It is no text but {kind} ({status})."));
    }
    let text = String::from_utf8_lossy(&body);
    let is_html = kind.contains("html") || text.trim_start().starts_with("<!");
    let text = if is_html {
        html::text(&text)
    } else {
        text.into_owned()
    };
    let text = cut(text, TEXT);
    match status.is_success() {
        true => Ok(text),
        false => Err(format!("The server answered {status}.\n{text}")),
    }
}
