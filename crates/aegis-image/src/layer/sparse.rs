//! The maps of sparse files: which pieces of a file are in the archive.
//!
//! | form | where the map is |
//! |---|---|
//! | old GNU | in the header and blocks after it |
//! | PAX 0.0, 0.1 | in records of the extended header |
//! | PAX 1.0 | before the content, as decimal lines |

use super::header::{digits, number};

/// One piece that the archive has; between pieces there are zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Piece {
    pub(super) fn end(self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// Adds the pieces in the fields of an old GNU map.
pub(super) fn gnu_pieces(fields: &[u8], pieces: &mut Vec<Piece>) -> Option<()> {
    for field in fields.chunks_exact(24) {
        if field[0] == 0 {
            break;
        }
        pieces.push(piece(number(&field[..12])?, number(&field[12..])?)?);
    }
    Some(())
}

/// The pieces in a list of offsets and lengths.
pub(super) fn listed_pieces(count: &[u8], map: &[u8]) -> Option<Vec<Piece>> {
    let count = usize::try_from(digits(count, 10)?).ok()?;
    let numbers = map
        .split(|byte| *byte == b',')
        .filter(|text| !text.is_empty());
    let numbers: Option<Vec<i64>> = numbers.map(|text| digits(text, 10)).collect();
    let numbers = numbers?;
    let pieces = numbers.chunks(2).map(|pair| match pair {
        [offset, length] => piece(*offset, *length),
        _ => None,
    });
    let pieces: Vec<Piece> = pieces.collect::<Option<_>>()?;
    (pieces.len() == count).then_some(pieces)
}

/// Whether the pieces follow each other within a file of that size, and are as
/// many bytes as the archive has of it.
pub(super) fn fit(pieces: &[Piece], size: u64, stored: u64) -> bool {
    let (mut end, mut sum) = (0, 0_u64);
    for piece in pieces {
        if piece.offset < end || piece.end() > size {
            return false;
        }
        end = piece.end();
        sum = sum.saturating_add(piece.length);
    }
    sum == stored
}

pub(super) fn piece(offset: i64, length: i64) -> Option<Piece> {
    let (offset, length) = (u64::try_from(offset).ok()?, u64::try_from(length).ok()?);
    offset.checked_add(length)?;
    Some(Piece { offset, length })
}
