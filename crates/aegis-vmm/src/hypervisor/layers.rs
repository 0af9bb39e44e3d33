//! The layers of an image as the partitions of one disk.
//!
//! A microvm has slots for few disks, an image may have many layers, and a layer's
//! file is shared by all instances whose images have it. So nothing is copied: QEMU
//! is given a description of a disk that is made of pieces of files (a VMDK of flat
//! extents, "Virtual Disk Format 5.0" of VMware, and QEMU's block/vmdk.c).
//!
//! ```text
//!  │ head of the table │ layer 1 │ zeros │ layer 2 │ ... │ tail of the table │
//!    ours, in memory     a file    ours    a file          ours
//! ```
//!
//! QEMU saves no machine while it has such a description open, though these disks
//! have no state. So another node stands between it and the device, and while the
//! machine stands still for a save that one is put onto nothing ([`LayerNode`]).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use aegis_core::fault::{Fault, Symbol};
use aegis_os::nameless;
use serde_json::{Value, json};

use super::DiskSerial;
use super::gpt::{self, ALIGNMENT, HEAD, SECTOR, TAIL};

/// Most layers of an image, as many as a partition table has entries.
pub const MAX_LAYERS: usize = gpt::MAX_PARTITIONS;

/// Most zeros that follow a layer, in sectors.
const ZEROS: u64 = ALIGNMENT;

/// Why an image's layers cannot be shown to a guest.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    #[error("the image has {0} layers, and at most {MAX_LAYERS} can be mounted")]
    TooMany(usize),
    #[error("cannot open the image's layer {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the image's layer {path} is not a file with something in it")]
    NotALayer { path: PathBuf },
}

impl From<LayersError> for Fault {
    fn from(error: LayersError) -> Self {
        let fault = |symbol| Fault::from_error(symbol, &error);
        match &error {
            LayersError::TooMany(_) => fault(Symbol::ImageUnavailable),
            LayersError::Open { .. } | LayersError::NotALayer { .. } => {
                fault(Symbol::ImageUnavailable).with_hint("pull the image again")
            }
        }
    }
}

/// A layer, open for reading.
#[derive(Debug)]
struct Layer {
    file: File,
    /// Length in sectors. The rest of the last one is read as zeros, as that of any
    /// raw image is.
    sectors: u64,
}

impl Layer {
    fn open(path: &Path) -> Result<Self, LayersError> {
        let failed = |source| LayersError::Open {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.len() == 0 {
            return Err(LayersError::NotALayer {
                path: path.to_owned(),
            });
        }
        let sectors = metadata.len().div_ceil(SECTOR);
        Ok(Self { file, sectors })
    }

    /// Length of the partition.
    fn partition(&self) -> u64 {
        self.sectors.next_multiple_of(ALIGNMENT)
    }
}

/// The layers of an image, the lowest first, held open: a file that is deleted
/// meanwhile stays whole for the guest.
#[derive(Debug)]
pub struct LayerDisk {
    layers: Vec<Layer>,
}

/// What QEMU opens for a [`LayerDisk`] beside its description.
#[derive(Debug)]
pub struct Extents {
    /// The head of the table, zeros and the tail of the table.
    pub frame: File,
    /// The lowest layer first.
    pub layers: Vec<File>,
    pub plan: Plan,
}

/// Which run of sectors of the disk is where.
#[derive(Debug)]
pub struct Plan(Vec<Extent>);

/// QEMU's nodes behind the device of a [`LayerDisk`]; options of `blockdev-add`
/// (qapi/block-core.json of QEMU).
#[derive(Debug)]
pub struct LayerNode {
    name: String,
    /// The file with the description.
    description: String,
    /// Length of the disk in bytes.
    length: u64,
}

impl LayerNode {
    /// The nodes of a disk, whose description QEMU finds under this name.
    pub fn new(serial: DiskSerial, description: &str, length: u64) -> Self {
        Self {
            name: serial.to_string(),
            description: description.to_owned(),
            length,
        }
    }

    pub fn source_name(&self) -> String {
        format!("{}-layers", self.name)
    }

    pub fn nothing_name(&self) -> String {
        format!("{}-nothing", self.name)
    }

    /// The node with the layers.
    pub fn source(&self) -> Value {
        json!({
            "driver": "vmdk",
            "node-name": self.source_name(),
            "read-only": true,
            "file": { "driver": "file", "filename": self.description },
        })
    }

    /// A node as long, with nothing in it.
    pub fn nothing(&self) -> Value {
        json!({
            "driver": "null-co",
            "node-name": self.nothing_name(),
            "read-only": true,
            "size": self.length,
        })
    }

    /// The node of the device, onto the layers.
    pub fn on_source(&self) -> Value {
        self.onto(&self.source_name())
    }

    /// The node of the device, onto nothing.
    pub fn on_nothing(&self) -> Value {
        self.onto(&self.nothing_name())
    }

