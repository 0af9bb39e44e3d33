//! One import: from a tar archive of files to an image of one layer in the store.
//!
//! ```text
//!  descriptor ──survey──► kept in work/ ──make──► layer ─┐
//!  changes ─────────────────────────────► configuration ─┴─► publish
//! ```
//!
//! The archive is read from its descriptor once, so it may be a pipe, and no name of
//! a file is opened for it. What it must be is known before anything is made of it:
//! complete, and not an image of its own.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aegis_core::fault::{Fault, Symbol};
use aegis_core::platform as guest;
use aegis_fault_points::around;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::digest;
use crate::document::Platform;
use crate::layer::{self, Convert, LayerError, Limits, Survey};
use crate::name::ImageName;
use crate::protocol::{LayerProgress, Progress, Stage};
use crate::pull::{Cancel, PullError, TRIES, check_room, now_us};
use crate::record::{Config, Image, Layer, Name};
use crate::store::{Store, StoreError};

/// What people see in the place of a layer's digest, which is not known before the end.
const ARCHIVE: &str = "archive";
/// Bytes of a header in a tar archive.
const HEADER: u64 = 512;
/// Digits of a digest in hexadecimal, as `docker save` names its folders.
const DIGITS: usize = 64;

/// What shall become of an archive.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Where it comes from, for people: a path, or `-`.
    pub origin: String,
    /// The image's name; without one it is known by its identity alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ImageName>,
    pub config: Config,
    /// What its history says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    pub platform: Platform,
}

/// Why an archive is no image now.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("'{0}' cannot be the name of an import: that is [HOST/]NAME[:TAG]")]
    Name(String),
    #[error("an image for {0} does not run in a guest; known are {known}", known = known())]
    Platform(Platform),
    #[error("{origin} cannot be used")]
    Archive {
        origin: Origin,
        #[source]
        source: LayerError,
    },
    #[error("{origin} is {packed}, not the files of a root")]
    Packed { origin: Origin, packed: Packed },
    #[error("{0} has no files")]
    Empty(Origin),
    #[error("{0} ends without a mark of its end: a part of it is missing")]
    CutOff(Origin),
    /// What it has in common with a pull.
    #[error(transparent)]
    Pull(#[from] PullError),
}

/// The platforms of guests, for people.
fn known() -> String {
    guest::Platform::ALL
        .map(|platform| platform.to_string())
        .join(" and ")
}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> Self {
        Self::Pull(error.into())
    }
}

impl From<ImportError> for Fault {
    fn from(error: ImportError) -> Self {
        let fault = |symbol| Fault::from_error(symbol, &error);
        match error {
            ImportError::Name(_) => fault(Symbol::ImageName),
            ImportError::Platform(_) => fault(Symbol::ImagePlatform),
            ImportError::Archive { ref source, .. } => {
                let hint = source.hint().or(match source {
                    // Not even its first header is one.
                    LayerError::Malformed { at: ..=HEADER, .. } => {
                        Some("import takes a tar archive, plain or packed with gzip or zstd")
                    }
                    _ => None,
                });
                let fault = fault(source.symbol());
                match hint {
                    Some(hint) => fault.with_hint(hint),
                    None => fault,
                }
            }
            ImportError::Packed { packed, .. } => {
                let transport = packed.transport();
                fault(Symbol::ImageUnsupported).with_hint(format!(
                    "use it as it is: --image {transport}:FILE, or aegisctl image pull {transport}:FILE"
                ))
            }
            ImportError::Empty(_) | ImportError::CutOff(_) => fault(Symbol::ImageCorrupt),
            ImportError::Pull(error) => error.into(),
        }
    }
}

/// Where an archive comes from, in words.
#[derive(Clone, Debug)]
pub struct Origin(String);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.0 {
            "-" => "the standard input",
            path => path,
        })
    }
}

/// An archive that holds an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packed {
    Oci,
    Docker,
}

impl Packed {
    /// What the names at the top of an archive show it to be.
    fn of<'a>(top: impl Iterator<Item = (&'a [u8], bool)>) -> Option<Self> {
        let names: Vec<(&[u8], bool)> = top.collect();
        let has = |name: &str, is_dir| names.contains(&(name.as_bytes(), is_dir));
        // OCI image-spec, image-layout.md.
        if has("oci-layout", false) && has("index.json", false) && has("blobs", true) {
            return Some(Self::Oci);
        }
        let is_part = |(name, is_dir): &(&[u8], bool)| match is_dir {
            true => name.len() == DIGITS && name.iter().all(u8::is_ascii_hexdigit),
            false => {
                *name == b"repositories" || name.ends_with(b".json") || name.ends_with(b".tar")
            }
        };
        let is_docker = has("manifest.json", false) && names.iter().all(is_part);
        is_docker.then_some(Self::Docker)
    }

    /// How the name of an image in such an archive begins.
    fn transport(self) -> &'static str {
        match self {
            Self::Oci => "oci-archive",
            Self::Docker => "docker-archive",
        }
    }
}

