//! The fuzz targets in short: any bytes, changes of what is as it should be, and the
//! corpus. `fuzz/run` is the long form.

#[path = "../../../fuzz/packets.rs"]
mod packets;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

type Parser = fn(&[u8]);

/// Each parser and its corpus.
const PARSERS: [(&str, Parser); 2] = [
    ("egress_packets", packets::packets),
    ("egress_stream", packets::stream),
];

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let entries = fs::read_dir(folder.join(name)).expect("a corpus");
    let files = entries.map(|entry| fs::read(entry.expect("an entry").path()));
    files.map(|file| file.expect("a file")).collect()
}

#[test]
fn the_corpus_breaks_nothing() {
    for (name, parser) in PARSERS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        for bytes in corpus {
            parser(&bytes);
            for end in 0..bytes.len() {
                parser(&bytes[..end]);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_break_nothing(bytes: Vec<u8>) {
        for (_, parser) in PARSERS {
            parser(&bytes);
        }
    }

    #[test]
    fn changed_bytes_break_nothing(changes: Vec<(prop::sample::Index, u8)>) {
        for (name, parser) in PARSERS {
            for mut bytes in corpus(name) {
                for (at, byte) in &changes {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
                parser(&bytes);
            }
        }
    }
}
