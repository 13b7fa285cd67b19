//! Which pages may differ from what guest memory was mapped from: those that the process has of its own.
use std::ops::Range;

use memory_image::{PAGE_SIZE, Result, to_usize};

use super::process::Process;
use super::zero_page;

// Documentation/admin-guide/mm/pagemap.rst
pub(super) const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_BACKED: u64 = 1 << 61;
/// Of an entry of a present page: its frame number, for those who may know it.
pub(super) const FRAME: u64 = (1 << 55) - 1;

/// Memory whose page table is read at once: 1 MiB of entries.
const STRIDE: u64 = 512 << 20;
/// Longest run: what is read, compared and written at once.
pub(super) const RUN_BYTES: u64 = 1 << 20;

pub(super) enum Candidates {
    /// A page that the process never wrote to holds what it was mapped from, and is not looked at.
    OwnPages,
    /// What memory was mapped from is not known here.
    AllPages,
}

/// Neighbouring pages to look at. No run crosses a multiple of [`RUN_BYTES`].
pub(super) struct Run {
    /// In guest memory.
    pub(super) range: Range<u64>,
    /// Whether they are known to be zero without being read.
    pub(super) zero: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    Skipped,
    Zero,
    Unknown,
}

impl Candidates {
    /// Calls `examine` for every run of candidates in guest memory, in order.
    pub(super) fn for_each_run(
        &self,
        process: &Process,
        base: u64,
        memory_size: u64,
        mut examine: impl FnMut(Run) -> Result<()>,
    ) -> Result<()> {
        let zero_frame = zero_page::frame();
        let mut entries = Vec::new();
        for start in (0..memory_size).step_by(to_usize(STRIDE)) {
            let stride = STRIDE.min(memory_size - start);
            entries.resize(to_usize(stride / PAGE_SIZE * 8), 0);
            process.read_pagemap(base + start, &mut entries)?;
            let mut guest = start;
            let pages =
                entries.as_chunks::<8>().0.iter().map(|entry| self.kind(u64::from_ne_bytes(*entry), zero_frame));
            for window in pages.collect::<Vec<_>>().chunks(to_usize(RUN_BYTES / PAGE_SIZE)) {
                for alike in window.chunk_by(PartialEq::eq) {
                    let range = guest..guest + alike.len() as u64 * PAGE_SIZE;
                    guest = range.end;
                    match alike.first() {
                        None | Some(Page::Skipped) => {}
                        Some(page) => examine(Run { range, zero: *page == Page::Zero })?,
                    }
                }
            }
        }
        Ok(())
    }

    /// What the kernel's entry says of its page.
    fn kind(&self, entry: u64, zero_frame: Option<u64>) -> Page {
        let own = entry & (PRESENT | SWAPPED) != 0 && entry & FILE_BACKED == 0;
        match self {
            Self::OwnPages if !own => Page::Skipped,
            _ if own && entry & PRESENT != 0 && Some(entry & FRAME) == zero_frame => Page::Zero,
            _ => Page::Unknown,
        }
    }
}
