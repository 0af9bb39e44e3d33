//! One pull: from a name to an image in the store.
//!
//! ```text
//!  find ──► room? ──► for each layer that is not here: load ──► convert ──► add ──┐
//!              publish ◄── one more, where folders have to be said again (layer) ◄─┘
//! ```
//!
//! Layers are loaded side by side and converted one by one. Whoever comes to a layer
//! that another pull makes waits for it and finds it here. Everything under way lies in
//! a folder of the pull's own, which goes with it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use aegis_core::fault::{Fault, Symbol};
use aegis_fault_points::{around, around_async};
use oci_spec::image::Descriptor;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::access::Access;
use crate::digest::Digest;
use crate::document::{self, Platform};
use crate::error::SourceError;
use crate::layer::{self, Convert, Folders, LayerError, Limits, Links, MAKE_ROOM};
use crate::name::ImageName;
use crate::protocol::{LayerProgress, Progress, Stage};
use crate::record::{Config, Image, Layer, Name};
use crate::source::{Found, Source};
use crate::store::{Store, StoreError, Work};

/// Layers that are loaded at a time, as Docker's daemon does
/// (`max-concurrent-downloads`).
const LOADS: usize = 3;

/// Layers that a VM can have: partitions of one disk.
const MOST_LAYERS: usize = 128;

/// Times an image is looked at whose layers were pruned before it was published.
pub(crate) const TRIES: u32 = 3;

/// Why an image is not here.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the layer {id} of the image cannot be used")]
    Layer {
        id: String,
        #[source]
        source: LayerError,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot use {path}", path = path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the image needs about {} MiB and {path} has {} MiB free",
        .needed >> 20, .free >> 20, path = path.display()
    )]
    NoRoom {
        path: PathBuf,
        needed: u64,
        free: u64,
    },
    #[error("the pull was cancelled")]
    Cancelled,
    #[error("a part of the pull failed: {0}")]
    Lost(tokio::task::JoinError),
}

impl From<PullError> for Fault {
    fn from(error: PullError) -> Self {
        let fault = |symbol| Fault::from_error(symbol, &error);
        match error {
            PullError::Source(error) if error.symbol() == Symbol::NoSpace => {
                Fault::from(error).with_hint(MAKE_ROOM)
            }
            PullError::Source(error) => error.into(),
            PullError::NoRoom { .. } | PullError::Store(StoreError::Full { .. }) => {
                fault(Symbol::NoSpace).with_hint(MAKE_ROOM)
            }
            PullError::File { ref source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                fault(Symbol::NoSpace).with_hint(MAKE_ROOM)
            }
            PullError::Layer { ref source, .. } => match source.hint() {
                Some(hint) => fault(source.symbol()).with_hint(hint),
                None => fault(source.symbol()),
            },
            PullError::Cancelled => fault(Symbol::Cancelled),
            PullError::Store(_) | PullError::File { .. } | PullError::Lost(_) => {
                fault(Symbol::Internal)
            }
        }
    }
}

/// Ends a pull or an import early.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>, Arc<tokio::sync::Notify>);

impl Cancel {
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.notify_waiters();
    }

    /// What is true once it shall end.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }

    pub(crate) async fn wanted(&self) {
        let notified = self.1.notified();
        if !self.0.load(Ordering::Relaxed) {
            notified.await;
        }
    }
}

/// Brings the image of a name into the store. It is read from where `place` says,
/// which is the name but for an open file or folder. `progress` is told how far it is.
///
/// # Errors
/// Why it is not there; the store is then as it was, but for layers that are whole.
pub async fn pull(
    store: &Store,
    name: &ImageName,
    place: &ImageName,
    access: &Access,
    progress: watch::Sender<Progress>,
    cancel: &Cancel,
) -> Result<Image, PullError> {
    store.prepare()?;
    let work = Arc::new(store.work()?);
    let pulled = async {
        let source = Arc::new(Source::open(place, access).await?);
        let found = source.find(&Platform::host()).await?;
        let board = Board::new(&found, progress);
        for tries_left in (0..TRIES).rev() {
            match attempt(store, name, &source, &found, &board, &work, cancel).await {
                Err(PullError::Store(StoreError::LayerGone(_))) if tries_left > 0 => {}
                outcome => return outcome,
            }
        }
        Err(PullError::Cancelled)
    };
    tokio::select! {
        biased;
        () = cancel.wanted() => Err(PullError::Cancelled),
        pulled = pulled => pulled,
    }
}

