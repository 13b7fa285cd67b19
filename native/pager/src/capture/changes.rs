//! Pages of a run that differ from the parent's.
use std::ops::Range;

use memory_image::{Image, PAGE_BYTES, PAGE_SIZE, Result, is_zero, to_usize};

use super::candidates::RUN_BYTES;
use super::{Counts, Guest};

/// What became of a stretch of neighbouring pages.
pub(super) struct Change<'a> {
    /// Where it begins in guest memory.
    pub(super) guest: u64,
    /// What it holds now: pages that are all zero, or none of which is.
    pub(super) bytes: &'a [u8],
    pub(super) zero: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    Same,
    Zeroed,
    Written,
}

/// Calls `apply` for every stretch of pages that the guest has changed, in order.
pub(super) fn for_each_change(
    guest: &Guest,
    parent: &Image,
    counts: &mut Counts,
    mut apply: impl FnMut(Change<'_>) -> Result<()>,
) -> Result<()> {
    let (mut now, mut before) = (vec![0; to_usize(RUN_BYTES)], vec![0; to_usize(RUN_BYTES)]);
    guest.for_each_run(|Range { start, end }| {
        let length = to_usize(end - start);
        let now = now.get_mut(..length).unwrap_or_default();
        let before = before.get_mut(..length).unwrap_or_default();
        guest.read(start, now)?;
        // Unchecked: were it corrupt, pages would differ from it and be written as they are in memory.
        parent.read_unchecked(start, before)?;
        counts.examined += length as u64 / PAGE_SIZE;
        let pages = now.chunks(PAGE_BYTES).zip(before.chunks(PAGE_BYTES)).map(|(now, before)| Page::of(now, before));
        let mut rest = &*now;
        for alike in pages.collect::<Vec<_>>().chunk_by(PartialEq::eq) {
            let at = start + (length - rest.len()) as u64;
            let (Some(bytes), Some(page)) = (rest.split_off(..alike.len() * PAGE_BYTES), alike.first()) else { break };
            match page {
                Page::Same => continue,
                Page::Zeroed => counts.zeroed += alike.len() as u64,
                Page::Written => counts.written += alike.len() as u64,
            }
            apply(Change { guest: at, bytes, zero: *page == Page::Zeroed })?;
        }
        Ok(())
    })
}

impl Page {
    fn of(now: &[u8], before: &[u8]) -> Self {
        if now == before {
            Self::Same
        } else if is_zero(now) {
            Self::Zeroed
        } else {
            Self::Written
        }
    }
}
