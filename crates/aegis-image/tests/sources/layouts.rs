//! Layouts and archives as umoci and skopeo write them, and such as nobody should.

use std::fs;
use std::os::unix::fs::symlink;

use aegis_core::fault::Symbol;
use aegis_image::access::Access;
use aegis_image::error::SourceError;
use aegis_image::source::{Found, Source};

use crate::made::{amd64, digest, failure, load, load_layer};
use crate::real_registry::{Layout, skopeo};

async fn open(name: &str) -> Result<Source, SourceError> {
    Source::open(&name.parse().unwrap(), &Access::default()).await
}

async fn find(name: &str) -> Result<Found, SourceError> {
    open(name).await?.find(&amd64()).await
}

#[tokio::test]
async fn an_image_is_the_same_from_folder_and_file() {
    let layout = Layout::new();
    layout.add("arm", "arm64");
    let tar = layout.add("intel", "amd64");
    layout.join("both", &[("arm", "arm64"), ("intel", "amd64")]);
    let oci = format!("oci-archive:{}:intel", layout.path("oci.tar"));
    let docker = format!("docker-archive:{}:org/app:1", layout.path("docker.tar"));
    let both = format!("oci-archive:{}", layout.path("both.tar"));
    skopeo(&[&layout.name("intel"), &oci]);
    skopeo(&[&layout.name("intel"), &docker]);
    skopeo(&["--all", &layout.name("both"), &both]);
    let unnamed = format!("docker-archive:{}", layout.path("docker.tar"));
    for name in [
        &layout.name("intel"),
        &layout.name("both"),
        &oci,
        &both,
        &docker,
        &unnamed,
    ] {
        let source = open(name).await.unwrap();
        let found = source.find(&amd64()).await.unwrap();
        assert_eq!(
            found.config.rootfs().diff_ids(),
            &[digest(&tar).to_string()],
            "{name}"
        );
        let bytes = load_layer(&source, &found).await;
        assert_eq!(&digest(&bytes), found.layers[0].digest());
        if name.starts_with("docker-archive") {
            assert!(bytes == tar);
        }
    }
}

#[tokio::test]
async fn which_image_of_several_must_be_said() {
    let layout = Layout::new();
    layout.add("a", "amd64");
    layout.add("b", "amd64");
    let folder = format!("oci:{}", layout.path("layout"));
    let message = failure(find(&folder).await, Symbol::ImageName);
    assert!(message.contains("a, b"), "{message}");
    let message = failure(find(&layout.name("c")).await, Symbol::ImageNotFound);
    assert!(message.contains("'c', only a, b"), "{message}");
    let message = failure(
        find(&layout.name("/nowhere/x")).await,
        Symbol::ImageNotFound,
    );
    assert!(message.contains("/nowhere"), "{message}");
    failure(find("oci:/nowhere/x").await, Symbol::ImageNotFound);
    failure(find("oci-archive:/nowhere/x").await, Symbol::ImageNotFound);
}

#[tokio::test]
async fn damage_is_found() {
    let layout = Layout::new();
    layout.add("a", "amd64");
    let source = open(&layout.name("a")).await.unwrap();
    let found = source.find(&amd64()).await.unwrap();
    let blob = |hex: &str| layout.path(&format!("layout/blobs/sha256/{hex}"));
    let path = blob(found.layers[0].digest().digest());
    let bytes = fs::read(&path).unwrap();

    let mut other = bytes.clone();
    other[20] ^= 1;
    let longer = [&bytes[..], b"x"].concat();
    for damaged in [&other[..], &longer, &bytes[..10], b""] {
        fs::write(&path, damaged).unwrap();
        failure(
            load(&source, &found.layers[0]).await.0,
            Symbol::ImageCorrupt,
        );
    }
    // The same bytes, but by way of a link that could lead anywhere.
    fs::write(layout.path("good"), &bytes).unwrap();
    fs::remove_file(&path).unwrap();
    symlink(layout.path("good"), &path).unwrap();
    failure(
        load(&source, &found.layers[0]).await.0,
        Symbol::ImageCorrupt,
    );

    fs::write(blob(found.manifest_digest.digits()), "{}").unwrap();
    failure(find(&layout.name("a")).await, Symbol::ImageCorrupt);
    fs::write(layout.path("layout/index.json"), "[").unwrap();
    failure(find(&layout.name("a")).await, Symbol::ImageCorrupt);
    fs::write(
        layout.path("layout/oci-layout"),
        r#"{"imageLayoutVersion": "2.0.0"}"#,
    )
    .unwrap();
    failure(find(&layout.name("a")).await, Symbol::ImageUnsupported);
}

#[tokio::test]
async fn files_that_are_no_archives_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tar");
    for (bytes, symbol) in [
        (&b"\x1f\x8b\x08\0\0\0"[..], Symbol::ImageUnsupported),
        (&[7; 2048], Symbol::ImageCorrupt),
        (b"", Symbol::ImageCorrupt),
    ] {
        fs::write(&path, bytes).unwrap();
        for kind in ["oci-archive", "docker-archive"] {
            failure(find(&format!("{kind}:{}", path.display())).await, symbol);
        }
    }
}
