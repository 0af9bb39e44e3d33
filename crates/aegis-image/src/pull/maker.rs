//! Making the layers of one pull.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use aegis_fault_points::{around, around_async};
use oci_spec::image::Descriptor;
use tokio::sync::Semaphore;

use super::{Board, MOST_LAYERS, PullError, short};
use crate::digest::Digest;
use crate::layer::{self, Convert, Folders, LayerError, Limits, Links};
use crate::protocol::Stage;
use crate::record::Layer;
use crate::source::Source;
use crate::store::{Store, Work};

/// What the layers of one pull are made with.
pub(super) struct Maker {
    pub(super) store: Store,
    pub(super) source: Arc<Source>,
    pub(super) work: Arc<Work>,
    pub(super) board: Board,
    pub(super) blobs: Vec<Descriptor>,
    /// What their contents must be.
    pub(super) diff_ids: Vec<Digest>,
    /// By what those are kept that were made for the layers below them.
    pub(super) chain_ids: Vec<Digest>,
    pub(super) loads: Semaphore,
    pub(super) conversions: Semaphore,
    pub(super) cancelled: Arc<AtomicBool>,
}

impl Maker {
    /// Makes a layer that is not here. `None`: it has hard links to files that are not
    /// in it, so it is put off until the layers below are known; its blob stays.
    pub(super) async fn make(&self, number: usize) -> Result<Option<Layer>, PullError> {
        let here = || {
            let made_over = self.here(number, &self.chain_ids[number]);
            made_over.or_else(|| self.here(number, &self.diff_ids[number]))
        };
        if let Some(layer) = here() {
            return Ok(Some(layer));
        }
        // Before the lock: who has it goes on without waiting for a permit of others.
        let load = permit(&self.loads).await;
        let _lock = self.lock(&self.diff_ids[number]).await?;
        if let Some(layer) = here() {
            return Ok(Some(layer));
        }
        self.load(number).await?;
        drop(load);
        let _conversion = permit(&self.conversions).await;
        let task = self.task(number, None);
        match blocking(move || task.convert()).await {
            Err(PullError::Layer {
                source: LayerError::LinkTarget { .. },
                ..
            }) if number > 0 => {
                self.board.at(number, Stage::Waiting, 0, 0);
                Ok(None)
            }
            made => made.map(Some),
        }
    }

    pub(super) async fn lock(&self, layer: &Digest) -> Result<crate::store::Lock, PullError> {
        let (store, layer) = (self.store.clone(), layer.clone());
        blocking(move || Ok(store.lock_layer(&layer)?)).await
    }

    pub(super) fn here(&self, number: usize, id: &Digest) -> Option<Layer> {
        let size = self.store.layer_size(id)?;
        self.board.at(number, Stage::Here, 0, 0);
        Some(Layer {
            diff_id: id.clone(),
            size,
            opaque: self.store.is_opaque(id),
        })
    }

    fn blob_file(&self, number: usize) -> PathBuf {
        self.work.path().join(format!("{number}.blob"))
    }

