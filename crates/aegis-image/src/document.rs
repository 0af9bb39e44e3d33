//! Manifests and indexes: what they may say, and which image of several fits.
//!
//! Pure: bytes in, a typed document or the reason why not out. OCI image manifests and
//! indexes (<https://github.com/opencontainers/image-spec>) and Docker's of schema 2
//! (<https://distribution.github.io/distribution/spec/manifest-v2-2/>) are one thing here.

use std::fmt;
use std::str::FromStr;

use aegis_core::platform as guest;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde::{Deserialize, Serialize};

/// Docker's manifest of schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.";
/// Docker's layers, plain, gzip and zstd.
const DOCKER_LAYERS: [&str; 4] = [
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.diff.tar+zstd",
];

/// Longest manifest, index or configuration in bytes: containers/image takes no
/// longer ones (`internal/iolimits`), and registries need not store them.
pub const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;

/// What a digest or tag leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// An image.
    Manifest(Box<ImageManifest>),
    /// The same image for several platforms.
    Index(Box<ImageIndex>),
}

/// What an image must be made for: a processor, always under Linux.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// As Go spells it (`GOARCH`): amd64, arm64, arm.
    pub architecture: String,
    /// A level of the architecture: v7 of arm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Why bytes are no manifest or index of an image that can run here.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("it is not the JSON that it should be")]
    Json(#[source] serde_json::Error),
    #[error("it is longer than {MAX_DOCUMENT} bytes")]
    TooLong,
    #[error("it is both a manifest and an index")]
    Ambiguous,
    #[error("it has {layers} layers, its configuration names {named}")]
    LayerCount { layers: usize, named: usize },
    #[error("it is a manifest of Docker's schema 1, which was given up in 2017")]
    Schema1,
    #[error("its media type is '{0}', not that of an image")]
    MediaType(String),
    #[error("its configuration is of the media type '{0}': it is an artifact, not an image")]
    ConfigType(String),
    #[error("a layer is of the media type '{0}'")]
    LayerType(String),
    #[error("a layer is not in the registry but elsewhere ('{0}'), as for images of Windows")]
    ForeignLayer(String),
}

impl DocumentError {
    /// Whether the document is sound but asks for what is not done here.
    pub fn is_unsupported(&self) -> bool {
        match self {
            Self::Schema1
            | Self::MediaType(_)
            | Self::ConfigType(_)
            | Self::LayerType(_)
            | Self::ForeignLayer(_) => true,
            Self::Json(_) | Self::TooLong | Self::Ambiguous | Self::LayerCount { .. } => false,
        }
    }
}

/// The keys that tell documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

enum Kind {
    Manifest,
    Index,
}

impl Document {
    /// Whether a descriptor promises one.
    pub(crate) fn is_one(descriptor: &Descriptor) -> bool {
        kind_of(descriptor.media_type().as_ref()).is_ok()
    }

    /// Reads a manifest or an index. `content_type` counts where the document does
    /// not say itself what it is.
    ///
    /// # Errors
    /// It is neither, or one that cannot run here.
    pub fn read(bytes: &[u8], content_type: Option<&str>) -> Result<Self, DocumentError> {
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(DocumentError::TooLong);
        }
        let outline: Outline = serde_json::from_slice(bytes).map_err(DocumentError::Json)?;
        // A document that two readers take for two things has two sets of layers:
        // CVE-2021-41190.
        if outline.manifests.is_some() && (outline.config.is_some() || outline.layers.is_some()) {
            return Err(DocumentError::Ambiguous);
        }
        match outline.kind(content_type)? {
            Kind::Index => {
                let index: ImageIndex =
                    serde_json::from_slice(bytes).map_err(DocumentError::Json)?;
                Ok(Self::Index(Box::new(index)))
            }
            Kind::Manifest => {
                let manifest = serde_json::from_slice(bytes).map_err(DocumentError::Json)?;
                check_manifest(&manifest)?;
                Ok(Self::Manifest(Box::new(manifest)))
            }
        }
    }
}

