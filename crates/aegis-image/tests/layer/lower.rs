//! Layers with hard links to files of the layers below, through whole pulls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use aegis_core::fault::{Fault, Symbol};
use aegis_image::access::Access;
use aegis_image::document::Platform;
use aegis_image::layer::{Convert, LayerError, Limits, Links, LowerFiles, Survey, survey};
use aegis_image::protocol::Progress;
use aegis_image::pull::{Cancel, PullError, pull};
use aegis_image::record::Image;
use aegis_image::store::Store;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::archive::Archive;
use crate::facts::{Facts, is_root, layout, umoci, unsquash};

/// Pulls an image of these layers.
fn pulled(store: &Store, layers: &[Vec<u8>]) -> Result<Image, PullError> {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("oci:{}", layout(dir.path(), layers));
    let name = name.parse().unwrap();
    let progress = watch::Sender::new(Progress::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let access = Access::default();
    runtime.block_on(pull(
        store,
        &name,
        &name,
        &Platform::host(),
        &access,
        progress,
        &Cancel::default(),
    ))
}

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::at(dir.path().join("images"));
    (dir, store)
}

/// What overlayfs shows of an image.
fn mounted(store: &Store, image: &Image) -> Facts {
    let mut shown = Facts::new();
    for (number, layer) in image.layers.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let facts = unsquash(&store.layer(&layer.diff_id), dir.path());
        for (name, fact) in facts {
            let opaque = " trusted.overlay.opaque=\"y\"";
            let is_dir = fact.starts_with("dir ");
            if !is_dir || fact.contains(opaque) {
                shown.retain(|other, _| !other.starts_with(&format!("{name}/")));
            }
            if fact.starts_with("c 0:0 ") {
                shown.remove(&name);
            } else {
                // Of what is linked in one layer nothing is linked in another.
                let fact = fact.replace(opaque, "");
                shown.insert(name, fact.replace(" #", &format!(" #{number}.")));
            }
        }
    }
    shown
}

/// The same with each hard link's number replaced by the first of its names.
fn linked_by_name(facts: Facts) -> Facts {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, fact) in &facts {
        if let Some((_, number)) = fact.rsplit_once(" #") {
            groups
                .entry(number.to_owned())
                .or_default()
                .push(name.clone());
        }
    }
    let named = facts.into_iter().map(|(name, fact)| {
        let fact = match fact.rsplit_once(" #") {
            Some((fact, number)) if groups[number].len() > 1 => {
                format!("{fact} = {}", groups[number][0])
            }
            Some((fact, _)) => fact.to_owned(),
            None => fact,
        };
        (name, fact)
    });
    named.collect()
}

/// Pulls an image of these layers, and expects what umoci makes of them.
#[track_caller]
fn assert_same(layers: &[Archive]) -> (TempDir, Store, Image) {
    let layers: Vec<Vec<u8>> = layers.iter().map(|layer| layer.clone().end()).collect();
    let (dir, store) = store();
    let image = pulled(&store, &layers).unwrap();
    let ours = linked_by_name(mounted(&store, &image));
    let theirs = linked_by_name(umoci(&layers));
    for (name, fact) in &theirs {
        assert_eq!(ours.get(name), Some(fact), "{name}");
    }
    assert_eq!(ours.len(), theirs.len(), "{ours:#?}");
    (dir, store, image)
}

#[track_caller]
fn assert_refused(layers: &[Archive]) {
    let layers: Vec<Vec<u8>> = layers.iter().map(|layer| layer.clone().end()).collect();
    let (_dir, store) = store();
    let fault = Fault::from(pulled(&store, &layers).unwrap_err());
    assert_eq!(fault.symbol, Symbol::ImageCorrupt, "{fault}");
    assert!(fault.message.contains("linked to"), "{fault}");
}

