//! How a layer comes: packed, cut off, sparse, too large; and where it goes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aegis_image::digest::Digest;
use aegis_image::layer::{Convert, Layer, LayerError, Limits, convert};
use sha2::{Sha256, Sha512};

use crate::archive::{Archive, gzip, zstd};
use crate::facts::{
    Facts, convert_in, converted, fact, facts, is_root, refusal, run, umoci_in, unsquashed,
};

fn digest_of(bytes: &[u8], algorithm: &str) -> Digest {
    use sha2::Digest as _;
    let bytes = match algorithm {
        "sha256" => Sha256::digest(bytes).to_vec(),
        _ => Sha512::digest(bytes).to_vec(),
    };
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Digest::try_from(format!("{algorithm}:{hex}")).unwrap()
}

/// As large a file as no buffer is, of bytes that do not repeat soon.
fn content() -> Vec<u8> {
    (0..900_000_u32)
        .flat_map(|n| (n / 3).to_le_bytes())
        .collect()
}

#[test]
fn all_packings_give_the_same_layer() {
    let archive = Archive::new().file("a", b"a").file("b", &content()).end();
    let plain = tempfile::tempdir().unwrap();
    let layer = convert_in(plain.path(), &archive, Limits::default()).unwrap();
    assert_eq!(layer.diff_id, digest_of(&archive, "sha256"));
    assert_eq!(layer.unpacked, archive.len() as u64);
    let image = fs::read(plain.path().join("layer")).unwrap();
    assert_eq!(layer.size, image.len() as u64);

    let (start, rest) = archive.split_at(700);
    let skippable = [&b"\x53\x2a\x4d\x18\x03\0\0\0abc"[..], &zstd(&archive)].concat();
    for blob in [
        gzip(&archive),
        zstd(&archive),
        [gzip(start), gzip(rest)].concat(),
        [zstd(start), zstd(rest)].concat(),
        skippable,
    ] {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            convert_in(dir.path(), &blob, Limits::default()).unwrap(),
            layer
        );
        let again = fs::read(dir.path().join("layer")).unwrap();
        assert!(again == image, "the same archive gives the same bytes");
    }
}

#[test]
fn the_root_has_its_attributes_whoever_converts() {
    let archive = Archive::new()
        .add_with(b'5', "./", "", b"", |header| {
            header.set_mode(0o1711);
            header.set_mtime(86_400);
            header.set_uid(12345);
            header.set_gid(54321);
        })
        .add_with(b'0', "a", "", b"", |header| {
            header.set_uid(12345);
            header.set_gid(54321);
        });
    let dir = tempfile::tempdir().unwrap();
    convert_in(dir.path(), &archive.end(), Limits::default()).unwrap();
    let mut list = Command::new("unsquashfs");
    list.arg("-lln").arg(dir.path().join("layer"));
    let list = String::from_utf8(list.env("TZ", "UTC").output().unwrap().stdout).unwrap();
    let root = list.lines().find(|line| line.ends_with("squashfs-root"));
    let root = root.unwrap_or_else(|| panic!("{list}"));
    assert!(root.starts_with("drwx--x--t 12345/54321 "), "{root}");
    assert!(root.contains(" 1970-01-02 00:00 "), "{root}");
}

#[test]
fn the_root_may_be_of_somebody_who_has_nothing_else() {
    if !is_root("the_root_may_be_of_somebody_who_has_nothing_else") {
        return;
    }
    // A block of owners has room for 2048, one of attributes for 512 sets of them.
    let new = 4_000_000_000;
    for (owners, uid, gid) in [
        (1, new, 0),
        (1, new, new),
        (2047, new, 70_000),
        (2048, new, 0),
    ] {
        for noted in [false, true] {
            let archive = Archive::new().add_with(b'5', "./", "", b"", |header| {
                header.set_uid(uid);
                header.set_gid(gid);
                header.set_mtime(77);
                header.set_mode(0o750);
            });
            let archive = (0..owners).fold(archive, |archive, n: u64| {
                let note = n.to_string();
                let notes = [("SCHILY.xattr.user.note", note.as_bytes())];
                let archive = match noted {
                    true => archive.pax(&notes),
                    false => archive,
                };
                archive.add_with(b'0', n.to_string(), "", b"x", |header| header.set_uid(n))
            });
            let dir = tempfile::tempdir().unwrap();
            let archive = archive.end();
            convert_in(dir.path(), &archive, Limits::default()).unwrap();
            let ours = unsquashed(&dir);
            let root = fact(&dir.path().join("tree"));
            assert_mounted(dir.path(), &ours, &root);
            if owners == 1 {
                let theirs = umoci_in(dir.path(), &[archive]);
                assert_eq!(ours, facts(&theirs));
                assert_eq!(root, fact(&theirs));
                continue;
            }
            assert_eq!(root, format!("dir 750 {uid}:{gid} @77"));
            let expected = (0..owners).map(|n| {
                let note = match noted {
                    true => format!(" user.note=\"{n}\""),
                    false => String::new(),
                };
                (n.to_string(), format!("file 1 \"x\" 644 {n}:0 @0{note}"))
            });
            assert_eq!(ours, expected.collect());
        }
    }
}

