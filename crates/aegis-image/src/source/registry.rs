//! An image in a registry that may have mirrors.

use std::sync::atomic::{AtomicBool, Ordering};

use oci_spec::image::Descriptor;

use super::remote::{Fetched, Remote};
use super::sink::Sink;
use super::{Root, check_document};
use crate::access::Access;
use crate::digest::{self, Digest};
use crate::error::{Corruption, SourceError};
use crate::name::RegistryName;
use crate::registries::Serves;

/// The mirrors, then the registry itself.
#[derive(Debug)]
pub(super) struct Registry {
    name: RegistryName,
    remotes: Vec<Mirrored>,
}

#[derive(Debug)]
struct Mirrored {
    remote: Remote,
    /// It failed, and is not worth the wait again.
    failed: AtomicBool,
}

impl Registry {
    pub(super) fn new(name: &RegistryName, access: &Access) -> Result<Self, SourceError> {
        let mut remotes = Vec::new();
        let mut unusable = None;
        for endpoint in &access.endpoints {
            match Remote::new(endpoint.clone(), access) {
                Ok(remote) => remotes.push(Mirrored {
                    remote,
                    failed: AtomicBool::new(false),
                }),
                Err(error) => unusable = Some(error),
            }
        }
        // A mirror may do where the registry itself cannot be asked, say for want of
        // certificates.
        match unusable {
            Some(error) if remotes.is_empty() => Err(error),
            _ => Ok(Self {
                name: name.clone(),
                remotes,
            }),
        }
    }

    /// What the name leads to.
    pub(super) async fn root(&self) -> Result<Root, SourceError> {
        let reference = self.name.reference();
        let mut last = self.nowhere();
        for mirrored in self.asked(self.name.digest().is_some()) {
            let fetched = mirrored.remote.manifest(reference).await;
            match fetched.and_then(|fetched| self.check_root(mirrored, &fetched)) {
                Ok(root) => return Ok(root),
                Err(error) => last = mirrored.fail(error),
            }
        }
        Err(last)
    }

    /// A name's digest is the user's word, the header of a tag's document the registry's.
    fn check_root(&self, mirrored: &Mirrored, fetched: &Fetched) -> Result<Root, SourceError> {
        let corrupt = |source| SourceError::Corrupt {
            what: self.name.to_string(),
            place: mirrored.remote.endpoint.host.clone(),
            source,
        };
        let told = self.name.digest().or(fetched.digest.as_deref());
        if let Some(told) = told {
            let named = told.parse::<Digest>();
            let named = named.map_err(|_| corrupt(Corruption::Algorithm(told.to_owned())))?;
            digest::check(&fetched.bytes, &named).map_err(corrupt)?;
        }
        let root = Root::read(&fetched.bytes, fetched.content_type.as_deref());
        root.map_err(|source| SourceError::Document {
            what: "the manifest".to_owned(),
            place: self.name.to_string(),
            source,
        })
    }

    /// A manifest that a descriptor promises.
    pub(super) async fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError> {
        let mut last = self.nowhere();
        for mirrored in self.asked(true) {
            let fetched = mirrored.remote.manifest(descriptor.digest().as_ref()).await;
            let checked = fetched.and_then(|fetched| {
                let corrupt = |source| SourceError::Corrupt {
                    what: format!("the manifest {}", descriptor.digest()),
                    place: mirrored.remote.endpoint.host.clone(),
                    source,
                };
                check_document(&fetched.bytes, descriptor).map_err(corrupt)?;
                Ok(fetched.bytes)
            });
            match checked {
                Ok(bytes) => return Ok(bytes),
                Err(error) => last = mirrored.fail(error),
            }
        }
        Err(last)
    }

    pub(super) async fn blob(
        &self,
        descriptor: &Descriptor,
        mut sink: Sink<'_>,
    ) -> Result<(), SourceError> {
        let mut last = self.nowhere();
        for mirrored in self.asked(true) {
            sink.restart().await?;
            let loaded = match mirrored.remote.blob(descriptor, &mut sink).await {
                Ok(()) => sink.finish().await,
                failed => failed,
            };
            match loaded {
                Ok(()) => return Ok(()),
                // Another registry does not change what happens to our own file.
                Err(error @ SourceError::File { .. }) => return Err(error),
                Err(error) => last = mirrored.fail(error),
            }
        }
        Err(last)
    }

    /// Who is asked: not those that failed, but always the registry itself.
    fn asked(&self, by_digest: bool) -> impl Iterator<Item = &Mirrored> {
        let own = self.remotes.len().saturating_sub(1);
        let remotes = self.remotes.iter().enumerate();
        let serves = move |mirrored: &Mirrored| match mirrored.remote.endpoint.serves {
            Serves::All => true,
            Serves::DigestOnly => by_digest,
            Serves::TagOnly => !by_digest,
        };
        remotes.filter_map(move |(at, mirrored)| {
            let usable = !mirrored.failed.load(Ordering::Relaxed) && serves(mirrored);
            (usable || at == own).then_some(mirrored)
        })
    }

    /// The error of an access that has no endpoint for this name.
    fn nowhere(&self) -> SourceError {
        SourceError::NotFound {
            what: self.name.to_string(),
            place: "an access without registries".to_owned(),
        }
    }
}

impl Mirrored {
    fn fail(&self, error: SourceError) -> SourceError {
        // What one image lacks another may have; all else stays as it is.
        if !matches!(error, SourceError::NotFound { .. }) {
            self.failed.store(true, Ordering::Relaxed);
        }
        error
    }
}
