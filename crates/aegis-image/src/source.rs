//! Images where they come from: registries, layouts, archives.
//!
//! ```text
//!  name ──open──► Source ──find(platform)──► Found: manifest, configuration, layers
//!                    └─────blob(layer)─────► bytes
//! ```
//!
//! Nothing that comes out has not been compared with its digest and size, except
//! what a tag leads to, for which there is neither: there the registry's own word
//! counts, `Docker-Content-Digest`.

mod challenge;
mod client;
mod docker_archive;
mod local;
mod members;
mod pace;
mod registry;
mod remote;
mod sink;
mod token;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest};
use tokio::fs::File;

pub use sink::Progress;

use crate::access::Access;
use crate::digest::{self, Digest};
use crate::document::{self, Document, DocumentError, MAX_DOCUMENT, Platform};
use crate::error::{Corruption, SourceError};
use crate::name::ImageName;
use local::Local;
use registry::Registry;
use sink::{Sink, Target};

/// An image's name, opened.
#[derive(Debug)]
pub struct Source {
    name: ImageName,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Registry(Registry),
    Local(Box<Local>),
}

/// An image for one platform.
#[derive(Clone, Debug)]
pub struct Found {
    /// What the name leads to: the manifest, or the index that it is in.
    pub name_digest: Digest,
    /// Which image this is, whatever it is called.
    pub manifest_digest: Digest,
    /// The manifest.
    pub manifest: ImageManifest,
    /// By which Docker and podman name the image.
    pub config_digest: Digest,
    /// The configuration, byte by byte.
    pub config_bytes: Vec<u8>,
    /// The configuration, read.
    pub config: ImageConfiguration,
    /// The layers, the lowest first; as many as the configuration has `diff_ids`.
    pub layers: Vec<Descriptor>,
}

/// What a name leads to.
#[derive(Clone, Debug)]
struct Root {
    digest: Digest,
    document: Document,
}

impl Root {
    fn read(bytes: &[u8], content_type: Option<&str>) -> Result<Self, DocumentError> {
        Ok(Self {
            digest: digest::sha256(bytes),
            document: Document::read(bytes, content_type)?,
        })
    }
}

impl Source {
    /// Opens a name. Folders and files are looked into; registries are first asked by
    /// [`Self::find`].
    ///
    /// # Errors
    /// The folder or file is not there or holds no images; the access cannot be used.
    pub async fn open(name: &ImageName, access: &Access) -> Result<Self, SourceError> {
        let kind = match name {
            ImageName::Registry(registry) => Kind::Registry(Registry::new(registry, access)?),
            ImageName::Layout(_) | ImageName::OciArchive(_) | ImageName::DockerArchive(_) => {
                Kind::Local(Box::new(Local::open(name.clone()).await?))
            }
        };
        Ok(Self {
            name: name.clone(),
            kind,
        })
    }

    /// Finds the image that fits a platform.
    ///
    /// # Errors
    /// There is none, it cannot be had, or it is not what it should be.
    pub async fn find(&self, platform: &Platform) -> Result<Found, SourceError> {
        let root = match &self.kind {
            Kind::Registry(registry) => registry.root().await?,
            Kind::Local(local) => local.root(),
        };
        let name_digest = root.digest;
        let (manifest, manifest_digest) = match root.document {
            Document::Manifest(manifest) => (*manifest, name_digest.clone()),
            Document::Index(index) => {
                let chosen = platform.choose(&index);
                let chosen = chosen.map_err(|available| self.unfit(platform, available))?;
                let bytes = self.document(chosen, "the manifest").await?;
                let read = Document::read(&bytes, Some(chosen.media_type().as_ref()));
                match read.map_err(self.unusable("the manifest"))? {
                    Document::Manifest(manifest) => (*manifest, digest::sha256(&bytes)),
                    Document::Index(_) => {
                        let nested = DocumentError::MediaType(chosen.media_type().to_string());
                        return Err(self.unusable("an index in the index")(nested));
                    }
                }
            }
        };
        let config_bytes = self
            .document(manifest.config(), "the configuration")
            .await?;
        let config = document::read_config(&config_bytes, &manifest);
        let config = config.map_err(self.unusable("the configuration"))?;
        if !platform.runs(&config) {
            let variant = config.variant().as_deref();
            let (os, architecture) = (config.os().to_string(), config.architecture().to_string());
            let only = document::spell(&os, &architecture, variant);
            return Err(self.unfit(platform, vec![only]));
        }
        Ok(Found {
            name_digest,
            manifest_digest,
            layers: manifest.layers().clone(),
            config_digest: digest::sha256(&config_bytes),
            manifest,
            config_bytes,
            config,
        })
    }

    /// Loads a blob into a file, whose content it replaces. The bytes are those of the
    /// descriptor if this succeeds, and any bytes, but not more, if it does not.
    ///
    /// # Errors
    /// The blob cannot be had, is not what it should be, or cannot be written.
    pub async fn blob(
        &self,
        descriptor: &Descriptor,
        to: &mut File,
        progress: Progress<'_>,
    ) -> Result<(), SourceError> {
        self.load(descriptor, Target::File(to), progress).await
    }

    async fn load(
        &self,
        descriptor: &Descriptor,
        target: Target<'_>,
        progress: Progress<'_>,
    ) -> Result<(), SourceError> {
        let place = self.name.short();
        let mut sink = Sink::new(target, descriptor, progress, place).await?;
        match &self.kind {
            Kind::Registry(registry) => registry.blob(descriptor, sink).await,
            Kind::Local(local) => {
                local.blob(descriptor, &mut sink).await?;
                sink.finish().await
            }
        }
    }

    /// A document that a descriptor promises.
    async fn document(&self, descriptor: &Descriptor, what: &str) -> Result<Vec<u8>, SourceError> {
        if descriptor.size() > MAX_DOCUMENT {
            return Err(self.unusable(what)(DocumentError::TooLong));
        }
        if let Kind::Registry(registry) = &self.kind
            && Document::is_one(descriptor)
        {
            return registry.manifest(descriptor).await;
        }
        let mut bytes = Vec::new();
        let target = Target::Memory(&mut bytes);
        self.load(descriptor, target, &mut |_| {}).await?;
        Ok(bytes)
    }

    fn unusable(&self, what: &str) -> impl FnOnce(DocumentError) -> SourceError {
        let (what, place) = (what.to_owned(), self.name.short());
        |source| SourceError::Document {
            what,
            place,
            source,
        }
    }

    fn unfit(&self, wanted: &Platform, available: Vec<String>) -> SourceError {
        SourceError::Platform {
            name: self.name.short(),
            wanted: wanted.clone(),
            available,
        }
    }
}

/// Compares a whole document with its descriptor.
fn check_document(bytes: &[u8], descriptor: &Descriptor) -> Result<(), Corruption> {
    let found = bytes.len() as u64;
    if found > descriptor.size() {
        return Err(Corruption::Longer(descriptor.size()));
    }
    if found < descriptor.size() {
        return Err(Corruption::Shorter {
            expected: descriptor.size(),
            found,
        });
    }
    digest::check(bytes, &Digest::of(descriptor.digest())?)
}

/// Asks a registry whether it accepts the access's credentials.
pub(crate) async fn check(access: Access) -> Result<(), SourceError> {
    for endpoint in &access.endpoints {
        remote::Remote::new(endpoint.clone(), &access)?
            .check()
            .await?;
    }
    Ok(())
}