fn lower() -> Archive {
    Archive::new()
        .add_with(b'5', "d", "", b"", |header| {
            header.set_mode(0o710);
            header.set_mtime(77);
        })
        .pax(&[
            ("SCHILY.xattr.user.note", b"n"),
            (
                "SCHILY.xattr.security.capability",
                &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
        ])
        .add_with(b'0', "d/a", "", b"content", |header| {
            header.set_mode(0o4751);
            header.set_uid(12);
            header.set_gid(34);
            header.set_mtime(5678);
        })
        .file("plain", &[7; 300_000])
        .file("other", b"other")
}

#[test]
fn a_hard_link_to_a_file_of_a_layer_below_is_one_file_with_it() {
    if !is_root("a_hard_link_to_a_file_of_a_layer_below_is_one_file_with_it") {
        return;
    }
    let upper = Archive::new()
        .file("first", &[1; 70_000])
        // In another order than those below.
        .link("to-plain", "plain")
        .dir("e")
        .link("e/b", "/d/./a")
        .link("e/c", "e/b")
        .file("last", b"last");
    let (_dir, store, image) = assert_same(&[lower(), upper.clone()]);
    assert_eq!(image.layers.len(), 3, "one says again what d is");
    let shown = linked_by_name(mounted(&store, &image));
    assert_eq!(shown["e/b"], shown["d/a"]);
    assert!(shown["e/b"].ends_with(" = d/a"), "{shown:#?}");

    // Once more nothing of it is made, or even loaded.
    let before = std::fs::metadata(store.layer(&image.layers[1].diff_id)).unwrap();
    let layers = [lower().end(), upper.end()];
    assert_eq!(pulled(&store, &layers).unwrap().layers, image.layers);
    let after = std::fs::metadata(store.layer(&image.layers[1].diff_id)).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    // Also if only others still have what it is made of.
    std::fs::remove_file(store.layer(&image.layers[1].diff_id)).unwrap();
    assert_eq!(pulled(&store, &layers).unwrap().layers, image.layers);
}

#[test]
fn anything_but_a_folder_can_be_linked_to() {
    if !is_root("anything_but_a_folder_can_be_linked_to") {
        return;
    }
    let lower = Archive::new()
        .dir("usr")
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .file("usr/lib/file", b"file")
        .add(b'6', "fifo", "", b"")
        .add_with(b'3', "null", "", b"", |header| {
            header.set_uid(3);
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        })
        .file(b"odd\xff\n", b"odd");
    let upper = Archive::new()
        .link("fifo-too", "fifo")
        .link("null-too", "null")
        .link("lib-too", "lib")
        .link(b"odd\xfe", b"odd\xff\n")
        // Through links of its own and of the layer below.
        .symlink("own", "lib")
        .link("one", "lib/file")
        .link("two", "own/file")
        // Where the linked link leads.
        .file("lib-too/new", b"new")
        .file("lib/newer", b"newer");
    assert_same(&[lower, upper]);
}

#[test]
fn all_names_of_a_file_stay_one() {
    if !is_root("all_names_of_a_file_stay_one") {
        return;
    }
    let lower = lower()
        .link("a-too", "d/a")
        .link("d/a-gone", "d/a")
        .link("replaced", "d/a")
        .link("plain-too", "plain");
    let between = Archive::new()
        .file("d/.wh.a-gone", b"")
        .file("replaced", b"replaced")
        .file("elsewhere", b"");
    let upper = Archive::new()
        .link("one", "d/a")
        .link("two", "a-too")
        .file(".wh.plain-too", b"")
        .link("three", "plain");
    assert_same(&[lower, between, upper]);
}

#[test]
fn links_to_links_lead_to_the_file() {
    if !is_root("links_to_links_lead_to_the_file") {
        return;
    }
    let layers = [
        lower().link("a-too", "d/a"),
        Archive::new().link("b", "d/a").file("own", b"own"),
        Archive::new().link("c", "b").link("own-too", "own"),
        Archive::new().link("c-too", "c").link("d/deep", "own-too"),
    ];
    let (_dir, store, image) = assert_same(&layers);
    // One that is here lends what it borrowed, too.
    std::fs::remove_file(store.layer(&image.layers[3].diff_id)).unwrap();
    let layers = layers.map(Archive::end);
    let again = pulled(&store, &layers).unwrap();
    assert_eq!(again.layers, image.layers);
    assert_eq!(
        linked_by_name(mounted(&store, &again)),
        linked_by_name(umoci(&layers))
    );
}

#[test]
fn what_is_linked_is_what_is_seen_there() {
    if !is_root("what_is_linked_is_what_is_seen_there") {
        return;
    }
    let link = Archive::new().link("b", "d/a");
    let replaced = Archive::new().dir("d").file("d/a", b"new");
    assert_same(&[lower(), replaced, link.clone()]);
    for hidden in [
        Archive::new().file("d/.wh.a", b""),
        Archive::new().file(".wh.d", b""),
        Archive::new().file("d/.wh..wh..opq", b""),
        Archive::new().file(".wh..wh..opq", b""),
        Archive::new().file("d", b"file"),
        Archive::new().dir("d").dir("d/a"),
    ] {
        assert_refused(&[lower(), hidden.clone(), link.clone()]);
        // In the same layer.
        let itself = [hidden.cut(), link.clone().cut()].concat();
        assert_refused(&[lower(), Archive::new().raw(&itself)]);
    }
    assert_refused(&[lower(), Archive::new().link("b", "nowhere")]);
    assert_refused(&[lower(), Archive::new().link("b", "d")]);
    assert_refused(&[link]);
}

#[test]
fn what_a_layer_hides_after_it_linked_to_it_is_gone() {
    if !is_root("what_a_layer_hides_after_it_linked_to_it_is_gone") {
        return;
    }
    for hidden in [
        Archive::new().file("d/.wh.a", b""),
        Archive::new().file(".wh.d", b""),
        Archive::new().dir("d").file("d/.wh..wh..opq", b""),
        Archive::new().dir("d").file("d/a", b"own"),
        Archive::new().file("d", b"a file"),
    ] {
        let upper = [Archive::new().link("b", "d/a").cut(), hidden.cut()].concat();
        assert_same(&[lower(), Archive::new().raw(&upper)]);
    }
}

#[test]
fn what_is_borrowed_counts_against_the_limits() {
    let dir = tempfile::tempdir().unwrap();
    let below = Archive::new()
        .pax(&[
            ("GNU.sparse.major", b"0"),
            ("GNU.sparse.minor", b"1"),
            ("GNU.sparse.size", b"65536"),
            ("GNU.sparse.numblocks", b"1"),
            ("GNU.sparse.map", b"0,1"),
        ])
        .file("a", b"x");
    let survey_of = |name: &str,
                     archive: Archive,
                     limits: Limits,
                     act: &mut dyn FnMut(&mut Survey, &Convert<'_>)| {
        let blob = dir.path().join(name);
        std::fs::write(&blob, archive.end()).unwrap();
        let job = Convert {
            blob: &blob,
            to: &dir.path().join("layer"),
            diff_id: None,
            limits,
            below: Some(&Links::default()),
            progress: &|_| (),
            cancelled: &AtomicBool::new(false),
        };
        act(&mut survey(&job, None).unwrap(), &job);
    };
    let mut files = LowerFiles::new();
    survey_of("below", below, Limits::default(), &mut |survey, job| {
        files = survey.files(&BTreeSet::from(["a".to_owned()]), job);
    });
    let refused = |unpacked| {
        let link = Archive::new().link("b", "a").link("c", "a");
        let limits = Limits {
            unpacked,
            ..Limits::default()
        };
        let mut refused = false;
        survey_of("layer", link, limits, &mut |survey, job| {
            assert_eq!(survey.borrowed(), BTreeSet::from(["a".to_owned()]));
            let adopted = survey.adopt(&files, &survey.borrowed(), job);
            refused = matches!(adopted, Err(LayerError::TooBig { .. }));
        });
        refused
    };
    // Two headers, and two empty blocks.
    assert!(!refused(65536 + 4 * 512));
    assert!(refused(65536 + 4 * 512 - 1));
}
