//! A layer that is read: whole blocks, each checked against its checksum.
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorCode, Result};
use crate::layer_id::LayerId;
use crate::sums::Sums;
use crate::units::{BLOCK_SIZE, to_usize};

/// Name of the file of a layer that holds the memory.
pub const MEMORY_FILE: &str = "memory";
/// Name of the file of a layer that holds the checksums of the other.
pub const SUMS_FILE: &str = "memory.sums";

pub struct Layer {
    id: LayerId,
    path: PathBuf,
    file: File,
    sums: Sums,
}

impl Layer {
    /// Opens the layer `id` in the directory of all layers. The checksums are checked here, the memory when it is read.
    pub fn open(layers: &Path, id: LayerId) -> Result<Self> {
        let directory = id.directory(layers);
        let sums = Sums::read(&directory.join(SUMS_FILE), id)?;
        let path = directory.join(MEMORY_FILE);
        let open_failed = |error| Error::io_or_missing(ErrorCode::LayerMissing, "open the memory layer", &path, &error);
        let file = File::open(&path).map_err(open_failed)?;
        let length = file.metadata().map_err(open_failed)?.len();
        if length != sums.length {
            let message = format!("{}: {length} bytes long, not {}", path.display(), sums.length);
            return Err(Error::new(ErrorCode::LayerDamaged, message));
        }
        Ok(Self { id, path, file, sums })
    }

    #[must_use]
    pub const fn id(&self) -> LayerId {
        self.id
    }

    /// Length of the layer in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.sums.length
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub fn block_count(&self) -> u64 {
        self.sums.blocks.len() as u64
    }

    /// The bytes of block `index`, checked, in the beginning of `buffer`, which must hold [`crate::BLOCK_SIZE`] bytes. Only the
    /// last block may be shorter than that.
    pub fn read_block<'b>(&self, index: u64, buffer: &'b mut [u8]) -> Result<&'b [u8]> {
        let offset = index.saturating_mul(BLOCK_SIZE);
        let length = self.len().saturating_sub(offset).min(BLOCK_SIZE);
        let (Some(&sum), Some(block)) = (self.sums.blocks.get(to_usize(index)), buffer.get_mut(..to_usize(length)))
        else {
            let message = format!("{}: block {index} is asked for, of {}", self.path.display(), self.block_count());
            return Err(Error::new(ErrorCode::LayerDamaged, message));
        };
        self.read_unchecked(offset, block)?;
        if crc32c::crc32c(block) == sum {
            return Ok(block);
        }
        let message = format!("{}: block {index} does not match its checksum", self.path.display());
        Err(Error::new(ErrorCode::LayerDamaged, message))
    }

    /// Bytes as they are on disk, right or wrong: to compare with, never to hand on.
    pub fn read_unchecked(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|error| {
            let failed = Error::io("read the memory layer", &self.path, &error);
            // Shorter than it was when it was opened.
            let cut = error.kind() == std::io::ErrorKind::UnexpectedEof;
            if cut { Error { code: ErrorCode::LayerDamaged, ..failed } } else { failed }
        })
    }

    pub(crate) fn sums(&self) -> &Sums {
        &self.sums
    }
}

impl AsFd for Layer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
