//! What a layer holds once all of its entries were applied, one after the other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::LayerError;
use super::folders::bytes;
use super::links::Links;
use super::path::{LONGEST_PATH, clean, owned};
use super::reader::{Entry, Kind};

/// Most bytes of paths, links and attributes. With as many entries as the default of
/// [`super::Limits`] that is 134 for each, and sqfstar holds all of them.
const METADATA: usize = 256 << 20;
/// How many parts of paths one entry's parents may be, those in symbolic links
/// included; a path of Linux has at most half as many.
const STEPS: usize = 4096;
/// How many symbolic links may be on the way to an entry, as in the resolvers of
/// umoci and runc; Linux has 40.
const LINKS: usize = 255;

/// What marks whiteouts (image-spec, layer.md, and AUFS, where they are from).
const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

pub(super) type DirId = usize;
pub(super) type InodeId = usize;
pub(super) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What all files have.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes {
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: u32,
    /// Rare, so that they cost one word where there are none.
    pub(super) xattrs: Option<Box<Xattrs>>,
}

/// What is at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir(DirId),
    Inode(InodeId),
}

/// A name in a directory: what is there, and whether it hides what is below.
#[derive(Debug, Default)]
pub(super) struct Child {
    pub(super) node: Option<Node>,
    pub(super) whiteout: bool,
    /// What is there is of a layer below, so whatever hides that hides it.
    pub(super) lent: bool,
}

#[derive(Debug)]
pub(super) struct Dir {
    pub(super) parent: DirId,
    pub(super) name: Box<[u8]>,
    /// Of its whole path.
    path_length: usize,
    pub(super) attributes: Attributes,
    /// An entry describes it.
    pub(super) named: bool,
    pub(super) opaque: bool,
    pub(super) children: BTreeMap<Box<[u8]>, Child>,
}

/// Anything but a directory; hard links are several names of one.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) kind: InodeKind,
    pub(super) attributes: Attributes,
}

#[derive(Clone, Debug)]
pub(super) enum InodeKind {
    /// The content is in the archive, at the entry of that ordinal; in the one of the
    /// layer that lent it, if one did.
    File {
        ordinal: u64,
        size: u64,
        archive: Option<Arc<PathBuf>>,
    },
    Symlink(Box<[u8]>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    /// Whatever the layers below have at that path; an entry of that name links to it.
    Lower {
        path: Box<[u8]>,
        name: Box<[u8]>,
    },
}

#[derive(Debug)]
pub(super) struct Tree {
    pub(super) dirs: Vec<Dir>,
    pub(super) inodes: Vec<Inode>,
    /// Of the layers below, as far as nothing here hides them.
    below: Links,
    /// Hard links may lead to files of layers below.
    borrows: bool,
    metadata: usize,
    /// Most directories and inodes, those that no entry names included: a short
    /// name can imply thousands.
    limit: u64,
}

/// The root's place among the directories.
pub(super) const ROOT: DirId = 0;

impl Dir {
    /// One that no entry describes.
    fn implied(parent: DirId, name: &[u8], path_length: usize) -> Self {
        Self {
            parent,
            name: name.into(),
            path_length,
            attributes: Attributes {
                mode: 0o755,
                ..Attributes::default()
            },
            named: false,
            opaque: false,
            children: BTreeMap::new(),
        }
    }
}

impl Tree {
    /// `below` are the links of the layers that this one is meant to lie on; `None`
    /// understands it by itself.
    pub(super) fn new(limit: u64, below: Option<&Links>) -> Self {
        Self {
            dirs: vec![Dir::implied(ROOT, &[], 0)],
            inodes: Vec::new(),
            below: below.cloned().unwrap_or_default(),
            borrows: below.is_some(),
            metadata: 0,
            limit,
        }
    }

    pub(super) fn root(&self) -> &Attributes {
        &self.dirs[ROOT].attributes
    }

    /// Whether the root hides the layers below.
    pub(super) fn is_opaque(&self) -> bool {
        self.dirs[ROOT].opaque
    }

    /// The names in the root, and whether each is a directory.
    pub(super) fn top(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let children = self.dirs[ROOT].children.iter();
        let there = children.filter_map(|(name, child)| Some((&**name, child.node?)));
        there.map(|(name, node)| (name, matches!(node, Node::Dir(_))))
    }

