//! Fills memory from the image: the whole checked block that a page lies in, and zeros in large pieces.
use std::ops::Range;

use memory_image::{BLOCK_BYTES, BLOCK_SIZE, Extent, Image, PAGE_SIZE, Source, to_usize};
use serde::Serialize;

use super::block_index::BlockIndex;
use super::guest_memory::{GuestMemory, Stop};

/// Zeros cost the kernel a table entry each: as many at a time as one table holds.
const MOST_ZEROS: u64 = 2 << 20;

/// Since the pager started.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Counts {
    pub(crate) faults: u64,
    pub(crate) blocks_read: u64,
    pub(crate) pages_copied: u64,
    pub(crate) pages_zeroed: u64,
    /// Of both, those that nobody waited for.
    pub(crate) pages_prefetched: u64,
}

pub(crate) struct Filler<'a> {
    image: &'a Image,
    index: BlockIndex,
    memory: GuestMemory,
    block: Vec<u8>,
    counts: Counts,
}

impl<'a> Filler<'a> {
    pub(crate) fn new(image: &'a Image, memory: GuestMemory) -> Self {
        let index = BlockIndex::new(image.header());
        Self { image, index, memory, block: vec![0; BLOCK_BYTES], counts: Counts::default() }
    }

    pub(crate) const fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Fills the page `guest`, for which somebody waits.
    pub(crate) fn fault(&mut self, guest: u64) -> Result<(), Stop> {
        self.counts.faults += 1;
        if self.memory.filled().contains(guest) {
            return self.memory.release(guest);
        }
        self.fill_around(guest)
    }

    /// Fills what is missing in `range`, for which nobody waits yet.
    pub(crate) fn prefetch(&mut self, range: Range<u64>) -> Result<(), Stop> {
        let before = self.counts.pages_copied + self.counts.pages_zeroed;
        while let Some(missing) = self.memory.filled().first_run_outside(range.clone()) {
            self.fill_around(missing.start)?;
        }
        self.counts.pages_prefetched += self.counts.pages_copied + self.counts.pages_zeroed - before;
        Ok(())
    }

    fn fill_around(&mut self, guest: u64) -> Result<(), Stop> {
        let Some(extent) = self.image.header().lookup(guest).copied() else { return Ok(()) };
        match extent.source {
            Source::Zero => {
                let window = guest - guest % MOST_ZEROS;
                let zeros = extent.within(&(window..window + MOST_ZEROS)).map_or(guest..guest, |e| e.guest..e.end());
                self.counts.pages_zeroed += self.memory.zero(zeros)?;
            }
            Source::Layer { index, offset } => {
                let at = offset + (guest - extent.guest);
                self.fill_from_block(index, at / BLOCK_SIZE, guest, at)?;
            }
        }
        Ok(())
    }

    /// `guest`, which lies at `offset` of the layer, and all else that lies in the block.
    fn fill_from_block(&mut self, layer: u32, block: u64, guest: u64, offset: u64) -> Result<(), Stop> {
        let bytes = self.image.layer(layer)?.read_block(block, &mut self.block)?;
        self.counts.blocks_read += 1;
        let page = Extent { guest, length: PAGE_SIZE, source: Source::Layer { index: layer, offset } };
        for (offset, piece) in self.index.pieces(layer, block).chain([(offset, page)]) {
            let start = to_usize(offset - block * BLOCK_SIZE);
            // Extents lie inside layers, which was checked when the image was opened.
            let bytes = bytes.get(start..start + to_usize(piece.length)).unwrap_or_default();
            self.counts.pages_copied += self.memory.copy(piece.guest, bytes)?;
        }
        Ok(())
    }
}
