//! Mirrors, and the way out through a proxy.

use aegis_core::secret::SecretText;
use aegis_image::access::{Access, Endpoint, Proxies};
use aegis_image::registries::Serves;
use aegis_image::source::Source;

use crate::made::{Made, amd64, load_layer};
use crate::stand_in::{Reply, StandIn};

/// The image, from a mirror and its own registry.
async fn source(mirror: Endpoint, own: &StandIn) -> Source {
    let name = format!("{}/app:1", own.host).parse().unwrap();
    let access = Access {
        endpoints: vec![mirror, own.endpoint("app")],
        ..Access::default()
    };
    Source::open(&name, &access).await.unwrap()
}

fn honest(made: &Made) -> StandIn {
    let made = made.clone();
    StandIn::start(move |request, _| made.serve(request))
}

#[tokio::test]
async fn a_mirror_is_asked_first() {
    let made = Made::new();
    let (mirror, own) = (honest(&made), honest(&made));
    let source = source(mirror.endpoint("app"), &own).await;
    let found = source.find(&amd64()).await.unwrap();
    assert!(load_layer(&source, &found).await == made.layer);
    assert!(own.requests().is_empty());
}

#[tokio::test]
async fn what_a_mirror_lacks_or_spoils_the_registry_gives() {
    let made = Made::new();
    for reply in [Reply::of(404), Reply::of(403), Reply::ok("not it")] {
        let mirror = StandIn::start(move |_, _| reply.clone());
        let own = honest(&made);
        let source = source(mirror.endpoint("app"), &own).await;
        let found = source.find(&amd64()).await.unwrap();
        assert!(load_layer(&source, &found).await == made.layer);
    }
    // Bad bytes in a blob alone.
    let spoilt = made.clone();
    let mirror =
        StandIn::start(
            move |request, _| match request.path() == Made::blob_path(&spoilt.layer) {
                true => Reply::ok(vec![7; spoilt.layer.len()]),
                false => spoilt.serve(request),
            },
        );
    let own = honest(&made);
    let source = source(mirror.endpoint("app"), &own).await;
    let found = source.find(&amd64()).await.unwrap();
    assert!(load_layer(&source, &found).await == made.layer);
    assert_eq!(own.requests().len(), 1);
}

#[tokio::test]
async fn a_mirror_is_asked_only_what_it_serves() {
    let made = Made::new();
    let (mirror, own) = (honest(&made), honest(&made));
    let endpoint = Endpoint {
        serves: Serves::DigestOnly,
        ..mirror.endpoint("app")
    };
    source(endpoint, &own).await.find(&amd64()).await.unwrap();
    assert_eq!(own.count("/v2/app/manifests/1"), 1);
    assert_eq!(mirror.count("/v2/app/manifests/1"), 0);
    assert_eq!(mirror.count(&Made::blob_path(&made.config)), 1);
}

#[tokio::test]
async fn a_proxy_is_the_way_out() {
    let made = Made::new();
    let own = made.clone();
    let proxy = StandIn::start(move |request, _| {
        if request.method == "CONNECT" {
            return Reply::of(403);
        }
        let path = request.target.strip_prefix("http://registry.example");
        let mut asked = request.clone();
        asked.target = path.unwrap_or_default().to_owned();
        own.serve(&asked)
    });
    let url = || Some(SecretText::from(format!("http://{}", proxy.host)));
    let access = Access {
        endpoints: vec![Endpoint {
            host: "registry.example".to_owned(),
            ..proxy.endpoint("app")
        }],
        proxies: Proxies {
            all: url(),
            ..Proxies::default()
        },
        ..Access::default()
    };
    let name = "registry.example/app:1".parse().unwrap();
    let source = Source::open(&name, &access).await.unwrap();
    let found = source.find(&amd64()).await.unwrap();
    assert!(load_layer(&source, &found).await == made.layer);
    assert!(
        proxy
            .requests()
            .iter()
            .any(|request| request.method == "CONNECT")
    );
}