    pub(super) fn dir(&self, id: DirId) -> &Dir {
        &self.dirs[id]
    }

    pub(super) fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id]
    }

    /// Where something leads, if it is a symbolic link.
    pub(super) fn link(&self, node: Node) -> Option<&[u8]> {
        match node {
            Node::Inode(inode) => match &self.inodes[inode].kind {
                InodeKind::Symlink(target) => Some(target),
                _ => None,
            },
            Node::Dir(_) => None,
        }
    }

    pub(super) fn inodes(&self) -> &[Inode] {
        &self.inodes
    }

    /// The path of a name in a directory.
    pub(super) fn path(&self, mut dir: DirId, name: &[u8]) -> Vec<u8> {
        let mut parts = vec![name];
        while dir != ROOT {
            parts.push(&self.dirs[dir].name);
            dir = self.dirs[dir].parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// Applies the next entry.
    ///
    /// # Errors
    /// It means nothing, or nothing good.
    pub(super) fn add(&mut self, entry: Entry) -> Result<(), LayerError> {
        self.count(&entry.link, &entry.xattrs);
        self.apply(entry)?;
        self.check()
    }

    /// Counts what something takes, but for its names.
    pub(super) fn count(&mut self, link: &[u8], xattrs: &Xattrs) {
        let attributes = xattrs.iter();
        let attributes = attributes.map(|(name, value)| name.len() + value.len());
        self.metadata += link.len() + attributes.sum::<usize>();
    }

    /// Whether the limits hold.
    pub(super) fn check(&self) -> Result<(), LayerError> {
        if self.metadata > METADATA {
            return Err(LayerError::TooMuchMetadata { limit: METADATA });
        }
        // The root is there without any.
        if (self.dirs.len() + self.inodes.len() - 1) as u64 > self.limit {
            return Err(LayerError::TooMany { limit: self.limit });
        }
        Ok(())
    }

    fn apply(&mut self, entry: Entry) -> Result<(), LayerError> {
        let name = entry.name.clone();
        let parts = clean(&name)?;
        let Some((base, parents)) = parts.split_last() else {
            return self.add_root(entry);
        };
        if parents.iter().any(|part| part.starts_with(WHITEOUT_META)) {
            return Ok(());
        }
        if base.starts_with(WHITEOUT_META) {
            if *base == OPAQUE {
                let dir = self.make_parents(parents, &name)?;
                self.dirs[dir].opaque = true;
                if !self.below.is_empty() {
                    let path = match dir {
                        ROOT => Vec::new(),
                        _ => self.path(self.dirs[dir].parent, &self.dirs[dir].name),
                    };
                    self.below.remove_below(&path);
                }
            }
            return Ok(());
        }
        if let Some(hidden) = base.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(LayerError::NoPath { name: owned(&name) });
            }
            let dir = self.make_parents(parents, &name)?;
            let child = self.child(dir, hidden, &name)?;
            child.whiteout = true;
            if std::mem::take(&mut child.lent) {
                child.node = None;
            }
            self.hide_links(dir, hidden);
            return Ok(());
        }
        match entry.kind {
            Kind::Dir => {
                let dir = self.make_parents(parents, &name)?;
                let dir = self.enter(dir, base, &name)?;
                self.describe(dir, entry);
            }
            Kind::HardLink => {
                let inode = self.linked(&entry)?;
                self.put(parents, base, Node::Inode(inode), &name)?;
            }
            _ => {
                let kind = inode_kind(&entry)?;
                self.inodes.push(Inode {
                    kind,
                    attributes: attributes_of(entry),
                });
                let inode = Node::Inode(self.inodes.len() - 1);
                self.put(parents, base, inode, &name)?;
            }
        }
        Ok(())
    }

    fn add_root(&mut self, entry: Entry) -> Result<(), LayerError> {
        if entry.kind != Kind::Dir {
            return Err(LayerError::Root {
                name: owned(&entry.name),
            });
        }
        self.describe(ROOT, entry);
        Ok(())
    }

    fn describe(&mut self, dir: DirId, entry: Entry) {
        self.dirs[dir].attributes = attributes_of(entry);
        self.dirs[dir].named = true;
    }

    /// What a hard link leads to. The last part is not followed, as link(2) does
    /// not.
    fn linked(&mut self, entry: &Entry) -> Result<InodeId, LayerError> {
        let parts = clean(&entry.link)?;
        let found = match parts.split_last() {
            Some((base, parents)) => {
                let dir = self.find_parents(parents, &entry.name)?;
                let child = dir.and_then(|dir| self.dirs[dir].children.get(*base));
                match child.and_then(|child| child.node) {
                    None if self.borrows => self.borrow(parents, base, entry)?,
                    found => found,
                }
            }
            None => None,
        };
        match found {
            Some(Node::Inode(inode)) => Ok(inode),
            Some(Node::Dir(_)) | None => Err(LayerError::LinkTarget {
                name: owned(&entry.name),
                target: owned(&entry.link),
            }),
        }
    }

    /// Puts something at a name, in the place of what was there.
    fn put(
        &mut self,
        parents: &[&[u8]],
        base: &[u8],
        node: Node,
        name: &[u8],
    ) -> Result<(), LayerError> {
        let dir = self.make_parents(parents, name)?;
        let child = self.child(dir, base, name)?;
        (child.node, child.lent) = (Some(node), false);
        self.hide_links(dir, base);
        Ok(())
    }

    /// Nothing of the layers below is at that name any more.
    fn hide_links(&mut self, dir: DirId, name: &[u8]) {
        if !self.below.is_empty() {
            let path = self.path(dir, name);
            self.below.remove(&path);
        }
    }

    /// The name in a directory, made if it is missing.
    pub(super) fn child(
        &mut self,
        dir: DirId,
        base: &[u8],
        name: &[u8],
    ) -> Result<&mut Child, LayerError> {
        let dir = &mut self.dirs[dir];
        let path_length = dir.path_length + 1 + base.len();
        if path_length > LONGEST_PATH {
            return Err(LayerError::TooLong { name: owned(name) });
        }
        Ok(dir.children.entry(base.into()).or_insert_with(|| {
            self.metadata += path_length;
            Child::default()
        }))
    }

    /// The directory at a name, made if there is something else or nothing.
    pub(super) fn enter(
        &mut self,
        dir: DirId,
        base: &[u8],
        name: &[u8],
    ) -> Result<DirId, LayerError> {
        let path_length = self.dirs[dir].path_length + 1 + base.len();
        let made = self.dirs.len();
        let child = self.child(dir, base, name)?;
        if let Some(Node::Dir(there)) = child.node {
            return Ok(there);
        }
        (child.node, child.lent) = (Some(Node::Dir(made)), false);
        self.dirs.push(Dir::implied(dir, base, path_length));
        Ok(made)
    }

    /// The directory in which an entry goes.
    pub(super) fn make_parents(
        &mut self,
        parts: &[&[u8]],
        name: &[u8],
    ) -> Result<DirId, LayerError> {
        let mut walk = Walk::new(parts, name);
        while let Some(part) = walk.next()? {
            if self.step(&mut walk, &part)? == Step::Missing {
                walk.dir = self.enter(walk.dir, &part, name)?;
            }
        }
        Ok(walk.dir)
    }

    /// As [`Self::make_parents`], but `None` where something would have to be made.
    fn find_parents(&self, parts: &[&[u8]], name: &[u8]) -> Result<Option<DirId>, LayerError> {
        let mut walk = Walk::new(parts, name);
        while let Some(part) = walk.next()? {
            if self.step(&mut walk, &part)? == Step::Missing {
                return Ok(None);
            }
        }
        Ok(Some(walk.dir))
    }

    /// Goes on by one part, as the kernel does in a process whose root the layer is.
    pub(super) fn step(&self, walk: &mut Walk<'_>, part: &[u8]) -> Result<Step, LayerError> {
        let dir = &self.dirs[walk.dir];
        match part {
            b"" | b"." => {}
            b".." => walk.dir = dir.parent,
            part => match dir.children.get(part).and_then(|child| child.node) {
                Some(Node::Dir(next)) => walk.dir = next,
                Some(Node::Inode(inode)) => match &self.inodes[inode].kind {
                    InodeKind::Symlink(target) => walk.follow(target)?,
                    InodeKind::Lower { path, .. } => return self.step_below(walk, path),
                    _ => return Ok(Step::Missing),
                },
                None if self.below.is_empty() => return Ok(Step::Missing),
                None => return self.step_below(walk, &self.path(walk.dir, part)),
            },
        }
        Ok(Step::Done)
    }

    fn step_below(&self, walk: &mut Walk<'_>, path: &[u8]) -> Result<Step, LayerError> {
        match self.below.target(path) {
            Some(target) => walk.follow(&bytes(target)).map(|()| Step::Done),
            None => Ok(Step::Missing),
        }
    }
}

