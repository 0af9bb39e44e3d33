//! Images, as people name them.

use crate::harness::Bench;

const ID: &str = "sha256:b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5";

#[test]
fn the_beginning_of_a_digest_means_the_image_that_has_it() {
    let bench = Bench::new();
    for text in ["b5b5b5", "b5b5b5b5b5b5", "sha256:b5b5b5", ID, &ID[7..]] {
        let shown = bench.run(&["image", "inspect", text]);
        assert!(shown.stdout.contains(ID), "{text}: {shown:?}");
        let removed = bench.run(&["image", "remove", text]);
        assert_eq!(removed.code, Some(0), "{text}: {removed:?}");
        let calls = bench.fake.calls();
        assert_eq!(calls.last(), Some(&format!("remove image {ID}")), "{text}");
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
