//! What `docker save` writes: a tar file whose `manifest.json` names configurations
//! and layers (<https://github.com/moby/docker-image-spec>, "Combined Image JSON +
//! Filesystem Changeset Format"). It has no digests of its own, so the manifest is made
//! here, with what the configuration says of its layers.

use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifestBuilder, MediaType};
use serde::Deserialize;

use super::local::json;
use super::members::{Member, Members, local};
use crate::digest::{self, Algorithm, Digest, Hash};
use crate::document::{DocumentError, MAX_DOCUMENT};
use crate::error::{LocalError, SourceError};
use crate::name::ImageName;

/// Bytes hashed at once.
const PIECE: usize = 256 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// A manifest for an image of the archive, and which members its blobs are.
pub(super) fn read(
    members: &Members,
    name: Option<&str>,
) -> Result<(Vec<u8>, HashMap<String, String>), SourceError> {
    let all: Vec<Saved> = json(members, "manifest.json")?;
    let saved = choose(all, name).map_err(local(members.path()))?;
    let config_bytes = members.read(&saved.config)?;
    let unusable = |source| SourceError::Document {
        what: saved.config.clone(),
        place: members.path().display().to_string(),
        source,
    };
    let config: ImageConfiguration = serde_json::from_slice(&config_bytes)
        .map_err(|source| unusable(DocumentError::Json(source)))?;
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != saved.layers.len() {
        return Err(unusable(DocumentError::LayerCount {
            layers: saved.layers.len(),
            named: diff_ids.len(),
        }));
    }
    let mut named = HashMap::new();
    let mut layers = Vec::new();
    for (member, diff_id) in saved.layers.iter().zip(diff_ids) {
        let layer = layer(members, member, diff_id)?;
        named.insert(layer.digest().to_string(), member.clone());
        layers.push(layer);
    }
    let digest = digest::sha256(&config_bytes);
    named.insert(digest.to_string(), saved.config.clone());
    let length = config_bytes.len() as u64;
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(Descriptor::new(MediaType::ImageConfig, length, &digest))
        .layers(layers)
        .build()
        .expect("a manifest with all its fields");
    let bytes = serde_json::to_vec(&manifest).map_err(DocumentError::Json);
    let bytes = bytes.map_err(unusable)?;
    match bytes.len() as u64 > MAX_DOCUMENT {
        true => Err(unusable(DocumentError::TooLong)),
        false => Ok((bytes, named)),
    }
}

/// The image of that name, or the only one.
fn choose(all: Vec<Saved>, name: Option<&str>) -> Result<Saved, LocalError> {
    let tags = all
        .iter()
        .flat_map(|saved| saved.repo_tags.iter().flatten());
    let available: Vec<String> = tags.cloned().collect();
    let whole = |text: &str| text.parse::<ImageName>().ok();
    let is_called = |saved: &Saved, name: &str| {
        let mut tags = saved.repo_tags.iter().flatten();
        // Whatever is typed and whatever is written leaves out the defaults, or not.
        tags.any(|tag| tag == name || (whole(tag).is_some() && whole(tag) == whole(name)))
    };
    let mut fitting = all
        .into_iter()
        .filter(|saved| name.is_none_or(|name| is_called(saved, name)));
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => Err(LocalError::Several(available)),
        (None, _) => Err(LocalError::NoTag {
            tag: name.unwrap_or_default().to_owned(),
            available,
        }),
    }
}

fn layer(members: &Members, name: &str, diff_id: &str) -> Result<Descriptor, SourceError> {
    let member = members.open(name)?;
    let size = member.len();
    let failed = |source| SourceError::File {
        operation: "read",
        path: PathBuf::from(members.path()).join(name),
        source,
    };
    let mut start = Vec::new();
    let begins = member.clone().take(4).read_to_end(&mut start);
    begins.map_err(failed)?;
    let media_type = match start[..] {
        [0x1f, 0x8b, ..] => MediaType::ImageLayerGzip,
        [0x28, 0xb5, 0x2f, 0xfd] => MediaType::ImageLayerZstd,
        _ => MediaType::ImageLayer,
    };
    // An uncompressed layer's digest is in the configuration, and is checked when the
    // layer is read. A compressed one's is nowhere.
    let digest = match (&media_type, diff_id.parse::<Digest>()) {
        (MediaType::ImageLayer, Ok(digest)) => digest,
        _ => hash(member).map_err(failed)?,
    };
    Ok(Descriptor::new(media_type, size, &digest))
}

fn hash(mut member: Member) -> std::io::Result<Digest> {
    let mut hash = Hash::new(Algorithm::Sha256);
    let mut buffer = vec![0; PIECE];
    loop {
        match member.read(&mut buffer)? {
            0 => return Ok(hash.finish()),
            read => hash.update(&buffer[..read]),
        }
    }
}