async fn attempt(
    store: &Store,
    name: &ImageName,
    source: &Arc<Source>,
    found: &Found,
    board: &Board,
    work: &Arc<Work>,
    cancel: &Cancel,
) -> Result<Image, PullError> {
    let diff_ids = diff_ids(found)?;
    check_room(store, needed(store, found, &diff_ids))?;
    let maker = Arc::new(Maker {
        store: store.clone(),
        source: source.clone(),
        work: work.clone(),
        board: board.clone(),
        loads: Semaphore::new(LOADS),
        conversions: Semaphore::new(1),
        cancelled: cancel.flag(),
    });
    let mut tasks = JoinSet::new();
    for (number, (blob, diff_id)) in found.layers.iter().zip(&diff_ids).enumerate() {
        let (maker, blob, diff_id) = (maker.clone(), blob.clone(), diff_id.clone());
        tasks.spawn(async move { (number, maker.make(number, &blob, &diff_id).await) });
    }
    let mut layers: Vec<Option<Layer>> = vec![None; diff_ids.len()];
    // The first failure drops the others, and their folder with them.
    while let Some(ended) = tasks.join_next().await {
        let (number, made) = ended.map_err(PullError::Lost)?;
        layers[number] = Some(made?);
    }
    let layers = layers.into_iter().flatten().collect();
    let mut layers = maker.lead(&found.layers, layers).await?;
    layers.extend(maker.say_again(&layers).await?);
    let image = image(found, layers);
    let name = Name {
        name: name.to_string(),
        image: image.id.clone(),
        pulled_us: now_us(),
    };
    store.publish(&image, Some(&name))?;
    Ok(image)
}

/// A layer that is to be made.
struct Wanted {
    /// What its content must be.
    diff_id: Digest,
    /// The store has it by that.
    kept_as: Digest,
    /// The links that it is made for.
    below: Links,
}

/// What the layers of one pull are made with.
struct Maker {
    store: Store,
    source: Arc<Source>,
    work: Arc<Work>,
    board: Board,
    loads: Semaphore,
    conversions: Semaphore,
    cancelled: Arc<AtomicBool>,
}

impl Maker {
    async fn make(
        &self,
        number: usize,
        blob: &Descriptor,
        diff_id: &Digest,
    ) -> Result<Layer, PullError> {
        if let Some(layer) = self.here(number, diff_id) {
            return Ok(layer);
        }
        // Before the lock: who has it goes on without waiting for a permit of others.
        let load = permit(&self.loads).await;
        let (store, wanted) = (self.store.clone(), diff_id.clone());
        let lock = tokio::task::spawn_blocking(move || store.lock_layer(&wanted));
        let _lock = lock.await.map_err(PullError::Lost)??;
        if let Some(layer) = self.here(number, diff_id) {
            return Ok(layer);
        }
        let file = self.work.path().join(format!("{number}.blob"));
        self.load(number, blob, &file).await?;
        drop(load);
        let _conversion = permit(&self.conversions).await;
        let wanted = Wanted {
            diff_id: diff_id.clone(),
            kept_as: diff_id.clone(),
            below: Links::default(),
        };
        self.convert(number, blob, wanted, &file).await
    }

    /// Makes those layers anew whose entries lead through symbolic links of layers
    /// below them, which is known only when all are here. Few images have any.
    async fn lead(
        &self,
        blobs: &[Descriptor],
        layers: Vec<Layer>,
    ) -> Result<Vec<Layer>, PullError> {
        let (mut led, mut below) = (Vec::new(), Links::default());
        for (number, (blob, layer)) in blobs.iter().zip(layers).enumerate() {
            let mut layer = layer;
            let mut folders = self.folders(&layer.diff_id).await?;
            if below.concern(&folders) {
                layer = self.make_over(number, blob, &layer.diff_id, &below).await?;
                folders = self.folders(&layer.diff_id).await?;
            }
            below.cover(&folders);
            led.push(layer);
        }
        Ok(led)
    }

