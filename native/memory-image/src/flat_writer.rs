//! A flat image that is made from front to back: one layer as long as memory, with holes for blocks of zeros.
use std::path::Path;

use crate::error::Result;
use crate::extents::ExtentList;
use crate::header::{Header, Source};
use crate::layer_id::LayerId;
use crate::layer_writer::LayerWriter;
use crate::new_layer::UnpublishedLayer;
use crate::units::{BLOCK_BYTES, is_zero};

pub struct FlatWriter {
    id: LayerId,
    writer: LayerWriter,
    extents: ExtentList,
    bytes_written: u64,
}

impl FlatWriter {
    /// Makes the directory of a layer that is not there yet.
    pub fn create(layers: &Path, id: LayerId) -> Result<Self> {
        let writer = LayerWriter::create(layers, id)?;
        Ok(Self { id, writer, extents: ExtentList::new(), bytes_written: 0 })
    }

    /// Bytes so far that are no holes.
    #[must_use]
    pub const fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// Adds the next bytes of memory. Blocks that are zero become holes, smaller stretches of zeros do not: a file of
    /// many small pieces is slower to write and to map than the zeros are large.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        for block in bytes.chunks(BLOCK_BYTES) {
            let length = block.len() as u64;
            if is_zero(block) {
                self.append_zeros_until(self.writer.len() + length)?;
            } else {
                let offset = self.writer.append(block)?;
                self.extents.push(length, Source::Layer { index: 0, offset });
                self.bytes_written += length;
            }
        }
        Ok(())
    }

    /// Adds zeros until memory is `end` bytes long.
    pub fn append_zeros_until(&mut self, end: u64) -> Result<()> {
        let length = end.saturating_sub(self.writer.len());
        self.extents.push(length, Source::Zero);
        self.writer.append_hole(length)
    }

    /// The image, with its layer on disk; memory is as large as what was added.
    pub fn finish(self) -> Result<(Header, UnpublishedLayer)> {
        let header = Header::new_flat(self.writer.len(), self.id, self.extents.into_extents())?;
        Ok((header, self.writer.finish()?))
    }
}
