//! A GUID partition table, as the UEFI Specification 2.10 describes it in section
//! 5.3: what stands before the partitions of a disk and what stands behind them.

/// Bytes of a sector. All positions below are counted in sectors.
pub const SECTOR: u64 = 512;

/// Partitions that a table of the size that every reader takes has room for
/// (UEFI 2.10, 5.3.1: at least 16,384 bytes of entries).
pub const MAX_PARTITIONS: usize = ENTRIES as usize;

/// Each partition begins and ends at a multiple of this: a page of the guest.
pub const ALIGNMENT: u64 = 4096 / SECTOR;

/// Sectors in front of the first partition: the protective MBR, the header, the
/// entries, and as many more as its alignment takes.
pub const HEAD: u64 = (2 + ENTRIES_LENGTH).next_multiple_of(ALIGNMENT);

/// Sectors behind the last partition: the entries and the header once more.
pub const TAIL: u64 = ENTRIES_LENGTH + 1;

const ENTRIES: u32 = 128;
const ENTRY_SIZE: u32 = 128;
const ENTRIES_LENGTH: u64 = (ENTRIES * ENTRY_SIZE) as u64 / SECTOR;
const ENTRY: usize = ENTRY_SIZE as usize;

/// Where in a header its own checksum stands, and where it ends (5.3.2, table 5.5).
const HEADER_CHECKSUM: usize = 16;
const HEADER_SIZE: u32 = 92;

/// The type "Linux filesystem" of the Discoverable Partitions Specification,
/// 0FC63DAF-8483-4772-8E79-3D69D8477DE4, as its bytes stand on a disk (5.3.3).
const LINUX: [u8; 16] = [
    0xAF, 0x3D, 0xC6, 0x0F, 0x83, 0x84, 0x72, 0x47, 0x8E, 0x79, 0x3D, 0x69, 0xD8, 0x47, 0x7D, 0xE4,
];

/// The two parts of a table, [`HEAD`] and [`TAIL`] sectors long.
#[derive(Debug)]
pub struct Table {
    pub head: Vec<u8>,
    pub tail: Vec<u8>,
}

/// The table of a disk whose partitions have these lengths, each a multiple of
/// [`ALIGNMENT`], and follow each other without a gap. More of them than
/// [`MAX_PARTITIONS`] are left out.
pub fn table(lengths: &[u64]) -> Table {
    let mut entries = vec![0; MAX_PARTITIONS * ENTRY];
    let mut next = HEAD;
    for (number, (entry, length)) in (1..).zip(entries.chunks_mut(ENTRY).zip(lengths)) {
        put(entry, 0, &LINUX);
        put(entry, 16, &guid(number));
        put(entry, 32, &next.to_le_bytes());
        next += length;
        put(entry, 40, &(next - 1).to_le_bytes());
    }
    let last = next + TAIL - 1;
    let checksum = crc32fast::hash(&entries);
    let header = |own: u64, other: u64, entries: u64| {
        let mut header = vec![0; as_bytes(1)];
        put(&mut header, 0, b"EFI PART");
        put(&mut header, 8, &0x0001_0000_u32.to_le_bytes());
        put(&mut header, 12, &HEADER_SIZE.to_le_bytes());
        put(&mut header, 24, &own.to_le_bytes());
        put(&mut header, 32, &other.to_le_bytes());
        put(&mut header, 40, &HEAD.to_le_bytes());
        put(&mut header, 48, &(next - 1).to_le_bytes());
        put(&mut header, 56, &guid(0));
        put(&mut header, 72, &entries.to_le_bytes());
        put(&mut header, 80, &ENTRIES.to_le_bytes());
        put(&mut header, 84, &ENTRY_SIZE.to_le_bytes());
        put(&mut header, 88, &checksum.to_le_bytes());
        let own_checksum = crc32fast::hash(&header[..HEADER_SIZE as usize]);
        put(&mut header, HEADER_CHECKSUM, &own_checksum.to_le_bytes());
        header
    };
    let mut head = [protective_mbr(last), header(1, last, 2), entries.clone()].concat();
    head.resize(as_bytes(HEAD), 0);
    let tail = [entries, header(last, 1, next)].concat();
    Table { head, tail }
}