/// The kernel is stricter than unsquashfs.
fn assert_mounted(dir: &Path, expected: &Facts, root: &str) {
    let place = dir.join("mounted");
    fs::create_dir(&place).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "squashfs", "-o", "loop,ro"])
        .args([&dir.join("layer"), &place])
        .output();
    let mounted = mounted.unwrap();
    let said = String::from_utf8_lossy(&mounted.stderr);
    if said.contains("loop device") || said.contains("permission") || said.contains("unknown") {
        println!("skipped: mounting a layer: {said}");
        return;
    }
    assert!(mounted.status.success(), "{said}");
    let found = (facts(&place), fact(&place));
    run(Command::new("umount").arg(&place));
    assert_eq!(&found.0, expected);
    assert_eq!(found.1, root);
}

#[test]
fn archives_may_lack_their_end_or_go_on_after_it() {
    let archive = Archive::new().file("a", b"a");
    let whole = archive.clone().end();
    let cut = archive.clone().cut();
    for accepted in [
        cut.clone(),
        cut[..513].to_vec(),
        archive.clone().raw(&[0; 512]).cut(),
        [&whole[..], b"anything"].concat(),
        [&whole[..], &whole].concat(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let layer = convert_in(dir.path(), &gzip(&accepted), Limits::default()).unwrap();
        assert_eq!(layer.diff_id, digest_of(&accepted, "sha256"));
        assert_eq!(layer.unpacked, accepted.len() as u64);
        assert_eq!(fs::read(unsquash_file(&dir, "a")).unwrap(), b"a");
    }
    for refused in [
        cut[..512].to_vec(),
        cut[..100].to_vec(),
        archive.clone().raw(&[0; 512]).file("b", b"").end(),
        b"no archive at all, however long it may be".repeat(40),
    ] {
        let error = refusal(&refused);
        assert!(matches!(error, LayerError::Malformed { .. }), "{error:?}");
    }
    let packed = gzip(&whole);
    for refused in [
        &packed[..packed.len() - 3],
        &[&packed[..], b"garbage"].concat(),
        &zstd(&whole)[..30],
    ] {
        let error = refusal(refused);
        assert!(matches!(error, LayerError::Packing(_)), "{error:?}");
    }
}

/// One file of a layer, which anybody may unpack.
fn unsquash_file(dir: &tempfile::TempDir, name: &str) -> std::path::PathBuf {
    let tree = dir.path().join("one");
    run(Command::new("unsquashfs")
        .args(["-quiet", "-no-progress", "-no-xattrs", "-dest"])
        .arg(&tree)
        .arg(dir.path().join("layer"))
        .arg(name));
    tree.join(name)
}

#[test]
fn only_the_expected_layer_is_converted() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Archive::new().file("a", b"a").end();
    let (blob, to) = (dir.path().join("blob"), dir.path().join("layer"));
    fs::write(&blob, zstd(&archive)).unwrap();
    let with = |digest: &Digest| -> Result<Layer, LayerError> {
        convert(&Convert {
            blob: &blob,
            to: &to,
            diff_id: Some(digest),
            limits: Limits::default(),
            below: None,
            progress: &|_| (),
            cancelled: &AtomicBool::new(false),
        })
    };
    let other = with(&digest_of(b"other", "sha256")).unwrap_err();
    assert!(matches!(other, LayerError::DiffId { .. }), "{other:?}");
    assert!(!to.exists());
    let long = digest_of(&archive, "sha512");
    assert_eq!(with(&long).unwrap().diff_id, long);

    let there = with(&long).unwrap_err();
    assert!(matches!(there, LayerError::Make { .. }), "{there:?}");
    assert!(to.exists(), "what was there stays");
    fs::remove_file(&to).unwrap();
    std::os::unix::fs::symlink("elsewhere", &to).unwrap();
    assert!(with(&long).is_err());
    assert!(!dir.path().join("elsewhere").exists());
}

