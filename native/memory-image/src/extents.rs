//! Extents as they are collected, in the order of memory: neighbours that go on from each other become one.
use crate::header::{Extent, Source};

#[derive(Default)]
pub struct ExtentList(Vec<Extent>);

impl ExtentList {
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Where the next extent begins.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, Extent::end)
    }

    /// Adds `length` bytes from `source` at the end.
    pub fn push(&mut self, length: u64, source: Source) {
        if length == 0 {
            return;
        }
        if let Some(last) = self.0.last_mut()
            && last.source.advanced(last.length) == source
        {
            last.length += length;
            return;
        }
        self.0.push(Extent { guest: self.end(), length, source });
    }

    #[must_use]
    pub fn into_extents(self) -> Vec<Extent> {
        self.0
    }
}
