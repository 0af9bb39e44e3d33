//! HTTP clients as an endpoint and the user's environment want them.

use std::time::Duration;

use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Client, NoProxy, Proxy};

use crate::access::{Access, Endpoint};

/// Longest wait for a connection: name, TCP, TLS.
const CONNECT: Duration = Duration::from_secs(15);
/// Longest silence of a registry.
const SILENCE: Duration = Duration::from_secs(60);
/// Most redirects of one request; registries need one or two.
const MAX_REDIRECTS: usize = 5;
/// What needs no proxy whatever is asked for, as in Go's `httpproxy`, which the other
/// clients of registries use.
const LOCAL: &str = "localhost,127.0.0.0/8,::1";

/// What to do when a server says that something is elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) enum Redirects {
    /// Blobs are often elsewhere. The credentials are not sent there, and the way may
    /// not leave TLS.
    Followed,
    Refused,
}

#[derive(Debug, thiserror::Error)]
enum RedirectError {
    #[error("more than {MAX_REDIRECTS} redirects")]
    TooMany,
    #[error("a redirect from https to {0}")]
    Unencrypted(String),
}

pub(super) fn build(
    endpoint: &Endpoint,
    access: &Access,
    redirects: Redirects,
) -> reqwest::Result<Client> {
    // The one of the first caller counts, and every caller's is the same.
    rustls::crypto::CryptoProvider::install_default(rustls::crypto::ring::default_provider()).ok();
    let insecure = endpoint.insecure;
    let mut builder = Client::builder()
        .user_agent(concat!("aegisvm/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .referer(false)
        .no_proxy()
        .tls_danger_accept_invalid_certs(insecure)
        .redirect(match redirects {
            Redirects::Followed => Policy::custom(follow),
            Redirects::Refused => Policy::none(),
        });
    for proxy in proxies(access)? {
        builder = builder.proxy(proxy);
    }
    // What accepts every certificate takes no lists of good ones.
    if !insecure {
        let own = certificates(&endpoint.certificates)?;
        let roots = certificates(&access.roots.certificates)?;
        builder = match access.roots.only {
            true => builder.tls_certs_only(roots.into_iter().chain(own)),
            false => builder.tls_certs_merge(roots.into_iter().chain(own)),
        };
    }
    builder.build()
}

fn certificates(bundles: &[String]) -> reqwest::Result<Vec<Certificate>> {
    let mut all = Vec::new();
    for bundle in bundles {
        all.extend(Certificate::from_pem_bundle(bundle.as_bytes())?);
    }
    Ok(all)
}

fn proxies(access: &Access) -> reqwest::Result<Vec<Proxy>> {
    let proxies = &access.proxies;
    let except = match &proxies.none {
        Some(none) => format!("{none},{LOCAL}"),
        None => LOCAL.to_owned(),
    };
    let mut all = Vec::new();
    if let Some(url) = &proxies.https {
        all.push(Proxy::https(url.reveal())?);
    }
    if let Some(url) = &proxies.http {
        all.push(Proxy::http(url.reveal())?);
    }
    // The first that applies is used.
    if let Some(url) = &proxies.all {
        all.push(Proxy::all(url.reveal())?);
    }
    let except = |proxy: Proxy| proxy.no_proxy(NoProxy::from_string(&except));
    Ok(all.into_iter().map(except).collect())
}

fn follow(attempt: Attempt) -> reqwest::redirect::Action {
    let encrypted = attempt.previous().iter().any(|url| url.scheme() == "https");
    if encrypted && attempt.url().scheme() != "https" {
        let scheme = attempt.url().scheme().to_owned();
        return attempt.error(RedirectError::Unencrypted(scheme));
    }
    match attempt.previous().len() > MAX_REDIRECTS {
        true => attempt.error(RedirectError::TooMany),
        false => attempt.follow(),
    }
}
