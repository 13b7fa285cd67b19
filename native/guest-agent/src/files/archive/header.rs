//! Headers as GNU tar writes them, which every reader knows: names and links of any length, sizes beyond 8 GiB, maps of
//! files with holes.
use rustix::fs::Stat;
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use super::BLOCK_BYTES;
use super::holes::Segment;

/// How an entry that carries the name or the link of the next one is called.
const LONG_NAME: &[u8] = b"././@LongLink";

const PERMISSION_BITS: u32 = 0o7777;

pub(super) enum Content<'a> {
    Directory,
    Symlink(&'a [u8]),
    File { size: u64 },
    FileWithHoles { size: u64, segments: &'a [Segment] },
}

/// Appends what comes before an entry's data.
pub(super) fn write(out: &mut Vec<u8>, path: &[u8], stat: &Stat, content: &Content) {
    let mut header = Header::new_gnu();
    let link = if let Content::Symlink(link) = content { link } else { &[][..] };
    if link.len() > header.as_old().linkname.len() {
        write_long(out, EntryType::GNULongLink, link);
    }
    if path.len() > header.as_old().name.len() {
        write_long(out, EntryType::GNULongName, path);
    }
    fill(&mut header.as_old_mut().name, path);
    fill(&mut header.as_old_mut().linkname, link);
    header.set_mode(stat.st_mode & PERMISSION_BITS);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    // The format knows no time before 1970.
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
    let mut further = Vec::new();
    let (kind, stored) = match content {
        Content::Directory => (EntryType::Directory, 0),
        Content::Symlink(_) => (EntryType::Symlink, 0),
        Content::File { size } => (EntryType::Regular, *size),
        Content::FileWithHoles { size, segments } => {
            further = write_map(&mut header, *size, segments);
            (EntryType::GNUSparse, segments.iter().map(|segment| segment.length).sum())
        }
    };
    header.set_entry_type(kind);
    header.set_size(stored);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.append(&mut further);
}

/// A field that is too short for it has the beginning: the whole went before.
fn fill(field: &mut [u8], value: &[u8]) {
    for (slot, byte) in field.iter_mut().zip(value) {
        *slot = *byte;
    }
}

fn write_long(out: &mut Vec<u8>, kind: EntryType, value: &[u8]) {
    let mut header = Header::new_gnu();
    fill(&mut header.as_old_mut().name, LONG_NAME);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    // With a NUL behind it.
    header.set_size(value.len() as u64 + 1);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(value);
    out.push(0);
    pad(out);
}

/// To a whole number of blocks, provided that what came before was one.
pub(super) fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
}

/// The first segments into the header; gives the blocks that hold the others.
fn write_map(header: &mut Header, size: u64, segments: &[Segment]) -> Vec<u8> {
    let Some(gnu) = header.as_gnu_mut() else { return Vec::new() };
    gnu.set_real_size(size);
    let mut left = fill_map(&mut gnu.sparse, segments);
    gnu.set_is_extended(!left.is_empty());
    let mut blocks = Vec::new();
    while !left.is_empty() {
        let mut block = GnuExtSparseHeader::new();
        left = fill_map(block.sparse_mut(), left);
        block.set_is_extended(!left.is_empty());
        blocks.extend_from_slice(block.as_bytes());
    }
    blocks
}

fn fill_map<'a>(slots: &mut [GnuSparseHeader], segments: &'a [Segment]) -> &'a [Segment] {
    for (slot, segment) in slots.iter_mut().zip(segments) {
        slot.set_offset(segment.offset);
        slot.set_length(segment.length);
    }
    segments.get(slots.len()..).unwrap_or_default()
}
