//! Registries that are busy, ill, or whose connections break.

use std::time::{Duration, Instant};

use aegis_core::fault::Symbol;

use crate::made::{Made, amd64, failure, layer, load, load_layer};
use crate::stand_in::{Reply, StandIn};

const MANIFEST: &str = "/v2/app/manifests/1";

#[tokio::test]
async fn a_busy_registry_is_asked_again_when_it_says() {
    let made = Made::new();
    let busy = Reply::ok(r#"{"errors": [{"code": "TOOMANYREQUESTS", "message": "slow\ndown"}]}"#);
    let busy = Reply {
        status: 429,
        ..busy
    }
    .with("Retry-After", "1");
    let registry = StandIn::start(move |request, before| match (request.path(), before) {
        (MANIFEST, 0) => busy.clone(),
        _ => made.serve(request),
    });
    let begun = Instant::now();
    registry.source().await.find(&amd64()).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(registry.count(MANIFEST), 2);
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_told_to_the_user() {
    let registry = StandIn::start(|_, _| Reply::of(429).with("Retry-After", "3600"));
    let found = registry.source().await.find(&amd64()).await;
    let message = failure(found, Symbol::RegistryBusy);
    assert!(message.contains("3600 s"), "{message}");
    assert_eq!(registry.count(MANIFEST), 1);
}

#[tokio::test]
async fn an_ill_registry_gets_time() {
    let made = Made::new();
    let registry = StandIn::start(move |request, before| match before {
        0 => Reply::of(503),
        1 => made.serve(request).cut_at(10),
        _ => made.serve(request),
    });
    let source = registry.source().await;
    let found = source.find(&amd64()).await.unwrap();
    load_layer(&source, &found).await;
}

#[tokio::test]
async fn an_ill_registry_does_not_get_all_the_time() {
    let registry = StandIn::start(|_, _| Reply::of(502));
    let found = registry.source().await.find(&amd64()).await;
    let message = failure(found, Symbol::RegistryUnreachable);
    assert!(message.contains("502"), "{message}");
    assert_eq!(registry.count(MANIFEST), 6);
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke() {
    let made = Made::new();
    let (bytes, whole) = (made.layer.clone(), made.layer.clone());
    let registry = StandIn::start(move |request, before| match before {
        0 => Reply::ok(whole.clone()).cut_at(1000),
        _ => {
            let range = request.header("range").unwrap();
            let from = range
                .strip_prefix("bytes=")
                .unwrap()
                .strip_suffix('-')
                .unwrap();
            let from: usize = from.parse().unwrap();
            let reply = Reply::ok(&whole[from..]);
            let content = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
            let reply = Reply {
                status: 206,
                ..reply
            }
            .with("Content-Range", content);
            reply.cut_at(if before == 1 { 500 } else { whole.len() - from })
        }
    });
    let (loaded, told) = load(&registry.source().await, &layer(&bytes)).await;
    assert!(loaded.unwrap() == bytes);
    assert!(told.iter().skip(2).all(|bytes| *bytes > 0), "it began anew");
    let ranges: Vec<_> = registry
        .requests()
        .iter()
        .map(|request| request.header("range").map(str::to_owned))
        .collect();
    let range = |from| Some(format!("bytes={from}-"));
    assert_eq!(ranges, [None, range(1000), range(1500)]);
}

#[tokio::test]
async fn a_registry_without_ranges_is_asked_for_all_again() {
    let bytes = Made::new().layer;
    for wrong in [
        // It ignores the header.
        Reply::ok(bytes.clone()),
        // It sends another range.
        Reply {
            status: 206,
            ..Reply::ok(bytes.clone())
        }
        .with("Content-Range", "bytes 0-399999/400000"),
        // It refuses.
        Reply::of(416),
    ] {
        let whole = bytes.clone();
        let registry = StandIn::start(move |request, before| match before {
            0 => Reply::ok(whole.clone()).cut_at(1000),
            _ if request.header("range").is_some() => wrong.clone(),
            _ => Reply::ok(whole.clone()),
        });
        let (loaded, _) = load(&registry.source().await, &layer(&bytes)).await;
        assert!(loaded.unwrap() == bytes);
    }
}

#[tokio::test]
async fn what_never_comes_whole_is_given_up() {
    let bytes = Made::new().layer;
    let whole = bytes.clone();
    let registry = StandIn::start(move |_, _| Reply::ok(whole.clone()).cut_at(1000));
    let (loaded, _) = load(&registry.source().await, &layer(&bytes)).await;
    let message = failure(loaded, Symbol::RegistryUnreachable);
    assert!(message.contains("broke"), "{message}");
}

#[tokio::test]
async fn nobody_there_is_told_apart_from_nothing_there() {
    let registry = StandIn::start(|_, _| Reply::of(404));
    let message = failure(
        registry.source().await.find(&amd64()).await,
        Symbol::ImageNotFound,
    );
    assert!(
        message.contains("app:1") && message.contains(&registry.host),
        "{message}"
    );
    assert_eq!(registry.count(MANIFEST), 1);

    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = gone.local_addr().unwrap().to_string();
    drop(gone);
    let mut access = registry.access(None);
    access.endpoints[0].host.clone_from(&host);
    let name = format!("{host}/app:1").parse().unwrap();
    let source = aegis_image::source::Source::open(&name, &access)
        .await
        .unwrap();
    let message = failure(source.find(&amd64()).await, Symbol::RegistryUnreachable);
    assert!(message.contains(&host), "{message}");
}
