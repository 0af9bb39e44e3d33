//! What the entries of a layer mean.

use aegis_image::layer::{LayerError, Limits};

use crate::archive::Archive;
use crate::facts::{Facts, convert_in, converted, is_root, refusal, umoci};

#[track_caller]
fn assert_same(archive: Archive) {
    let archive = archive.end();
    let (ours, theirs) = (converted(&archive), umoci(&[archive]));
    for (name, fact) in &theirs {
        assert_eq!(ours.get(name), Some(fact), "{name}");
    }
    assert_eq!(ours.len(), theirs.len(), "{ours:#?}");
}

#[track_caller]
fn assert_facts(facts: &Facts, expected: &[(&str, &str)]) {
    for (name, fact) in expected {
        assert_eq!(facts.get(*name).map(String::as_str), Some(*fact), "{name}");
    }
    assert_eq!(facts.len(), expected.len(), "{facts:#?}");
}

#[test]
fn every_attribute_is_as_umoci_unpacks_it() {
    if !is_root("every_attribute_is_as_umoci_unpacks_it") {
        return;
    }
    let capability =
        b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let deep = ["deep/"; 60].concat();
    // The time of a parent that is missing would be the present.
    let parents = (1..60).fold(Archive::new(), |archive, n| archive.dir(&deep[..5 * n]));
    assert_same(
        parents
            .dir("named")
            .dir("named/by")
            .add_with(b'5', "./", "", b"", |header| header.set_mtime(5))
            .dir("./tmp/")
            .add_with(b'5', "tmp", "", b"", |header| {
                header.set_mode(0o1777);
                header.set_mtime(1_000_000_000);
            })
            .add_with(b'0', "/bin//sudo", "", b"#!", |header| {
                header.set_mode(0o4755);
                header.set_uid(3_000_000);
                header.set_gid(4_000_000_000);
                header.set_mtime(1_700_000_000);
            })
            .add_with(b'5', "bin", "", b"", |_| ())
            .add(b'0', "bin/x", "", &[7; 300_000])
            .link("bin/y", "./bin/x")
            .link("bin/z", "/bin/y")
            .symlink("etc", "usr/../etc/nowhere")
            .symlink("abs", "/usr/bin/../lib")
            .symlink("far", "../".repeat(60))
            .link("far-too", "far")
            .add_with(b'3', "null", "", b"", |header| {
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
            })
            .add_with(b'4', "disk", "", b"", |header| {
                header.set_device_major(259).unwrap();
                header.set_device_minor(70_000).unwrap();
            })
            .link("disk-too", "disk")
            .add(b'6', "fifo", "", b"")
            .pax(&[
                ("SCHILY.xattr.security.capability", capability),
                ("SCHILY.xattr.user.a=b", b"c\0d\n"),
                ("SCHILY.xattr.user.empty", b""),
                ("SCHILY.xattr.trusted.mine", b"1"),
                ("mtime", b"1234.987654321"),
                ("uid", b"77"),
                ("gid", b"2147483648"),
            ])
            .file("caps", b"caps")
            .pax(&[("path", b"named/by/pax"), ("size", b"3")])
            .add_with(b'0', "unused", "", b"pax", |header| header.set_size(0))
            .pax(&[("linkpath", b"/by/pax"), ("mtime", b"7")])
            .symlink("linked", "unused")
            .file(b"na\xffme\x80 with\nbytes", b"raw")
            .dir("d".repeat(200))
            .file(&long, b"long")
            .symlink("l".repeat(120), "t".repeat(3000))
            .link("hard-long", &long)
            .dir(&deep)
            .file(format!("{deep}file"), b"deep")
            .file("empty", b""),
    );
}

#[test]
fn the_last_entry_of_a_name_wins_as_in_umoci() {
    if !is_root("the_last_entry_of_a_name_wins_as_in_umoci") {
        return;
    }
    assert_same(
        Archive::new()
            .file("twice", b"first")
            .link("keeps-first", "twice")
            .file("twice", b"second")
            .dir("dir")
            .file("dir/kept", b"kept")
            .add_with(b'5', "dir", "", b"", |header| header.set_mode(0o700))
            .dir("gone")
            .file("gone/a", b"a")
            .file("gone", b"now a file")
            .file("was-file", b"")
            .dir("was-file")
            .file("was-file/x", b"x")
            .symlink("was-link", "dir")
            .dir("was-link")
            .file("was-link/y", b"y"),
    );
}

