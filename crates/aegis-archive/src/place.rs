//! Where a copy goes: the rules of docker-cp(1). Pure.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// What is copied, as its first entry tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Directory,
    /// Its content alone (`PATH/.`).
    Contents,
    /// A file or a link.
    Other,
}

/// What the destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    Nothing,
    Directory,
    Other,
}

/// Where a copy goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Into this folder, under its own name.
    Into(PathBuf),
    /// Into this folder, under this name.
    As(PathBuf, OsString),
    /// Its content into a new folder of this name in this folder.
    ContentsAs(PathBuf, OsString),
    /// Its content into this folder.
    Contents(PathBuf),
}

/// Why it can go nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    #[error("there is no folder {}", .0.display())]
    NoFolder(PathBuf),
    #[error("{} is no folder", .0.display())]
    NotAFolder(PathBuf),
    #[error("a folder cannot replace the file {}", .0.display())]
    FolderOverFile(PathBuf),
}

/// Where a copy to `destination` goes, which may end in a slash.
///
/// # Errors
/// What stands in the way.
pub fn place(destination: &Path, there: There, source: Source) -> Result<Place, PlaceError> {
    let path = destination.to_owned();
    match (source, there) {
        (Source::Directory | Source::Other, There::Directory) => Ok(Place::Into(path)),
        (Source::Contents, There::Directory) => Ok(Place::Contents(path)),
        (Source::Directory, There::Nothing) => named(&path, Place::As),
        (Source::Contents, There::Nothing) => named(&path, Place::ContentsAs),
        (Source::Directory | Source::Contents, There::Other) => {
            Err(PlaceError::FolderOverFile(path))
        }
        (Source::Other, There::Nothing) if wants_folder(&path) => Err(PlaceError::NoFolder(path)),
        (Source::Other, There::Other) if wants_folder(&path) => Err(PlaceError::NotAFolder(path)),
        (Source::Other, There::Nothing | There::Other) => named(&path, Place::As),
    }
}

fn named(path: &Path, place: impl FnOnce(PathBuf, OsString) -> Place) -> Result<Place, PlaceError> {
    let name = path.file_name();
    let name = name.ok_or_else(|| PlaceError::NoFolder(path.to_owned()))?;
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    Ok(place(parent, name.to_owned()))
}

/// Whether a path can only be a folder's: it ends in `/` or `/.`.
pub fn wants_folder(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    text.ends_with(b"/") || text.ends_with(b"/.")
}

/// Whether a path means the content of a folder: it ends in `/.`, or is `.` or `/`.
pub fn means_contents(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    text.ends_with(b"/.") || matches!(text, b"." | b"/")
}

/// The path of an entry below the folder of a place. `None` for the folder itself,
/// which is there.
pub(crate) fn target(place: &Place, entry: &Path) -> Option<Result<PathBuf, PathBuf>> {
    let mut parts = Vec::new();
    for part in entry.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_owned()),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Some(Err(entry.to_owned()));
            }
        }
    }
    match place {
        Place::As(_, name) => {
            if let Some(first) = parts.first_mut() {
                first.clone_from(name);
            }
        }
        Place::ContentsAs(_, name) => parts.insert(0, name.clone()),
        Place::Into(_) | Place::Contents(_) => {}
    }
    (!parts.is_empty()).then(|| Ok(parts.iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_docker_cp() {
        let into = |path: &str| Ok(Place::Into(path.into()));
        let named = |dir: &str, name: &str| Ok(Place::As(dir.into(), name.into()));
        let filled = |dir: &str, name: &str| Ok(Place::ContentsAs(dir.into(), name.into()));
        for (destination, there, source, place_) in [
            ("/d", There::Directory, Source::Other, into("/d")),
            ("/d", There::Directory, Source::Directory, into("/d")),
            (
                "/d",
                There::Directory,
                Source::Contents,
                Ok(Place::Contents("/d".into())),
            ),
            ("/d", There::Nothing, Source::Other, named("/", "d")),
            ("/d", There::Nothing, Source::Directory, named("/", "d")),
            ("/d/", There::Nothing, Source::Directory, named("/", "d")),
            ("/d", There::Nothing, Source::Contents, filled("/", "d")),
            (
                "/d/",
                There::Nothing,
                Source::Other,
                Err(PlaceError::NoFolder("/d/".into())),
            ),
            ("/f", There::Other, Source::Other, named("/", "f")),
            (
                "/f/",
                There::Other,
                Source::Other,
                Err(PlaceError::NotAFolder("/f/".into())),
            ),
            (
                "/f",
                There::Other,
                Source::Directory,
                Err(PlaceError::FolderOverFile("/f".into())),
            ),
            ("f", There::Nothing, Source::Other, named(".", "f")),
            ("a/f", There::Nothing, Source::Other, named("a", "f")),
        ] {
            let found = place(Path::new(destination), there, source);
            assert_eq!(found, place_, "{destination} {there:?} {source:?}");
        }
    }

    #[test]
    fn entries_stay_below_the_place() {
        let named = Place::As("/d".into(), "new".into());
        let contents = Place::Contents("/d".into());
        let path = |place: &Place, entry: &str| target(place, Path::new(entry));
        assert_eq!(path(&named, "old/a"), Some(Ok("new/a".into())));
        let filled = Place::ContentsAs("/d".into(), "new".into());
        assert_eq!(path(&filled, "a/b"), Some(Ok("new/a/b".into())));
        assert_eq!(path(&filled, "./"), Some(Ok("new".into())));
        assert_eq!(path(&contents, "./a/b"), Some(Ok("a/b".into())));
        assert_eq!(path(&contents, "./"), None);
        assert_eq!(
            path(&contents, "/etc/passwd"),
            Some(Ok("etc/passwd".into()))
        );
        for entry in ["../a", "a/../../b", "./.."] {
            assert!(matches!(path(&contents, entry), Some(Err(_))), "{entry}");
        }
    }

    #[test]
    fn a_dot_means_the_contents() {
        for path in ["/a/.", ".", "/"] {
            assert!(means_contents(Path::new(path)), "{path}");
        }
        for path in ["/a", "/a/", "a.", "/a.."] {
            assert!(!means_contents(Path::new(path)), "{path}");
        }
    }
}
