//! One pull: from a name to an image in the store.
//!
//! ```text
//!  find ──► room? ──► for each layer that is not here: load ──► convert ──► add ──┐
//!              ┌── made over, where they mean something only on those below (over) ◄─┘
//!  publish ◄───┴── one more, where folders have to be said again (layer)
//! ```
//!
//! Layers are loaded side by side and converted one by one. Whoever comes to a layer
//! that another pull makes waits for it and finds it here. Everything under way lies in
//! a folder of the pull's own, which goes with it.

mod maker;
mod over;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use aegis_core::fault::{Fault, Symbol};
use oci_spec::image::Descriptor;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::access::Access;
use crate::digest::{self, Digest};
use crate::document::{self, Platform};
use crate::error::SourceError;
use crate::layer::{LayerError, MAKE_ROOM};
use crate::name::ImageName;
use crate::protocol::{LayerProgress, Progress, Stage};
use crate::record::{Config, Image, Layer, Name};
use crate::source::{Found, Source};
use crate::store::{Store, StoreError, Work};

use maker::Maker;

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

/// Brings the image of a name for a platform into the store. It is read from where `place` says,
/// which is the name but for an open file or folder. `progress` is told how far it is.
///
/// # Errors
/// Why it is not there; the store is then as it was, but for layers that are whole.
pub async fn pull(
    store: &Store,
    name: &ImageName,
    place: &ImageName,
    platform: &Platform,
    access: &Access,
    progress: watch::Sender<Progress>,
    cancel: &Cancel,
) -> Result<Image, PullError> {
    store.prepare()?;
    let work = Arc::new(store.work()?);
    let pulled = async {
        let source = Arc::new(Source::open(place, access).await?);
        let found = source.find(platform).await?;
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
        blobs: found.layers.clone(),
        chain_ids: chain_ids(&diff_ids),
        diff_ids,
        loads: Semaphore::new(LOADS),
        conversions: Semaphore::new(1),
        cancelled: cancel.flag(),
    });
    let mut tasks = JoinSet::new();
    let count = maker.blobs.len();
    for number in 0..count {
        let maker = maker.clone();
        tasks.spawn(async move { (number, maker.make(number).await) });
    }
    let mut layers: Vec<Option<Layer>> = vec![None; count];
    // The first failure drops the others, and their folder with them.
    while let Some(ended) = tasks.join_next().await {
        let (number, made) = ended.map_err(PullError::Lost)?;
        layers[number] = made?;
    }
    let mut layers = maker.lead(layers).await?;
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

/// By what layers are kept that were made for those below them: the digest of all
/// their contents together, as image-spec's config.md has it ("Layer ChainID").
fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::new();
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.clone(),
            Some(below) => digest::sha256(format!("{below} {diff_id}").as_bytes()),
        });
    }
    chain
}

/// A layer is here twice while it is converted: its blob, and the file system, which
/// is seldom larger. Layers that are made over are counted when that is known.
fn needed(store: &Store, found: &Found, diff_ids: &[Digest]) -> u64 {
    let here = |id: &Digest| store.layer_size(id).is_some();
    let ids = diff_ids.iter().zip(chain_ids(diff_ids));
    let layers = found.layers.iter().zip(ids);
    let missing = layers.filter(|(_, (diff_id, chain_id))| !here(diff_id) && !here(chain_id));
    missing.map(|(blob, _)| twice(blob)).sum()
}

/// What a layer takes while it is converted.
fn twice(blob: &Descriptor) -> u64 {
    blob.size().saturating_mul(2)
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
