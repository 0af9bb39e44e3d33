//! The symbolic links below a layer.
//!
//! An entry `lib/x` in a layer that says nothing about `lib` means a file of the folder
//! `usr/lib` where a lower layer has `lib` as a link to that, as with an archive that is
//! unpacked over the others. Overlayfs cannot know: a folder `lib` of the layer would
//! hide the link. So such a layer is made once more for the links that are below it.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::folders::{Folder, Folders, bytes};
use crate::digest::{Algorithm, Digest, Hash};

/// The links that a layer meets, by their paths.
#[derive(Clone, Debug, Default)]
pub struct Links(BTreeMap<Vec<u8>, Vec<u8>>);

impl Links {
    /// Puts a layer on top.
    pub fn cover(&mut self, layer: &Folders) {
        for folder in layer.each() {
            let path = bytes(folder.path());
            if folder.hides() {
                self.remove_below(&path);
            }
            // The folder itself is none, and its name may have been one.
            self.0.remove(&path);
            for name in folder.others() {
                self.remove(&join(&path, &bytes(name)));
            }
            for (name, target) in folder.links() {
                self.0.insert(join(&path, &bytes(name)), bytes(target));
            }
        }
    }

    /// Whether a layer on top, understood by itself, has made up a folder where there
    /// is a link.
    pub fn concern(&self, layer: &Folders) -> bool {
        // A link that the layer itself takes away leads nowhere.
        let made_up = |folder: &&Folder| folder.is_made_up() && !folder.hides();
        let mut made_up = layer.each().filter(made_up);
        made_up.any(|folder| self.0.contains_key(&bytes(folder.path())))
    }

    /// By what a layer is kept that was made for these links.
    pub fn digest(&self, diff_id: &Digest) -> Digest {
        let mut hash = Hash::new(Algorithm::Sha256);
        hash.update(diff_id.to_string().as_bytes());
        for (path, target) in &self.0 {
            // No path and no target holds a NUL.
            for text in [path, target] {
                hash.update(b"\0");
                hash.update(text);
            }
        }
        hash.finish()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn target(&self, path: &[u8]) -> Option<&[u8]> {
        self.0.get(path).map(Vec::as_slice)
    }

    /// Removes what is at a path and below it.
    pub(super) fn remove(&mut self, path: &[u8]) {
        self.0.remove(path);
        self.remove_below(path);
    }

    pub(super) fn remove_below(&mut self, path: &[u8]) {
        if path.is_empty() {
            return self.0.clear();
        }
        let prefix = join(path, b"");
        let from = (Bound::Excluded(prefix.as_slice()), Bound::Unbounded);
        let below = self.0.range::<[u8], _>(from);
        let below = below.map(|(below, _)| below);
        let below: Vec<Vec<u8>> = below
            .take_while(|below| below.starts_with(&prefix))
            .cloned()
            .collect();
        for path in below {
            self.0.remove(&path);
        }
    }
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    match path {
        [] => name.to_vec(),
        path => [path, b"/", name].concat(),
    }
}