#[test]
fn layers_end_at_the_limits() {
    let zeros = Archive::new().file("zeros", &vec![0; 10 << 20]).end();
    let dir = tempfile::tempdir().unwrap();
    let small = Limits {
        unpacked: 1 << 20,
        entries: 3,
    };
    let error = convert_in(dir.path(), &gzip(&zeros), small).unwrap_err();
    assert!(matches!(error, LayerError::TooBig { limit } if limit == small.unpacked));
    let many = Archive::new().file("a", b"").file("b", b"").file("c", b"");
    convert_in(dir.path(), &many.clone().end(), small).unwrap();
    fs::remove_file(dir.path().join("layer")).unwrap();
    let error = convert_in(dir.path(), &many.file("d", b"").end(), small).unwrap_err();
    assert!(matches!(error, LayerError::TooMany { limit: 3 }));

    let implied = Archive::new().file("a/b/c/d", b"").end();
    let error = convert_in(dir.path(), &implied, small).unwrap_err();
    assert!(matches!(error, LayerError::TooMany { limit: 3 }));
    // Each name is short, and its path is not.
    let deep = Archive::new().symlink("l", "d/".repeat(1900));
    let many = (0..80_000).fold(deep, |archive, n| archive.file(format!("l/{n}"), b""));
    let error = refusal(&gzip(&many.end()));
    assert!(
        matches!(error, LayerError::TooMuchMetadata { .. }),
        "{error:?}"
    );

    // Lies about sizes, which must not be believed.
    let pax = [
        ("GNU.sparse.map", &b"0,0"[..]),
        ("GNU.sparse.numblocks", b"1"),
    ];
    let hole = Archive::new()
        .pax(&[pax[0], pax[1], ("GNU.sparse.size", b"9000000000000000000")])
        .file("hole", b"");
    let error = refusal(&hole.end());
    assert!(matches!(error, LayerError::TooBig { .. }), "{error:?}");
    let name = Archive::new().add_with(b'L', "long", "", b"", |header| header.set_size(1 << 33));
    let error = refusal(&name.end());
    assert!(matches!(error, LayerError::Malformed { .. }), "{error:?}");
    let xattr = vec![b'x'; 70_000];
    let error = refusal(
        &Archive::new()
            .pax(&[("SCHILY.xattr.user.x", &xattr)])
            .file("x", b"")
            .end(),
    );
    assert!(matches!(error, LayerError::Malformed { .. }), "{error:?}");
}