    pub(super) async fn load(&self, number: usize) -> Result<(), PullError> {
        let (blob, file) = (&self.blobs[number], self.blob_file(number));
        let failed = |source| PullError::File {
            path: file.clone(),
            source,
        };
        let create = tokio::fs::File::create(&file);
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

    /// A layer to be made of its blob: for the links of those below, or by itself.
    pub(super) fn task(&self, number: usize, below: Option<Links>) -> Task {
        let kept_as = match &below {
            Some(_) => &self.chain_ids[number],
            None => &self.diff_ids[number],
        };
        Task {
            store: self.store.clone(),
            board: self.board.clone(),
            number,
            blob: self.blobs[number].clone(),
            file: self.blob_file(number),
            made: self.work.path().join(format!("{number}.squashfs")),
            diff_id: self.diff_ids[number].clone(),
            kept_as: kept_as.clone(),
            below,
            cancelled: self.cancelled.clone(),
        }
    }

    /// The layer that says again what these say about folders, if one is needed and a
    /// VM has room for it.
    pub(super) async fn say_again(&self, layers: &[Layer]) -> Result<Option<Layer>, PullError> {
        if layers.len() >= MOST_LAYERS {
            return Ok(None);
        }
        let ids = layers.iter().map(|layer| layer.diff_id.clone());
        let ids: Vec<Digest> = ids.collect();
        let (store, cancelled) = (self.store.clone(), self.cancelled.clone());
        let archive = self.work.path().join("folders.tar");
        blocking(move || {
            let Some(bytes) = layer::said_again(&folders(&store, &ids)) else {
                return Ok(None);
            };
            let failed = failed(&archive);
            around("pull.folders", &failed, || {
                std::fs::write(&archive, &bytes).map_err(&failed)
            })?;
            let made = archive.with_extension("squashfs");
            let job = Convert {
                blob: &archive,
                to: &made,
                diff_id: None,
                limits: Limits::default(),
                below: None,
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
        })
        .await
    }
}

/// One layer to be made, in whichever thread.
pub(super) struct Task {
    store: Store,
    board: Board,
    number: usize,
    blob: Descriptor,
    file: PathBuf,
    made: PathBuf,
    diff_id: Digest,
    kept_as: Digest,
    below: Option<Links>,
    cancelled: Arc<AtomicBool>,
}

impl Task {
    /// Makes a layer of its blob and adds it.
    fn convert(&self) -> Result<Layer, PullError> {
        self.add(layer::convert)
    }

    /// Does something to the layer.
    pub(super) fn perform<T>(
        &self,
        act: impl FnOnce(&Convert<'_>) -> Result<T, LayerError>,
    ) -> Result<T, PullError> {
        let work = Convert::work(self.blob.size());
        let progress = |done| {
            self.board.at(self.number, Stage::Converting, done, work);
        };
        let done = act(&Convert {
            blob: &self.file,
            to: &self.made,
            diff_id: Some(&self.diff_id),
            limits: Limits::default(),
            below: self.below.as_ref(),
            progress: &progress,
            cancelled: &self.cancelled,
        });
        done.map_err(|source| PullError::Layer {
            id: short(&self.blob),
            source,
        })
    }

    /// Adds the layer that is made so.
    pub(super) fn add(
        &self,
        make: impl FnOnce(&Convert<'_>) -> Result<layer::Layer, LayerError>,
    ) -> Result<Layer, PullError> {
        let failed = failed(&self.made);
        let layer = around("pull.convert", &failed, || self.perform(make))?;
        self.store.add_folders(&self.kept_as, &layer.folders)?;
        self.store
            .add_layer(&self.made, &self.kept_as, layer.opaque)?;
        // The blob is not needed any more, and a large image has many.
        around("pull.forget", &failed, || {
            std::fs::remove_file(&self.file).map_err(&failed)
        })?;
        self.board.at(self.number, Stage::Here, 0, 0);
        Ok(Layer {
            size: self.store.layer_size(&self.kept_as).unwrap_or_default(),
            diff_id: self.kept_as.clone(),
            opaque: layer.opaque,
        })
    }
}

/// What these layers say about folders.
pub(super) fn folders(store: &Store, layers: &[Digest]) -> Vec<Folders> {
    layers.iter().map(|layer| store.folders(layer)).collect()
}

/// Waits for something that blocks.
pub(super) async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, PullError> + Send + 'static,
) -> Result<T, PullError> {
    let done = tokio::task::spawn_blocking(act).await;
    done.map_err(PullError::Lost)?
}

fn failed(path: &Path) -> impl Fn(io::Error) -> PullError {
    move |source| PullError::File {
        path: path.to_owned(),
        source,
    }
}

async fn permit(semaphore: &Semaphore) -> Option<tokio::sync::SemaphorePermit<'_>> {
    // Nobody closes it.
    semaphore.acquire().await.ok()
}
