//! The image that is pulled: 300 MB of files in five layers, as images of languages and
//! tools are made of, and a second image that has the last layer alone for itself.
//!
//! The same program makes the same bytes, so they are made once and kept in the cache.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use aegis_tests::cache;
use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Grows when the layers change.
const EDITION: u32 = 1;
/// The only program in it, static.
const BUSYBOX: &str = "/bin/busybox";
/// What the first image and the second one are called.
pub(crate) const TAGS: [&str; 2] = ["first", "second"];

/// One kind of files in a layer.
struct Files {
    folder: &'static str,
    count: usize,
    /// Bytes of each.
    size: usize,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// As texts, which pack to about a third.
    Text,
    /// Half of each as programs' tables, which pack well, half as their code.
    Program,
    /// As what is packed already: pictures, archives, models.
    Packed,
}

const fn files(folder: &'static str, count: usize, size: usize, kind: Kind) -> Files {
    Files {
        folder,
        count,
        size,
        kind,
    }
}

/// The layers that both images have, the lowest first: 290 MB.
const SHARED: [&[Files]; 4] = [
    &[
        files("usr/lib", 120, 300_000, Kind::Program),
        files("usr/share", 4000, 4_000, Kind::Text),
    ],
    &[files("opt/runtime/lib", 250, 400_000, Kind::Program)],
    &[files("opt/models", 8, 10_000_000, Kind::Packed)],
    &[
        files("opt/modules", 9000, 5_000, Kind::Text),
        files("opt/cache", 13, 1_000_000, Kind::Packed),
    ],
];
/// The last layer of each: 10 MB.
const OWN: [&[Files]; 2] = [
    &[files("srv/first", 25, 400_000, Kind::Program)],
    &[files("srv/second", 25, 400_000, Kind::Program)],
];

/// The folder of an OCI layout with both images, which is made if it is not here.
///
/// # Errors
/// Busybox cannot be read, or a file not be written.
pub(crate) fn layout() -> Result<PathBuf> {
    let busybox = fs::read(BUSYBOX).with_context(|| format!("reading {BUSYBOX}"))?;
    let key = Sha256::new()
        .chain_update(EDITION.to_le_bytes())
        .chain_update(&busybox)
        .finalize();
    let parent = cache::directory()?.join("bench");
    let place = parent.join(format!("image-{}", &hex(&key)[..16]));
    if place.join("index.json").exists() {
        return Ok(place);
    }
    eprintln!("making the image that is measured, once");
    fs::create_dir_all(&parent).with_context(|| format!("making {}", parent.display()))?;
    let made = tempfile::tempdir_in(&parent).context("making a folder")?;
    let blobs = Blobs(made.path().join("blobs/sha256"));
    fs::create_dir_all(&blobs.0).context("making the blobs' folder")?;
    let mut random = Random(1);
    let mut shared = Vec::new();
    for (number, layer) in SHARED.into_iter().enumerate() {
        let program = (number == 0).then_some(&*busybox);
        shared.push(blobs.layer(program, layer, &mut random)?);
    }
    let mut manifests = Vec::new();
    for (tag, own) in TAGS.into_iter().zip(OWN) {
        let last = blobs.layer(None, own, &mut random)?;
        let layers: Vec<&Layer> = shared.iter().chain([&last]).collect();
        let mut manifest = blobs.manifest(&layers)?;
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        manifests.push(manifest);
    }
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    for (name, document) in [
        ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
        ("index.json", index),
    ] {
        fs::write(made.path().join(name), document.to_string()).context("writing the layout")?;
    }
    let made = made.keep();
    fs::rename(&made, &place).with_context(|| format!("making {}", place.display()))?;
    Ok(place)
}

/// The blobs' folder.
struct Blobs(PathBuf);

/// One layer, as a manifest and a configuration name it.
struct Layer {
    blob: Value,
    diff_id: String,
}

