//! A set of guest pages, of the same size from beginning to end.
use std::ops::Range;

use memory_image::{PAGE_SIZE, to_usize};

pub(crate) struct PageSet {
    words: Vec<u64>,
    /// Pages that are not in it.
    outside: u64,
}

impl PageSet {
    /// None of `memory_size` bytes.
    pub(crate) fn new(memory_size: u64) -> Self {
        let pages = memory_size / PAGE_SIZE;
        let mut words = vec![0; to_usize(pages.div_ceil(64))];
        if let (Some(last), true) = (words.last_mut(), !pages.is_multiple_of(64)) {
            // Beyond memory nothing is ever missing.
            *last = u64::MAX << (pages % 64);
        }
        Self { words, outside: pages }
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.outside == 0
    }

    pub(crate) fn contains(&self, guest: u64) -> bool {
        let page = guest / PAGE_SIZE;
        self.words.get(to_usize(page / 64)).is_none_or(|word| word >> (page % 64) & 1 == 1)
    }

    pub(crate) fn insert(&mut self, range: Range<u64>) {
        for page in range.start / PAGE_SIZE..range.end / PAGE_SIZE {
            if let Some(word) = self.words.get_mut(to_usize(page / 64)) {
                let bit = 1 << (page % 64);
                self.outside -= u64::from(*word & bit == 0);
                *word |= bit;
            }
        }
    }

    /// The first run of pages in `range` that are not in the set.
    pub(crate) fn first_run_outside(&self, range: Range<u64>) -> Option<Range<u64>> {
        let mut pages = (range.start..range.end).step_by(to_usize(PAGE_SIZE));
        let start = pages.find(|&guest| !self.contains(guest))?;
        let end = pages.find(|&guest| self.contains(guest)).unwrap_or(range.end);
        Some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_lie_between_what_was_put_in() {
        let mut set = PageSet::new(100 * PAGE_SIZE);
        let pages = |range: Range<u64>| range.start * PAGE_SIZE..range.end * PAGE_SIZE;
        assert_eq!(set.first_run_outside(pages(0..100)), Some(pages(0..100)));
        set.insert(pages(60..70));
        set.insert(pages(65..66));
        assert_eq!(set.first_run_outside(pages(10..100)), Some(pages(10..60)));
        assert_eq!(set.first_run_outside(pages(60..100)), Some(pages(70..100)));
        assert_eq!(set.first_run_outside(pages(61..69)), None);
        set.insert(pages(0..60));
        assert!(!set.is_full());
        set.insert(pages(70..100));
        assert!(set.is_full());
        assert!(set.contains(100 * PAGE_SIZE), "what is no page is never filled");
    }
}
