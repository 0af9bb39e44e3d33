//! What layers say about folders and symbolic links, and what has to be said again on top of them.
//!
//! The archive of a layer need not have the folders that its entries are in: those
//! stay as they were. But overlayfs shows a folder as the topmost layer that has it
//! does, and a layer by itself can only make something up. So one more layer, on top of
//! the others and with nothing but folders, says again what they said:
//!
//! ```text
//!  layer 1     srv/ 0700, srv/old
//!  layer 2     srv/new                  as SquashFS: srv/ 0755, made up
//!  on top      srv/ 0700
//! ```

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use super::emit::emit_folders;
use super::tree::{Attributes, Child, Dir, Node, ROOT, Tree, Xattrs};

/// What one layer says, the folders above others first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Folders(Vec<Folder>);

/// Paths and names are bytes, which JSON has not: each is the character of its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Folder {
    path: String,
    /// `None` if the archive does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    said: Option<Said>,
    /// It hides what lower layers have in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    hides: bool,
    /// What in it is no folder, or goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    others: Vec<String>,
    /// The symbolic links among these, and where they lead.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    links: BTreeMap<String, String>,
}

impl Folder {
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn is_made_up(&self) -> bool {
        self.said.is_none() && !self.path.is_empty()
    }

    pub(super) fn hides(&self) -> bool {
        self.hides
    }

    pub(super) fn others(&self) -> impl Iterator<Item = &String> {
        self.others.iter()
    }

    pub(super) fn links(&self) -> impl Iterator<Item = (&String, &String)> {
        self.links.iter()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    mode: u16,
    uid: u32,
    gid: u32,
    mtime: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<(String, String)>,
}

impl Folders {
    pub(super) fn of(tree: &Tree) -> Self {
        let mut folders = Vec::new();
        let mut dirs = vec![(ROOT, false)];
        while let Some((id, whiteout)) = dirs.pop() {
            let dir = tree.dir(id);
            let path = match id {
                ROOT => Vec::new(),
                _ => tree.path(dir.parent, &dir.name),
            };
            let mut others = Vec::new();
            let mut links = BTreeMap::new();
            for (name, child) in &dir.children {
                match child {
                    Child {
                        node: Some(Node::Dir(below)),
                        whiteout,
                        ..
                    } => dirs.push((*below, *whiteout)),
                    Child { node, .. } => {
                        others.push(text(name));
                        let target = node.and_then(|node| tree.link(node));
                        links.extend(target.map(|target| (text(name), text(target))));
                    }
                }
            }
            folders.push(Folder {
                path: text(&path),
                said: Said::of(dir),
                hides: dir.opaque || whiteout,
                others,
                links,
            });
        }
        Self(folders)
    }

    /// The folders above others first.
    pub(super) fn each(&self) -> impl Iterator<Item = &Folder> {
        self.0.iter()
    }
}

impl Said {
    fn of(dir: &Dir) -> Option<Self> {
        let Attributes {
            mode,
            uid,
            gid,
            mtime,
            xattrs,
        } = &dir.attributes;
        let xattrs = xattrs.iter().flat_map(|xattrs| &**xattrs);
        dir.named.then(|| Self {
            mode: *mode,
            uid: *uid,
            gid: *gid,
            mtime: *mtime,
            xattrs: xattrs
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
        })
    }

    fn attributes(&self) -> Attributes {
        let xattrs = self.xattrs.iter();
        let xattrs: Xattrs = xattrs
            .map(|(name, value)| (bytes(name), bytes(value)))
            .collect();
        Attributes {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            xattrs: (!xattrs.is_empty()).then(|| Box::new(xattrs)),
        }
    }
}

/// The archive of the layer to be on top of these, the lowest first; `None` if all is
/// said.
pub fn said_again(layers: &[Folders]) -> Option<Vec<u8>> {
    let merged = merge(layers);
    let mut again = BTreeMap::new();
    for (path, place) in merged.iter().filter(|(_, place)| place.is_made_up) {
        again.insert(path.as_str(), place.said?);
        // What is above it would be made up, too.
        let above = path.match_indices('/').map(|(end, _)| &path[..end]);
        for path in above.chain([""]) {
            let said = merged.get(path).and_then(|place| place.said);
            again.extend(said.map(|said| (path, said)));
        }
    }
    if again.is_empty() {
        return None;
    }
    let folders = again
        .iter()
        .map(|(path, said)| (bytes(path), said.attributes()));
    let mut archive = Vec::new();
    let written: io::Result<()> = emit_folders(folders, &mut archive);
    // Nothing fails that is written to memory.
    written.ok().map(|()| archive)
}

/// A folder of all layers together.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    /// `None` if no layer says anything.
    said: Option<&'a Said>,
    /// A higher layer than the one that says it has to make something up.
    is_made_up: bool,
}

fn merge(layers: &[Folders]) -> BTreeMap<String, Place<'_>> {
    let mut merged: BTreeMap<String, Place<'_>> = BTreeMap::new();
    for folder in layers.iter().flat_map(|layer| &layer.0) {
        if folder.hides {
            remove_below(&mut merged, &folder.path);
        }
        for name in &folder.others {
            let path = join(&folder.path, name);
            if merged.remove(&path).is_some() {
                remove_below(&mut merged, &path);
            }
        }
        let place = merged.entry(folder.path.clone()).or_insert(Place {
            said: None,
            is_made_up: false,
        });
        *place = match &folder.said {
            Some(said) => Place {
                said: Some(said),
                is_made_up: false,
            },
            None => Place {
                said: place.said,
                is_made_up: place.said.is_some(),
            },
        };
    }
    merged
}

/// The path of a name in a folder.
pub(super) fn join(folder: &str, name: &str) -> String {
    match folder {
        "" => name.to_owned(),
        above => format!("{above}/{name}"),
    }
}

pub(super) fn remove_below<T>(merged: &mut BTreeMap<String, T>, path: &str) {
    let prefix = match path {
        "" => String::new(),
        path => format!("{path}/"),
    };
    let from = (Bound::Excluded(path), Bound::Unbounded);
    // A name may sort between a folder and what is in it.
    let below: Vec<String> = merged
        .range::<str, _>(from)
        .map(|(below, _)| below)
        .take_while(|below| below.starts_with(path))
        .filter(|below| below.starts_with(&prefix))
        .cloned()
        .collect();
    for path in below {
        merged.remove(&path);
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

pub(super) fn bytes(text: &str) -> Vec<u8> {
    // Others are not in what we wrote.
    text.chars().filter_map(|c| u8::try_from(c).ok()).collect()
}
