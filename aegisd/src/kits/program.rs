//! Finding the programs of kits.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The folders of a kit's own: the one its manifest lies in and, where the manifest
/// is a link, the one it leads to with its `bin`. (A folder of manifests has no
/// `bin`: there it would be the config folder of an instance of that name.)
pub(super) fn own_dirs(manifest: &Path, kit_dirs: &[PathBuf]) -> Vec<PathBuf> {
    let beside = manifest.parent().map(Path::to_owned);
    let real = manifest.canonicalize().ok();
    let real = real.as_deref().and_then(Path::parent).map(Path::to_owned);
    let is_kit_dir = |folder: &Path| {
        let same = |dir: &PathBuf| dir == folder || dir.canonicalize().is_ok_and(|d| d == folder);
        kit_dirs.iter().any(same)
    };
    let mut found = Vec::new();
    if let Some(real) = real.filter(|real| !is_kit_dir(real)) {
        found.push(real.clone());
        found.push(real.join("bin"));
    }
    found.extend(beside);
    found
}

/// The first of these folders' programs of a name.
pub(super) fn find<'a>(
    name: &str,
    folders: impl IntoIterator<Item = &'a PathBuf>,
) -> Option<PathBuf> {
    let candidates = folders.into_iter().map(|folder| folder.join(name));
    candidates.into_iter().find(|path| {
        let metadata = path.metadata();
        metadata.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}
