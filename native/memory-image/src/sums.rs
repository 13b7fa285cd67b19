//! The checksums of a layer's blocks: a small file beside the layer.
use std::path::Path;

use crate::error::{Error, ErrorCode, Result};
use crate::fields::{Fields, checked, with_sum};
use crate::layer_id::LayerId;
use crate::units::{BLOCK_SIZE, to_usize};

const MAGIC: [u8; 8] = *b"WRENNSUM";
const VERSION: u32 = 1;
const PREFIX_BYTES: usize = 48;

#[derive(Clone)]
pub(crate) struct Sums {
    /// Length of the layer's file in bytes.
    pub(crate) length: u64,
    /// CRC32C of each block; the last block may be shorter than the others.
    pub(crate) blocks: Vec<u32>,
}

impl Sums {
    pub(crate) fn encode(&self, layer: LayerId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + self.blocks.len() * 4 + 4);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&0_u32.to_le_bytes());
        bytes.extend_from_slice(layer.as_bytes());
        bytes.extend_from_slice(&self.length.to_le_bytes());
        bytes.extend_from_slice(&BLOCK_SIZE.to_le_bytes());
        for sum in &self.blocks {
            bytes.extend_from_slice(&sum.to_le_bytes());
        }
        with_sum(bytes)
    }

    /// Accepts exactly what [`Sums::encode`] makes of the same layer.
    pub(crate) fn decode(bytes: &[u8], layer: LayerId) -> Option<Self> {
        let mut fields = Fields::new(checked(bytes)?);
        if (fields.bytes()?, fields.u32()?, fields.u32()?, fields.bytes()?) != (MAGIC, VERSION, 0, *layer.as_bytes()) {
            return None;
        }
        let (length, block_size) = (fields.u64()?, fields.u64()?);
        let count = length.div_ceil(BLOCK_SIZE);
        if block_size != BLOCK_SIZE
            || count.checked_mul(4)? != (bytes.len() as u64).checked_sub(PREFIX_BYTES as u64 + 4)?
        {
            return None;
        }
        let mut blocks = Vec::with_capacity(to_usize(count));
        for _ in 0..count {
            blocks.push(fields.u32()?);
        }
        Some(Self { length, blocks })
    }

    pub(crate) fn read(path: &Path, layer: LayerId) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| {
            Error::io_or_missing(ErrorCode::LayerMissing, "read the checksums of a memory layer", path, &error)
        })?;
        Self::decode(&bytes, layer).ok_or_else(|| {
            Error::new(
                ErrorCode::LayerDamaged,
                format!("{}: the checksums of the memory layer are damaged", path.display()),
            )
        })
    }
}
