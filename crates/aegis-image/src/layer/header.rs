//! The blocks of tar archives: headers and extended headers.
//!
//! They are read as Go's archive/tar reads them, since that is what made and what
//! unpacks nearly all layers: where formats leave a choice, another reading would
//! show other files than other tools do.

use std::collections::BTreeMap;

/// An archive is made of blocks of this size (tar(5)).
pub(super) const BLOCK: usize = 512;

/// Which fields follow those that all formats have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// The block before an entry's content.
pub(super) struct Header {
    block: [u8; BLOCK],
    format: Format,
}

impl Header {
    /// The header in a block, if its checksum says that it is one.
    pub(super) fn parse(block: [u8; BLOCK]) -> Option<Self> {
        let expected = octal(&block[148..156])?;
        let (mut unsigned, mut signed) = (0, 0);
        for (at, byte) in block.iter().enumerate() {
            // The checksum is over a header whose checksum is spaces.
            let byte = if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            };
            unsigned += i64::from(byte);
            // Sun's tar added them as signed.
            signed += i64::from(byte.cast_signed());
        }
        if expected != unsigned && expected != signed {
            return None;
        }
        let format = match (&block[257..263], &block[263..265]) {
            (b"ustar\0", _) if &block[508..] == b"tar\0" => Format::Star,
            (b"ustar\0", _) => Format::Ustar,
            (b"ustar ", b" \0") => Format::Gnu,
            _ => Format::V7,
        };
        Some(Self { block, format })
    }

    pub(super) fn kind(&self) -> u8 {
        self.block[156]
    }

    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.block[..100]);
        let prefix = match self.format {
            Format::V7 => &[],
            Format::Ustar => text(&self.block[345..500]),
            Format::Star => text(&self.block[345..476]),
            // There are times in its place; but old versions of Go wrote a prefix.
            Format::Gnu => {
                let time = |field: &[u8]| field[0] == 0 || number(field).is_some();
                let prefix = text(&self.block[345..500]);
                let times = time(&self.block[345..357]) && time(&self.block[357..369]);
                if times || !prefix.is_ascii() {
                    &[]
                } else {
                    prefix
                }
            }
        };
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    pub(super) fn link(&self) -> &[u8] {
        text(&self.block[157..257])
    }

    pub(super) fn mode(&self) -> Option<i64> {
        number(&self.block[100..108])
    }

    pub(super) fn uid(&self) -> Option<i64> {
        number(&self.block[108..116])
    }

    pub(super) fn gid(&self) -> Option<i64> {
        number(&self.block[116..124])
    }

    pub(super) fn size(&self) -> Option<i64> {
        number(&self.block[124..136])
    }

    pub(super) fn mtime(&self) -> Option<i64> {
        number(&self.block[136..148])
    }

    /// Major and minor number of a device.
    pub(super) fn device(&self) -> Option<(i64, i64)> {
        if self.format == Format::V7 {
            return Some((0, 0));
        }
        let numbers = (
            number(&self.block[329..337])?,
            number(&self.block[337..345])?,
        );
        Some(numbers)
    }

    /// The start of an old GNU sparse map: the pieces' fields, whether more blocks
    /// of them follow, and the file's real size.
    pub(super) fn gnu_sparse(&self) -> Option<(&[u8], bool, i64)> {
        if self.format != Format::Gnu {
            return None;
        }
        let size = number(&self.block[483..495])?;
        Some((&self.block[386..482], self.block[482] > 0, size))
    }
}

/// Text that ends at a NUL or with its field.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number: octal, or binary with the highest bit set (GNU tar manual, "Extending
/// numbers").
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let Some((first, rest)) = field.split_first() else {
        return Some(0);
    };
    if first & 0x80 == 0 {
        return octal(field);
    }
    // A two's complement number whose first bit only marks the form.
    let negative = first & 0x40 != 0;
    let flip = if negative { 0xff } else { 0 };
    let mut value = u64::from((first ^ flip) & 0x7f);
    for byte in rest {
        if value >> 56 > 0 {
            return None;
        }
        value = value << 8 | u64::from(byte ^ flip);
    }
    let value = i64::try_from(value).ok()?;
    Some(if negative { !value } else { value })
}

