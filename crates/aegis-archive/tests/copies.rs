//! Copies from end to end, and archives that mean harm.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use aegis_archive::pack::{PackOptions, pack};
use aegis_archive::unpack::{UnpackOptions, unpack};
use aegis_archive::{ArchiveError, Summary};
use tar::{Builder, EntryType, Header};

static GO: AtomicBool = AtomicBool::new(false);

fn packed(source: &Path) -> Vec<u8> {
    let mut archive = Vec::new();
    pack(source, &mut archive, PackOptions::default(), &GO).unwrap();
    archive
}

fn unpacked(archive: &[u8], destination: &Path) -> Result<Summary, ArchiveError> {
    unpack(archive, destination, UnpackOptions::default(), &GO)
}

/// An entry as only somebody who means harm writes it.
struct Evil<'a>(&'a str, EntryType, &'a str);

fn archive(entries: &[Evil<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for Evil(name, kind, link) in entries {
        let mut header = Header::new_gnu();
        let content: &[u8] = match kind {
            EntryType::Regular => b"owned",
            _ => b"",
        };
        header.set_entry_type(*kind);
        header.set_mode(0o4777);
        header.set_size(content.len() as u64);
        // The library refuses to write such names.
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("sub/deep")).unwrap();
    fs::write(tree.join("one"), "one").unwrap();
    fs::write(tree.join(format!("sub/{}", "long".repeat(60))), "x").unwrap();
    fs::hard_link(tree.join("one"), tree.join("sub/hard")).unwrap();
    symlink("../one", tree.join("sub/link")).unwrap();
    let mut sparse = File::create(tree.join("sparse")).unwrap();
    sparse.seek(SeekFrom::Start(8 << 20)).unwrap();
    sparse.write_all(b"end").unwrap();
    fs::set_permissions(tree.join("sub/deep"), fs::Permissions::from_mode(0o500)).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(981_173_106, 789_000_000);
    File::open(tree.join("sub"))
        .unwrap()
        .set_modified(old)
        .unwrap();

    let summary = unpacked(&packed(&tree), &dir.path().join("back")).unwrap();
    assert_eq!(summary.entries, 8);
    let back = dir.path().join("back");
    assert_eq!(fs::read(back.join("sub/hard")).unwrap(), b"one");
    assert_eq!(fs::metadata(back.join("one")).unwrap().nlink(), 2);
    assert_eq!(
        fs::read_link(back.join("sub/link")).unwrap(),
        Path::new("../one")
    );
    let sparse = fs::metadata(back.join("sparse")).unwrap();
    assert_eq!(sparse.len(), (8 << 20) + 3);
    assert!(sparse.blocks() * 512 < 1 << 20, "holes stay holes");
    let sub = fs::metadata(back.join("sub")).unwrap();
    assert_eq!(sub.modified().unwrap(), old);
    assert_eq!(
        fs::metadata(back.join("sub/deep")).unwrap().mode() & 0o777,
        0o500
    );
    // So that the folder can be removed.
    for tree in [&tree, &back] {
        let deep = tree.join("sub/deep");
        fs::set_permissions(deep, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn the_content_alone_goes_into_a_folder_that_exists() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/file"), "x").unwrap();
    let into = dir.path().join("into");
    fs::create_dir(&into).unwrap();
    unpacked(&packed(&tree.join(".")), &into).unwrap();
    assert!(into.join("sub/file").exists());
    unpacked(&packed(&tree), &into).unwrap();
    assert!(into.join("tree/sub/file").exists());
    unpacked(&packed(&tree.join(".")), &dir.path().join("new")).unwrap();
    assert!(dir.path().join("new/sub/file").exists());
    unpacked(&packed(&tree.join("sub/file")), &into.join("name")).unwrap();
    assert_eq!(fs::read(into.join("name")).unwrap(), b"x");
}

#[test]
fn nothing_is_written_outside_the_destination() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "mine").unwrap();
    let into = dir.path().join("into");
    let away = outside.to_str().unwrap();
    let victim = outside.join("victim");
    let victim = victim.to_str().unwrap();
    let file = EntryType::Regular;
    let folder = || Evil("root/", EntryType::Directory, "");
    let attacks = [
        vec![folder(), Evil("root/../../escaped", file, "")],
        vec![Evil("../escaped", file, "")],
        vec![folder(), Evil("root/..", EntryType::Directory, "")],
        vec![
            folder(),
            Evil("root/link", EntryType::Symlink, away),
            Evil("root/link/escaped", file, ""),
        ],
        vec![
            folder(),
            Evil("root/link", EntryType::Symlink, away),
            Evil("root/link/", EntryType::Directory, ""),
            Evil("root/link/escaped", file, ""),
        ],
        vec![
            folder(),
            Evil("root/hard", EntryType::Link, "root/../../outside/victim"),
        ],
        vec![
            folder(),
            Evil("root/link", EntryType::Symlink, away),
            Evil("root/hard", EntryType::Link, "root/link/victim"),
        ],
        vec![
            folder(),
            Evil("root/a", EntryType::Symlink, "b"),
            Evil("root/b", EntryType::Symlink, away),
            Evil("root/a/escaped", file, ""),
        ],
    ];
    for (number, attack) in attacks.iter().enumerate() {
        fs::create_dir(&into).unwrap();
        let refused = unpacked(&archive(attack), &into);
        assert!(refused.is_err(), "attack {number}");
        let names: Vec<_> = fs::read_dir(&outside).unwrap().collect();
        assert_eq!(names.len(), 1, "attack {number}");
        assert_eq!(
            fs::read(outside.join("victim")).unwrap(),
            b"mine",
            "attack {number}"
        );
        assert!(!dir.path().join("escaped").exists(), "attack {number}");
        fs::remove_dir_all(&into).unwrap();
    }
    // These are honest enough: what is in the way is replaced, not written through.
    fs::create_dir(&into).unwrap();
    let replaced = [
        folder(),
        Evil("root/victim", EntryType::Symlink, victim),
        Evil("root/victim", file, ""),
        Evil("/etc/absolute", file, ""),
        Evil("root/device", EntryType::Char, ""),
    ];
    let summary = unpacked(&archive(&replaced), &into).unwrap();
    assert_eq!(summary.skipped, 1);
    assert_eq!(fs::read(victim).unwrap(), b"mine");
    let written = fs::symlink_metadata(into.join("root/victim")).unwrap();
    assert!(written.is_file());
    assert_eq!(
        written.mode() & 0o7777,
        0o777,
        "set-user-id is not taken over"
    );
}

#[test]
fn archives_that_are_cut_off_or_none_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, vec![1; 200_000]).unwrap();
    let whole = packed(&file);
    let into = dir.path().join("into");
    fs::create_dir(&into).unwrap();
    assert!(unpacked(&whole[..100_000], &into).is_err());
    assert!(!into.join("file").exists(), "half a file is not left");
    assert!(matches!(unpacked(b"", &into), Err(ArchiveError::Empty)));
    assert!(unpacked(&[b'x'; 4096], &into).is_err());
    let stopped = AtomicBool::new(true);
    let options = UnpackOptions::default();
    let stopped = unpack(&whole[..], &into, options, &stopped);
    assert!(matches!(stopped, Err(ArchiveError::Interrupted)));
}
