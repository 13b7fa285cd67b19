//! Removes a file, or a directory with everything in it.
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;

/// A directory that is being emptied.
struct Level {
    directory: OwnedFd,
    /// Its name in the one above.
    name: CString,
    /// Names of what is still in it.
    left: Vec<CString>,
}

/// Links are removed, not followed. What is gone already is fine.
///
/// By descriptors and without recursion: a tree may be deeper than any path can name and than a stack can hold.
pub(super) fn remove(path: &str) -> io::Result<()> {
    let mut levels: Vec<Level> = Vec::new();
    let mut next = Some(CString::new(path)?);
    loop {
        if let Some(name) = next.take() {
            let parent = levels.last().map_or(CWD, |level| level.directory.as_fd());
            if let Some(directory) = unlink_or_open(parent, &name)? {
                let left = names_in(&directory)?;
                levels.push(Level { directory, name, left });
            }
        }
        let Some(level) = levels.last_mut() else { return Ok(()) };
        next = level.left.pop();
        if next.is_none()
            && let Some(emptied) = levels.pop()
        {
            let parent = levels.last().map_or(CWD, |level| level.directory.as_fd());
            match rustix::fs::unlinkat(parent, &emptied.name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Removes what is no directory, and opens what is one.
fn unlink_or_open(parent: impl AsFd, name: &CString) -> io::Result<Option<OwnedFd>> {
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        // Linux says the first of a directory; the second may also be a lack of permission.
        Err(refused @ (Errno::ISDIR | Errno::PERM)) => {
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
                Ok(directory) => Ok(Some(directory)),
                Err(Errno::NOENT) => Ok(None),
                Err(Errno::NOTDIR | Errno::LOOP) => Err(refused.into()),
                Err(error) => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

fn names_in(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
