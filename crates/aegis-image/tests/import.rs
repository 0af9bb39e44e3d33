//! Imports: archives from files and pipes as images in a store.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use aegis_core::fault::{Fault, Symbol};
use aegis_image::document::Platform;
use aegis_image::import::{ImportError, Request, import};
use aegis_image::layer::LayerError;
use aegis_image::protocol::{Progress, Stage};
use aegis_image::pull::{Cancel, PullError};
use aegis_image::record::{Config, Image};
use aegis_image::store::Store;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

const CREATED: &str = "2026-01-02T03:04:05Z";

/// A tar archive of these files.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn root() -> Vec<u8> {
    archive(&[("bin/tool", &[7; 100_000]), ("etc/name", b"mine")])
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(bytes, flate2::Compression::fast())
        .read_to_end(&mut packed)
        .unwrap();
    packed
}

fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{digits}")
}

fn request(name: Option<&str>, changes: &[&str]) -> Request {
    let mut config = Config::default();
    for change in changes {
        config.change(change).unwrap();
    }
    Request {
        origin: "root.tar".into(),
        name: name.map(|name| name.parse().unwrap()),
        config,
        message: None,
        platform: Platform::host(),
    }
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

/// A pipe into which somebody writes a few bytes at a time.
fn pipe(bytes: Vec<u8>) -> File {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    std::thread::spawn(move || {
        let mut writer = File::from(writer);
        writer.write_all(&bytes[..1]).unwrap();
        for part in bytes[1..].chunks(5000) {
            // A refused archive is not read to its end.
            if writer.write_all(part).is_err() {
                break;
            }
        }
    });
    reader.into()
}

async fn try_import(store: &Store, from: File, request: Request) -> Result<Image, ImportError> {
    let (told, _) = watch::channel(Progress::default());
    import(
        store,
        from,
        request,
        CREATED.into(),
        told,
        &Cancel::default(),
    )
    .await
}

fn store(folder: &Path) -> Store {
    Store::at(folder.join("images"))
}

#[tokio::test]
async fn an_archive_becomes_the_image_of_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let changes = [
        "CMD [\"tool\"]",
        "ENV A=b",
        "USER www",
        "LABEL z=1 a=2",
        "EXPOSE 80",
    ];
    let named = request(Some("mine:v1"), &changes);
    let image = try_import(&store, file(&root()), named).await.unwrap();
    let architecture = Platform::host().architecture;
    let configuration: Value = json!({
        "created": CREATED,
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": "www",
            "ExposedPorts": {"80/tcp": {}},
            "Env": ["A=b"],
            "Cmd": ["tool"],
            "Labels": {"a": "2", "z": "1"},
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(&root())]},
        "history": [{"created": CREATED, "comment": "Imported from root.tar"}],
    });
    let text = configuration.to_string();
    assert_eq!(image.id.to_string(), digest(text.as_bytes()));
    let read: oci_spec::image::ImageConfiguration = serde_json::from_str(&text).unwrap();
    assert_eq!(Config::of(&read), image.config);
    assert_eq!(image.created.as_deref(), Some(CREATED));
    let name = store.name("docker.io/library/mine:v1").unwrap().unwrap();
    assert_eq!(name.image, image.id);
    assert_eq!(store.image(&image.id).unwrap().unwrap(), image);
    assert!(store.layer(&image.layers[0].diff_id).exists());

    // Packed and from a pipe it is the same layer, which is not made again.
    let made = store.layer(&image.layers[0].diff_id).metadata().unwrap();
    let zstd = zstd::encode_all(&*root(), 1).unwrap();
    for packed in [root(), gzip(&root()), zstd] {
        let other = request(None, &["CMD [\"other\"]"]);
        let other = try_import(&store, pipe(packed), other).await.unwrap();
        assert_eq!(other.layers, image.layers);
        assert_ne!(other.id, image.id);
    }
    let now = store.layer(&image.layers[0].diff_id).metadata().unwrap();
    assert_eq!(now.modified().unwrap(), made.modified().unwrap());
    assert_eq!(store.names().unwrap().len(), 1);
    assert_eq!(store.images().unwrap().len(), 2);
}

