//! Files of the layers below a layer that has hard links to them.
//!
//! Whoever unpacks one layer over the others makes such a link. Overlayfs has none
//! between layers, so the layer gets the file itself, under every name that it is seen
//! by there:
//!
//! ```text
//!  layer 1     a, as b too
//!  layer 2     c, a hard link to a      as SquashFS: a, b and c, one file
//! ```
//!
//! What the layer hides of the layers below it hides of these names, too.

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::LayerError;
use super::folders::{Folders, bytes, join, remove_below, text};
use super::reader::Entry;
use super::tree::{Attributes, DirId, Inode, InodeId, InodeKind, Node, ROOT, Step, Tree, Walk};

/// A file of a layer, for a layer above it. As in [`Folders`], a byte of a name is the
/// character of its number.
#[derive(Clone, Debug)]
pub struct LowerFile {
    /// All that it has in that layer.
    names: Vec<String>,
    kind: InodeKind,
    attributes: Attributes,
}

impl LowerFile {
    /// The names that it has in its layer.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.names.iter()
    }
}

/// Files by each of their names.
pub type LowerFiles = BTreeMap<String, Arc<LowerFile>>;

/// Which of these layers, the lowest first, has what is seen at each path. Paths of
/// folders, and those at which nothing is, may be left out.
pub fn owners(layers: &[Folders], paths: BTreeSet<String>) -> BTreeMap<String, usize> {
    let mut sought: BTreeMap<String, ()> = paths.into_iter().map(|path| (path, ())).collect();
    let mut owners = BTreeMap::new();
    for (number, layer) in layers.iter().enumerate().rev() {
        if sought.is_empty() {
            break;
        }
        for folder in layer.each() {
            for name in folder.others() {
                let path = join(folder.path(), name);
                if sought.remove(&path).is_some() {
                    owners.insert(path, number);
                } else {
                    remove_below(&mut sought, &path);
                }
            }
        }
        for folder in layer.each() {
            sought.remove(folder.path());
            if folder.hides() {
                remove_below(&mut sought, folder.path());
            }
        }
    }
    owners
}

impl Tree {
    /// What the layers below have at that path, which the layer has too from now on;
    /// `None` if the layer hides it.
    pub(super) fn borrow(
        &mut self,
        parents: &[&[u8]],
        base: &[u8],
        entry: &Entry,
    ) -> Result<Option<Node>, LayerError> {
        let mut walk = Walk::new(parents, &entry.name);
        while let Some(part) = walk.next()? {
            if self.step(&mut walk, &part)? == Step::Missing {
                let child = self.dirs[walk.dir].children.get(&*part);
                if child.is_some_and(|child| child.node.is_some()) {
                    return Ok(None);
                }
                walk.dir = self.enter(walk.dir, &part, &entry.name)?;
            }
        }
        let path = self.path(walk.dir, base);
        if !self.shows(&path) {
            return Ok(None);
        }
        self.inodes.push(Inode {
            kind: InodeKind::Lower {
                path: path.into(),
                name: entry.name.as_slice().into(),
            },
            attributes: Attributes::default(),
        });
        let lent = Node::Inode(self.inodes.len() - 1);
        self.lend(walk.dir, base, lent, &entry.name)?;
        Ok(Some(lent))
    }

    /// Whether a file that layers below have at a path is seen through this one.
    fn shows(&self, path: &[u8]) -> bool {
        let mut dir = &self.dirs[ROOT];
        for part in path.split(|byte| *byte == b'/') {
            if dir.opaque {
                return false;
            }
            match dir.children.get(part) {
                None => return true,
                Some(child) => match child.node {
                    Some(Node::Dir(next)) if !child.whiteout => dir = &self.dirs[next],
                    _ => return false,
                },
            }
        }
        // There is a folder.
        false
    }

    /// Gives a name to something of the layers below.
    fn lend(&mut self, dir: DirId, base: &[u8], node: Node, name: &[u8]) -> Result<(), LayerError> {
        let child = self.child(dir, base, name)?;
        (child.node, child.lent) = (Some(node), true);
        Ok(())
    }

    /// Takes names of the layers below away that the layer hides, and the folders that
    /// are there for nothing else. An entry that hides something may come after the link.
    pub(super) fn settle(&mut self) {
        let mut hidden = vec![false; self.dirs.len()];
        // No directory comes before the one that it is in.
        for id in 0..self.dirs.len() {
            let dir = &self.dirs[id];
            let above = &self.dirs[dir.parent].children;
            let whiteout = above.get(&dir.name).is_some_and(|child| child.whiteout);
            hidden[id] = dir.opaque || id != ROOT && (whiteout || hidden[dir.parent]);
        }
        for id in (0..self.dirs.len()).rev().filter(|id| hidden[*id]) {
            let dir = &mut self.dirs[id];
            dir.children.retain(|_, child| {
                if std::mem::take(&mut child.lent) {
                    child.node = None;
                }
                child.node.is_some() || child.whiteout
            });
            if id == ROOT || dir.named || dir.opaque || !dir.children.is_empty() {
                continue;
            }
            let (parent, name) = (dir.parent, dir.name.clone());
            let above = &mut self.dirs[parent].children;
            if let Some(child) = above.get_mut(&name)
                && child.node == Some(Node::Dir(id))
            {
                child.node = None;
                if !child.whiteout {
                    above.remove(&name);
                }
            }
        }
    }

