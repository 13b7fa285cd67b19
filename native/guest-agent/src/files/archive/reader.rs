//! Reads a tar archive as it arrives, wherever the network has cut it: the old, the POSIX and GNU's formats.
use rustix::fs::Timespec;
use tar::{EntryType, GnuExtSparseHeader, Header};

use super::BLOCK_BYTES;
use super::entry::{Entries, Entry, Kind, Malformed};
use super::holes::Segment;
use super::map::{MapText, Mapped};
use super::pax::Pax;
use crate::server::body::HttpError;

/// Of a header that describes the next entry: far above any name and the attributes of any file.
const MAX_EXTENSION_BYTES: u64 = 1024 * 1024;

/// What the kernel allows, and what keeps every sum below within 64 bits.
const MAX_FILE_BYTES: u64 = i64::MAX as u64;

/// Data of a file, cut from the archive and spread over the file.
struct Content {
    segments: std::vec::IntoIter<Segment>,
    /// Of the segment at hand.
    left: u64,
    position: u64,
    size: u64,
    /// Behind the data in the archive.
    padding: u64,
}

enum State {
    /// Gathers so many bytes, which are what the second says.
    Gather(usize, Gathered),
    Content(Content),
    Skip(u64),
    End,
}

enum Gathered {
    Header,
    Extension {
        kind: EntryType,
        size: usize,
    },
    /// GNU's old format: further parts of the map follow the header.
    MapHeaders(Box<Mapped>),
    /// The POSIX format: the map is text before the data.
    MapText(Box<Mapped>, MapText),
}

/// What has been said about the next entry.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

pub(super) struct Reader {
    state: State,
    gathered: Vec<u8>,
    extensions: Extensions,
    /// Whether anything has come at all.
    begun: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self { state: next_header(), gathered: Vec::new(), extensions: Extensions::default(), begun: false }
    }
}

fn next_header() -> State {
    State::Gather(BLOCK_BYTES, Gathered::Header)
}

