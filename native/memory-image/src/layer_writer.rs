//! A layer that is made from front to back. Until it is published, dropping it leaves nothing.
use std::path::Path;

use crate::error::Result;
use crate::layer_id::LayerId;
use crate::new_layer::{NewLayer, UnpublishedLayer};
use crate::sums::Sums;
use crate::units::{BLOCK_BYTES, BLOCK_SIZE, to_usize};

/// Pages that lie apart in memory become writes of this size.
const BUFFER_BYTES: usize = 1 << 20;

static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

pub struct LayerWriter {
    new: NewLayer,
    /// What is appended and not written yet.
    buffer: Vec<u8>,
    /// Where the buffer belongs in the file.
    buffer_at: u64,
    /// Of all whole blocks, and as far as it goes of the one that is begun.
    sums: Sums,
    zero_block_sum: u32,
}

impl LayerWriter {
    /// Makes the directory of a layer that is not there yet.
    pub fn create(layers: &Path, id: LayerId) -> Result<Self> {
        let new = NewLayer::create(layers, id)?;
        let sums = Sums { length: 0, blocks: Vec::new() };
        let zero_block_sum = crc32c::crc32c(&ZEROS);
        Ok(Self { new, buffer: Vec::with_capacity(BUFFER_BYTES), buffer_at: 0, sums, zero_block_sum })
    }

    /// Where the next byte goes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.sums.length
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds `bytes`, and tells at which offset they lie.
    pub fn append(&mut self, bytes: &[u8]) -> Result<u64> {
        let offset = self.len();
        self.add_to_sums(bytes);
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() >= BUFFER_BYTES {
            self.new.write(offset, bytes)?;
            self.buffer_at = self.len();
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(offset)
    }

    /// Adds `length` bytes of zeros that take no space.
    pub fn append_hole(&mut self, length: u64) -> Result<()> {
        self.flush()?;
        let end = self.len() + length;
        while self.len() < end {
            let (left, in_block) = (end - self.len(), BLOCK_SIZE - self.len() % BLOCK_SIZE);
            if in_block == BLOCK_SIZE && left >= BLOCK_SIZE {
                self.sums.blocks.push(self.zero_block_sum);
                self.sums.length += BLOCK_SIZE;
            } else {
                self.add_to_sums(ZEROS.get(..to_usize(left.min(in_block))).unwrap_or_default());
            }
        }
        self.buffer_at = end;
        Ok(())
    }

    /// Puts everything on disk. The layer stays only if [`UnpublishedLayer::publish`] follows.
    pub fn finish(mut self) -> Result<UnpublishedLayer> {
        self.flush()?;
        self.new.finish(&self.sums)
    }

    fn flush(&mut self) -> Result<()> {
        self.new.write(self.buffer_at, &self.buffer)?;
        self.buffer_at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn add_to_sums(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - to_usize(self.sums.length % BLOCK_SIZE);
            let (piece, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            match self.sums.blocks.last_mut() {
                Some(sum) if room < BLOCK_BYTES => *sum = crc32c::crc32c_append(*sum, piece),
                _ => self.sums.blocks.push(crc32c::crc32c(piece)),
            }
            self.sums.length += piece.len() as u64;
            bytes = rest;
        }
    }
}
