//! Maps of files with holes, as they arrive: which parts of a file the data in the archive is for.
use tar::GnuSparseHeader;

use super::entry::{Entry, Malformed};
use super::holes::Segment;
use super::pax::number;

/// Of one file, 4 MiB in memory.
const MAX_SEGMENTS: usize = 256 * 1024;

/// More digits than any number has.
const MAX_DIGITS: usize = 20;

/// A file whose map is being read.
pub(super) struct Mapped {
    pub(super) entry: Entry,
    pub(super) size: u64,
    /// In the archive, behind what has been read of the map.
    pub(super) stored: u64,
    pub(super) segments: Vec<Segment>,
}

/// What has been read of a map in text form: how many segments, then offset and length of each.
#[derive(Default)]
pub(super) struct MapText {
    digits: Vec<u8>,
    count: Option<u64>,
    offset: Option<u64>,
}

impl Mapped {
    pub(super) fn add(&mut self, slots: &[GnuSparseHeader]) -> Result<(), Malformed> {
        let damaged = |_| Malformed::new("the map of a file with holes is damaged");
        for slot in slots.iter().take_while(|slot| !slot.is_empty()) {
            let segment = Segment { offset: slot.offset().map_err(damaged)?, length: slot.length().map_err(damaged)? };
            add(&mut self.segments, segment)?;
        }
        Ok(())
    }

    /// Data that does not fit its map would be taken for headers, or the other way round.
    pub(super) fn check(&self) -> Result<(), Malformed> {
        let mut at = 0;
        let mut data: u64 = 0;
        for segment in &self.segments {
            let end = segment.end().filter(|end| segment.offset >= at && *end <= self.size);
            at = end.ok_or_else(|| Malformed::new("the map of a file with holes does not fit the file"))?;
            data += segment.length;
        }
        if data != self.stored {
            return Err(Malformed::new("the map of a file with holes does not fit its data"));
        }
        Ok(())
    }
}

fn add(segments: &mut Vec<Segment>, segment: Segment) -> Result<(), Malformed> {
    if segments.len() >= MAX_SEGMENTS {
        return Err(Malformed::new("a file has too many holes"));
    }
    segments.push(segment);
    Ok(())
}

impl MapText {
    /// True once the map is complete; the rest of its last block is of no meaning.
    pub(super) fn take(&mut self, bytes: &[u8], segments: &mut Vec<Segment>) -> Result<bool, Malformed> {
        let damaged = || Malformed::new("the map of a file with holes is damaged");
        for byte in bytes {
            if *byte != b'\n' {
                if self.digits.len() >= MAX_DIGITS {
                    return Err(damaged());
                }
                self.digits.push(*byte);
                continue;
            }
            let number = number(&self.digits).ok_or_else(damaged)?;
            self.digits.clear();
            match (self.count, self.offset.take()) {
                (None, _) => self.count = Some(number),
                (Some(_), None) => self.offset = Some(number),
                (Some(_), Some(offset)) => add(segments, Segment { offset, length: number })?,
            }
            if self.count == Some(segments.len() as u64) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
