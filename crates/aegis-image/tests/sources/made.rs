//! Images made for tests, and what is asked of sources again and again.

use aegis_core::fault::{Fault, Symbol};
use aegis_image::document::Platform;
use aegis_image::error::SourceError;
use aegis_image::source::{Found, Source};
use oci_spec::image::{Descriptor, Digest, MediaType};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::stand_in::{Reply, Request};

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}").parse().unwrap()
}

pub(crate) fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::new(MediaType::ImageLayer, bytes.len() as u64, digest(bytes))
}

pub(crate) fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// An image of one layer.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) layer: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

impl Made {
    pub(crate) fn new() -> Self {
        Self::with_layer((0..100_000u32).flat_map(u32::to_le_bytes).collect())
    }

    pub(crate) fn with_layer(layer: Vec<u8>) -> Self {
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["A=1"], "Volumes": null},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest,
            "config": Descriptor::new(MediaType::ImageConfig, config.len() as u64, digest(&config)),
            "layers": [self::layer(&layer)],
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        Self {
            layer,
            config,
            manifest,
        }
    }

    pub(crate) fn blob_path(bytes: &[u8]) -> String {
        format!("/v2/app/blobs/{}", digest(bytes))
    }

    /// What an honest registry answers.
    pub(crate) fn serve(&self, request: &Request) -> Reply {
        let path = request.path();
        let digest = digest(&self.manifest);
        if path == "/v2/app/manifests/1" || path == format!("/v2/app/manifests/{digest}") {
            return Reply::ok(self.manifest.clone())
                .with("Content-Type", MediaType::ImageManifest.as_ref())
                .with("Docker-Content-Digest", digest.as_ref());
        }
        for bytes in [&self.layer, &self.config] {
            if path == Self::blob_path(bytes) {
                return Reply::ok(bytes.clone());
            }
        }
        Reply::of(404)
    }
}

/// Loads a blob; with it what was told of the progress.
pub(crate) async fn load(
    source: &Source,
    descriptor: &Descriptor,
) -> (Result<Vec<u8>, SourceError>, Vec<u64>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blob");
    let mut file = tokio::fs::File::create(&path).await.unwrap();
    let mut told = Vec::new();
    let loaded = source
        .blob(descriptor, &mut file, &mut |bytes| told.push(bytes))
        .await;
    let bytes = std::fs::read(&path).unwrap();
    assert!(
        bytes.len() as u64 <= descriptor.size(),
        "more than was promised"
    );
    (loaded.map(|()| bytes), told)
}

/// Loads the only layer of an image.
pub(crate) async fn load_layer(source: &Source, found: &Found) -> Vec<u8> {
    assert_eq!(found.layers.len(), 1);
    load(source, &found.layers[0]).await.0.unwrap()
}

pub(crate) fn fault<T: std::fmt::Debug>(result: Result<T, SourceError>) -> Fault {
    Fault::from(result.unwrap_err())
}

/// Expects a failure, and returns what people read of it.
pub(crate) fn failure<T: std::fmt::Debug>(
    result: Result<T, SourceError>,
    symbol: Symbol,
) -> String {
    let fault = fault(result);
    assert_eq!(fault.symbol, symbol, "{fault}");
    assert!(!fault.message.contains('\n'), "{fault}");
    fault.message
}
