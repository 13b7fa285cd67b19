//! Which pages may differ from what guest memory was mapped from: those that the process has of its own.
use std::ops::Range;

use memory_image::{PAGE_SIZE, Result, to_usize};

use super::process::Process;

// Documentation/admin-guide/mm/pagemap.rst
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_BACKED: u64 = 1 << 61;

/// Memory whose page table is read at once: 1 MiB of entries.
const STRIDE: u64 = 512 << 20;
/// Longest run: what is read, compared and written at once.
pub(crate) const RUN_BYTES: u64 = 1 << 20;

pub(crate) enum Candidates {
    /// A page that the process never wrote to holds what it was mapped from, and is not looked at.
    OwnPages,
    /// What memory was mapped from is not known here.
    AllPages,
}

impl Candidates {
    /// Calls `examine` for every run of candidates in guest memory, in order. No run crosses a multiple of
    /// [`RUN_BYTES`].
    pub(crate) fn for_each_run(
        &self,
        process: &Process,
        base: u64,
        memory_size: u64,
        mut examine: impl FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let mut entries = Vec::new();
        for start in (0..memory_size).step_by(to_usize(STRIDE)) {
            let stride = STRIDE.min(memory_size - start);
            entries.resize(to_usize(stride / PAGE_SIZE * 8), u8::MAX);
            if matches!(self, Self::OwnPages) {
                process.read_pagemap(base + start, &mut entries)?;
            }
            let mut guest = start;
            let (pages, _) = entries.as_chunks::<8>();
            for window in pages.chunks(to_usize(RUN_BYTES / PAGE_SIZE)) {
                for same in window.chunk_by(|one, other| self.include(*one) == self.include(*other)) {
                    let end = guest + same.len() as u64 * PAGE_SIZE;
                    if same.first().is_some_and(|&entry| self.include(entry)) {
                        examine(guest..end)?;
                    }
                    guest = end;
                }
            }
        }
        Ok(())
    }

    const fn include(&self, entry: [u8; 8]) -> bool {
        match self {
            Self::OwnPages => {
                let entry = u64::from_ne_bytes(entry);
                entry & (PRESENT | SWAPPED) != 0 && entry & FILE_BACKED == 0
            }
            Self::AllPages => true,
        }
    }
}