impl Outline {
    fn kind(&self, content_type: Option<&str>) -> Result<Kind, DocumentError> {
        if self.schema_version == Some(1) {
            return Err(DocumentError::Schema1);
        }
        if let Some(own) = &self.media_type {
            return kind_of(own);
        }
        // A registry may call a document that names no type of its own anything.
        let told = content_type.map(|text| text.split(';').next().unwrap_or(text).trim());
        if let Some(Ok(kind)) = told.map(kind_of) {
            return Ok(kind);
        }
        match (&self.manifests, &self.config) {
            (Some(_), _) => Ok(Kind::Index),
            (None, Some(_)) => Ok(Kind::Manifest),
            (None, None) => Err(DocumentError::MediaType(
                told.unwrap_or_default().to_owned(),
            )),
        }
    }
}

fn kind_of(media_type: &str) -> Result<Kind, DocumentError> {
    match MediaType::from(media_type) {
        MediaType::ImageManifest => Ok(Kind::Manifest),
        MediaType::ImageIndex => Ok(Kind::Index),
        _ => match media_type {
            DOCKER_MANIFEST => Ok(Kind::Manifest),
            DOCKER_INDEX => Ok(Kind::Index),
            old if old.starts_with(DOCKER_SCHEMA_1) => Err(DocumentError::Schema1),
            other => Err(DocumentError::MediaType(other.to_owned())),
        },
    }
}

fn check_manifest(manifest: &ImageManifest) -> Result<(), DocumentError> {
    match manifest.config().media_type() {
        MediaType::ImageConfig => {}
        MediaType::Other(docker) if docker == DOCKER_CONFIG => {}
        other => return Err(DocumentError::ConfigType(other.to_string())),
    }
    manifest.layers().iter().try_for_each(check_layer)
}

fn check_layer(layer: &Descriptor) -> Result<(), DocumentError> {
    if let Some(url) = layer.urls().iter().flatten().next() {
        return Err(DocumentError::ForeignLayer(url.clone()));
    }
    match layer.media_type() {
        MediaType::ImageLayer | MediaType::ImageLayerGzip | MediaType::ImageLayerZstd => Ok(()),
        MediaType::ImageLayerNonDistributable
        | MediaType::ImageLayerNonDistributableGzip
        | MediaType::ImageLayerNonDistributableZstd => {
            Err(DocumentError::ForeignLayer(layer.media_type().to_string()))
        }
        MediaType::Other(docker) if DOCKER_LAYERS.contains(&docker.as_str()) => Ok(()),
        MediaType::Other(docker) if docker.starts_with(DOCKER_FOREIGN) => {
            Err(DocumentError::ForeignLayer(docker.clone()))
        }
        other => Err(DocumentError::LayerType(other.to_string())),
    }
}

/// Reads the configuration of an image and compares it with the manifest.
///
/// # Errors
/// It is no configuration, or one for other layers.
pub fn read_config(
    bytes: &[u8],
    manifest: &ImageManifest,
) -> Result<ImageConfiguration, DocumentError> {
    let config: ImageConfiguration = serde_json::from_slice(bytes).map_err(DocumentError::Json)?;
    let (layers, named) = (manifest.layers().len(), config.rootfs().diff_ids().len());
    match layers == named {
        true => Ok(config),
        false => Err(DocumentError::LayerCount { layers, named }),
    }
}

impl Platform {
    /// That of guests where nobody says otherwise.
    pub fn host() -> Self {
        guest::Platform::HOST.into()
    }

    /// The variant as a number; images without one are of the architecture's first,
    /// for arm64 the only one: image-spec, `image-index.md`, "Platform Variants".
    fn level(architecture: &str, variant: Option<&str>) -> Option<u32> {
        match variant.filter(|variant| !variant.is_empty()) {
            // Arm has versions such as v8.1, of which the first number counts here.
            Some(variant) => variant.strip_prefix('v')?.split('.').next()?.parse().ok(),
            None => Some(match architecture {
                "arm64" => 8,
                "arm" => 7,
                _ => 1,
            }),
        }
    }