impl Blobs {
    fn layer(&self, program: Option<&[u8]>, files: &[Files], random: &mut Random) -> Result<Layer> {
        let path = self.0.join("layer");
        let file = File::create(&path).context("making a layer")?;
        let packed = GzEncoder::new(BufWriter::new(file), Compression::default());
        let mut archive = tar::Builder::new(Hashing::new(packed));
        if let Some(program) = program {
            append(&mut archive, "bin/busybox", program)?;
            for name in ["sh", "true", "sleep"] {
                let mut header = header(tar::EntryType::Symlink, 0);
                archive
                    .append_link(&mut header, format!("bin/{name}"), "busybox")
                    .context("writing a layer")?;
            }
        }
        for kind in files {
            for number in 0..kind.count {
                // A hundred files to a folder.
                let name = format!("{}/{}/{number}", kind.folder, number / 100);
                append(&mut archive, &name, &random.file(kind.kind, kind.size))?;
            }
        }
        let (packed, digest) = archive.into_inner().context("ending a layer")?.finish();
        let mut file = packed.finish().context("packing a layer")?;
        file.flush().context("writing a layer")?;
        drop(file);
        let bytes = fs::read(&path).context("reading a layer")?;
        let blob = self.describe("layer.v1.tar+gzip", &bytes);
        fs::rename(&path, self.place(&blob)).context("naming a layer")?;
        Ok(Layer {
            blob,
            diff_id: digest,
        })
    }

    fn manifest(&self, layers: &[&Layer]) -> Result<Value> {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| &*layer.diff_id).collect();
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sleep", "infinity"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = self.document("config.v1+json", &config)?;
        let layers: Vec<&Value> = layers.iter().map(|layer| &layer.blob).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        });
        self.document("manifest.v1+json", &manifest)
    }

    fn document(&self, kind: &str, document: &Value) -> Result<Value> {
        let bytes = document.to_string();
        let blob = self.describe(kind, bytes.as_bytes());
        fs::write(self.place(&blob), bytes).context("writing a document")?;
        Ok(blob)
    }

    fn describe(&self, kind: &str, bytes: &[u8]) -> Value {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{}", hex(&Sha256::digest(bytes))),
            "size": bytes.len(),
        })
    }

    fn place(&self, blob: &Value) -> PathBuf {
        let digest = blob["digest"].as_str().unwrap_or_default();
        self.0.join(digest.trim_start_matches("sha256:"))
    }
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, bytes.len() as u64);
    let appended = archive.append_data(&mut header, Path::new(name), bytes);
    appended.with_context(|| format!("writing {name}"))
}

fn header(kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o755);
    header
}

/// Passes bytes on and knows their digest.
struct Hashing<W> {
    to: W,
    hash: Sha256,
}

impl<W> Hashing<W> {
    fn new(to: W) -> Self {
        Self {
            to,
            hash: Sha256::new(),
        }
    }

    fn finish(self) -> (W, String) {
        (self.to, format!("sha256:{}", hex(&self.hash.finalize())))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(buffer)?;
        self.hash.update(&buffer[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes by Marsaglia's xorshift, the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn file(&mut self, kind: Kind, size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 16);
        match kind {
            Kind::Packed => self.noise(&mut bytes, size),
            Kind::Text => self.words(&mut bytes, size),
            Kind::Program => {
                self.words(&mut bytes, size / 2);
                self.noise(&mut bytes, size - size / 2);
            }
        }
        bytes.truncate(size);
        bytes
    }

    fn noise(&mut self, bytes: &mut Vec<u8>, size: usize) {
        let end = bytes.len() + size;
        while bytes.len() < end {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(end);
    }

    /// Words of a few thousand, each two to nine letters.
    fn words(&mut self, bytes: &mut Vec<u8>, size: usize) {
        let end = bytes.len() + size;
        while bytes.len() < end {
            let mut word = Self((self.next() % 4096 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let length = 2 + word.next() % 8;
            for _ in 0..length {
                let [letter, ..] = (word.next() % 26).to_le_bytes();
                bytes.push(b'a' + letter);
            }
            bytes.push(b' ');
        }
        bytes.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_are_as_large_as_is_said() {
        let size = |layer: &[Files]| -> usize { layer.iter().map(|f| f.count * f.size).sum() };
        let shared: usize = SHARED.into_iter().map(size).sum();
        assert_eq!((shared, OWN.map(size)), (290_000_000, [10_000_000; 2]));
    }

    #[test]
    fn the_same_bytes_come_each_time() {
        for kind in [Kind::Text, Kind::Program, Kind::Packed] {
            let [one, other] = [(); 2].map(|()| Random(1).file(kind, 10_001));
            assert_eq!(one.len(), 10_001);
            assert!(one == other);
        }
    }
}
