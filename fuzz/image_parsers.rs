//! What reads the bytes of registries, and what users type about images, called with any
//! bytes. The fuzz targets and the tests of aegis-image share these, as those of
//! aegis-vmm share `parsers.rs`.

#![allow(dead_code, reason = "each target uses one of them")]

use aegis_image::document::{Document, Platform, read_config};
use aegis_image::name::ImageName;
use aegis_image::record::Config;

/// Manifests, indexes and configurations.
pub(crate) fn documents(bytes: &[u8]) {
    let Ok(document) = Document::read(bytes, None) else {
        return;
    };
    match document {
        Document::Index(index) => {
            for platform in ["linux/amd64", "linux/arm64", "linux/arm/v7"] {
                let platform: Platform = platform.parse().expect("a platform");
                if let Ok(chosen) = platform.choose(&index) {
                    assert!(index.manifests().contains(chosen));
                }
            }
        }
        Document::Manifest(manifest) => {
            if let Ok(config) = read_config(bytes, &manifest) {
                assert_eq!(config.rootfs().diff_ids().len(), manifest.layers().len());
                Platform::host().runs(&config);
            }
        }
    }
}

/// Names of images.
pub(crate) fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(name) = text.parse::<ImageName>() else {
        return;
    };
    for again in [name.to_string(), name.short()] {
        assert_eq!(again.parse::<ImageName>().as_ref(), Ok(&name), "{text:?}");
    }
}

/// Instructions that change an image, one in each line.
pub(crate) fn changes(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let mut config = Config::default();
    for line in text.lines() {
        let before = config.clone();
        if config.change(line).is_err() {
            assert_eq!(config, before, "{line:?} changed a part of it");
        }
    }
    let names = |config: &Config| -> Vec<String> {
        let names = config.env.iter().map(|variable| variable.split('=').next());
        names.flatten().map(str::to_owned).collect()
    };
    let mut sorted = names(&config);
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), config.env.len(), "a variable is set once");
    assert!(config.exposed.iter().all(|port| port.contains('/')));
}
