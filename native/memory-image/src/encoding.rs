//! Headers as bytes and files.
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::durable::write_durably;
use crate::error::{Error, ErrorCode, Result};
use crate::fields::{Fields, checked, with_sum};
use crate::header::{Extent, Header, Source};
use crate::layer_id::LayerId;
use crate::units::{PAGE_SIZE, to_usize};

const MAGIC: [u8; 8] = *b"WRENNMEM";
const VERSION: u32 = 1;
const FLAT: u32 = 1;
const PREFIX_BYTES: usize = 40;
const LAYER_BYTES: u64 = 16;
const EXTENT_BYTES: u64 = 32;
const SUM_BYTES: u64 = 4;
/// In an extent's layer field: it is zero.
const ZERO: u32 = u32::MAX;

impl Header {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + self.layers().len() * 16 + self.extents().len() * 32 + 4);
        bytes.extend_from_slice(&MAGIC);
        let flags = if self.is_flat() { FLAT } else { 0 };
        for value in [VERSION, flags] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.extend_from_slice(&self.memory_size().to_le_bytes());
        bytes.extend_from_slice(&PAGE_SIZE.to_le_bytes());
        for count in [self.layers().len(), self.extents().len()] {
            bytes.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        }
        for layer in self.layers() {
            bytes.extend_from_slice(layer.as_bytes());
        }
        for extent in self.extents() {
            let (layer, offset) = match extent.source {
                Source::Zero => (ZERO, 0),
                Source::Layer { index, offset } => (index, offset),
            };
            for value in [extent.guest, extent.length, offset] {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            for value in [layer, 0] {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
        }
        with_sum(bytes)
    }

    /// Accepts exactly what [`Header::encode`] makes. Nothing is allocated for tables that `bytes` does not hold.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let prefix = Prefix::decode(bytes)?;
        if prefix.file_bytes() != bytes.len() as u64 {
            return Err(damaged("it is longer or shorter than its counts say"));
        }
        let content = checked(bytes).ok_or_else(|| damaged("its checksum does not match"))?;
        let mut fields = Fields::new(content.get(PREFIX_BYTES..).unwrap_or_default());
        let (layers, extents) = prefix.tables(&mut fields).ok_or_else(|| damaged("its tables cannot be read"))?;
        match (prefix.flat, layers.as_slice()) {
            (false, _) => Self::new(prefix.memory_size, layers, extents),
            (true, &[layer]) => Self::new_flat(prefix.memory_size, layer, extents),
            (true, _) => Err(damaged("it is flat, but has not one layer")),
        }
    }

    /// Fails with `header_missing` or `header_damaged`, naming `path`.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_file(File::open(path).map_err(|error| read_failed(path, &error))?, path)
    }

    /// The same of a file that is open, from its beginning; `path` is what errors call it.
    pub fn read_file(mut file: File, path: &Path) -> Result<Self> {
        let read_failed = |error| read_failed(path, &error);
        let length = file.metadata().map_err(read_failed)?.len();
        let mut bytes = Vec::new();
        let named = |error: Error| Error::new(error.code, format!("{}: {}", path.display(), error.message));
        file.by_ref().take(PREFIX_BYTES as u64).read_to_end(&mut bytes).map_err(read_failed)?;
        // The rest only when the file is as long as its beginning says: a wrong file is never read into memory whole.
        if Prefix::decode(&bytes).map_err(named)?.file_bytes() != length {
            return Err(named(damaged("it is longer or shorter than its counts say")));
        }
        file.take(length).read_to_end(&mut bytes).map_err(read_failed)?;
        Self::decode(&bytes).map_err(named)
    }

    /// Replaces the file at `path` by this header, or leaves it as it was; on disk when this returns.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_durably(path, &self.encode())
    }
}

fn read_failed(path: &Path, error: &io::Error) -> Error {
    Error::io_or_missing(ErrorCode::HeaderMissing, "read the memory image's header", path, error)
}

/// The part of fixed length: it tells how long the rest is.
struct Prefix {
    flat: bool,
    memory_size: u64,
    layers: u32,
    extents: u32,
}

impl Prefix {
    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(bytes);
        let mut read = || {
            Some((
                fields.bytes()?,
                fields.u32()?,
                fields.u32()?,
                fields.u64()?,
                fields.u64()?,
                fields.u32()?,
                fields.u32()?,
            ))
        };
        let (magic, version, flags, memory_size, page_size, layers, extents) =
            read().ok_or_else(|| damaged("it is too short"))?;
        if magic != MAGIC {
            return Err(damaged("it does not begin like one"));
        }
        if version != VERSION {
            return Err(damaged(&format!("it has version {version}, and only {VERSION} is known")));
        }
        if flags & !FLAT != 0 || page_size != PAGE_SIZE {
            return Err(damaged("it has flags or a page size that version 1 does not know"));
        }
        Ok(Self { flat: flags == FLAT, memory_size, layers, extents })
    }

    fn file_bytes(&self) -> u64 {
        PREFIX_BYTES as u64 + u64::from(self.layers) * LAYER_BYTES + u64::from(self.extents) * EXTENT_BYTES + SUM_BYTES
    }

    fn tables(&self, fields: &mut Fields<'_>) -> Option<(Vec<LayerId>, Vec<Extent>)> {
        let mut layers = Vec::with_capacity(to_usize(self.layers.into()));
        for _ in 0..self.layers {
            layers.push(LayerId::from_bytes(fields.bytes()?));
        }
        let mut extents = Vec::with_capacity(to_usize(self.extents.into()));
        for _ in 0..self.extents {
            let (guest, length, offset) = (fields.u64()?, fields.u64()?, fields.u64()?);
            let source = match (fields.u32()?, offset, fields.u32()?) {
                (ZERO, 0, 0) => Source::Zero,
                (ZERO, ..) => return None,
                (index, offset, 0) => Source::Layer { index, offset },
                _ => return None,
            };
            extents.push(Extent { guest, length, source });
        }
        Some((layers, extents))
    }
}

fn damaged(reason: &str) -> Error {
    Error::new(ErrorCode::HeaderDamaged, format!("not a memory image: {reason}"))
}
