//! The header of an image: the whole of guest memory as a list of extents, each of which lies in a layer or is zero.
use std::ops::Range;

use crate::error::{Error, ErrorCode, Result};
use crate::layer_id::LayerId;
use crate::units::PAGE_SIZE;

/// Far above the eight generations after which images are folded, far below what would make headers slow to read.
pub const MAX_LAYERS: usize = 4096;
/// 16 TiB: offsets stay far from the sign bit of a file offset.
pub const MAX_MEMORY_SIZE: u64 = 1 << 44;

/// Where the bytes of an extent come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// All zero, whatever any layer holds.
    Zero,
    /// In the layer with this place in the header's table, from this offset in bytes.
    Layer { index: u32, offset: u64 },
}

impl Source {
    /// The source of what lies `by` bytes further on.
    #[must_use]
    pub const fn advanced(self, by: u64) -> Self {
        match self {
            Self::Zero => Self::Zero,
            Self::Layer { index, offset } => Self::Layer { index, offset: offset.saturating_add(by) },
        }
    }
}

/// A stretch of guest memory, in bytes, whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub guest: u64,
    pub length: u64,
    pub source: Source,
}

impl Extent {
    /// Where it ends in guest memory.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.guest.saturating_add(self.length)
    }

    /// The part of it that lies in `range`, if any.
    #[must_use]
    pub fn within(&self, range: &Range<u64>) -> Option<Self> {
        let guest = self.guest.max(range.start);
        let length = self.end().min(range.end).checked_sub(guest).filter(|&length| length > 0)?;
        Some(Self { guest, length, source: self.source.advanced(guest - self.guest) })
    }
}

/// Valid by construction: extents cover memory without gap or overlap, and name only layers of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    memory_size: u64,
    flat: bool,
    layers: Vec<LayerId>,
    extents: Vec<Extent>,
}

impl Header {
    /// An image whose layers are put together by its extents alone.
    ///
    /// Fails with `header_damaged` when the parts contradict each other.
    pub fn new(memory_size: u64, layers: Vec<LayerId>, extents: Vec<Extent>) -> Result<Self> {
        Self { memory_size, flat: false, layers, extents }.validated()
    }

    /// An image whose only layer is as long as memory, with every byte at its own address and zeros where the extents
    /// say zero: it can be mapped as it is.
    pub fn new_flat(memory_size: u64, layer: LayerId, extents: Vec<Extent>) -> Result<Self> {
        Self { memory_size, flat: true, layers: vec![layer], extents }.validated()
    }

    /// Size of guest memory in bytes.
    #[must_use]
    pub const fn memory_size(&self) -> u64 {
        self.memory_size
    }

    /// Whether the only layer can be mapped in place of guest memory.
    #[must_use]
    pub const fn is_flat(&self) -> bool {
        self.flat
    }

    #[must_use]
    pub fn layers(&self) -> &[LayerId] {
        &self.layers
    }

    /// In the order of guest memory.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// A layer of which every part lies at its own address in guest memory, as all of a flat one does: where it is mapped tells
    /// where guest memory begins. One in which nothing lies is none.
    #[must_use]
    pub fn layer_in_place(&self) -> Option<LayerId> {
        let mut in_place = vec![None; self.layers.len()];
        for extent in &self.extents {
            if let Source::Layer { index, offset } = extent.source
                && let Some(known) = usize::try_from(index).ok().and_then(|index| in_place.get_mut(index))
            {
                *known = Some(known.unwrap_or(true) && offset == extent.guest);
            }
        }
        self.layers.iter().zip(in_place).find_map(|(&layer, in_place)| in_place.unwrap_or(false).then_some(layer))
    }

    /// The extent that guest address `guest` lies in; none beyond the end of memory.
    #[must_use]
    pub fn lookup(&self, guest: u64) -> Option<&Extent> {
        self.extents.get(self.position(guest)?)
    }

    /// The parts of extents that make up `range`, in order.
    pub fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = Extent> + '_ {
        let first = self.position(range.start).unwrap_or(self.extents.len());
        self.extents.iter().skip(first).map_while(move |extent| extent.within(&range))
    }

    fn position(&self, guest: u64) -> Option<usize> {
        let after = self.extents.partition_point(|extent| extent.guest <= guest);
        (guest < self.memory_size).then(|| after.checked_sub(1))?
    }

    fn validated(self) -> Result<Self> {
        match self.fault() {
            None => Ok(self),
            Some(fault) => Err(Error::new(ErrorCode::HeaderDamaged, format!("not a memory image: {fault}"))),
        }
    }

    /// What contradicts the format, if anything.
    fn fault(&self) -> Option<&'static str> {
        if self.memory_size == 0 || !self.memory_size.is_multiple_of(PAGE_SIZE) || self.memory_size > MAX_MEMORY_SIZE {
            return Some("its memory size is no number of pages");
        }
        if self.layers.len() > MAX_LAYERS {
            return Some("it has too many layers");
        }
        let mut ids = self.layers.clone();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != self.layers.len() {
            return Some("it names a layer twice");
        }
        let mut used = vec![false; self.layers.len()];
        let mut end = 0;
        for extent in &self.extents {
            if extent.guest != end || extent.length == 0 || !extent.length.is_multiple_of(PAGE_SIZE) {
                return Some("its extents leave a gap, overlap or are no pages");
            }
            if extent.length > self.memory_size - end {
                return Some("an extent ends beyond memory");
            }
            end += extent.length;
            if let Source::Layer { index, offset } = extent.source {
                let Some(layer) = usize::try_from(index).ok().and_then(|index| used.get_mut(index)) else {
                    return Some("an extent names a layer that is not in the table");
                };
                *layer = true;
                if !offset.is_multiple_of(PAGE_SIZE) || offset > MAX_MEMORY_SIZE - extent.length {
                    return Some("an extent lies at an offset that no layer has");
                }
                if self.flat && offset != extent.guest {
                    return Some("it is flat, but an extent does not lie at its own address");
                }
            }
        }
        if end != self.memory_size {
            return Some("its extents do not cover memory");
        }
        if self.flat { None } else { used.contains(&false).then_some("it names a layer that no extent lies in") }
    }
}