    /// How well an image fits, higher is better; `None` if it cannot run.
    fn fit(&self, os: &str, architecture: &str, variant: Option<&str>) -> Option<u32> {
        if os != "linux" || architecture != self.architecture {
            return None;
        }
        let own = Self::level(&self.architecture, self.variant.as_deref())?;
        Self::level(architecture, variant).filter(|level| *level <= own)
    }

    /// Whether images of another platform run.
    pub fn accepts(&self, other: &Self) -> bool {
        self.fit("linux", &other.architecture, other.variant.as_deref())
            .is_some()
    }

    /// Whether an image of this configuration runs.
    pub fn runs(&self, config: &ImageConfiguration) -> bool {
        let variant = config.variant().as_deref();
        let architecture = config.architecture().to_string();
        self.fit(&config.os().to_string(), &architecture, variant)
            .is_some()
    }

    /// The image of an index that fits best.
    ///
    /// # Errors
    /// None does: the platforms that there are.
    pub fn choose<'a>(&self, index: &'a ImageIndex) -> Result<&'a Descriptor, Vec<String>> {
        let images = || {
            let entries = index.manifests().iter();
            entries.filter(|entry| kind_of(entry.media_type().as_ref()).is_ok())
        };
        let mut best = None;
        let mut there = Vec::new();
        for entry in images() {
            let Some(platform) = entry.platform() else {
                continue;
            };
            let (os, architecture) = (
                platform.os().to_string(),
                platform.architecture().to_string(),
            );
            // What builders attach to an image has no platform but this.
            if os == "unknown" {
                continue;
            }
            let variant = platform
                .variant()
                .as_deref()
                .filter(|text| !text.is_empty());
            there.push(spell(&os, &architecture, variant));
            let fit = self.fit(&os, &architecture, variant);
            // The first of equals, as the order is the author's.
            if fit > best.map(|(fit, _)| fit) {
                best = fit.map(|fit| (fit, entry));
            }
        }
        if let Some((_, entry)) = best {
            return Ok(entry);
        }
        // Tools that make one image often leave out its platform; the configuration
        // tells then.
        let mut unnamed = images().filter(|entry| entry.platform().is_none());
        match (unnamed.next(), unnamed.next()) {
            (Some(only), None) if there.is_empty() => Ok(only),
            _ => Err(there),
        }
    }
}

pub(crate) fn spell(os: &str, architecture: &str, variant: Option<&str>) -> String {
    match variant {
        Some(variant) => format!("{os}/{architecture}/{variant}"),
        None => format!("{os}/{architecture}"),
    }
}

impl From<guest::Platform> for Platform {
    fn from(platform: guest::Platform) -> Self {
        Self {
            architecture: platform.architecture().to_owned(),
            variant: None,
        }
    }
}

