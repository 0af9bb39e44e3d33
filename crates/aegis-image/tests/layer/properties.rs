//! Any bytes, and any tree.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use aegis_image::layer::{Limits, normalise};
use proptest::prelude::*;

use crate::archive::Archive;
use crate::facts::{converted, is_root};
use crate::images;

const SMALL: Limits = Limits {
    unpacked: 1 << 20,
    entries: 200,
};

/// What the fuzzer starts with.
fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/layer");
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Makes a block's checksum right.
fn mend(bytes: &mut [u8], at: usize) {
    if let Some(block) = bytes.get_mut(at..at + 512) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

#[test]
fn the_corpus_breaks_nothing() {
    for bytes in corpus() {
        for end in (0..bytes.len()).step_by(64) {
            images::layer(&bytes[..end]);
        }
        images::layer(&bytes);
    }
}

/// One entry: what it is, its name, where it leads, its content and mode.
type Made = (u8, String, String, Vec<u8>, u32);

/// Few names, so that they meet.
fn link() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[abc]",
        1 => Just(".".to_owned()),
        1 => Just("..".to_owned()),
        1 => "[xyz]{101,140}",
    ];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

fn name() -> impl Strategy<Value = String> {
    let whiteout = prop_oneof![Just(".wh.a"), Just(".wh..wh..opq")];
    (link(), prop::option::weighted(0.2, whiteout)).prop_map(|(name, whiteout)| match whiteout {
        Some(whiteout) => format!("{name}/{whiteout}"),
        None => name,
    })
}

fn entry() -> impl Strategy<Value = Made> {
    let kind = prop::sample::select(b"0001223567".to_vec());
    let data = prop::collection::vec(any::<u8>(), 0..600);
    (kind, name(), link(), data, 0..0o10000_u32).prop_map(|(kind, name, link, data, mode)| {
        let data = if matches!(kind, b'0' | b'7') {
            data
        } else {
            Vec::new()
        };
        (kind, name, link, data, mode)
    })
}

fn archive_of(entries: &[Made]) -> Vec<u8> {
    let added = entries.iter().fold(Archive::new(), |archive, entry| {
        let (kind, name, link, data, mode) = entry;
        archive.add_with(*kind, name, link, data, |header| header.set_mode(*mode))
    });
    added.end()
}

/// A tree without doubts: files in directories that come before them.
fn tree() -> impl Strategy<Value = BTreeMap<String, (Vec<u8>, u32)>> {
    let data = prop::collection::vec(any::<u8>(), 0..2000);
    prop::collection::btree_map(
        "[a-f]{1,3}(/[a-f]{1,3}){0,3}/F[a-z\u{e9}]{0,120}",
        (data, 0..0o10000_u32),
        0..30,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        images::layer(&bytes);
    }

    #[test]
    fn no_damage_is_too_much(
        at in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        checked in any::<bool>(),
    ) {
        let corpus = corpus();
        let mut bytes = at.get(&corpus).clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if checked {
                // So that a changed header is still one.
                mend(&mut bytes, at / 512 * 512);
            }
        }
        images::layer(&bytes);
    }

    /// Whatever comes of an archive, it is one that other readers read, with each
    /// name once and parents first, and it means what it means once more.
    #[test]
    fn what_is_made_of_odd_archives_is_clean(
        entries in prop::collection::vec(entry(), 0..40),
        below in prop::option::of(prop::collection::vec(entry(), 0..40)),
        change in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut archive = archive_of(&entries);
        if let Some((at, byte)) = change {
            let at = at.index(archive.len());
            archive[at] = byte;
        }
        let below = below.map(|entries| archive_of(&entries));
        let mut clean = Vec::new();
        if normalise(&archive, below.as_deref(), SMALL, &mut clean).is_err() {
            return Ok(());
        }
        let mut seen = BTreeMap::new();
        let mut read = tar::Archive::new(&clean[..]);
        for entry in read.entries().unwrap() {
            let entry = entry.unwrap();
            let name = entry.path_bytes().to_vec();
            let parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
            prop_assert!(parts.iter().all(|part| !matches!(*part, b"" | b"." | b"..")));
            if parts.len() > 1 {
                let parent = parts[..parts.len() - 1].join(&b'/');
                prop_assert_eq!(seen.get(&parent), Some(&b'5'));
            }
            if entry.header().entry_type().is_hard_link() {
                let target = entry.link_name_bytes().unwrap().to_vec();
                prop_assert!(seen.get(&target).is_some_and(|kind| *kind != b'5'));
            }
            let kind = entry.header().entry_type().as_byte();
            prop_assert_eq!(seen.insert(name, kind), None, "a name comes once");
        }
        let mut again = Vec::new();
        normalise(&clean, None, SMALL, &mut again).unwrap();
        let count = |bytes: &[u8]| tar::Archive::new(bytes).entries().unwrap().count();
        prop_assert_eq!(count(&again), seen.len());
    }

    #[test]
    fn a_tree_comes_back_as_it_was(tree in tree()) {
        let mut archive = Archive::new();
        for (name, (data, mode)) in &tree {
            archive = archive.add_with(b'0', name, "", data, |header| header.set_mode(*mode));
        }
        let mut clean = Vec::new();
        normalise(&archive.end(), None, SMALL, &mut clean).unwrap();
        let mut found = BTreeMap::new();
        for entry in tar::Archive::new(&clean[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.header().entry_type().is_file() {
                let mut data = Vec::new();
                entry.read_to_end(&mut data).unwrap();
                let name = String::from_utf8(entry.path_bytes().to_vec()).unwrap();
                found.insert(name, (data, entry.header().mode().unwrap()));
            }
        }
        prop_assert_eq!(found, tree);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// sqfstar takes whatever is given to it, and leaves nothing out.
    #[test]
    fn any_good_layer_becomes_a_file_system(entries in prop::collection::vec(entry(), 0..40)) {
        let archive = archive_of(&entries);
        let mut clean = Vec::new();
        if normalise(&archive, None, SMALL, &mut clean).is_err()
            || !is_root("any_good_layer_becomes_a_file_system")
        {
            return Ok(());
        }
        let names = tar::Archive::new(&clean[..]).entries().unwrap().count();
        prop_assert_eq!(converted(&archive).len(), names);
    }
}
