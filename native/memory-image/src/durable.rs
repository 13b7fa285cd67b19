//! Files and names that are on disk when the function returns.
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Readable by root alone: it leads to guests' memory.
const MODE: u32 = 0o400;

/// Replaces `path` by a file of `content`, or leaves it as it was and nothing beside it.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = temporary_beside(path);
    let written = create(&temporary, content)
        .and_then(|()| std::fs::rename(&temporary, path).map_err(|error| Error::io("name", path, &error)))
        .and_then(|()| sync_directory(path.parent().unwrap_or(Path::new("/"))));
    if written.is_err() {
        // Either it was never made, or the rename took it away, or it goes now: what failed is told already.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// A new file of `content`, on disk when this returns; its name is not yet.
pub(crate) fn create(path: &Path, content: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|error| Error::io("write", path, &error))
}

pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    // The parent of a bare file name is the empty path.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Error::io("sync the directory", path, &error))
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}