    async fn make_over(
        &self,
        number: usize,
        blob: &Descriptor,
        diff_id: &Digest,
        below: &Links,
    ) -> Result<Layer, PullError> {
        let kept_as = below.digest(diff_id);
        let (store, wanted) = (self.store.clone(), kept_as.clone());
        let lock = tokio::task::spawn_blocking(move || store.lock_layer(&wanted));
        let _lock = lock.await.map_err(PullError::Lost)??;
        if let Some(layer) = self.here(number, &kept_as) {
            return Ok(layer);
        }
        let file = self.work.path().join(format!("{number}.blob"));
        self.load(number, blob, &file).await?;
        let wanted = Wanted {
            diff_id: diff_id.clone(),
            kept_as,
            below: below.clone(),
        };
        self.convert(number, blob, wanted, &file).await
    }

    async fn folders(&self, layer: &Digest) -> Result<Folders, PullError> {
        let (store, layer) = (self.store.clone(), layer.clone());
        let folders = tokio::task::spawn_blocking(move || store.folders(&layer));
        folders.await.map_err(PullError::Lost)
    }

    fn here(&self, number: usize, diff_id: &Digest) -> Option<Layer> {
        let size = self.store.layer_size(diff_id)?;
        self.board.at(number, Stage::Here, 0, 0);
        Some(Layer {
            diff_id: diff_id.clone(),
            size,
            opaque: self.store.is_opaque(diff_id),
        })
    }

    async fn load(&self, number: usize, blob: &Descriptor, file: &Path) -> Result<(), PullError> {
        let failed = |source| PullError::File {
            path: file.to_owned(),
            source,
        };
        let create = tokio::fs::File::create(file);
        let mut to =
            around_async("pull.blob", failed, async { create.await.map_err(failed) }).await?;
        let total = blob.size();
        let mut progress = |done| self.board.at(number, Stage::Pulling, done, total);
        let load = async {
            let loaded = self.source.blob(blob, &mut to, &mut progress).await;
            loaded.map_err(PullError::from)
        };
        around_async("pull.load", failed, load).await
    }

    /// Makes a layer of its blob and adds it.
    async fn convert(
        &self,
        number: usize,
        blob: &Descriptor,
        wanted: Wanted,
        file: &Path,
    ) -> Result<Layer, PullError> {
        let made = self.work.path().join(format!("{number}.squashfs"));
        let file = file.to_owned();
        let (board, cancelled, store) = (
            self.board.clone(),
            self.cancelled.clone(),
            self.store.clone(),
        );
        let work = Convert::work(blob.size());
        let id = short(blob);
        let converted = tokio::task::spawn_blocking(move || {
            let job = Convert {
                blob: &file,
                to: &made,
                diff_id: Some(&wanted.diff_id),
                limits: Limits::default(),
                below: &wanted.below,
                progress: &|done| board.at(number, Stage::Converting, done, work),
                cancelled: &cancelled,
            };
            let failed = |source| PullError::File {
                path: made.clone(),
                source,
            };
            let layer = around("pull.convert", failed, || {
                layer::convert(&job).map_err(|source| PullError::Layer { id, source })
            })?;
            store.add_folders(&wanted.kept_as, &layer.folders)?;
            store.add_layer(&made, &wanted.kept_as, layer.opaque)?;
            // The blob is not needed any more, and a large image has many.
            around("pull.forget", failed, || {
                std::fs::remove_file(&file).map_err(failed)
            })?;
            board.at(number, Stage::Here, 0, 0);
            Ok(Layer {
                size: store.layer_size(&wanted.kept_as).unwrap_or_default(),
                diff_id: wanted.kept_as,
                opaque: layer.opaque,
            })
        });
        converted.await.map_err(PullError::Lost)?
    }
}

