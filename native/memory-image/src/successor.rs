//! The header of an image that differs from its parent in some pages: the rest is inherited, straight from the layers
//! that the parent's extents lie in.
use crate::error::Result;
use crate::extents::ExtentList;
use crate::header::{Extent, Header, Source};
use crate::layer_id::LayerId;

pub struct Successor<'a> {
    parent: &'a Header,
    extents: ExtentList,
    changed: bool,
}

impl<'a> Successor<'a> {
    #[must_use]
    pub const fn of(parent: &'a Header) -> Self {
        Self { parent, extents: ExtentList::new(), changed: false }
    }

    /// Memory at `guest`, which must not be before what was told already, is zero now.
    pub fn zero(&mut self, guest: u64, length: u64) {
        self.change(guest, length, Source::Zero);
    }

    /// Memory at `guest`, which must not be before what was told already, lies in the new layer now.
    pub fn write(&mut self, guest: u64, length: u64, offset: u64) {
        // The place in the table that the new layer has while all of the parent's are in it.
        let index = u32::try_from(self.parent.layers().len()).unwrap_or(u32::MAX);
        self.change(guest, length, Source::Layer { index, offset });
    }

    /// The new header. Layers that no extent lies in any more are left out; an image without a change is the parent's.
    pub fn finish(mut self, new_layer: LayerId) -> Result<Header> {
        if !self.changed {
            return Ok(self.parent.clone());
        }
        self.inherit(self.parent.memory_size());
        let mut extents = self.extents.into_extents();
        let mut places = vec![None; self.parent.layers().len() + 1];
        for extent in &extents {
            if let Source::Layer { index, .. } = extent.source
                && let Some(place) = usize::try_from(index).ok().and_then(|index| places.get_mut(index))
            {
                *place = Some(0);
            }
        }
        let mut layers = Vec::new();
        for (place, &layer) in places.iter_mut().zip(self.parent.layers().iter().chain([&new_layer])) {
            if place.is_some() {
                *place = u32::try_from(layers.len()).ok();
                layers.push(layer);
            }
        }
        for extent in &mut extents {
            if let Source::Layer { index, .. } = &mut extent.source
                && let Some(Some(place)) = usize::try_from(*index).ok().and_then(|index| places.get(index))
            {
                *index = *place;
            }
        }
        Header::new(self.parent.memory_size(), layers, extents)
    }

    fn change(&mut self, guest: u64, length: u64, source: Source) {
        self.changed = true;
        self.inherit(guest);
        self.extents.push(length, source);
    }

    fn inherit(&mut self, end: u64) {
        for Extent { length, source, .. } in self.parent.pieces(self.extents.end()..end) {
            self.extents.push(length, source);
        }
    }
}
