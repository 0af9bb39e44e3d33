//! Layers whose entries lead through symbolic links of the layers below.

use aegis_image::layer::{Limits, Links};

use crate::archive::Archive;
use crate::facts::{convert_in, convert_over, is_root, unsquashed};

/// The names in a layer, made for the links of these below it; `None` if it is the same
/// by itself.
fn names(below: &[Archive], layer: &Archive) -> Option<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let mut links = Links::default();
    for (number, archive) in below.iter().enumerate() {
        let dir = dir.path().join(number.to_string());
        std::fs::create_dir(&dir).unwrap();
        let layer = convert_in(&dir, &archive.clone().end(), Limits::default());
        links.cover(&layer.unwrap().folders);
    }
    let (blob, alone) = (layer.clone().end(), dir.path().join("alone"));
    std::fs::create_dir(&alone).unwrap();
    let itself = convert_in(&alone, &blob, Limits::default()).unwrap();
    if !links.concern(&itself.folders) {
        return None;
    }
    let over = convert_over(dir.path(), &blob, Limits::default(), Some(&links)).unwrap();
    assert_eq!(over.diff_id, itself.diff_id);
    assert!(!links.concern(&over.folders), "once is enough");
    Some(unsquashed(&dir).into_keys().collect())
}

fn lower() -> Archive {
    Archive::new()
        .dir("usr")
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/lib")
        .symlink("usr/out", "../../../run")
        .symlink("round", "round")
}

#[test]
fn entries_go_where_links_of_lower_layers_lead() {
    if !is_root("entries_go_where_links_of_lower_layers_lead") {
        return;
    }
    let layer = Archive::new()
        .file("lib/one", b"")
        .file("abs/two", b"")
        .file("usr/out/three", b"");
    let expected = [
        "run",
        "run/three",
        "usr",
        "usr/lib",
        "usr/lib/one",
        "usr/lib/two",
    ];
    assert_eq!(names(&[lower()], &layer).unwrap(), expected);
    // Through layers in between, too.
    let between = Archive::new().file("usr/lib/other", b"");
    assert_eq!(names(&[lower(), between], &layer).unwrap(), expected);
}

#[test]
fn links_that_are_hidden_lead_nowhere() {
    if !is_root("links_that_are_hidden_lead_nowhere") {
        return;
    }
    let file = Archive::new().file("lib/one", b"");
    for hidden in [
        Archive::new().dir("lib"),
        Archive::new().file(".wh.lib", b""),
        Archive::new().file("lib", b""),
        Archive::new().file(".wh..wh..opq", b""),
    ] {
        assert_eq!(names(&[lower(), hidden], &file), None);
    }
    let replaced = Archive::new().dir("lib").file("lib/one", b"");
    assert_eq!(names(&[lower()], &replaced), None);
    let gone = Archive::new().file(".wh.lib", b"").file("lib/one", b"");
    assert_eq!(names(&[lower()], &gone), None);
}

#[test]
fn a_link_that_leads_to_itself_is_refused() {
    let layer = Archive::new().file("round/x", b"").end();
    let dir = tempfile::tempdir().unwrap();
    let below = convert_in(dir.path(), &lower().end(), Limits::default()).unwrap();
    let mut links = Links::default();
    links.cover(&below.folders);
    std::fs::remove_file(dir.path().join("layer")).unwrap();
    let refused = convert_over(dir.path(), &layer, Limits::default(), Some(&links));
    assert!(refused.unwrap_err().to_string().contains("symbolic links"));
}
