//! The runtime directory of this user, where sockets lie.
//!
//! | platform | it is |
//! |---|---|
//! | Linux | `$XDG_RUNTIME_DIR` if it belongs to this user, else `/run/user/UID` |
//! | macOS | the same variable, else `~/.aegis/run`: `$TMPDIR` loses what lies unused for three days |

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::ConnectError;

/// The runtime directory of this user. On macOS it may not be there yet: aegisd makes it.
///
/// # Errors
/// Says that none is there, or whose the one of the environment is if no other is there.
pub fn directory() -> Result<PathBuf, ConnectError> {
    let inherited = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let uid = nix::unistd::geteuid().as_raw();
    if cfg!(target_os = "macos") {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        return in_home(inherited.as_deref(), home.as_deref(), uid);
    }
    choose_runtime_dir(inherited.as_deref(), Path::new("/run/user"), uid)
}

fn in_home(
    inherited: Option<&Path>,
    home: Option<&Path>,
    uid: u32,
) -> Result<PathBuf, ConnectError> {
    let is_own = |path: &&Path| path.metadata().is_ok_and(|found| found.uid() == uid);
    if let Some(own) = inherited.filter(|path| path.is_absolute()).filter(is_own) {
        return Ok(own.to_owned());
    }
    let home = home.filter(|home| home.is_absolute());
    Ok(home.ok_or(ConnectError::NoHome)?.join(".aegis/run"))
}

fn choose_runtime_dir(
    inherited: Option<&Path>,
    base: &Path,
    uid: u32,
) -> Result<PathBuf, ConnectError> {
    let path = base.join(uid.to_string());
    let mut foreign = None;
    for candidate in inherited
        .filter(|inherited| inherited.is_absolute())
        .into_iter()
        .chain([path.as_path()])
    {
        match candidate.metadata() {
            Ok(metadata) if metadata.uid() == uid => return Ok(candidate.to_owned()),
            Ok(metadata) => foreign = foreign.or(Some((candidate.to_owned(), metadata.uid()))),
            // Another user's directory is not even readable.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) => {}
            Err(source) => {
                return Err(ConnectError::Unreadable {
                    path: candidate.to_owned(),
                    source,
                });
            }
        }
    }
    Err(match foreign {
        Some((path, owner)) => ConnectError::ForeignRuntime { path, owner, uid },
        None => ConnectError::NoUserSession { uid, path },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_makes_one_it_lies_in_the_home() {
        let own = tempfile::tempdir().unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        let home = Path::new("/Users/alice");
        let chosen = in_home(Some(own.path()), Some(home), uid).unwrap();
        assert_eq!(chosen, own.path());
        let chosen = in_home(Some(own.path()), Some(home), uid + 1).unwrap();
        assert_eq!(chosen, home.join(".aegis/run"));
        let error = in_home(None, Some(Path::new("alice")), uid).unwrap_err();
        assert!(matches!(error, ConnectError::NoHome), "{error}");
    }

    #[test]
    fn an_inherited_directory_of_this_user_wins() {
        let base = tempfile::tempdir().unwrap();
        let own = tempfile::tempdir().unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        assert_eq!(
            choose_runtime_dir(Some(own.path()), base.path(), uid).unwrap(),
            own.path()
        );
        std::fs::create_dir(base.path().join(uid.to_string())).unwrap();
        assert_eq!(
            choose_runtime_dir(Some(Path::new("/nonexistent")), base.path(), uid).unwrap(),
            base.path().join(uid.to_string())
        );
    }

    #[test]
    fn a_directory_of_another_user_is_never_used() {
        let base = tempfile::tempdir().unwrap();
        let uid = nix::unistd::geteuid().as_raw() + 1;
        let error = choose_runtime_dir(Some(base.path()), base.path(), uid).unwrap_err();
        assert!(
            matches!(error, ConnectError::ForeignRuntime { owner, .. } if owner == uid - 1),
            "{error}"
        );
        let error = choose_runtime_dir(None, base.path(), uid).unwrap_err();
        assert!(
            matches!(error, ConnectError::NoUserSession { .. }),
            "{error}"
        );
    }
}
