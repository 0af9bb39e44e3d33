//! What layers say about folders that higher layers only pass through.

use aegis_image::layer::{Folders, Limits, said_again};

use crate::archive::Archive;
use crate::facts::{Facts, convert_in, converted, is_root};

fn folders(archive: &Archive) -> Folders {
    let dir = tempfile::tempdir().unwrap();
    let blob = archive.clone().end();
    let layer = convert_in(dir.path(), &blob, Limits::default());
    layer.unwrap().folders
}

/// What the layer on top of these has.
fn again(archives: &[Archive]) -> Facts {
    let said: Vec<Folders> = archives.iter().map(folders).collect();
    let kept = serde_json::to_vec(&said).unwrap();
    assert_eq!(serde_json::from_slice::<Vec<Folders>>(&kept).unwrap(), said);
    said_again(&said)
        .map(|blob| converted(&blob))
        .unwrap_or_default()
}

/// A folder with something of its own about it.
fn private(archive: Archive, name: &[u8]) -> Archive {
    archive.add_with(b'5', name, "", b"", |header| {
        header.set_mode(0o700);
        header.set_uid(7);
        header.set_mtime(1234);
    })
}

const PRIVATE: &str = "dir 700 7:0 @1234";

#[test]
fn a_folder_that_is_passed_through_stays_as_it_was() {
    if !is_root("a_folder_that_is_passed_through_stays_as_it_was") {
        return;
    }
    let note = [("SCHILY.xattr.user.note", &b"n"[..])];
    let lower = Archive::new().dir("a").pax(&note);
    let lower = private(lower, b"a/p\xff").dir(b"a/p\xff/sub").dir("other");
    let upper = Archive::new().file(b"a/p\xff/sub/new", b"");
    let plain = "dir 755 0:0 @0".to_owned();
    let noted = format!("{PRIVATE} user.note=\"n\"");
    let expected = [
        ("a", plain.clone()),
        ("a/p\\xff", noted),
        ("a/p\\xff/sub", plain),
    ];
    let expected = expected.map(|(name, fact)| (name.to_owned(), fact));
    assert_eq!(again(&[lower.clone(), upper]), Facts::from(expected));
    assert!(again(&[lower.clone(), Archive::new().file("new", b"")]).is_empty());
    assert!(again(&[lower, Archive::new().dir("a").file("a/new", b"")]).is_empty());
}

#[test]
fn a_folder_that_went_says_nothing() {
    if !is_root("a_folder_that_went_says_nothing") {
        return;
    }
    let lower = private(private(Archive::new(), b"p").dir("p-q"), b"p/sub");
    let through = Archive::new().file("p/sub/new", b"");
    assert_eq!(again(&[lower.clone(), through.clone()])["p/sub"], PRIVATE);
    for gone in [
        Archive::new().file(".wh.p", b""),
        Archive::new().file("p", b"a file"),
        Archive::new().symlink("p", "p-q"),
        Archive::new().file(".wh..wh..opq", b""),
    ] {
        let layers = [lower.clone(), gone.clone(), through.clone()];
        assert!(again(&layers).is_empty());
        // Nothing comes back above what took its place.
        assert!(again(&[lower.clone(), through.clone(), gone]).is_empty());
    }
    let hidden = Archive::new().dir("p").file("p/.wh..wh..opq", b"");
    assert!(!again(&[lower, hidden, through]).contains_key("p/sub"));
}