impl Maker {
    /// The layer that says again what these say about folders, if one is needed and a
    /// VM has room for it.
    async fn say_again(&self, layers: &[Layer]) -> Result<Option<Layer>, PullError> {
        if layers.len() >= MOST_LAYERS {
            return Ok(None);
        }
        let ids = layers.iter().map(|layer| layer.diff_id.clone());
        let ids: Vec<Digest> = ids.collect();
        let (store, cancelled) = (self.store.clone(), self.cancelled.clone());
        let archive = self.work.path().join("folders.tar");
        let said = tokio::task::spawn_blocking(move || {
            let said: Vec<_> = ids.iter().map(|id| store.folders(id)).collect();
            let Some(bytes) = layer::said_again(&said) else {
                return Ok(None);
            };
            let failed = |source| PullError::File {
                path: archive.clone(),
                source,
            };
            around("pull.folders", failed, || {
                std::fs::write(&archive, &bytes).map_err(failed)
            })?;
            let made = archive.with_extension("squashfs");
            let job = Convert {
                blob: &archive,
                to: &made,
                diff_id: None,
                limits: Limits::default(),
                below: &Links::default(),
                progress: &|_| (),
                cancelled: &cancelled,
            };
            let converted = layer::convert(&job);
            let layer = converted.map_err(|source| PullError::Layer {
                id: "of folders".to_owned(),
                source,
            })?;
            let _lock = store.lock_layer(&layer.diff_id)?;
            if store.layer_size(&layer.diff_id).is_none() {
                store.add_layer(&made, &layer.diff_id, false)?;
            }
            Ok(Some(Layer {
                size: store.layer_size(&layer.diff_id).unwrap_or_default(),
                diff_id: layer.diff_id,
                opaque: false,
            }))
        });
        said.await.map_err(PullError::Lost)?
    }
}

async fn permit(semaphore: &Semaphore) -> Option<tokio::sync::SemaphorePermit<'_>> {
    // Nobody closes it.
    semaphore.acquire().await.ok()
}

/// What is told of a pull.
#[derive(Clone)]
struct Board {
    shown: Arc<Mutex<Progress>>,
    told: Arc<watch::Sender<Progress>>,
}

impl Board {
    fn new(found: &Found, told: watch::Sender<Progress>) -> Self {
        let layers = found.layers.iter().map(|blob| LayerProgress {
            id: short(blob),
            stage: Stage::Waiting,
            done: 0,
            total: blob.size(),
        });
        let progress = Progress {
            layers: layers.collect(),
        };
        told.send_replace(progress.clone());
        Self {
            shown: Arc::new(Mutex::new(progress)),
            told: Arc::new(told),
        }
    }

    fn at(&self, number: usize, stage: Stage, done: u64, total: u64) {
        let mut shown: MutexGuard<'_, Progress> =
            self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layer) = shown.layers.get_mut(number) {
            (layer.stage, layer.done, layer.total) = (stage, done, total);
        }
        self.told.send_replace(shown.clone());
    }
}

/// The contents of the layers, as the configuration names them.
fn diff_ids(found: &Found) -> Result<Vec<Digest>, PullError> {
    let ids = found.config.rootfs().diff_ids().iter();
    let ids: Result<Vec<Digest>, _> = ids.map(|id| id.parse()).collect();
    ids.map_err(|_| PullError::Layer {
        id: found.manifest_digest.short().to_owned(),
        source: LayerError::Malformed {
            what: "a diff ID of the configuration is no digest",
            at: 0,
        },
    })
}

/// A layer is here twice while it is converted: its blob, and the file system, which
/// is seldom larger.
fn needed(store: &Store, found: &Found, diff_ids: &[Digest]) -> u64 {
    let layers = found.layers.iter().zip(diff_ids);
    let missing = layers.filter(|(_, diff_id)| store.layer_size(diff_id).is_none());
    missing.map(|(blob, _)| blob.size().saturating_mul(2)).sum()
}

/// Whether that many bytes fit into the store.
pub(crate) fn check_room(store: &Store, needed: u64) -> Result<(), PullError> {
    let path = store.layers();
    let space = rustix::fs::statvfs(&path).map_err(|source| PullError::File {
        path: path.clone(),
        source: source.into(),
    })?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    match needed > free {
        true => Err(PullError::NoRoom { path, needed, free }),
        false => Ok(()),
    }
}

fn image(found: &Found, layers: Vec<Layer>) -> Image {
    let config = &found.config;
    let (os, architecture) = (config.os().to_string(), config.architecture().to_string());
    Image {
        id: found.config_digest.clone(),
        manifest: Some(found.manifest_digest.clone()),
        platform: document::spell(&os, &architecture, config.variant().as_deref()),
        created: config.created().clone(),
        layers,
        config: Config::of(config),
    }
}

fn short(blob: &Descriptor) -> String {
    let digits = blob.digest().digest();
    digits.get(..12).unwrap_or(digits).to_owned()
}

pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
