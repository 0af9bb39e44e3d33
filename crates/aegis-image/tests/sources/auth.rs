//! Who asks: passwords, tokens, and where they must not go.

use std::sync::Arc;

use aegis_core::fault::Symbol;
use aegis_image::auth::Credentials;
use serde_json::json;

use crate::made::{Made, amd64, failure, fault, layer, load, load_layer};
use crate::stand_in::{Reply, Request, StandIn};

/// `me:hunter2`.
const BASIC: &str = "Basic bWU6aHVudGVyMg==";

fn password() -> Option<Credentials> {
    Some(Credentials::Password {
        username: "me".to_owned(),
        password: "hunter2".to_owned().into(),
    })
}

/// A registry that gives tokens itself, each good for `uses` requests.
fn token_registry(made: Made, uses: usize, accept: fn(&Request) -> bool) -> StandIn {
    let given = std::sync::atomic::AtomicUsize::new(0);
    let used = std::sync::atomic::AtomicUsize::new(0);
    let order = std::sync::atomic::Ordering::SeqCst;
    StandIn::start(move |request, _| {
        let host = request.header("host").unwrap();
        if request.path() == "/token" {
            return match accept(request) {
                true => {
                    used.store(0, order);
                    let number = given.fetch_add(1, order) + 1;
                    Reply::ok(json!({"token": format!("t{number}")}).to_string())
                }
                false => Reply::of(401),
            };
        }
        let bearer = format!("Bearer t{}", given.load(order));
        let good = request.header("authorization") == Some(&bearer);
        match good && used.fetch_add(1, order) < uses {
            true => made.serve(request),
            false => Reply::of(401).with(
                "WWW-Authenticate",
                format!(r#"Bearer realm="http://{host}/token",service="the \"service\"""#),
            ),
        }
    })
}

#[tokio::test]
async fn a_token_is_fetched_and_renewed() {
    let made = Made::new();
    let registry = token_registry(made.clone(), 2, |request| {
        request.header("authorization") == Some(BASIC)
            && request.target.contains("scope=repository%3Aapp%3Apull")
            && request.target.contains("service=the+%22service%22")
    });
    let source = registry.source_as(password()).await;
    let found = source.find(&amd64()).await.unwrap();
    assert_eq!(registry.count("/token"), 1);
    assert!(load_layer(&source, &found).await == made.layer);
    assert_eq!(registry.count("/token"), 2);
}

#[tokio::test]
async fn downloads_at_once_share_a_token() {
    let made = Made::new();
    let registry = token_registry(made.clone(), 99, |_| true);
    let source = Arc::new(registry.source_as(password()).await);
    let downloads: Vec<_> = (0..4)
        .map(|_| {
            let (source, layer) = (Arc::clone(&source), layer(&made.layer));
            tokio::spawn(async move { load(&source, &layer).await.0.is_ok() })
        })
        .collect();
    for download in downloads {
        assert!(download.await.unwrap());
    }
    assert_eq!(registry.count("/token"), 1);
}

#[tokio::test]
async fn nobody_gets_a_token_too() {
    let registry = token_registry(Made::new(), 9, |request| {
        request.method == "GET" && request.header("authorization").is_none()
    });
    registry.source().await.find(&amd64()).await.unwrap();
}

#[tokio::test]
async fn an_identity_token_is_posted() {
    let registry = token_registry(Made::new(), 9, |request| {
        request.method == "POST"
            && request.body.contains("grant_type=refresh_token")
            && request.body.contains("refresh_token=a%2Bb")
            && request.body.contains("scope=repository%3Aapp%3Apull")
            && !request.target.contains('?')
    });
    let identity = Credentials::IdentityToken("a+b".to_owned().into());
    registry
        .source_as(Some(identity))
        .await
        .find(&amd64())
        .await
        .unwrap();
}

#[tokio::test]
async fn who_is_refused_is_told_how_to_log_in_and_asked_no_more() {
    for challenge in [None, Some("Basic realm=x"), Some("Bearer realm=\"x\"")] {
        let registry = StandIn::start(move |_, _| match challenge {
            Some(challenge) => Reply::of(401).with("WWW-Authenticate", challenge),
            None => Reply::of(401),
        });
        let found = registry.source_as(password()).await.find(&amd64()).await;
        let fault = fault(found);
        assert_eq!(fault.symbol, Symbol::ImageUnauthorized);
        assert!(!fault.message.contains("hunter2"));
        assert_eq!(
            fault.hint,
            Some(format!("aegisctl login {}", registry.host))
        );
        assert!(registry.requests().len() <= 2);
    }
    let registry = StandIn::start(|_, _| Reply::of(403));
    failure(
        registry.source().await.find(&amd64()).await,
        Symbol::ImageUnauthorized,
    );
    let registry = token_registry(Made::new(), 9, |_| false);
    failure(
        registry.source().await.find(&amd64()).await,
        Symbol::ImageUnauthorized,
    );
    assert_eq!(registry.count("/token"), 1);
}

#[tokio::test]
async fn a_redirect_does_not_take_the_password_along() {
    let made = Made::new();
    let (layer, config) = (made.layer.clone(), made.config.clone());
    let elsewhere = StandIn::start(move |request, _| match request.path() {
        "/layer" => Reply::ok(layer.clone()),
        _ => Reply::ok(config.clone()),
    });
    let (base, own) = (elsewhere.host.clone(), made.clone());
    let registry = StandIn::start(move |request, _| {
        let target = match request.path() {
            path if path == Made::blob_path(&own.layer) => "layer",
            path if path == Made::blob_path(&own.config) => "config",
            _ if request.header("authorization") == Some(BASIC) => return own.serve(request),
            _ => return Reply::of(401).with("WWW-Authenticate", "Basic realm=x"),
        };
        Reply::of(307).with("Location", format!("http://{base}/{target}"))
    });
    let source = registry.source_as(password()).await;
    let found = source.find(&amd64()).await.unwrap();
    assert!(load_layer(&source, &found).await == made.layer);
    for request in elsewhere.requests() {
        assert_eq!(request.header("authorization"), None);
        assert_eq!(request.header("referer"), None);
    }
    assert_eq!(elsewhere.requests().len(), 2);
}

#[tokio::test]
async fn a_token_is_not_fetched_by_way_of_a_redirect() {
    let elsewhere = StandIn::start(|_, _| Reply::ok(r#"{"token": "t"}"#));
    let base = elsewhere.host.clone();
    let registry = StandIn::start(move |request, _| match request.path() {
        "/token" => Reply::of(307).with("Location", format!("http://{base}/token")),
        _ => {
            let host = request.header("host").unwrap();
            let challenge = format!("Bearer realm=\"http://{host}/token\"");
            Reply::of(401).with("WWW-Authenticate", challenge)
        }
    });
    let found = registry.source_as(password()).await.find(&amd64()).await;
    failure(found, Symbol::RegistryUnreachable);
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let registry = StandIn::start(|request, _| Reply::of(302).with("Location", &request.target));
    let message = failure(
        registry.source().await.find(&amd64()).await,
        Symbol::RegistryUnreachable,
    );
    assert!(message.contains("redirects"), "{message}");
    assert!(registry.requests().len() <= 8);
}
