//! The fuzz targets in short: any bytes, mutations of what honest guests say, and
//! the corpus. `fuzz/run` is the long form.

#[path = "../../../fuzz/parsers.rs"]
mod parsers;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

type Parser = fn(&[u8]);

/// Each parser and its corpus.
const PARSERS: [(&str, Parser); 6] = [
    ("frames", parsers::frames),
    ("mux", parsers::mux),
    ("link", parsers::link),
    ("messages", parsers::messages),
    ("log_records", parsers::log_records),
    ("console", parsers::console),
];

/// What the corpus has for a parser.
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
            // Every way to be cut off.
            for end in 0..bytes.len().min(512) {
                parser(&bytes[..end]);
            }
        }
    }
}

/// One change of some bytes.
#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Repeat(prop::sample::Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        any::<prop::sample::Index>().prop_map(Change::Remove),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, n)| Change::Repeat(at, n)),
    ]
}

fn apply(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        match change {
            Change::Set(at, byte) => *at.get_mut(&mut bytes) = *byte,
            Change::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
            Change::Repeat(at, count) => {
                let part = bytes[at.index(bytes.len())..].to_vec();
                (0..count % 8).for_each(|_| bytes.extend(&part));
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_break_nothing(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        PARSERS.iter().for_each(|(_, parser)| parser(&bytes));
    }

    #[test]
    fn changed_words_of_honest_guests_break_nothing(
        seed in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 1..12),
    ) {
        for (name, parser) in PARSERS {
            let corpus = corpus(name);
            parser(&apply(seed.get(&corpus).clone(), &changes));
        }
    }
}