#[test]
fn names_below_symbolic_links_stay_inside_as_in_umoci() {
    if !is_root("names_below_symbolic_links_stay_inside_as_in_umoci") {
        return;
    }
    assert_same(
        Archive::new()
            .dir("etc")
            .symlink("a", "/etc")
            .file("a/x", b"etc/x")
            .symlink("up", "../../../../etc")
            .file("up/y", b"etc/y")
            .symlink("chain", "a/../a")
            .file("chain/z", b"etc/z")
            .link("hard", "chain/x")
            .dir("real/sub")
            .symlink("real/back", "sub/..")
            .dir("real")
            .file("real/back/back/w", b"real/w"),
    );
    // Where umoci's time is the present.
    let layer = Archive::new()
        .symlink("void", "/made/here")
        .file("void/v", b"v");
    assert_facts(
        &converted(&layer.end()),
        &[
            ("made", "dir 755 0:0 @0"),
            ("made/here", "dir 755 0:0 @0"),
            ("made/here/v", "file 1 \"v\" 644 0:0 @0"),
            ("void", "-> /made/here 777 0:0 @0"),
        ],
    );
}

#[test]
fn a_parent_that_is_no_directory_gives_way() {
    let layer = Archive::new().file("a", b"file").file("a/b/c", b"c").end();
    if is_root("a_parent_that_is_no_directory_gives_way") {
        let facts = converted(&layer);
        assert_eq!(facts["a"], "dir 755 0:0 @0");
        assert_eq!(facts["a/b/c"], "file 1 \"c\" 644 0:0 @0");
    }
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_of_their_own_layer() {
    if !is_root("whiteouts_hide_what_is_below_and_nothing_of_their_own_layer") {
        return;
    }
    let archive = Archive::new()
        .file(".wh.gone", b"")
        .file("sub/.wh.gone", b"")
        .file("before", b"stays")
        .file(".wh.before", b"")
        .file(".wh.after", b"")
        .file("after", b"stays")
        .file(".wh.anew", b"")
        .dir("anew")
        .file("anew/x", b"x")
        .dir("opaque")
        .file("opaque/x", b"x")
        .file("opaque/.wh..wh..opq", b"")
        .add_with(b'5', "opaque", "", b"", |header| header.set_mode(0o700))
        .dir(".wh..wh.plnk")
        .file(".wh..wh.plnk/1.2", b"")
        .file(".wh..wh.orph", b"")
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.selinux", b"s"),
            ("SCHILY.xattr.system.posix_acl_access", b"s"),
        ])
        .dir("tricks");
    assert_facts(
        &converted(&archive.end()),
        &[
            ("after", "file 5 \"stays\" 644 0:0 @0"),
            ("anew", "dir 755 0:0 @0 trusted.overlay.opaque=\"y\""),
            ("anew/x", "file 1 \"x\" 644 0:0 @0"),
            ("before", "file 5 \"stays\" 644 0:0 @0"),
            ("gone", "c 0:0 0 0:0 @0"),
            ("opaque", "dir 700 0:0 @0 trusted.overlay.opaque=\"y\""),
            ("opaque/x", "file 1 \"x\" 644 0:0 @0"),
            ("sub", "dir 755 0:0 @0"),
            ("sub/gone", "c 0:0 0 0:0 @0"),
            ("tricks", "dir 755 0:0 @0"),
        ],
    );
}

#[test]
fn an_opaque_root_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let layer = Archive::new().file(".wh..wh..opq", b"").end();
    let layer = convert_in(dir.path(), &layer, Limits::default()).unwrap();
    assert!(layer.opaque);
    let dir = tempfile::tempdir().unwrap();
    let layer = convert_in(dir.path(), b"", Limits::default()).unwrap();
    assert!(!layer.opaque, "an empty blob is an empty layer");
}

