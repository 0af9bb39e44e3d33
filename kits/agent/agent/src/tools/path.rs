//! Where a path of a model leads.

use std::path::{Component, Path, PathBuf};

/// A path for reading: relative ones start at the workspace; any may be read, since bash
/// can read them too.
pub(crate) fn readable(workspace: &Path, path: &str) -> PathBuf {
    lexical(workspace, path)
}

/// A path for writing, which must be in the workspace with all links followed.
///
/// # Errors
/// A text for the model.
pub(crate) fn writable(workspace: &Path, path: &str) -> Result<PathBuf, String> {
    let outside = || format!("{path} is not in /workspace.");
    let root = workspace
        .canonicalize()
        .map_err(|error| format!("No /workspace: {error}"))?;
    let target = lexical(workspace, path);
    let name = target.file_name().ok_or_else(outside)?;
    // The nearest folder that is there decides where the rest will be.
    let mut folder = target.parent().ok_or_else(outside)?;
    let mut missing = vec![name];
    let real = loop {
        match folder.canonicalize() {
            Ok(real) => break real,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // A link to nowhere is not created through.
                if folder.symlink_metadata().is_ok() {
                    return Err(outside());
                }
                missing.push(folder.file_name().ok_or_else(outside)?);
                folder = folder.parent().ok_or_else(outside)?;
            }
            Err(error) => return Err(format!("Cannot use {path}: {error}")),
        }
    };
    let mut real: PathBuf = missing
        .iter()
        .rev()
        .fold(real, |path, part| path.join(part));
    if real
        .symlink_metadata()
        .is_ok_and(|facts| facts.is_symlink())
    {
        real = real.canonicalize().map_err(|_| outside())?;
    }
    // By whole components: /workspace2 does not start with /workspace.
    match real.starts_with(&root) && real != root {
        true => Ok(real),
        false => Err(outside()),
    }
}

/// The path with `.` and `..` taken out by their letters.
fn lexical(workspace: &Path, path: &str) -> PathBuf {
    // The workspace may lie elsewhere than where models know it.
    let known = Path::new(path)
        .strip_prefix("/workspace")
        .unwrap_or(Path::new(path));
    let mut result = PathBuf::new();
    for part in workspace.join(known).components() {
        match part {
            Component::ParentDir => {
                result.pop();
            }
            Component::CurDir => {}
            part => result.push(part),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_stays_in_the_workspace_whatever_the_path_says() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("workspace");
        let beside = root.with_file_name("workspace2");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::create_dir(&beside).unwrap();
        std::os::unix::fs::symlink(&beside, root.join("link")).unwrap();
        std::os::unix::fs::symlink(beside.join("new"), root.join("dangling")).unwrap();
        std::os::unix::fs::symlink(root.join("sub"), root.join("inner")).unwrap();
        let of = |path: &str| writable(&root, path);
        assert_eq!(of("a/b/c.txt").unwrap(), root.join("a/b/c.txt"));
        assert_eq!(of("sub/../x").unwrap(), root.join("x"));
        assert_eq!(of("/workspace/x").unwrap(), root.join("x"));
        assert_eq!(of("inner/x").unwrap(), root.join("sub/x"));
        for bad in [
            "../workspace2/x",
            "link/x",
            "dangling",
            "/etc/passwd",
            "..",
            ".",
            "a/../../x",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert!(of(beside.join("x").to_str().unwrap()).is_err());
    }
}
