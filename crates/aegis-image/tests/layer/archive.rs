//! Archives, odd ones too.

use std::io::Write;

/// An archive under construction.
#[derive(Clone, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// An entry of mode 0644 or 0755, of root and 1970, unless `change` says else.
    pub(crate) fn add_with(
        mut self,
        kind: u8,
        name: impl AsRef<[u8]>,
        link: impl AsRef<[u8]>,
        data: &[u8],
        change: impl FnOnce(&mut tar::Header),
    ) -> Self {
        let (name, link) = (name.as_ref(), link.as_ref());
        for (kind, long) in [(b'L', name), (b'K', link)] {
            if long.len() > 100 {
                let data = [long, b"\0"].concat();
                self = self.add_special(kind, &data);
            }
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_size(data.len() as u64);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let old = header.as_old_mut();
        let (name, link) = (&name[..name.len().min(100)], &link[..link.len().min(100)]);
        old.name[..name.len()].copy_from_slice(name);
        old.linkname[..link.len()].copy_from_slice(link);
        change(&mut header);
        header.set_cksum();
        self.raw(header.as_bytes()).padded(data)
    }

    /// The long name or link of the next entry.
    fn add_special(self, kind: u8, data: &[u8]) -> Self {
        self.add_with(kind, "././@LongLink", "", data, unchanged)
    }

    pub(crate) fn add(
        self,
        kind: u8,
        name: impl AsRef<[u8]>,
        link: impl AsRef<[u8]>,
        data: &[u8],
    ) -> Self {
        self.add_with(kind, name, link, data, unchanged)
    }

    pub(crate) fn file(self, name: impl AsRef<[u8]>, data: &[u8]) -> Self {
        self.add(b'0', name, "", data)
    }

    pub(crate) fn dir(self, name: impl AsRef<[u8]>) -> Self {
        self.add(b'5', name, "", b"")
    }

    pub(crate) fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.add(b'2', name, target, b"")
    }

    pub(crate) fn link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.add(b'1', name, target, b"")
    }

    /// An extended header for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let digits = |length: usize| length.to_string().len();
            let length = rest + digits(rest + digits(rest));
            write!(data, "{length} {key}=").unwrap();
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.add(b'x', "PaxHeaders/x", "", &data)
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn padded(self, data: &[u8]) -> Self {
        let padding = data.len().next_multiple_of(512) - data.len();
        self.raw(data).raw(&vec![0; padding])
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).bytes
    }

    /// Without the blocks that mark the end.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.bytes
    }
}

fn unchanged(_: &mut tar::Header) {}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}
