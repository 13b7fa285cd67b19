//! The directory of a layer that is being made, and its way from nothing to durable.
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::durable::{create, sync_directory};
use crate::error::{Error, ErrorCode, Result};
use crate::layer::{MEMORY_FILE, SUMS_FILE};
use crate::layer_id::LayerId;
use crate::sums::Sums;

pub(crate) struct NewLayer {
    id: LayerId,
    path: PathBuf,
    file: File,
    unpublished: UnpublishedLayer,
}

impl NewLayer {
    pub(crate) fn create(layers: &Path, id: LayerId) -> Result<Self> {
        let directory = id.directory(layers);
        DirBuilder::new().mode(0o700).create(&directory).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Error::new(ErrorCode::LayerExists, format!("{}: there is such a layer already", directory.display()))
            }
            _ => Error::io("make the layer's directory", &directory, &error),
        })?;
        let path = directory.join(MEMORY_FILE);
        let unpublished = UnpublishedLayer { layers: layers.to_owned(), directory, published: false };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(&path)
            .map_err(|error| Error::io("make the memory layer", &path, &error))?;
        Ok(Self { id, path, file, unpublished })
    }

    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| Error::io("write the memory layer", &self.path, &error))?;
        begin_writeback(&self.file, offset, bytes.len());
        Ok(())
    }

    /// Puts the layer on disk. Each wait for the disk is one for two files: waits, not bytes, are most of what a small
    /// layer costs.
    pub(crate) fn finish(self, sums: &Sums) -> Result<UnpublishedLayer> {
        let write_failed = |error| Error::io("write the memory layer", &self.path, &error);
        // Holes at the end are no writes.
        self.file.set_len(sums.length).map_err(write_failed)?;
        let sums_path = self.path.with_file_name(SUMS_FILE);
        both(|| self.file.sync_all().map_err(write_failed), || create(&sums_path, &sums.encode(self.id)))?;
        let UnpublishedLayer { layers, directory, .. } = &self.unpublished;
        both(|| sync_directory(directory), || sync_directory(layers))?;
        Ok(self.unpublished)
    }
}

/// Has the disk begin with what was just written, while more is collected: the sync at the end has less to wait for.
fn begin_writeback(file: &File, offset: u64, length: usize) {
    let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else { return };
    // Only a hint: what it would fail with, the sync at the end fails with.
    // SAFETY: the descriptor is open for as long as the file is borrowed, and no memory is passed.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Does two things at once.
fn both(one: impl FnOnce() -> Result<()> + Send, other: impl FnOnce() -> Result<()>) -> Result<()> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, one).map_err(|error| {
            Error::new(ErrorCode::InputOutput, format!("cannot start a thread that waits for the disk: {error}"))
        })?;
        let other = other();
        // It can only have panicked, and that ends the program.
        thread.join().unwrap_or_else(|_| Err(Error::new(ErrorCode::InputOutput, "a wait for the disk was cut off")))?;
        other
    })
}

/// A layer that is whole and on disk, and goes with this value unless it is published.
#[must_use]
pub struct UnpublishedLayer {
    layers: PathBuf,
    directory: PathBuf,
    published: bool,
}

impl UnpublishedLayer {
    /// Keeps the layer: something on disk names it now.
    pub fn publish(mut self) {
        self.published = true;
    }
}

impl Drop for UnpublishedLayer {
    fn drop(&mut self) {
        if !self.published {
            // The failure that led here is told; what cannot be removed is garbage that the collection finds.
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}
