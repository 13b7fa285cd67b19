//! An image that is read: a header with its layers open.
use std::collections::HashMap;
use std::path::Path;

use crate::error::{Error, ErrorCode, Result};
use crate::header::{Extent, Header, Source};
use crate::layer::Layer;
use crate::layer_id::LayerId;
use crate::units::{BLOCK_BYTES, BLOCK_SIZE, to_usize};

pub struct Image {
    header: Header,
    layers: Vec<Layer>,
}

impl Image {
    /// Opens every layer that the header names, and checks that its extents lie inside them.
    pub fn open(header: Header, layers: &Path) -> Result<Self> {
        let layers = header.layers().iter().map(|&id| Layer::open(layers, id)).collect::<Result<Vec<_>>>()?;
        let image = Self { header, layers };
        for extent in image.header.extents() {
            if let Source::Layer { index, offset } = extent.source
                && image.layer(index)?.len() < offset + extent.length
            {
                let message = format!("an extent ends beyond layer {}", image.layer(index)?.id());
                return Err(Error::new(ErrorCode::LayerDamaged, message));
            }
        }
        if let (true, Some(layer)) = (image.header.is_flat(), image.layers.first())
            && layer.len() != image.header.memory_size()
        {
            let message = format!("layer {} is not as long as memory, but the image is flat", layer.id());
            return Err(Error::new(ErrorCode::LayerDamaged, message));
        }
        Ok(image)
    }

    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The layer with that place in the table.
    pub fn layer(&self, index: u32) -> Result<&Layer> {
        let found = usize::try_from(index).ok().and_then(|index| self.layers.get(index));
        found.ok_or_else(|| Error::new(ErrorCode::HeaderDamaged, format!("there is no layer {index} in the table")))
    }

    /// Guest memory as it is on disk, right or wrong: to compare with, never to hand on.
    pub fn read_unchecked(&self, guest: u64, buffer: &mut [u8]) -> Result<()> {
        self.fill(guest, buffer, Layer::read_unchecked)
    }

    /// To read guest memory, checked.
    #[must_use]
    pub fn reader(&self) -> ImageReader<'_> {
        ImageReader { image: self, blocks: HashMap::new() }
    }

    fn fill(
        &self,
        guest: u64,
        buffer: &mut [u8],
        mut read: impl FnMut(&Layer, u64, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut rest = buffer;
        let end = guest.saturating_add(rest.len() as u64);
        for Extent { length, source, .. } in self.header.pieces(guest..end) {
            let Some(target) = rest.split_off_mut(..to_usize(length)) else { break };
            match source {
                Source::Zero => target.fill(0),
                Source::Layer { index, offset } => read(self.layer(index)?, offset, target)?,
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorCode::InvalidArguments, format!("memory at {guest:#x} is beyond the end of the image")))
    }
}

/// Reads guest memory block by block. It keeps the last block of each layer, because memory that is read from front to
/// back comes back to the same one for many small extents.
pub struct ImageReader<'a> {
    image: &'a Image,
    blocks: HashMap<LayerId, (u64, Vec<u8>)>,
}

impl ImageReader<'_> {
    /// Guest memory from address `guest` into all of `buffer`.
    pub fn read(&mut self, guest: u64, buffer: &mut [u8]) -> Result<()> {
        self.image.fill(guest, buffer, |layer, mut offset, mut rest| {
            let (at, block) = self.blocks.entry(layer.id()).or_insert_with(|| (u64::MAX, vec![0; BLOCK_BYTES]));
            while !rest.is_empty() {
                let index = offset / BLOCK_SIZE;
                if *at != index {
                    // Forgotten first: a block that cannot be read must not be taken for the one before it.
                    *at = u64::MAX;
                    layer.read_block(index, block)?;
                    *at = index;
                }
                let bytes = block.get(to_usize(offset % BLOCK_SIZE)..).unwrap_or_default();
                let count = bytes.len().min(rest.len());
                if let (Some(target), Some(bytes)) = (rest.split_off_mut(..count), bytes.get(..count)) {
                    target.copy_from_slice(bytes);
                }
                offset += count as u64;
            }
            Ok(())
        })
    }
}