#[test]
fn sparse_files_of_all_forms_stay_small() {
    let dir = tempfile::tempdir().unwrap();
    let file = File::create(dir.path().join("sparse")).unwrap();
    // More pieces than a header of the old form has.
    for at in 0..40_u64 {
        file.write_all_at(&[1; 5000], at << 20).unwrap();
    }
    file.set_len((64 << 20) + 7).unwrap();
    let expected = fs::read(dir.path().join("sparse")).unwrap();
    let forms: [&[&str]; 4] = [
        &["--format=gnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ];
    for form in forms {
        let archive = dir.path().join("archive.tar");
        run(Command::new("tar")
            .args(form)
            .args(["--sparse", "-cf"])
            .arg(&archive)
            .arg("-C")
            .arg(dir.path())
            .arg("sparse"));
        let archive = fs::read(&archive).unwrap();
        assert!(archive.len() < 1 << 20);
        let to = tempfile::tempdir().unwrap();
        let layer = convert_in(to.path(), &archive, Limits::default()).unwrap();
        assert!(layer.size < 100_000, "{form:?}: {}", layer.size);
        let found = fs::read(unsquash_file(&to, "sparse")).unwrap();
        assert!(found == expected, "{form:?}");
    }
}

#[test]
fn files_of_more_than_eight_gigabytes_fit() {
    let size = (8_u64 << 30) + 1000;
    let text = size.to_string();
    let map = format!("{},4", size - 4);
    let archive = Archive::new()
        .pax(&[
            ("GNU.sparse.size", text.as_bytes()),
            ("GNU.sparse.numblocks", b"1"),
            ("GNU.sparse.map", map.as_bytes()),
        ])
        .file("large", b"tail");
    let dir = tempfile::tempdir().unwrap();
    let layer = convert_in(dir.path(), &archive.end(), Limits::default()).unwrap();
    assert!(layer.size < 1 << 20, "{}", layer.size);
    let mut list = Command::new("unsquashfs");
    list.arg("-lln").arg(dir.path().join("layer"));
    let list = String::from_utf8(list.output().unwrap().stdout).unwrap();
    assert!(list.contains(&format!(" {size} ")), "{list}");
}

#[test]
fn progress_ends_with_all_the_work_and_cancelling_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (blob, to) = (dir.path().join("blob"), dir.path().join("layer"));
    let archive = Archive::new()
        .file("a", &content())
        .file("b", &content())
        .end();
    fs::write(&blob, &archive).unwrap();
    let work = Convert::work(archive.len() as u64);
    let (done, cancelled) = (AtomicU64::new(0), AtomicBool::new(false));
    let progress = |now: u64| {
        let before = done.swap(now, Ordering::Relaxed);
        assert!(before <= now && now <= work);
    };
    let job = Convert {
        blob: &blob,
        to: &to,
        diff_id: None,
        limits: Limits::default(),
        below: None,
        progress: &progress,
        cancelled: &cancelled,
    };
    convert(&job).unwrap();
    assert_eq!(done.load(Ordering::Relaxed), work);

    // In each of the passes.
    for after in [0, work / 4, work * 3 / 4] {
        fs::remove_file(&to).ok();
        cancelled.store(false, Ordering::Relaxed);
        let progress = |now: u64| {
            if now >= after {
                cancelled.store(true, Ordering::Relaxed);
            }
        };
        let job = Convert {
            progress: &progress,
            ..job
        };
        let error = convert(&job).unwrap_err();
        assert!(matches!(error, LayerError::Cancelled), "{error:?}");
        assert!(!to.exists());
    }
}

#[test]
fn a_full_disk_is_told_apart() {
    if !is_root("a_full_disk_is_told_apart") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    fs::create_dir(&small).unwrap();
    let mount = |command: &str, args: &[&str]| {
        let status = Command::new(command).args(args).arg(&small).status();
        status.is_ok_and(|status| status.success())
    };
    if !mount("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs"]) {
        println!("skipped: a_full_disk_is_told_apart needs to mount");
        return;
    }
    let blob = dir.path().join("blob");
    fs::write(&blob, Archive::new().file("a", &content()).end()).unwrap();
    let error = convert(&Convert {
        blob: &blob,
        to: &small.join("layer"),
        diff_id: None,
        limits: Limits::default(),
        below: None,
        progress: &|_| (),
        cancelled: &AtomicBool::new(false),
    });
    let left = small.join("layer").exists();
    assert!(mount("umount", &[]));
    assert!(
        matches!(error, Err(LayerError::NoSpace { .. })),
        "{error:?}"
    );
    assert!(!left);
}

#[test]
fn a_blob_that_is_not_there_is_named() {
    let error = convert(&Convert {
        blob: Path::new("/nowhere/blob"),
        to: Path::new("/nowhere/layer"),
        diff_id: None,
        limits: Limits::default(),
        below: None,
        progress: &|_| (),
        cancelled: &AtomicBool::new(false),
    });
    assert!(error.unwrap_err().to_string().contains("/nowhere/blob"));
}

#[test]
fn an_unpacked_layer_has_all_of_a_large_tree() {
    let mut archive = Archive::new();
    // Also more owners and inodes than one block of them holds.
    for n in 0..3000 {
        let name = format!("{}/{}/{n}", n % 7, n % 31);
        archive = archive.add_with(b'0', name, "", &[7; 40], |header| header.set_uid(n));
    }
    let dir = tempfile::tempdir().unwrap();
    convert_in(dir.path(), &archive.end(), Limits::default()).unwrap();
    assert_eq!(unsquashed(&dir).len(), 3000 + 7 + 7 * 31);
    assert!(converted(b"").is_empty());
}
