//! Images on this host: OCI layouts, as folders and as tar files
//! (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md>), and
//! what `docker save` writes.

use std::collections::HashMap;
use std::io::Read;

use oci_spec::image::{Descriptor, ImageIndex, OciLayout};
use serde::de::DeserializeOwned;

use super::members::{Member, Members, local};
use super::sink::Sink;
use super::{Root, check_document, docker_archive};
use crate::document::{DocumentError, MAX_DOCUMENT};
use crate::error::{LocalError, SourceError};
use crate::name::{ImageName, LocalName};

/// Where a layout says what an image is called.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Bytes read at once: enough that the disk and not the way to it is the limit.
const PIECE: usize = 1024 * 1024;

/// An image on this host.
#[derive(Debug)]
pub(super) struct Local {
    members: Members,
    root: Root,
    /// Members that hold a blob but are not called after its digest.
    named: HashMap<String, String>,
}

impl Local {
    pub(super) async fn open(name: ImageName) -> Result<Self, SourceError> {
        blocking(move || match &name {
            ImageName::Layout(local) => Self::layout(Members::of_folder(&local.path)?, local),
            ImageName::OciArchive(local) => Self::layout(Members::of_tar(&local.path)?, local),
            ImageName::DockerArchive(local) => {
                let members = Members::of_tar(&local.path)?;
                let (root, named) = docker_archive::read(&members, local.tag.as_deref())?;
                Ok(Self {
                    root: read_root(&members, &root, None)?,
                    named,
                    members,
                })
            }
            ImageName::Registry(name) => Err(SourceError::NotFound {
                what: name.to_string(),
                place: "this host".to_owned(),
            }),
        })
        .await
    }

    fn layout(members: Members, name: &LocalName) -> Result<Self, SourceError> {
        let layout: OciLayout = json(&members, "oci-layout")?;
        if layout.image_layout_version() != "1.0.0" {
            let version = layout.image_layout_version().clone();
            return Err(local(members.path())(LocalError::LayoutVersion(version)));
        }
        let index: ImageIndex = json(&members, "index.json")?;
        let chosen = choose(&index, name.tag.as_deref()).map_err(local(members.path()))?;
        let root = match chosen {
            Some(one) => {
                let bytes = document(&members, one)?;
                read_root(&members, &bytes, Some(one.media_type().as_ref()))?
            }
            None => read_root(&members, &members.read("index.json")?, None)?,
        };
        Ok(Self {
            members,
            root,
            named: HashMap::new(),
        })
    }

    pub(super) fn root(&self) -> Root {
        self.root.clone()
    }

    /// Copies a blob into a sink, which does not yet check it.
    pub(super) async fn blob(
        &self,
        descriptor: &Descriptor,
        sink: &mut Sink<'_>,
    ) -> Result<(), SourceError> {
        let blob = blob_name(descriptor);
        let named = self.named.get(descriptor.digest().as_ref());
        let name = named.cloned().unwrap_or(blob);
        let members = self.members.clone();
        let mut member = blocking(move || members.open(&name)).await?;
        if member.len() > descriptor.size() {
            let long = crate::error::Corruption::Longer(descriptor.size());
            return Err(sink.corrupt(long));
        }
        let mut buffer = vec![0; PIECE];
        loop {
            let path = self.members.path().to_owned();
            let (next, piece, read) = blocking(move || fill(member, buffer, path)).await?;
            if read == 0 {
                return Ok(());
            }
            sink.write(&piece[..read]).await?;
            (member, buffer) = (next, piece);
        }
    }
}

fn read_root(
    members: &Members,
    bytes: &[u8],
    content_type: Option<&str>,
) -> Result<Root, SourceError> {
    Root::read(bytes, content_type).map_err(|source| SourceError::Document {
        what: "the manifest".to_owned(),
        place: members.path().display().to_string(),
        source,
    })
}

fn fill(
    mut member: Member,
    mut buffer: Vec<u8>,
    path: std::path::PathBuf,
) -> Result<(Member, Vec<u8>, usize), SourceError> {
    let read = member.read(&mut buffer);
    let read = read.map_err(|source| SourceError::File {
        operation: "read",
        path,
        source,
    })?;
    Ok((member, buffer, read))
}

/// Runs what reads files beside the runtime's own threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(cancelled) => Err(SourceError::File {
            operation: "read",
            path: "the image".into(),
            source: std::io::Error::other(cancelled),
        }),
    })
}

fn blob_name(descriptor: &Descriptor) -> String {
    let digest = descriptor.digest();
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}

/// A member as JSON.
pub(super) fn json<T: DeserializeOwned>(members: &Members, name: &str) -> Result<T, SourceError> {
    let bytes = members.read(name)?;
    let read = serde_json::from_slice(&bytes);
    read.map_err(|source| local(members.path())(LocalError::Json(name.to_owned(), source)))
}

/// The document of a descriptor, compared with it.
fn document(members: &Members, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError> {
    let place = || members.path().display().to_string();
    let what = || format!("the manifest {}", descriptor.digest());
    if descriptor.size() > MAX_DOCUMENT {
        return Err(SourceError::Document {
            what: what(),
            place: place(),
            source: DocumentError::TooLong,
        });
    }
    let bytes = members.read(&blob_name(descriptor))?;
    check_document(&bytes, descriptor).map_err(|source| SourceError::Corrupt {
        what: what(),
        place: place(),
        source,
    })?;
    Ok(bytes)
}

/// The image of that name; `None` if all of the index is one image for several
/// platforms.
fn choose<'a>(
    index: &'a ImageIndex,
    tag: Option<&str>,
) -> Result<Option<&'a Descriptor>, LocalError> {
    let called = |entry: &'a Descriptor| entry.annotations().as_ref()?.get(REF_NAME);
    let names = || {
        index
            .manifests()
            .iter()
            .filter_map(called)
            .cloned()
            .collect()
    };
    let mut fitting = index.manifests().iter().filter(|entry| match tag {
        Some(tag) => called(entry).is_some_and(|name| name == tag),
        None => true,
    });
    match (fitting.next(), fitting.next(), tag) {
        (Some(only), None, _) => Ok(Some(only)),
        (Some(first), Some(_), None) => {
            let name = called(first);
            match index.manifests().iter().all(|entry| called(entry) == name) {
                true => Ok(None),
                false => Err(LocalError::Several(names())),
            }
        }
        (Some(_), Some(_), Some(tag)) => Err(LocalError::Several(vec![tag.to_owned(); 2])),
        (None, _, tag) => Err(LocalError::NoTag {
            tag: tag.unwrap_or_default().to_owned(),
            available: names(),
        }),
    }
}