impl fmt::Display for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Oci => "an image in an OCI archive",
            Self::Docker => "an image as docker save writes it",
        })
    }
}

impl Request {
    /// Whether an archive can become this.
    ///
    /// # Errors
    /// [`ImportError::Name`] or [`ImportError::Platform`].
    pub fn check(&self) -> Result<(), ImportError> {
        match &self.name {
            Some(ImageName::Registry(name)) if name.digest().is_none() => {}
            None => {}
            Some(name) => return Err(ImportError::Name(name.to_string())),
        }
        let mut guests = guest::Platform::ALL.into_iter().map(Platform::from);
        match guests.any(|guest| guest.accepts(&self.platform)) {
            true => Ok(()),
            false => Err(ImportError::Platform(self.platform.clone())),
        }
    }

    /// The configuration of an image that has the layer alone, as image-spec's
    /// config.md has it; keys are in their order, so the same means the same digest.
    fn configuration(&self, layer: &Layer, created: &str) -> String {
        let config = &self.config;
        let mut own = Map::new();
        let mut put = |key: &str, value: Value| {
            own.insert(key.to_owned(), value);
        };
        let set = |names: &[String]| {
            let names = names.iter().map(|name| (name.clone(), json!({})));
            Value::Object(names.collect())
        };
        for (key, list) in [
            ("Env", &config.env),
            ("Entrypoint", &config.entrypoint),
            ("Cmd", &config.cmd),
        ] {
            if !list.is_empty() {
                put(key, json!(list));
            }
        }
        for (key, text) in [
            ("WorkingDir", &config.workdir),
            ("User", &config.user),
            ("StopSignal", &config.stop_signal),
        ] {
            if let Some(text) = text {
                put(key, json!(text));
            }
        }
        if !config.exposed.is_empty() {
            put("ExposedPorts", set(&config.exposed));
        }
        if !config.labels.is_empty() {
            put("Labels", json!(config.labels));
        }
        let usual = || format!("Imported from {}", self.origin);
        let comment = self.message.clone().unwrap_or_else(usual);
        let mut configuration = json!({
            "architecture": self.platform.architecture,
            "os": "linux",
            "created": created,
            "config": own,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id.to_string()]},
            "history": [{"created": created, "comment": comment}],
        });
        if let (Some(variant), Value::Object(keys)) = (&self.platform.variant, &mut configuration) {
            keys.insert("variant".to_owned(), json!(variant));
        }
        configuration.to_string()
    }

    fn origin(&self) -> Origin {
        Origin(self.origin.clone())
    }
}

/// Makes an image of an archive that is read from where it stands. `created`: when
/// that was, RFC 3339. `progress` is told how far it is.
///
/// # Errors
/// Why there is no image; the store is then as it was, but for a layer that is whole.
pub async fn import(
    store: &Store,
    archive: File,
    request: Request,
    created: String,
    progress: watch::Sender<Progress>,
    cancel: &Cancel,
) -> Result<Image, ImportError> {
    request.check()?;
    store.prepare()?;
    let work = Arc::new(store.work()?);
    let size = size(&archive);
    // It is here twice: as it came, and as a file system.
    check_room(store, size.unwrap_or_default().saturating_mul(2))?;
    let import = Import {
        store: store.clone(),
        folder: work.path().to_owned(),
        archive,
        size: size.unwrap_or_default(),
        request,
        created,
        progress,
        cancelled: cancel.flag(),
    };
    let importing = tokio::task::spawn_blocking(move || import.perform());
    tokio::select! {
        biased;
        () = cancel.wanted() => Err(PullError::Cancelled.into()),
        imported = importing => imported.map_err(PullError::Lost)?,
    }
}

/// The bytes ahead in a file; `None` if it is something else.
fn size(mut archive: &File) -> Option<u64> {
    let found = archive.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let position = archive.stream_position().ok()?;
    Some(found.len().saturating_sub(position))
}

struct Import {
    store: Store,
    folder: PathBuf,
    archive: File,
    /// 0 if unknown.
    size: u64,
    request: Request,
    created: String,
    progress: watch::Sender<Progress>,
    cancelled: Arc<AtomicBool>,
}