#[test]
fn hard_links_lead_to_what_was_there_when_they_came() {
    if !is_root("hard_links_lead_to_what_was_there_when_they_came") {
        return;
    }
    let archive = Archive::new()
        .file("a", b"old")
        .link("b", "a")
        .link("c", "b")
        .link("a", "a")
        .file("a", b"new")
        .dir("d")
        .file("d/e", b"in d")
        .link("d", "d/e")
        .symlink("s", "nowhere")
        .link("t", "s")
        .file("u", b"dropped")
        .file("u", b"u");
    assert_facts(
        &converted(&archive.end()),
        &[
            ("a", "file 3 \"new\" 644 0:0 @0"),
            ("b", "file 3 \"old\" 644 0:0 @0 #0"),
            ("c", "file 3 \"old\" 644 0:0 @0 #0"),
            ("d", "file 4 \"in d\" 644 0:0 @0"),
            ("s", "-> nowhere 777 0:0 @0 #1"),
            ("t", "-> nowhere 777 0:0 @0 #1"),
            ("u", "file 1 \"u\" 644 0:0 @0"),
        ],
    );
}

#[test]
fn times_become_the_nearest_that_squashfs_has() {
    if !is_root("times_become_the_nearest_that_squashfs_has") {
        return;
    }
    let archive = Archive::new()
        .pax(&[("mtime", b"-5.5")])
        .file("before", b"")
        .add_with(b'0', "binary", "", b"", |header| {
            header.as_old_mut().mtime = [0xff; 12];
        })
        .pax(&[("mtime", b"99999999999")])
        .file("late", b"");
    let facts = converted(&archive.end());
    assert_eq!(facts["before"], "file 0 \"\" 644 0:0 @0");
    assert_eq!(facts["binary"], "file 0 \"\" 644 0:0 @0");
    assert_eq!(facts["late"], "file 0 \"\" 644 0:0 @4294967295");
}

#[test]
fn what_would_leave_the_layer_is_refused() {
    for archive in [
        Archive::new().file("../x", b""),
        Archive::new().file("/a/../../x", b""),
        Archive::new().file("x", b"").link("y", "../x"),
        Archive::new().symlink("..", "x"),
    ] {
        let error = refusal(&archive.end());
        assert!(matches!(error, LayerError::Outside { .. }), "{error:?}");
    }
}

#[test]
fn what_means_nothing_is_refused() {
    use LayerError as E;
    type Is = fn(&LayerError) -> bool;
    let pax = |records: &[(&str, &[u8])]| Archive::new().pax(records).file("x", b"");
    let cases: [(Archive, Is); 14] = [
        (Archive::new().link("x", "elsewhere"), |e| {
            matches!(e, E::LinkTarget { .. })
        }),
        (Archive::new().dir("d").link("x", "d"), |e| {
            matches!(e, E::LinkTarget { .. })
        }),
        (Archive::new().file(".wh.x", b"").link("y", "x"), |e| {
            matches!(e, E::LinkTarget { .. })
        }),
        (Archive::new().file("./", b""), |e| {
            matches!(e, E::Root { .. })
        }),
        (Archive::new().symlink("a", "a").file("a/x", b""), |e| {
            matches!(e, E::Loop { .. })
        }),
        (
            Archive::new()
                .symlink("a", "b/a")
                .symlink("b", ".")
                .file("a/x", b""),
            |e| matches!(e, E::Loop { .. }),
        ),
        (Archive::new().symlink("a", ""), |e| {
            matches!(e, E::NoPath { .. })
        }),
        (Archive::new().file(".wh...", b""), |e| {
            matches!(e, E::NoPath { .. })
        }),
        (Archive::new().file(".wh.", b""), |e| {
            matches!(e, E::NoPath { .. })
        }),
        (Archive::new().file("n".repeat(256), b""), |e| {
            matches!(e, E::TooLong { .. })
        }),
        (Archive::new().file("n/".repeat(2050), b""), |e| {
            matches!(e, E::TooLong { .. })
        }),
        (Archive::new().add(b'V', "volume", "", b""), |e| {
            matches!(e, E::UnknownKind { .. })
        }),
        (pax(&[("uid", b"4294967295")]), |e| {
            matches!(e, E::Malformed { what: "owner", .. })
        }),
        (pax(&[("size", b"-1")]), |e| {
            matches!(e, E::Malformed { what: "size", .. })
        }),
    ];
    for (archive, is_expected) in cases {
        let error = refusal(&archive.end());
        assert!(is_expected(&error), "{error:?}");
    }
}
