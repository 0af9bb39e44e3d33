//! Registries that answer with what nobody asked for.

use aegis_core::fault::Symbol;
use serde_json::json;

use crate::made::{Made, amd64, digest, failure, layer, load};
use crate::stand_in::{Reply, StandIn};

/// What becomes of an image whose manifest is this.
async fn with_manifest(reply: Reply, symbol: Symbol) -> String {
    let made = Made::new();
    let registry = StandIn::start(move |request, _| match request.path() {
        "/v2/app/manifests/1" => reply.clone(),
        _ => made.serve(request),
    });
    let message = failure(registry.source().await.find(&amd64()).await, symbol);
    assert_eq!(registry.count("/v2/app/manifests/1"), 1, "asked again");
    message
}

#[tokio::test]
async fn manifests_that_are_none_are_refused() {
    let html = Reply::ok("<html>").with("Content-Type", "text/html");
    with_manifest(html, Symbol::ImageCorrupt).await;
    let long = Reply::ok(vec![b' '; 5 << 20]);
    let message = with_manifest(long, Symbol::ImageCorrupt).await;
    assert!(message.contains("longer"), "{message}");
    let endless = Reply {
        endless: true,
        ..Reply::ok(vec![b' '; 65536])
    };
    with_manifest(endless, Symbol::ImageCorrupt).await;
    let schema1 = Reply::ok(r#"{"schemaVersion": 1, "fsLayers": []}"#);
    with_manifest(schema1, Symbol::ImageUnsupported).await;
    let both = Reply::ok(r#"{"schemaVersion": 2, "manifests": [], "layers": []}"#);
    with_manifest(both, Symbol::ImageCorrupt).await;
}

#[tokio::test]
async fn a_registrys_own_word_about_a_tag_counts() {
    let made = Made::new();
    let other =
        Reply::ok(made.manifest.clone()).with("Docker-Content-Digest", digest(b"other").as_ref());
    with_manifest(other, Symbol::ImageCorrupt).await;
    let nonsense = Reply::ok(made.manifest).with("Docker-Content-Digest", "md5:0");
    with_manifest(nonsense, Symbol::ImageCorrupt).await;
}

#[tokio::test]
async fn a_name_with_a_digest_gets_nothing_else() {
    let made = Made::new();
    let asked = digest(b"asked for");
    let manifest = made.manifest.clone();
    let registry = StandIn::start(move |_, _| Reply::ok(manifest.clone()));
    let name = format!("{}/app:1@{asked}", registry.host).parse().unwrap();
    let source = aegis_image::source::Source::open(&name, &registry.access(None)).await;
    let message = failure(source.unwrap().find(&amd64()).await, Symbol::ImageCorrupt);
    assert!(message.contains(asked.as_ref()), "{message}");
    assert_eq!(registry.count(&format!("/v2/app/manifests/{asked}")), 1);
}

#[tokio::test]
async fn blobs_are_what_their_digest_says_or_nothing() {
    let bytes = Made::new().layer;
    let mut other = bytes.clone();
    other[5] ^= 1;
    let mut longer = bytes.clone();
    longer.push(0);
    let endless = Reply {
        endless: true,
        ..Reply::ok(vec![0; 65536])
    };
    for (reply, why) in [
        (Reply::ok(other), "its digest is"),
        (Reply::ok(longer), "longer"),
        (endless, "longer"),
    ] {
        let registry = StandIn::start(move |_, _| reply.clone());
        let (loaded, _) = load(&registry.source().await, &layer(&bytes)).await;
        let message = failure(loaded, Symbol::ImageCorrupt);
        assert!(message.contains(why), "{message}");
        assert_eq!(registry.requests().len(), 1, "asked again");
    }
}

#[tokio::test]
async fn a_configuration_of_other_layers_is_refused() {
    let mut made = Made::new();
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
    made.config = serde_json::to_vec(&config).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&made.manifest).unwrap();
    manifest["config"]["digest"] = json!(digest(&made.config));
    manifest["config"]["size"] = json!(made.config.len());
    made.manifest = serde_json::to_vec(&manifest).unwrap();
    let registry = StandIn::start(move |request, _| made.serve(request));
    let message = failure(
        registry.source().await.find(&amd64()).await,
        Symbol::ImageCorrupt,
    );
    assert!(message.contains("1 layers"), "{message}");
}

#[tokio::test]
async fn an_image_for_another_processor_says_for_which() {
    let made = Made::new();
    let registry = StandIn::start(move |request, _| made.serve(request));
    let arm = "linux/arm64".parse().unwrap();
    let message = failure(
        registry.source().await.find(&arm).await,
        Symbol::ImagePlatform,
    );
    assert!(
        message.contains("linux/arm64, only for linux/amd64"),
        "{message}"
    );
}
