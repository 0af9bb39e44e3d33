//! Names in an archive as paths in a layer.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::LayerError;

/// Linux' bounds of a name and a path (limits.h); the path's counts its NUL.
const LONGEST_NAME: usize = 255;
pub(super) const LONGEST_PATH: usize = 4095;

/// The parts of a name without `.`, empty ones and `..`; none are the root.
///
/// # Errors
/// It leads out of the layer, or Linux has no such path.
pub(super) fn clean(name: &[u8]) -> Result<Vec<&[u8]>, LayerError> {
    if name.contains(&0) {
        return Err(LayerError::NoPath { name: owned(name) });
    }
    if name.len() > 2 * LONGEST_PATH {
        return Err(LayerError::TooLong { name: owned(name) });
    }
    let mut parts = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() {
                    return Err(LayerError::Outside { name: owned(name) });
                }
            }
            part if part.len() > LONGEST_NAME => {
                return Err(LayerError::TooLong { name: owned(name) });
            }
            part => parts.push(part),
        }
    }
    Ok(parts)
}

/// A name for an error, of a bounded length.
pub(super) fn owned(name: &[u8]) -> PathBuf {
    let shown = &name[..name.len().min(LONGEST_PATH)];
    Path::new(OsStr::from_bytes(shown)).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_and_stay_inside() {
        let joined = |name: &[u8]| clean(name).ok().map(|parts| parts.join(&b'/'));
        assert_eq!(joined(b"./a//b/"), Some(b"a/b".to_vec()));
        assert_eq!(joined(b"/a/./../b"), Some(b"b".to_vec()));
        assert_eq!(joined(b"./"), Some(Vec::new()));
        assert_eq!(joined(b"..."), Some(b"...".to_vec()));
        for outside in [&b".."[..], b"/../a", b"a/../../b"] {
            let error = clean(outside).err();
            assert!(matches!(error, Some(LayerError::Outside { .. })));
        }
        assert!(matches!(clean(b"a\0b"), Err(LayerError::NoPath { .. })));
        let long = vec![b'a'; 256];
        assert!(matches!(clean(&long), Err(LayerError::TooLong { .. })));
        assert!(clean(&long[1..]).is_ok());
    }
}
