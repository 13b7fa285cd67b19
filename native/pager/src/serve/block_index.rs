//! Which parts of guest memory lie in a block of a layer: the image's extents, the other way round.
use memory_image::{BLOCK_SIZE, Extent, Header, Source};

/// Extents that lie in layers, by layer and offset.
pub(crate) struct BlockIndex(Vec<(u32, u64, Extent)>);

impl BlockIndex {
    pub(crate) fn new(header: &Header) -> Self {
        let mut extents: Vec<_> = header
            .extents()
            .iter()
            .filter_map(|extent| match extent.source {
                Source::Layer { index, offset } => Some((index, offset, *extent)),
                Source::Zero => None,
            })
            .collect();
        extents.sort_unstable_by_key(|&(index, offset, _)| (index, offset));
        Self(extents)
    }

    /// The parts that lie in block `block` of layer `layer`, each with its offset in the layer. Of extents that overlap in the
    /// layer some may be missing.
    pub(crate) fn pieces(&self, layer: u32, block: u64) -> impl Iterator<Item = (u64, Extent)> + '_ {
        let range = block * BLOCK_SIZE..(block + 1) * BLOCK_SIZE;
        let after = self.0.partition_point(|&(index, offset, _)| (index, offset) <= (layer, range.start));
        let candidates = self.0.iter().skip(after.saturating_sub(1));
        let end = range.end;
        candidates
            .skip_while(move |&&(index, ..)| index < layer)
            .take_while(move |&&(index, offset, _)| index == layer && offset < end)
            .filter_map(move |&(_, offset, extent)| {
                let start = extent.guest.saturating_add(range.start.saturating_sub(offset));
                let stop = extent.guest.saturating_add(range.end.saturating_sub(offset));
                let piece = extent.within(&(start..stop))?;
                Some((offset + (piece.guest - extent.guest), piece))
            })
    }
}