/// Tells old programs that the disk is in use (5.2.3). `last` is its last sector.
fn protective_mbr(last: u64) -> Vec<u8> {
    let mut sector = vec![0; as_bytes(1)];
    // A partition of type 0xEE from sector 1 to the end; its addresses in
    // cylinders, heads and sectors say 0x000200 and what is out of their range.
    put(&mut sector, 447, &[0x00, 0x02, 0x00]);
    put(&mut sector, 450, &[0xEE, 0xFF, 0xFF, 0xFF]);
    put(&mut sector, 454, &1_u32.to_le_bytes());
    let length = u32::try_from(last).unwrap_or(u32::MAX);
    put(&mut sector, 458, &length.to_le_bytes());
    put(&mut sector, 510, &[0x55, 0xAA]);
    sector
}

/// The name of a partition, or of the disk if the number is 0. Names have to differ
/// within one guest only, so nothing of chance is in them; version and variant are
/// those of RFC 9562, 5.8, for a form of one's own.
fn guid(number: u8) -> [u8; 16] {
    [
        0x61, 0x65, 0x67, 0x69, 0x73, 0, 0, 0x80, 0x80, 0, 0, 0, 0, 0, 0, number,
    ]
}

fn put(sector: &mut [u8], at: usize, bytes: &[u8]) {
    sector[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The length in bytes of a few sectors.
fn as_bytes(sectors: u64) -> usize {
    usize::try_from(sectors * SECTOR).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
        let mut number = [0; 8];
        number[..length].copy_from_slice(&bytes[at..at + length]);
        u64::from_le_bytes(number)
    }

    /// Checks a header as UEFI 2.10, 5.3.2 asks of a reader, and gives the entries.
    fn checked(disk: &[u8], at: u64, other: u64) -> Vec<&[u8]> {
        let header = &disk[as_bytes(at)..as_bytes(at + 1)];
        assert_eq!(&header[..8], b"EFI PART");
        let mut blank = header[..HEADER_SIZE as usize].to_vec();
        blank[HEADER_CHECKSUM..HEADER_CHECKSUM + 4].fill(0);
        assert_eq!(
            number(header, HEADER_CHECKSUM, 4),
            u64::from(crc32fast::hash(&blank))
        );
        assert_eq!((number(header, 24, 8), number(header, 32, 8)), (at, other));
        let entries = as_bytes(number(header, 72, 8));
        let entries = &disk[entries..entries + MAX_PARTITIONS * ENTRY];
        assert_eq!(number(header, 88, 4), u64::from(crc32fast::hash(entries)));
        entries.chunks(ENTRY).collect()
    }

    #[test]
    fn both_tables_are_whole_and_name_the_same_partitions() {
        for lengths in [vec![8], vec![8; MAX_PARTITIONS], vec![8, 4096, 16]] {
            let Table { head, tail } = table(&lengths);
            let between = lengths.iter().sum();
            let disk = [head, vec![0; as_bytes(between)], tail].concat();
            let last = disk.len() as u64 / SECTOR - 1;
            assert_eq!(&disk[510..512], [0x55, 0xAA]);
            let entries = checked(&disk, 1, last);
            assert_eq!(entries, checked(&disk, last, 1));
            let mut next = HEAD;
            let mut names = Vec::new();
            for (entry, length) in entries.iter().zip(&lengths) {
                assert_eq!(number(entry, 32, 8), next);
                next += length;
                assert_eq!(number(entry, 40, 8), next - 1);
                names.push(&entry[16..32]);
            }
            assert_eq!(next + TAIL, last + 1);
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), lengths.len());
            let unused = &entries[lengths.len()..];
            assert!(
                unused
                    .iter()
                    .all(|entry| entry.iter().all(|byte| *byte == 0))
            );
        }
    }
}
