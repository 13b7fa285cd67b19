//! Files with holes: which parts of them hold data.
use std::fs::File;
use std::io;

use rustix::fs::{SeekFrom, Stat};
use rustix::io::Errno;

/// Of the map of a file that is sent. What lies behind is sent as if it had no holes, so that the map stays small.
const MAX_SENT_SEGMENTS: usize = 16 * 1024;

/// The archive counts in blocks; data that does not begin or end with one is not understood everywhere.
const BLOCK_BYTES: u64 = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Segment {
    pub(super) fn end(self) -> Option<u64> {
        self.offset.checked_add(self.length)
    }
}

/// In order, and up to the end of the file: the last one is empty where a hole ends it. Nothing for a file without holes.
pub(super) fn find(file: &File, stat: &Stat, size: u64) -> io::Result<Option<Vec<Segment>>> {
    if u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(BLOCK_BYTES) >= size {
        return Ok(None);
    }
    let mut segments: Vec<Segment> = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            // Nothing but a hole from here on.
            Err(Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        at = if segments.len() + 1 < MAX_SENT_SEGMENTS {
            rustix::fs::seek(file, SeekFrom::Hole(data))?.min(size)
        } else {
            size
        };
        append(&mut segments, data - data % BLOCK_BYTES, at.next_multiple_of(BLOCK_BYTES).min(size));
    }
    if segments == [Segment { offset: 0, length: size }] {
        return Ok(None);
    }
    if segments.last().and_then(|last| last.end()) != Some(size) {
        segments.push(Segment { offset: size, length: 0 });
    }
    Ok(Some(segments))
}

fn append(segments: &mut Vec<Segment>, start: u64, end: u64) {
    match segments.last_mut() {
        Some(last) if last.offset + last.length >= start => last.length = end.saturating_sub(last.offset),
        _ if end > start => segments.push(Segment { offset: start, length: end - start }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn the_parts_with_data_are_found() {
        let path = std::env::temp_dir().join(format!("wrenn-holes-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let segments = |size: u64| {
            file.set_len(size).unwrap();
            find(&file, &rustix::fs::fstat(&file).unwrap(), size).unwrap()
        };
        let mib = 1024 * 1024;
        assert_eq!(segments(0), None);
        assert_eq!(segments(mib), Some(vec![Segment { offset: mib, length: 0 }]));
        file.write_all_at(b"x", 512 * 1024).unwrap();
        file.write_all_at(b"x", mib - 1).unwrap();
        let found = segments(mib).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].end(), Some(mib));
        let covered = |at| found.iter().any(|segment| (segment.offset..segment.end().unwrap()).contains(&at));
        assert!(covered(512 * 1024) && covered(mib - 1) && !covered(0));
        file.write_all_at(&vec![1; 1024 * 1024], 0).unwrap();
        assert_eq!(segments(mib), None);
    }
}
