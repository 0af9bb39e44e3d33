//! The symbolic links below a layer.
//!
//! An entry `lib/x` in a layer that says nothing about `lib` means a file of the folder
//! `usr/lib` where a lower layer has `lib` as a link to that, as with an archive that is
//! unpacked over the others. Overlayfs cannot know: a folder `lib` of the layer would
//! hide the link. So such a layer is made once more for the links that are below it.

use std::collections::BTreeMap;

use super::folders::{Folder, Folders, join, remove_below, text};

/// The links that a layer meets, by their paths. As in [`Folders`], a byte is the
/// character of its number.
#[derive(Clone, Debug, Default)]
pub struct Links(BTreeMap<String, String>);

impl Links {
    /// Puts a layer on top.
    pub fn cover(&mut self, layer: &Folders) {
        for folder in layer.each() {
            let path = folder.path();
            if folder.hides() {
                remove_below(&mut self.0, path);
            }
            // The folder itself is none, and its name may have been one.
            self.0.remove(path);
            for name in folder.others() {
                self.hide(&join(path, name));
            }
            for (name, target) in folder.links() {
                self.0.insert(join(path, name), target.clone());
            }
        }
    }

    /// Whether a layer on top, understood by itself, has made up a folder where there
    /// is a link.
    pub fn concern(&self, layer: &Folders) -> bool {
        // A link that the layer itself takes away leads nowhere.
        let made_up = |folder: &&Folder| folder.is_made_up() && !folder.hides();
        let mut made_up = layer.each().filter(made_up);
        made_up.any(|folder| self.0.contains_key(folder.path()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn target(&self, path: &[u8]) -> Option<&str> {
        self.0.get(&text(path)).map(String::as_str)
    }

    /// Removes what is at a path and below it.
    pub(super) fn remove(&mut self, path: &[u8]) {
        self.hide(&text(path));
    }

    pub(super) fn remove_below(&mut self, path: &[u8]) {
        remove_below(&mut self.0, &text(path));
    }

    fn hide(&mut self, path: &str) {
        self.0.remove(path);
        remove_below(&mut self.0, path);
    }
}
