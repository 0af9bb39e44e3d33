//! What reads the bytes of images, called with any bytes; as `parsers.rs`, for what
//! others made instead of a guest. The tests of aegis-image share this.

use aegis_image::layer::{Limits, normalise};

/// The archive of a layer, by itself and on top of another, through to the stream that
/// sqfstar is given. That stream must be one that is read again, and of bounded size.
pub(crate) fn layer(bytes: &[u8]) {
    let limits = Limits {
        unpacked: 1 << 20,
        entries: 500,
    };
    for below in [None, Some(bytes)] {
        let mut clean = Vec::new();
        if normalise(bytes, below, limits, &mut clean).is_err() {
            continue;
        }
        // Each entry may get three blocks before its own: attributes, name, link.
        let bound = 4 * (limits.unpacked + 2048 * limits.entries);
        assert!(clean.len() as u64 <= 2 * bound);
        let mut archive = tar::Archive::new(&clean[..]);
        for entry in archive.entries().expect("a stream in memory") {
            entry.expect("a clean entry");
        }
    }
}