fn octal(field: &[u8]) -> Option<i64> {
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(start) = field.iter().position(|byte| !blank(byte)) else {
        return Some(0);
    };
    let end = field.iter().rposition(|byte| !blank(byte))? + 1;
    digits(text(&field[start..end]), 8)
}

/// A number without a sign.
pub(super) fn digits(text: &[u8], radix: u32) -> Option<i64> {
    if !text.first()?.is_ascii_digit() {
        return None;
    }
    i64::from_str_radix(str::from_utf8(text).ok()?, radix).ok()
}

/// A decimal number that may have a sign.
pub(super) fn decimal(text: &[u8]) -> Option<i64> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// The seconds of a time with a fraction, as stat(2) has them: rounded down.
pub(super) fn seconds(value: &[u8]) -> Option<i64> {
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let whole = parts.next()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = decimal(whole)?;
    let before = whole.starts_with(b"-") && fraction.iter().any(|digit| *digit != b'0');
    seconds.checked_sub(i64::from(before))
}

/// The key in which the pieces of all early sparse maps are collected.
pub(super) const SPARSE_MAP: &[u8] = b"GNU.sparse.map";
const SPARSE_OFFSET: &[u8] = b"GNU.sparse.offset";
const SPARSE_LENGTH: &[u8] = b"GNU.sparse.numbytes";

/// The records of an extended header (pax(1), "pax Extended Header").
pub(super) fn records(mut rest: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut records = BTreeMap::new();
    // Format 0.0 repeats two keys, which 0.1 has as one list.
    let mut map: Vec<&[u8]> = Vec::new();
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ')?;
        let length = usize::try_from(decimal(&rest[..space])?).ok()?;
        let (record, more) = rest.split_at_checked(length)?;
        rest = more;
        let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let text_only = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
        if key.is_empty() || key.contains(&0) || text_only && value.contains(&0) {
            return None;
        }
        if key == SPARSE_OFFSET || key == SPARSE_LENGTH {
            let expected = [SPARSE_OFFSET, SPARSE_LENGTH][map.len() % 2];
            if key != expected || value.contains(&b',') {
                return None;
            }
            map.push(value);
        } else {
            records.insert(key.to_vec(), value.to_vec());
        }
    }
    if !map.is_empty() {
        records.insert(SPARSE_MAP.to_vec(), map.join(&b','));
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"649\0"), None);
        assert_eq!(number(b"+644"), None);
        assert_eq!(number(&[0x80, 0, 0, 1, 0, 0, 0, 0]), Some(1 << 32));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0x80, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn fractions_of_times_are_cut_off() {
        assert_eq!(seconds(b"1.9"), Some(1));
        assert_eq!(seconds(b"-1.5"), Some(-2));
        assert_eq!(seconds(b"-1.0"), Some(-1));
        assert_eq!(seconds(b"7"), Some(7));
        assert_eq!(seconds(b"7.x"), None);
        assert_eq!(seconds(b""), None);
    }

    #[test]
    fn records_have_the_length_they_say() {
        let read = records(b"8 a=bcd\n6 e=f\n").unwrap_or_default();
        assert_eq!(read.get(&b"a"[..]), Some(&b"bcd".to_vec()));
        assert_eq!(read.get(&b"e"[..]), Some(&b"f".to_vec()));
        for broken in [
            &b"9 a=bcd\n"[..],
            b"7 a=bcd\n",
            b"99999999999999999999 a=b\n",
            b"-1 a=b\n",
            b"1 a=b\n",
            b"6 abc\n",
            b"a=b\n",
            b"10 path=\0\n",
        ] {
            assert!(records(broken).is_none(), "{broken:?}");
        }
    }
}
