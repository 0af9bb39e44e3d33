//! Layers that mean something only on those below them.
//!
//! Their entries lead through symbolic links of lower layers ([`Links`]), or they have
//! hard links to files of lower layers ([`layer::LowerFile`]). Both are known only when
//! all layers are here, so such a layer is made over then. It is kept by the digest of
//! its whole chain. Few images have any.
//!
//! A layer that has such a file is loaded once more: what is kept of it is there to be
//! mounted, not to be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::maker::{Maker, Task, blocking, folders};
use super::{PullError, check_room, twice};
use crate::digest::Digest;
use crate::layer::{self, Folders, Links, LowerFiles, Survey};
use crate::protocol::Stage;
use crate::record::Layer;

/// The layers below the next one.
#[derive(Default)]
struct Below {
    layers: Vec<Layer>,
    links: Links,
    /// What layers have borrowed and can lend again, by their numbers.
    lent: BTreeMap<usize, LowerFiles>,
    /// Whose blobs are in the folder of the pull.
    loaded: BTreeSet<usize>,
}

impl Maker {
    /// Makes those layers over that were put off, or whose entries lead through
    /// symbolic links of layers below them.
    pub(super) async fn lead(&self, layers: Vec<Option<Layer>>) -> Result<Vec<Layer>, PullError> {
        let put_off = (0..layers.len()).filter(|number| layers[*number].is_none());
        let mut below = Below {
            loaded: put_off.collect(),
            ..Below::default()
        };
        let last = below.loaded.last().copied().unwrap_or_default();
        for (number, layer) in layers.into_iter().enumerate() {
            // What one that is here has borrowed, the next may borrow of it.
            let lends = number < last;
            let mut folders = match &layer {
                Some(layer) => self.folders_of(layer).await?,
                None => Folders::default(),
            };
            let stays = match &layer {
                Some(layer) if number > 0 && layer.diff_id == self.chain_ids[number] => !lends,
                Some(_) => !below.links.concern(&folders),
                None => false,
            };
            let layer = match layer {
                Some(layer) if stays => layer,
                _ => {
                    let layer = self.make_over(number, &mut below, lends).await?;
                    folders = self.folders_of(&layer).await?;
                    layer
                }
            };
            below.links.cover(&folders);
            below.layers.push(layer);
        }
        Ok(below.layers)
    }

    async fn folders_of(&self, layer: &Layer) -> Result<Folders, PullError> {
        let (store, id) = (self.store.clone(), layer.diff_id.clone());
        blocking(move || Ok(store.folders(&id))).await
    }

    async fn folders(&self, layers: Vec<Digest>) -> Result<Vec<Folders>, PullError> {
        let store = self.store.clone();
        blocking(move || Ok(folders(&store, &layers))).await
    }

    async fn make_over(
        &self,
        number: usize,
        below: &mut Below,
        lends: bool,
    ) -> Result<Layer, PullError> {
        let kept_as = &self.chain_ids[number];
        let _lock = self.lock(kept_as).await?;
        let here = self.here(number, kept_as);
        if let (Some(layer), false) = (&here, lends) {
            return Ok(layer.clone());
        }
        self.load_again(number, twice(&self.blobs[number]), below)
            .await?;
        let task = self.task(number, Some(below.links.clone()));
        let over = blocking(move || {
            let survey = task.perform(|job| layer::survey(job, None))?;
            Ok(Over { task, survey })
        });
        let over = self.adopt(number, over.await?, below).await?;
        if let Some(layer) = here {
            self.board.at(number, Stage::Here, 0, 0);
            return Ok(layer);
        }
        below.loaded.remove(&number);
        blocking(move || over.task.add(|job| over.survey.make(job))).await
    }

    /// Gives a layer the files that it borrows. What no layer has is missed when the
    /// layer is made.
    async fn adopt(
        &self,
        number: usize,
        mut over: Over,
        below: &mut Below,
    ) -> Result<Over, PullError> {
        let borrowed = over.survey.borrowed();
        if borrowed.is_empty() {
            return Ok(over);
        }
        let ids = below.layers.iter().map(|layer| layer.diff_id.clone());
        let folders = Arc::new(self.folders(ids.collect()).await?);
        let layers = folders.clone();
        let owners = blocking(move || Ok(layer::owners(&layers, borrowed))).await?;
        let mut sought: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for (path, owner) in owners {
            sought.entry(owner).or_default().insert(path);
        }
        for (owner, mut paths) in sought {
            let mut files = LowerFiles::new();
            if let Some(lent) = below.lent.get(&owner) {
                let lent = lent.iter().filter(|(path, _)| paths.contains(*path));
                files.extend(lent.map(|(path, file)| (path.clone(), file.clone())));
            }
            paths.retain(|path| !files.contains_key(path));
            if !paths.is_empty() {
                let size = self.blobs[owner].size();
                self.load_again(owner, size, below).await?;
                files.extend(self.files(owner, paths, folders.clone()).await?);
            }
            let layers = folders.clone();
            let lent = blocking(move || {
                let adopted = over.adopt(owner, &files, &layers)?;
                Ok((over, adopted))
            });
            let adopted;
            (over, adopted) = lent.await?;
            below.lent.entry(number).or_default().extend(adopted);
        }
        Ok(over)
    }

    /// The files of a layer at these paths.
    async fn files(
        &self,
        owner: usize,
        paths: BTreeSet<String>,
        folders: Arc<Vec<Folders>>,
    ) -> Result<LowerFiles, PullError> {
        let mut links = Links::default();
        for folders in &folders[..owner] {
            links.cover(folders);
        }
        let task = self.task(owner, Some(links));
        let files = blocking(move || {
            let survey = task.perform(|job| layer::survey(job, None))?;
            let mut files = task.perform(|job| Ok(survey.files(&paths, job)))?;
            files.retain(|path, _| paths.contains(path));
            Ok(files)
        });
        let files = files.await?;
        self.board.at(owner, Stage::Here, 0, 0);
        Ok(files)
    }

    /// Loads a layer of which there was no need any more, if there is that much room.
    async fn load_again(
        &self,
        number: usize,
        needed: u64,
        below: &mut Below,
    ) -> Result<(), PullError> {
        if !below.loaded.contains(&number) {
            check_room(&self.store, needed)?;
            self.load(number).await?;
            below.loaded.insert(number);
        }
        Ok(())
    }
}

/// A layer that is made over.
struct Over {
    task: Task,
    survey: Survey,
}

impl Over {
    /// Takes files of one layer below.
    fn adopt(
        &mut self,
        owner: usize,
        files: &LowerFiles,
        layers: &[Folders],
    ) -> Result<LowerFiles, PullError> {
        let names = files.values().flat_map(|file| file.names().cloned());
        let mut seen = layer::owners(layers, names.collect());
        seen.retain(|_, layer| *layer == owner);
        let seen = seen.into_keys().collect();
        let survey = &mut self.survey;
        self.task.perform(|job| survey.adopt(files, &seen, job))
    }
}
