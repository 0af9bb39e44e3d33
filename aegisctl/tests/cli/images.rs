//! Images, as people name and handle them.

use crate::fake::DIGITS;
use crate::harness::Bench;

#[test]
fn an_import_reads_a_file_or_stdin_and_says_what_came_of_it() {
    let bench = Bench::new();
    let id = format!("sha256:{DIGITS}\n");
    let file = bench.dir.path().join("root.tar");
    std::fs::write(&file, "tar").unwrap();
    let file = file.to_str().unwrap();
    bench.run(&["image", "import", file]).expect(0, &id, "");
    let named = bench.run_with(
        &[
            "image",
            "import",
            "-",
            "mine",
            "-c",
            "CMD [\"a\"]",
            "-c",
            "LABEL b=c",
        ],
        b"archive",
    );
    let name = "docker.io/library/mine:latest";
    named.expect(0, &format!("{}  {name}\n", &DIGITS[..12]), "");
    let calls = bench.fake.calls();
    assert!(calls[0].starts_with(&format!("import  of {file}, 3 bytes: ")));
    assert!(calls[1].starts_with(&format!("import {name} of -, 7 bytes: ")));
    assert!(calls[1].contains(r#"command: ["a"]"#) && calls[1].contains(r#"{"b": "c"}"#));
}

#[test]
fn what_cannot_be_imported_is_said_before_aegisd_is_asked() {
    let bench = Bench::new();
    for (args, code, words) in [
        (
            &["/proc/version", "-c", "VOLUME /x"][..],
            2,
            "'VOLUME' is no instruction",
        ),
        (&["/proc"], 2, "cannot open '/proc'"),
        (&["/nowhere"], 2, "cannot open '/nowhere'"),
        (&["/proc/version", "Mine"], 1, "upper case"),
    ] {
        let refused = bench.run(&[&["image", "import"], args].concat());
        assert_eq!(refused.code, Some(code), "{refused:?}");
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
    assert!(bench.fake.calls().is_empty());
}

#[test]
fn the_beginning_of_a_digest_means_the_image_that_has_it() {
    let bench = Bench::new();
    let id = format!("sha256:{DIGITS}");
    for text in ["b5b5b5", "b5b5b5b5b5b5", "sha256:b5b5b5", &id, DIGITS] {
        let shown = bench.run(&["image", "inspect", text]);
        assert!(shown.stdout.contains(&id), "{text}: {shown:?}");
        let removed = bench.run(&["image", "remove", text]);
        assert_eq!(removed.code, Some(0), "{text}: {removed:?}");
        let calls = bench.fake.calls();
        assert_eq!(calls.last(), Some(&format!("remove image {id}")), "{text}");
    }
    for (text, whole) in [
        ("alpine", "docker.io/library/alpine:latest"),
        ("c0ffee", "docker.io/library/c0ffee:latest"),
    ] {
        bench.run(&["image", "remove", text]);
        let calls = bench.fake.calls();
        assert_eq!(calls.last(), Some(&format!("remove image {whole}")));
    }
    let missing = bench.run(&["image", "inspect", "b5b5b6"]);
    assert!(
        missing.stderr.contains("there is no image 'b5b5b6' here"),
        "{missing:?}"
    );
    let bad = bench.run(&["image", "inspect", "b5b5:b5:b5"]);
    assert_ne!(bad.code, Some(0), "{bad:?}");
}
