//! A flat image made from another, on file systems whose files can share blocks: only what is written over takes space.
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::extents::ExtentList;
use crate::header::{Extent, Header, Source};
use crate::image::Image;
use crate::layer::Layer;
use crate::layer_id::LayerId;
use crate::new_layer::{NewLayer, UnpublishedLayer};
use crate::sums::Sums;
use crate::units::{BLOCK_BYTES, BLOCK_SIZE, is_zero, to_usize};

pub struct FlatClone<'a> {
    id: LayerId,
    new: NewLayer,
    original: &'a Layer,
    header: &'a Header,
    sums: Sums,
    extents: ExtentList,
    /// The block that is being changed, and what it holds by now.
    block_index: Option<u64>,
    block: Vec<u8>,
}

impl<'a> FlatClone<'a> {
    /// Nothing, when the image is not flat or its file system cannot share blocks between files.
    pub fn create(layers: &Path, id: LayerId, image: &'a Image) -> Result<Option<Self>> {
        let (true, [original]) = (image.header().is_flat(), image.layers()) else { return Ok(None) };
        let new = NewLayer::create(layers, id)?;
        match rustix::fs::ioctl_ficlone(new.file(), original) {
            Ok(()) => Ok(Some(Self {
                id,
                new,
                original,
                header: image.header(),
                sums: original.sums().clone(),
                extents: ExtentList::new(),
                block_index: None,
                block: vec![0; BLOCK_BYTES],
            })),
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => Ok(None),
            Err(error) => Err(Error::io("clone the memory layer to", new.path(), &error.into())),
        }
    }

    /// Memory from `guest`, which must not be before what was told already, holds `bytes` now.
    pub fn write(&mut self, guest: u64, bytes: &[u8]) -> Result<()> {
        self.change_blocks(guest, bytes)?;
        self.new.write(guest, bytes)
    }

    /// Memory from `guest`, which must not be before what was told already, is zero now: `bytes` are zeros.
    pub fn zero(&mut self, guest: u64, bytes: &[u8]) -> Result<()> {
        self.change_blocks(guest, bytes)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(self.new.file(), flags, guest, bytes.len() as u64)
            .map_err(|error| Error::io("punch a hole into the memory layer", self.new.path(), &error.into()))
    }

    /// The image, with its layer on disk.
    pub fn finish(mut self) -> Result<(Header, UnpublishedLayer)> {
        self.close_block();
        self.inherit(self.header.memory_size());
        let header = Header::new_flat(self.header.memory_size(), self.id, self.extents.into_extents())?;
        Ok((header, self.new.finish(&self.sums)?))
    }

    fn change_blocks(&mut self, mut guest: u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let index = guest / BLOCK_SIZE;
            if self.block_index != Some(index) {
                self.close_block();
                // Checked before it is changed: no checksum is ever made of what is corrupt.
                let length = self.original.read_block(index, &mut self.block)?.len();
                self.block.truncate(length);
                self.block_index = Some(index);
            }
            let target = self.block.get_mut(to_usize(guest % BLOCK_SIZE)..).unwrap_or_default();
            let (piece, rest) = bytes.split_at_checked(target.len()).unwrap_or((bytes, &[]));
            if let Some(target) = target.get_mut(..piece.len()) {
                target.copy_from_slice(piece);
            }
            guest += piece.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Settles the checksum and the extent of the block that was being changed, if any.
    fn close_block(&mut self) {
        let Some(index) = self.block_index.take() else { return };
        let (guest, length) = (index * BLOCK_SIZE, self.block.len() as u64);
        self.inherit(guest);
        let zero = is_zero(&self.block);
        self.extents.push(length, if zero { Source::Zero } else { Source::Layer { index: 0, offset: guest } });
        if let Some(sum) = self.sums.blocks.get_mut(to_usize(index)) {
            *sum = crc32c::crc32c(&self.block);
        }
        self.block.resize(BLOCK_BYTES, 0);
    }

    fn inherit(&mut self, end: u64) {
        for Extent { length, source, .. } in self.header.pieces(self.extents.end()..end) {
            self.extents.push(length, source);
        }
    }
}