#[tokio::test]
async fn an_archive_is_read_from_where_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = b"a line before it\n".to_vec();
    all.extend(root());
    let mut from = file(&all);
    from.seek(std::io::SeekFrom::Start(17)).unwrap();
    let (told, progress) = watch::channel(Progress::default());
    let (store, cancel) = (store(folder.path()), Cancel::default());
    let wanted = request(None, &[]);
    let image = import(&store, from, wanted, CREATED.into(), told, &cancel).await;
    let image = image.unwrap();
    assert_eq!(image.layers[0].diff_id.to_string(), digest(&root()));
    let shown = progress.borrow().layers[0].clone();
    let whole = root().len() as u64;
    assert_eq!(shown.stage, Stage::Converting);
    assert_eq!((shown.done, shown.total), (whole, whole));
}

#[tokio::test]
async fn what_is_no_root_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let root = root();
    let oci = archive(&[
        ("oci-layout", b"{}"),
        ("index.json", b"{}"),
        ("blobs/sha256/a", b"{}"),
    ]);
    let docker = archive(&[("manifest.json", b"[]"), ("repositories", b"{}")]);
    // To the end of the first file, as a tar that was killed leaves it.
    let cut = &root[..512 + 100_352];
    for (bytes, symbol, words) in [
        (
            &b"This is a text, and no archive at all.\n".repeat(40)[..],
            Symbol::ImageCorrupt,
            "no valid tar archive",
        ),
        (&[], Symbol::ImageCorrupt, "no files"),
        (&[0; 10_240], Symbol::ImageCorrupt, "no files"),
        (cut, Symbol::ImageCorrupt, "part of it is missing"),
        (&root[..9_000], Symbol::ImageCorrupt, "end within a file"),
        (
            &gzip(&root)[..100],
            Symbol::ImageCorrupt,
            "cannot be unpacked",
        ),
        (&oci, Symbol::ImageUnsupported, "OCI archive"),
        (&docker, Symbol::ImageUnsupported, "docker save"),
    ] {
        let error = try_import(&store, file(bytes), request(Some("mine"), &[])).await;
        let fault = Fault::from(error.unwrap_err());
        assert_eq!(fault.symbol, symbol, "{fault:?}");
        assert!(fault.message.contains(words), "{fault:?}");
        assert!(!fault.message.contains("/work/"), "{fault:?}");
        if symbol == Symbol::ImageUnsupported {
            assert!(fault.hint.unwrap().contains("-archive:FILE"));
        }
    }
    assert!(store.images().unwrap().is_empty() && store.names().unwrap().is_empty());
    let left = |name: &str| std::fs::read_dir(folder.path().join("images").join(name));
    assert_eq!(left("layers").unwrap().count(), 0);
    assert_eq!(left("work").unwrap().count(), 0);
}

#[tokio::test]
async fn names_and_platforms_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    for name in ["oci:folder", &format!("mine@sha256:{}", "0".repeat(64))] {
        let refused = try_import(&store, file(&root()), request(Some(name), &[])).await;
        assert!(matches!(refused, Err(ImportError::Name(_))), "{refused:?}");
    }
    let other = Request {
        platform: "linux/riscv128".parse().unwrap(),
        ..request(None, &[])
    };
    let refused = try_import(&store, file(&root()), other).await;
    assert!(
        matches!(refused, Err(ImportError::Platform { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_pipe_that_gives_nothing_can_be_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let (reader, _writer): (OwnedFd, OwnedFd) = rustix::pipe::pipe().unwrap();
    let (told, _) = watch::channel(Progress::default());
    let cancel = Cancel::default();
    let wanted = request(None, &[]);
    let importing = import(&store, reader.into(), wanted, CREATED.into(), told, &cancel);
    let cancelling = async {
        tokio::task::yield_now().await;
        cancel.cancel();
    };
    let (imported, ()) = tokio::join!(importing, cancelling);
    let error = imported.unwrap_err();
    assert!(
        matches!(
            error,
            ImportError::Pull(PullError::Cancelled)
                | ImportError::Archive {
                    source: LayerError::Cancelled,
                    ..
                }
        ),
        "{error:?}"
    );
    assert!(store.images().unwrap().is_empty());
}
