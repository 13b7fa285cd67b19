//! Memory that its engine has written into a file: every page that may have changed lies there at its own address, and
//! the rest of the file is holes.
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use memory_image::{Error, ErrorCode, PAGE_SIZE, Result};
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::candidates::{RUN_BYTES, Run};

pub(super) struct WrittenMemory {
    path: PathBuf,
    file: File,
    memory_size: u64,
}

impl WrittenMemory {
    pub(super) fn open(path: &Path, memory_size: u64) -> Result<Self> {
        // The engine's user could have put a link, or a pipe that nobody writes to, in its place.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let failed = |error: Errno| Error::io("open the written memory", path, &error.into());
        let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?);
        let metadata = file.metadata().map_err(|error| Error::io("open the written memory", path, &error))?;
        if !metadata.is_file() || metadata.len() != memory_size {
            let message = format!("{}: it is no file of {memory_size} bytes", path.display());
            return Err(Error::new(ErrorCode::MemorySizeMismatch, message));
        }
        // Where a file system keeps track of larger blocks only, what was never written would pass for zeros.
        let block = rustix::fs::fstatvfs(&file).map_err(failed)?.f_bsize;
        if block > PAGE_SIZE {
            let message =
                format!("{}: its file system has blocks of {block} bytes, larger than a page", path.display());
            return Err(Error::new(ErrorCode::InputOutput, message));
        }
        Ok(Self { path: path.to_owned(), file, memory_size })
    }

    /// Calls `examine` for every run of pages that the file holds, in order.
    pub(super) fn for_each_run(&self, mut examine: impl FnMut(Run) -> Result<()>) -> Result<()> {
        let mut at = 0;
        while let Some(start) = self.seek(SeekFrom::Data(at))? {
            at = self.seek(SeekFrom::Hole(start))?.unwrap_or(self.memory_size).min(self.memory_size);
            let mut page = start - start % PAGE_SIZE;
            while page < at {
                let end = (page - page % RUN_BYTES + RUN_BYTES).min(at.next_multiple_of(PAGE_SIZE));
                examine(Run { range: page..end, zero: false })?;
                page = end;
            }
        }
        Ok(())
    }

    pub(super) fn read(&self, guest: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buffer, guest).map_err(|error| Error::io("read the written memory", &self.path, &error))
    }

    /// Nothing where no more of it follows.
    fn seek(&self, to: SeekFrom) -> Result<Option<u64>> {
        match rustix::fs::seek(&self.file, to) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(Error::io("look for holes in the written memory", &self.path, &error.into())),
        }
    }
}