/// A text that is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a platform: linux/ARCHITECTURE or linux/ARCHITECTURE/VARIANT")]
pub struct PlatformError(String);

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let bad = || PlatformError(text.to_owned());
        let Some(("linux", rest)) = text.split_once('/') else {
            return Err(bad());
        };
        let (architecture, variant) = match rest.split_once('/') {
            Some((architecture, variant)) => (architecture, Some(variant.to_owned())),
            None => (rest, None),
        };
        let word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric());
        if !word(architecture) || !variant.as_deref().is_none_or(word) {
            return Err(bad());
        }
        Ok(Self {
            architecture: architecture.to_owned(),
            variant,
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spell("linux", &self.architecture, self.variant.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    fn descriptor(media_type: &str) -> serde_json::Value {
        json!({"mediaType": media_type, "digest": EMPTY, "size": 2})
    }

    fn manifest(config: &str, layer: &str) -> Vec<u8> {
        let text = json!({
            "schemaVersion": 2,
            "config": descriptor(config),
            "layers": [descriptor(layer)],
        });
        serde_json::to_vec(&text).unwrap()
    }

    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

    #[test]
    fn layers_of_all_usual_types_are_taken() {
        for layer in [LAYER, &format!("{LAYER}+gzip"), &format!("{LAYER}+zstd")]
            .into_iter()
            .chain(DOCKER_LAYERS)
        {
            let read = Document::read(&manifest(CONFIG, layer), None);
            assert!(matches!(read, Ok(Document::Manifest(_))), "{layer}");
        }
    }

    #[test]
    fn what_cannot_run_is_refused_with_its_name() {
        let nondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        for (bytes, why) in [
            (manifest(CONFIG, nondistributable), "not in the registry"),
            (manifest(CONFIG, foreign), "not in the registry"),
            (manifest(CONFIG, "application/x-tar"), "'application/x-tar'"),
            (manifest("application/vnd.cncf.helm.config.v1+json", LAYER), "artifact"),
            (br#"{"schemaVersion":1}"#.to_vec(), "schema 1"),
            (br#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v1+prettyjws"}"#.to_vec(), "schema 1"),
            (br#"{"schemaVersion":2,"mediaType":"text/html"}"#.to_vec(), "text/html"),
            (br#"{"schemaVersion":2}"#.to_vec(), "media type"),
        ] {
            let error = Document::read(&bytes, None).unwrap_err();
            assert!(error.is_unsupported(), "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn broken_documents_are_corrupt() {
        let both = json!({"schemaVersion": 2, "manifests": [], "layers": [], "config": {}});
        let digest = json!({"schemaVersion": 2, "config": {"mediaType": CONFIG, "size": 2, "digest": "sha256:../../etc"}, "layers": []});
        let long = vec![b' '; 5 << 20];
        for bytes in [
            serde_json::to_vec(&both).unwrap(),
            serde_json::to_vec(&digest).unwrap(),
            b"<html>".to_vec(),
            long,
        ] {
            assert!(!Document::read(&bytes, None).unwrap_err().is_unsupported());
        }
    }

    fn index(platforms: &[&str]) -> ImageIndex {
        let entries: Vec<_> = platforms
            .iter()
            .map(|text| {
                let mut entry = descriptor(DOCKER_MANIFEST);
                let mut parts = text.split('/');
                if let (Some(os), Some(architecture)) = (parts.next(), parts.next()) {
                    entry["platform"] = json!({"os": os, "architecture": architecture});
                    if let Some(variant) = parts.next() {
                        entry["platform"]["variant"] = json!(variant);
                    }
                }
                entry
            })
            .collect();
        let text = json!({"schemaVersion": 2, "mediaType": DOCKER_INDEX, "manifests": entries});
        match Document::read(&serde_json::to_vec(&text).unwrap(), None).unwrap() {
            Document::Index(index) => *index,
            Document::Manifest(_) => panic!("an index"),
        }
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let arms = [
            "windows/amd64",
            "linux/arm/v6",
            "linux/arm/v7",
            "linux/arm64/v8",
            "unknown/unknown",
        ];
        for (wanted, platforms, chosen) in [
            ("linux/arm/v7", &arms[..], Some(2)),
            ("linux/arm/v6", &arms, Some(1)),
            ("linux/arm/v5", &arms, None),
            ("linux/arm64", &arms, Some(3)),
            ("linux/amd64", &arms, None),
            ("linux/amd64", &["linux/amd64/v3", "linux/amd64"], Some(1)),
            (
                "linux/amd64/v3",
                &["linux/amd64", "linux/amd64/v3"],
                Some(1),
            ),
            ("linux/amd64", &["-"], Some(0)),
            ("linux/amd64", &["-", "-"], None),
            ("linux/amd64", &["-", "linux/arm64"], None),
        ] {
            let index = index(platforms);
            let platform: Platform = wanted.parse().unwrap();
            let found = platform.choose(&index).ok();
            let expected = chosen.map(|at: usize| &index.manifests()[at]);
            assert_eq!(found, expected, "{wanted} of {platforms:?}");
        }
        let arms = index(&arms);
        let amd64: Platform = "linux/amd64".parse().unwrap();
        assert_eq!(amd64.choose(&arms).unwrap_err().len(), 4);
    }

    #[test]
    fn platforms_are_spelled_as_they_are_read() {
        for text in ["linux/amd64", "linux/arm/v7"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for text in [
            "amd64",
            "windows/amd64",
            "linux/",
            "linux/arm/",
            "linux/a/b/c",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
