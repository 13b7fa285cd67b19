//! The directory of a layer that is being made, and its way from nothing to durable.
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
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
        self.file.write_all_at(bytes, offset).map_err(|error| Error::io("write the memory layer", &self.path, &error))
    }

    pub(crate) fn finish(self, sums: &Sums) -> Result<UnpublishedLayer> {
        // Holes at the end are no writes.
        self.file
            .set_len(sums.length)
            .and_then(|()| self.file.sync_all())
            .map_err(|error| Error::io("write the memory layer", &self.path, &error))?;
        create(&self.path.with_file_name(SUMS_FILE), &sums.encode(self.id))?;
        sync_directory(&self.unpublished.directory)?;
        sync_directory(&self.unpublished.layers)?;
        Ok(self.unpublished)
    }
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