    fn onto(&self, node: &str) -> Value {
        json!({
            "driver": "raw",
            "node-name": self.name,
            "read-only": true,
            "file": node,
        })
    }
}

#[derive(Debug)]
struct Extent {
    sectors: u64,
    of: Piece,
}

#[derive(Debug)]
enum Piece {
    /// From this sector of the frame on.
    Frame(u64),
    /// The layer of this index, from its start.
    Layer(usize),
}

impl LayerDisk {
    /// Opens the files, of which there is at least one.
    ///
    /// # Errors
    /// Which file is not a layer, or that there are too many.
    pub fn open(paths: &[PathBuf]) -> Result<Self, LayersError> {
        if paths.len() > MAX_LAYERS {
            return Err(LayersError::TooMany(paths.len()));
        }
        let layers = paths.iter().map(|path| Layer::open(path));
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
        })
    }

    /// What the disk is made of.
    ///
    /// # Errors
    /// There is no memory for the table.
    pub fn extents(self) -> io::Result<Extents> {
        let lengths: Vec<u64> = self.layers.iter().map(Layer::partition).collect();
        let table = gpt::table(&lengths);
        let zeros = vec![0; usize::try_from(ZEROS * SECTOR).unwrap_or(0)];
        let frame = nameless::holding(&[table.head, zeros, table.tail].concat())?;
        let extent = |sectors, of| Extent { sectors, of };
        let mut plan = vec![extent(HEAD, Piece::Frame(0))];
        for (index, layer) in self.layers.iter().enumerate() {
            plan.push(extent(layer.sectors, Piece::Layer(index)));
            let padding = layer.partition() - layer.sectors;
            if padding > 0 {
                plan.push(extent(padding, Piece::Frame(HEAD)));
            }
        }
        plan.push(extent(TAIL, Piece::Frame(HEAD + ZEROS)));
        Ok(Extents {
            frame,
            layers: self.layers.into_iter().map(|layer| layer.file).collect(),
            plan: Plan(plan),
        })
    }
}

impl Plan {
    /// The length of the disk in bytes.
    pub fn length(&self) -> u64 {
        self.0.iter().map(|extent| extent.sectors * SECTOR).sum()
    }

    /// The description of the disk, given the names of its files where it is read.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn describe(&self, frame: &str, layers: &[String]) -> io::Result<File> {
        // An empty line before the first extent would make QEMU take it twice. It
        // skips extents of type ZERO, so zeros come from the frame.
        let mut text = "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\n\
                        createType=\"twoGbMaxExtentFlat\"\n"
            .to_owned();
        for Extent { sectors, of } in &self.0 {
            let (name, from) = match of {
                Piece::Frame(sector) => (frame, *sector),
                Piece::Layer(index) => (layers.get(*index).map_or("", String::as_str), 0),
            };
            text.push_str(&format!("RW {sectors} FLAT \"{name}\" {from}\n"));
        }
        nameless::holding(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::FileExt;

    /// Files of these lengths, each filled with its number.
    fn files(dir: &Path, lengths: &[usize]) -> Vec<PathBuf> {
        let file = |(number, length): (u8, &usize)| {
            let path = dir.join(number.to_string());
            fs::write(&path, vec![number; *length]).unwrap();
            path
        };
        (1..).zip(lengths).map(file).collect()
    }

    /// The disk that a description means, read as QEMU does.
    fn disk(extents: &Extents) -> Vec<u8> {
        let names: Vec<String> = (0..extents.layers.len()).map(|n| n.to_string()).collect();
        let description = extents.plan.describe("frame", &names).unwrap();
        let text = io::read_to_string(description).unwrap();
        assert!(!text.contains("\n\n"), "{text}");
        let mut disk = Vec::new();
        for line in text.lines().filter(|line| line.starts_with("RW ")) {
            let words: Vec<&str> = line.split(' ').collect();
            let length = words[1].parse::<usize>().unwrap() * 512;
            let from = words[4].parse::<u64>().unwrap() * 512;
            let file = match words[3].trim_matches('"') {
                "frame" => &extents.frame,
                number => &extents.layers[number.parse::<usize>().unwrap()],
            };
            let mut piece = vec![0; length];
            let mut read = 0;
            while let count @ 1.. = file
                .read_at(&mut piece[read..], from + read as u64)
                .unwrap()
            {
                read += count;
            }
            assert!(length - read < 512, "more than a sector is missing: {line}");
            disk.extend(piece);
        }
        disk
    }

    #[test]
    fn each_layer_is_a_partition_with_zeros_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let lengths = [4096, 1, 511, 512, 513, 4095, 4097, 8192, 70_000];
        let layers = LayerDisk::open(&files(dir.path(), &lengths)).unwrap();
        let disk = disk(&layers.extents().unwrap());
        let sector = |at: usize| u64::from_le_bytes(disk[at..at + 8].try_into().unwrap());
        let mut end = HEAD;
        for (index, length) in lengths.iter().enumerate() {
            let entry = 1024 + index * 128;
            let (first, last) = (sector(entry + 32), sector(entry + 40));
            assert_eq!((first, first % ALIGNMENT), (end, 0));
            end = last + 1;
            let bytes = |sectors: u64| usize::try_from(sectors * SECTOR).unwrap();
            let partition = &disk[bytes(first)..bytes(end)];
            assert_eq!(partition.len(), length.next_multiple_of(4096));
            let number = u8::try_from(index + 1).unwrap();
            assert!(partition[..*length].iter().all(|byte| *byte == number));
            assert!(partition[*length..].iter().all(|byte| *byte == 0));
        }
        assert_eq!(disk.len() as u64 / SECTOR, end + TAIL);
    }

    #[test]
    fn as_many_layers_as_a_table_holds_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut paths = files(dir.path(), &[600; MAX_LAYERS]);
        let layers = LayerDisk::open(&paths).unwrap();
        disk(&layers.extents().unwrap());
        paths.push(paths[0].clone());
        let error = LayerDisk::open(&paths).unwrap_err();
        assert!(matches!(error, LayersError::TooMany(129)), "{error}");
    }

    #[test]
    fn what_is_no_layer_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty");
        fs::write(&empty, "").unwrap();
        for path in [empty, dir.path().join("gone"), dir.path().to_owned()] {
            let fault = Fault::from(LayerDisk::open(std::slice::from_ref(&path)).unwrap_err());
            assert_eq!(fault.symbol, Symbol::ImageUnavailable);
            assert!(fault.message.contains(path.to_str().unwrap()), "{fault}");
        }
    }
}
