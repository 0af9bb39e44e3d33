//! Files without a name, for who wants a descriptor of what is nowhere else.

use std::fs::File;
use std::io::{self, Write as _};

/// A file with this content, open for reading alone. It is in memory.
///
/// # Errors
/// The kernel refused.
#[cfg(target_os = "linux")]
pub fn holding(content: &[u8]) -> io::Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};

    let mut file = File::from(memfd_create(c"nameless", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    File::open(crate::descriptors::path(&file)?)
}

/// A file with this content, open for reading alone. It is on the disk, in the folder for
/// temporary files, whose access is this user's alone on macOS.
///
/// # Errors
/// The kernel refused.
#[cfg(not(target_os = "linux"))]
pub fn holding(content: &[u8]) -> io::Result<File> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(content)?;
    File::open(file.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_holds_can_be_read_and_not_changed() {
        let mut file = holding(b"content").unwrap();
        assert_eq!(io::read_to_string(&file).unwrap(), "content");
        assert!(file.write_all(b"other").is_err());
    }
}