    /// The paths of what the layers below are to lend.
    pub(super) fn borrowed(&self) -> BTreeSet<String> {
        let kinds = self.inodes.iter().map(|inode| &inode.kind);
        let paths = kinds.filter_map(|kind| match kind {
            InodeKind::Lower { path, .. } => Some(text(path)),
            _ => None,
        });
        paths.collect()
    }

    /// Those of the inodes that are known, by all their names. `own`: the archive.
    fn files_of(&self, wanted: &BTreeSet<InodeId>, own: &Path) -> LowerFiles {
        let mut names: BTreeMap<InodeId, Vec<String>> = BTreeMap::new();
        let mut dirs = vec![ROOT];
        while let Some(dir) = dirs.pop() {
            for (name, child) in &self.dirs[dir].children {
                match child.node {
                    Some(Node::Dir(below)) => dirs.push(below),
                    Some(Node::Inode(inode)) if wanted.contains(&inode) => {
                        let path = text(&self.path(dir, name));
                        names.entry(inode).or_default().push(path);
                    }
                    _ => {}
                }
            }
        }
        let own = Arc::new(own.to_owned());
        let mut files = LowerFiles::new();
        for (inode, names) in names {
            let found = &self.inodes[inode];
            let kind = match found.kind.clone() {
                InodeKind::Lower { .. } => continue,
                InodeKind::File {
                    ordinal,
                    size,
                    archive,
                } => InodeKind::File {
                    ordinal,
                    size,
                    archive: archive.or_else(|| Some(own.clone())),
                },
                kind => kind,
            };
            let file = Arc::new(LowerFile {
                names,
                kind,
                attributes: found.attributes.clone(),
            });
            files.extend(file.names.iter().map(|name| (name.clone(), file.clone())));
        }
        files
    }

    /// The files at these paths, by all their names, but for those that the layer has
    /// of others.
    pub(super) fn files(&self, paths: &BTreeSet<String>, own: &Path) -> LowerFiles {
        let at = |path: &String| {
            let path = bytes(path);
            let mut node = Node::Dir(ROOT);
            for part in path.split(|byte| *byte == b'/') {
                node = match node {
                    Node::Dir(dir) => self.dirs[dir].children.get(part)?.node?,
                    Node::Inode(_) => return None,
                };
            }
            match node {
                Node::Inode(inode) => Some(inode),
                Node::Dir(_) => None,
            }
        };
        self.files_of(&paths.iter().filter_map(at).collect(), own)
    }

    /// Takes what was borrowed from `files`, with those names of it that are `seen` in
    /// the layers below. What is returned are these files as the layer has them.
    pub(super) fn adopt(
        &mut self,
        files: &LowerFiles,
        seen: &BTreeSet<String>,
        own: &Path,
    ) -> Result<LowerFiles, LayerError> {
        let mut adopted = BTreeMap::new();
        // Two names may have been borrowed of one file.
        let mut same = BTreeMap::new();
        for id in 0..self.inodes.len() {
            let InodeKind::Lower { path, .. } = &self.inodes[id].kind else {
                continue;
            };
            let Some(file) = files.get(&text(path)) else {
                continue;
            };
            match adopted.entry(Arc::as_ptr(file)) {
                Place::Occupied(first) => {
                    same.insert(id, *first.get());
                }
                Place::Vacant(place) => {
                    place.insert(id);
                    self.take(id, file, seen)?;
                }
            }
        }
        if !same.is_empty() {
            let dirs = self.dirs.iter_mut();
            for child in dirs.flat_map(|dir| dir.children.values_mut()) {
                if let Some(Node::Inode(inode)) = &mut child.node {
                    *inode = *same.get(inode).unwrap_or(inode);
                }
            }
        }
        Ok(self.files_of(&adopted.into_values().collect(), own))
    }

    /// Bytes of the files that are in other archives.
    pub(super) fn adopted_size(&self) -> u64 {
        let sizes = self.inodes.iter().map(|inode| match &inode.kind {
            InodeKind::File {
                size,
                archive: Some(_),
                ..
            } => *size,
            _ => 0,
        });
        sizes.fold(0, u64::saturating_add)
    }

    fn take(
        &mut self,
        id: InodeId,
        file: &LowerFile,
        seen: &BTreeSet<String>,
    ) -> Result<(), LayerError> {
        let link: &[u8] = match &file.kind {
            InodeKind::Symlink(target) => target,
            _ => b"",
        };
        let none = BTreeMap::new();
        self.count(link, file.attributes.xattrs.as_deref().unwrap_or(&none));
        self.inodes[id] = Inode {
            kind: file.kind.clone(),
            attributes: file.attributes.clone(),
        };
        for name in file.names.iter().filter(|name| seen.contains(*name)) {
            let path = bytes(name);
            if !self.shows(&path) {
                continue;
            }
            let mut dir = ROOT;
            let mut parts = path.split(|byte| *byte == b'/').peekable();
            while let Some(part) = parts.next() {
                match parts.peek() {
                    Some(_) => dir = self.enter(dir, part, &path)?,
                    None => self.lend(dir, part, Node::Inode(id), &path)?,
                }
            }
            self.check()?;
        }
        self.check()
    }
}