/// From the end of so much data to that of its last block.
fn padding(length: u64) -> u64 {
    length.next_multiple_of(BLOCK_BYTES as u64) - length
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// A number of a header. Some writers leave fields empty that do not matter for the kind of entry.
fn field(value: &std::io::Result<u64>, raw: &[u8]) -> Result<u64, Malformed> {
    match value {
        Ok(value) => Ok(*value),
        Err(_) if raw.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(0),
        Err(_) => Err(Malformed::new("a header has a size that is no number")),
    }
}

fn verify(block: &[u8]) -> Result<&Header, Malformed> {
    let header = Header::from_byte_slice(block);
    // The checksum counts its own eight bytes as spaces.
    let own = 148..156;
    let sum: u32 =
        block.iter().enumerate().map(|(at, byte)| if own.contains(&at) { 32 } else { u32::from(*byte) }).sum();
    match header.cksum() {
        Ok(expected) if expected == sum => Ok(header),
        _ if block.starts_with(&[0x1f, 0x8b]) => Err(Malformed::new("it is compressed, send the archive itself")),
        _ => Err(Malformed::new("a header is damaged, or this is no tar archive")),
    }
}

impl Reader {
    pub(super) fn push(&mut self, mut bytes: &[u8], entries: &mut impl Entries) -> Result<(), HttpError> {
        self.begun |= !bytes.is_empty();
        loop {
            match std::mem::replace(&mut self.state, State::End) {
                State::Gather(wanted, what) => {
                    let missing = wanted.saturating_sub(self.gathered.len());
                    let (now, later) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
                    self.gathered.extend_from_slice(now);
                    bytes = later;
                    if self.gathered.len() < wanted {
                        self.state = State::Gather(wanted, what);
                        return Ok(());
                    }
                    let gathered = std::mem::take(&mut self.gathered);
                    self.state = self.take(what, &gathered, entries)?;
                    // What was allocated for one header is used for all.
                    if gathered.len() == BLOCK_BYTES {
                        self.gathered = gathered;
                        self.gathered.clear();
                    }
                }
                State::Content(mut content) => {
                    if content.take(&mut bytes, entries)? {
                        self.state = State::Skip(content.padding);
                    } else {
                        self.state = State::Content(content);
                        return Ok(());
                    }
                }
                State::Skip(left) => {
                    let now = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = bytes.get(now..).unwrap_or_default();
                    let left = left - now as u64;
                    if left > 0 {
                        self.state = State::Skip(left);
                        return Ok(());
                    }
                    self.state = next_header();
                }
                // Writers fill up their last record.
                State::End => return Ok(()),
            }
        }
    }

    /// An archive that is cut short, be it between two entries, has no end mark.
    pub(super) fn finish(&self) -> Result<(), HttpError> {
        match self.state {
            State::End => Ok(()),
            _ if !self.begun => Err(Malformed::new("it is empty").into()),
            _ => Err(Malformed::new("it is cut short").into()),
        }
    }

    fn take(&mut self, what: Gathered, bytes: &[u8], entries: &mut impl Entries) -> Result<State, HttpError> {
        Ok(match what {
            Gathered::Header => self.header(bytes, entries)?,
            Gathered::Extension { kind, size } => {
                self.extension(kind, bytes.get(..size).unwrap_or_default())?;
                next_header()
            }
            Gathered::MapHeaders(mut mapped) => {
                let mut part = GnuExtSparseHeader::new();
                part.as_mut_bytes().copy_from_slice(bytes);
                mapped.add(part.sparse())?;
                if part.is_extended() {
                    State::Gather(BLOCK_BYTES, Gathered::MapHeaders(mapped))
                } else {
                    begin_mapped(*mapped, entries)?
                }
            }
            Gathered::MapText(mut mapped, mut text) => {
                let stored = mapped.stored.checked_sub(BLOCK_BYTES as u64);
                mapped.stored = stored.ok_or_else(|| Malformed::new("the map of a file with holes is cut short"))?;
                if text.take(bytes, &mut mapped.segments)? {
                    begin_mapped(*mapped, entries)?
                } else {
                    State::Gather(BLOCK_BYTES, Gathered::MapText(mapped, text))
                }
            }
        })
    }

    fn extension(&mut self, kind: EntryType, bytes: &[u8]) -> Result<(), Malformed> {
        match kind {
            EntryType::GNULongName => self.extensions.path = Some(until_nul(bytes)),
            EntryType::GNULongLink => self.extensions.link = Some(until_nul(bytes)),
            EntryType::XHeader => self.extensions.pax = Some(Pax::read(bytes)?),
            _ => Pax::check_global(bytes)?,
        }
        Ok(())
    }

    fn header(&mut self, block: &[u8], entries: &mut impl Entries) -> Result<State, HttpError> {
        if is_zero(block) {
            return Ok(State::End);
        }
        let header = verify(block)?;
        let kind = header.entry_type();
        let stored = field(&header.entry_size(), &header.as_old().size)?;
        if matches!(
            kind,
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
        ) {
            let size = usize::try_from(stored).ok().filter(|_| stored <= MAX_EXTENSION_BYTES);
            let size = size.ok_or_else(|| Malformed::new("an extended header is too large"))?;
            return Ok(State::Gather(size.next_multiple_of(BLOCK_BYTES), Gathered::Extension { kind, size }));
        }

        let Extensions { path, link, pax } = std::mem::take(&mut self.extensions);
        let pax = pax.unwrap_or_default();
        let path = path.or(pax.path).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = || link.or(pax.link).or_else(|| Some(header.link_name_bytes()?.into_owned())).unwrap_or_default();
        let stored = pax.size.unwrap_or(stored);
        let size = pax.size_with_holes.unwrap_or(stored);
        if stored.max(size) > MAX_FILE_BYTES {
            return Err(Malformed::new("a file is larger than any can be").into());
        }
        let modified = pax.modified.or_else(|| {
            let seconds = i64::try_from(header.mtime().ok()?).ok()?;
            Some(Timespec { tv_sec: seconds, tv_nsec: 0 })
        });
        let entry = |path, kind| Entry { path, kind, mode: header.mode().ok(), modified };
        let kind = match kind {
            // So did the oldest format write directories.
            EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous if pax.size_with_holes.is_some() => {
                let mapped = Mapped { entry: entry(path, Kind::File(size)), size, stored, segments: Vec::new() };
                return Ok(State::Gather(BLOCK_BYTES, Gathered::MapText(Box::new(mapped), MapText::default())));
            }
            EntryType::Regular | EntryType::Continuous => {
                entries.begin(entry(path, Kind::File(size)))?;
                return Ok(State::Content(Content::new(vec![Segment { offset: 0, length: size }], size, stored)));
            }
            EntryType::GNUSparse => {
                let damaged = || Malformed::new("the header of a file with holes is damaged");
                let gnu = header.as_gnu().ok_or_else(damaged)?;
                let size = gnu.real_size().ok().filter(|size| *size <= MAX_FILE_BYTES).ok_or_else(damaged)?;
                let mut mapped = Mapped { entry: entry(path, Kind::File(size)), size, stored, segments: Vec::new() };
                mapped.add(&gnu.sparse)?;
                if gnu.is_extended() {
                    return Ok(State::Gather(BLOCK_BYTES, Gathered::MapHeaders(Box::new(mapped))));
                }
                return begin_mapped(mapped, entries);
            }
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(link()),
            EntryType::Link => Kind::HardLink(link()),
            EntryType::Char | EntryType::Block | EntryType::Fifo => Kind::Special,
            // The name of the archive.
            other if other.as_byte() == b'V' => return Ok(State::Skip(stored + padding(stored))),
            other => {
                let kind = char::from(other.as_byte()).escape_default();
                return Err(Malformed::new(format!("it has an entry of a kind that is not known: '{kind}'")).into());
            }
        };
        // Nothing but files has data, whatever their headers say.
        entries.begin(entry(path, kind))?;
        Ok(next_header())
    }
}

fn begin_mapped(mapped: Mapped, entries: &mut impl Entries) -> Result<State, HttpError> {
    mapped.check()?;
    let Mapped { entry, size, stored, segments } = mapped;
    entries.begin(entry)?;
    Ok(State::Content(Content::new(segments, size, stored)))
}

impl Content {
    fn new(segments: Vec<Segment>, size: u64, stored: u64) -> Self {
        Self { segments: segments.into_iter(), left: 0, position: 0, size, padding: padding(stored) }
    }

    /// True once all of the file has been given on.
    fn take(&mut self, bytes: &mut &[u8], entries: &mut impl Entries) -> Result<bool, HttpError> {
        loop {
            if self.left > 0 {
                if bytes.is_empty() {
                    return Ok(false);
                }
                let now = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                let (data, later) = bytes.split_at_checked(now).unwrap_or((bytes, &[]));
                entries.data(data)?;
                self.left -= now as u64;
                self.position += now as u64;
                *bytes = later;
            } else if let Some(segment) = self.segments.next() {
                self.skip_to(segment.offset, entries)?;
                self.left = segment.length;
            } else {
                self.skip_to(self.size, entries)?;
                entries.end()?;
                return Ok(true);
            }
        }
    }

    fn skip_to(&mut self, position: u64, entries: &mut impl Entries) -> Result<(), HttpError> {
        if position > self.position {
            entries.hole(position - self.position)?;
            self.position = position;
        }
        Ok(())
    }
}