impl Import {
    fn perform(self) -> Result<Image, ImportError> {
        let (kept, made) = (self.folder.join("archive"), self.folder.join("squashfs"));
        let progress = |done: u64| self.tell(done);
        let job = Convert {
            blob: &kept,
            to: &made,
            diff_id: None,
            limits: Limits::default(),
            below: None,
            progress: &progress,
            cancelled: &self.cancelled,
        };
        let mut arriving = Some(&self.archive);
        for tries_left in (0..TRIES).rev() {
            let survey = around("import.survey", failed(&kept), || {
                layer::survey(&job, arriving.take()).map_err(self.unusable())
            })?;
            self.check(&survey)?;
            let layer = self.layer(survey, &job)?;
            match self.publish(layer) {
                // It was pruned, and is made again of what was kept.
                Err(ImportError::Pull(PullError::Store(StoreError::LayerGone(_))))
                    if tries_left > 0 => {}
                outcome => return outcome,
            }
        }
        Err(PullError::Cancelled.into())
    }

    fn check(&self, survey: &Survey) -> Result<(), ImportError> {
        let origin = self.request.origin();
        if survey.top().next().is_none() {
            return Err(ImportError::Empty(origin));
        }
        // A pipe ends as early when whoever writes to it is killed.
        if !survey.has_end() {
            return Err(ImportError::CutOff(origin));
        }
        match Packed::of(survey.top()) {
            Some(packed) => Err(ImportError::Packed { origin, packed }),
            None => Ok(()),
        }
    }

    /// The layer, made unless it is here.
    fn layer(&self, survey: Survey, job: &Convert<'_>) -> Result<Layer, ImportError> {
        let diff_id = survey.diff_id().clone();
        let _lock = self.store.lock_layer(&diff_id)?;
        if self.store.layer_size(&diff_id).is_none() {
            let layer = around("import.convert", failed(job.to), || {
                survey.make(job).map_err(self.unusable())
            })?;
            // Somebody may push the image with more on top, which is pulled then.
            self.store.add_folders(&diff_id, &layer.folders)?;
            self.store.add_layer(job.to, &diff_id, layer.opaque)?;
        }
        Ok(Layer {
            size: self.store.layer_size(&diff_id).unwrap_or_default(),
            opaque: self.store.is_opaque(&diff_id),
            diff_id,
        })
    }

    fn publish(&self, layer: Layer) -> Result<Image, ImportError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(PullError::Cancelled.into());
        }
        let request = &self.request;
        let configuration = request.configuration(&layer, &self.created);
        let image = Image {
            id: digest::sha256(configuration.as_bytes()),
            manifest: None,
            platform: request.platform.to_string(),
            created: Some(self.created.clone()),
            layers: vec![layer],
            config: request.config.clone(),
        };
        let name = request.name.as_ref().map(|name| Name {
            name: name.to_string(),
            image: image.id.clone(),
            pulled_us: now_us(),
        });
        self.store.publish(&image, name.as_ref())?;
        Ok(image)
    }

    fn tell(&self, done: u64) {
        let (stage, done) = match done.checked_sub(self.size).filter(|_| self.size > 0) {
            Some(done) if done > 0 => (Stage::Converting, done),
            _ => (Stage::Reading, done),
        };
        self.progress.send_replace(Progress {
            layers: vec![LayerProgress {
                id: ARCHIVE.to_owned(),
                stage,
                done,
                total: self.size,
            }],
        });
    }

    fn unusable(&self) -> impl FnOnce(LayerError) -> ImportError {
        let origin = self.request.origin();
        |source| match source {
            LayerError::Cancelled => PullError::Cancelled.into(),
            source => ImportError::Archive { origin, source },
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ImportError {
    let path = path.to_owned();
    |source| PullError::File { path, source }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_of_images_are_told_from_files_of_a_root() {
        let layer = "5b".repeat(32);
        let packed = |names: &[&str]| {
            let entry = |name: &&str| match name.strip_suffix('/') {
                Some(dir) => (dir.as_bytes().to_vec(), true),
                None => (name.as_bytes().to_vec(), false),
            };
            let names: Vec<(Vec<u8>, bool)> = names.iter().map(entry).collect();
            Packed::of(names.iter().map(|(name, is_dir)| (&**name, *is_dir)))
        };
        let oci = ["blobs/", "index.json", "oci-layout"];
        assert_eq!(packed(&oci), Some(Packed::Oci));
        // As docker save has written it since version 25.
        let both = [&oci[..], &["manifest.json", "repositories"]].concat();
        assert_eq!(packed(&both), Some(Packed::Oci));
        let docker = [
            "1c.json",
            &format!("{layer}/"),
            "manifest.json",
            "repositories",
        ];
        assert_eq!(packed(&docker), Some(Packed::Docker));
        let skopeo = ["1c.json", "2d.tar", "manifest.json"];
        assert_eq!(packed(&skopeo), Some(Packed::Docker));
        assert_eq!(packed(&["bin/", "manifest.json"]), None);
        assert_eq!(packed(&["index.json", "oci-layout"]), None);
        assert_eq!(packed(&[]), None);
    }
}
