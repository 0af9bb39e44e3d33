//! What the head of a program for macOS says (`mach-o/loader.h` of Apple's, which is all
//! little-endian on its processors).
//!
//! | bytes | | an executable for arm64 |
//! |---|---|---|
//! | 0 to 3 | `magic` | `0xfeedfacf`: 64 bits |
//! | 4 to 7 | `cputype` | `0x0100000c` |
//! | 12 to 15 | `filetype` | 2 |

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};

const MAGIC: u32 = 0xfeed_facf;
const ARM64: u32 = 0x0100_000c;
const EXECUTABLE: u32 = 2;

/// Wants a program for Apple's processors at this path.
///
/// # Errors
/// It is another one, or none.
pub(super) fn expect_executable(path: &Path) -> Result<()> {
    let name = path.display();
    let mut head = [0; 16];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut head))
        .with_context(|| format!("reading the head of {name}"))?;
    ensure!(
        is_executable(&head),
        "{name} is no program for macOS on arm64"
    );
    Ok(())
}

fn is_executable(head: &[u8; 16]) -> bool {
    let words = head.as_chunks::<4>().0;
    let [magic, cpu, _, kind] = [0, 1, 2, 3].map(|index| u32::from_le_bytes(words[index]));
    (magic, cpu, kind) == (MAGIC, ARM64, EXECUTABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_executable_of_this_processor_counts() {
        let head = |words: [u32; 4]| {
            let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
            <[u8; 16]>::try_from(bytes).unwrap()
        };
        assert!(is_executable(&head([MAGIC, ARM64, 0, EXECUTABLE])));
        // A library; a program for Intel's processors; one for Linux.
        assert!(!is_executable(&head([MAGIC, ARM64, 0, 6])));
        assert!(!is_executable(&head([MAGIC, 0x0100_0007, 0, EXECUTABLE])));
        assert!(!is_executable(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"));
    }
}