#[derive(PartialEq, Eq)]
pub(super) enum Step {
    Done,
    /// There is no directory.
    Missing,
}

/// A way from the root through directories and symbolic links.
pub(super) struct Walk<'a> {
    pub(super) dir: DirId,
    /// The parts to go, the next one last.
    parts: Vec<Vec<u8>>,
    steps: usize,
    links: usize,
    name: &'a [u8],
}

impl<'a> Walk<'a> {
    pub(super) fn new(parts: &[&[u8]], name: &'a [u8]) -> Self {
        Self {
            dir: ROOT,
            parts: parts.iter().rev().map(|part| part.to_vec()).collect(),
            steps: 0,
            links: 0,
            name,
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, LayerError> {
        self.steps += 1;
        if self.steps > STEPS {
            return Err(self.endless());
        }
        Ok(self.parts.pop())
    }

    fn follow(&mut self, target: &[u8]) -> Result<(), LayerError> {
        self.links += 1;
        if self.links > LINKS {
            return Err(self.endless());
        }
        if target.starts_with(b"/") {
            self.dir = ROOT;
        }
        let parts = target.rsplit(|byte| *byte == b'/');
        self.parts.extend(parts.map(<[u8]>::to_vec));
        Ok(())
    }

    fn endless(&self) -> LayerError {
        LayerError::Loop {
            name: owned(self.name),
        }
    }
}

fn inode_kind(entry: &Entry) -> Result<InodeKind, LayerError> {
    let name = || owned(&entry.name);
    let (major, minor) = entry.device;
    Ok(match entry.kind {
        Kind::Symlink if entry.link.is_empty() || entry.link.contains(&0) => {
            return Err(LayerError::NoPath { name: name() });
        }
        Kind::Symlink if entry.link.len() > LONGEST_PATH => {
            return Err(LayerError::TooLong { name: name() });
        }
        Kind::Symlink => InodeKind::Symlink(entry.link.as_slice().into()),
        Kind::File => InodeKind::File {
            ordinal: entry.ordinal,
            size: entry.size,
            archive: None,
        },
        Kind::Char => InodeKind::Char(major, minor),
        Kind::Block => InodeKind::Block(major, minor),
        Kind::Fifo => InodeKind::Fifo,
        Kind::Unknown(kind) => return Err(LayerError::UnknownKind { name: name(), kind }),
        // Those are no inodes of their own.
        Kind::Dir | Kind::HardLink => {
            return Err(LayerError::UnknownKind {
                name: name(),
                kind: 0,
            });
        }
    })
}

fn attributes_of(entry: Entry) -> Attributes {
    let holds_user_xattrs = matches!(entry.kind, Kind::File | Kind::Dir);
    let mut xattrs = entry.xattrs;
    xattrs.retain(|name, _| is_kept(name, holds_user_xattrs));
    Attributes {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: u32::try_from(entry.mtime.max(0)).unwrap_or(u32::MAX),
        xattrs: (!xattrs.is_empty()).then(|| Box::new(xattrs)),
    }
}

/// Whether SquashFS can hold an extended attribute, and the image may give it.
fn is_kept(name: &[u8], holds_user_xattrs: bool) -> bool {
    if let Some(rest) = name.strip_prefix(b"trusted.") {
        return !rest.is_empty() && !rest.starts_with(b"overlay.");
    }
    if let Some(rest) = name.strip_prefix(b"user.") {
        // The others hold none (xattr(7)).
        return holds_user_xattrs && !rest.is_empty() && !rest.starts_with(b"overlay.");
    }
    match name.strip_prefix(b"security.") {
        Some(rest) => !rest.is_empty() && rest != b"selinux",
        None => false,
    }
}
