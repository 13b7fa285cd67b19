//! A file that takes its name only once it is whole.
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::filesystem::metadata::{self, Metadata};
use crate::paths;
use crate::users::User;

/// Names of unfinished files: the watch service hides them and tells of their renaming as of a write in place.
const CREATE_PREFIX: &str = ".wrenn-new-";
const REPLACE_PREFIX: &str = ".wrenn-put-";

const MAX_LINKS: usize = 40;
const NEW_FILE_MODE: Mode = Mode::from_raw_mode(0o644);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Create,
    Replace,
}

/// What an unfinished file is for, by its name; nothing for any other name.
pub(crate) fn purpose(name: &str) -> Option<Purpose> {
    if name.starts_with(CREATE_PREFIX) {
        Some(Purpose::Create)
    } else if name.starts_with(REPLACE_PREFIX) {
        Some(Purpose::Replace)
    } else {
        None
    }
}

#[derive(Debug)]
pub(super) enum TargetError {
    Directory,
    NotAFile,
    Io(io::Error),
}

impl From<Errno> for TargetError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

/// A name in a directory that does not exist yet, for what shall be renamed once it is whole.
pub(super) struct TemporaryName {
    directory: OwnedFd,
    name: CString,
    taken: bool,
}

impl TemporaryName {
    /// `make` is given names until it finds one that is free.
    pub(super) fn make<T>(
        directory: OwnedFd,
        purpose: Purpose,
        make: impl Fn(&OwnedFd, &CStr) -> rustix::io::Result<T>,
    ) -> io::Result<(Self, T)> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);

        let prefix = match purpose {
            Purpose::Create => CREATE_PREFIX,
            Purpose::Replace => REPLACE_PREFIX,
        };
        loop {
            // The agent's pid tells apart what a predecessor left.
            let (pid, serial) = (std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
            let name = CString::new(format!("{prefix}{pid:x}-{serial:x}"))?;
            match make(&directory, &name) {
                Ok(new) => return Ok((Self { directory, name, taken: false }, new)),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) fn rename(mut self, target: &CStr) -> io::Result<()> {
        rustix::fs::renameat(&self.directory, &self.name, &self.directory, target)?;
        self.taken = true;
        Ok(())
    }
}

impl Drop for TemporaryName {
    fn drop(&mut self) {
        if !self.taken {
            let _ = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}

pub(super) struct TemporaryFile {
    file: File,
    name: TemporaryName,
    target: CString,
}

/// Where a name leads: links are followed, also to a file that is not there yet.
fn follow_links(path: &str) -> io::Result<String> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(link) = fs::read_link(&path) else { return Ok(path) };
        let link = link.to_string_lossy();
        // Against the real directory: `..` in a link counts from there.
        let directory = fs::canonicalize(paths::parent(&path))?;
        path = if link.starts_with('/') { link.into_owned() } else { format!("{}/{link}", directory.display()) };
    }
    Err(Errno::LOOP.into())
}

/// What a file of that name would be for, and the mode of the file that is there. A link is replaced, not followed.
pub(super) fn look_at(directory: impl AsFd, name: &CStr) -> Result<(Purpose, Option<Mode>), TargetError> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) => match FileType::from_raw_mode(there.st_mode) {
            FileType::RegularFile => Ok((Purpose::Replace, Some(Mode::from_raw_mode(there.st_mode & 0o777)))),
            FileType::Symlink => Ok((Purpose::Replace, None)),
            FileType::Directory => Err(TargetError::Directory),
            _ => Err(TargetError::NotAFile),
        },
        Err(Errno::NOENT) => Ok((Purpose::Create, None)),
        Err(error) => Err(error.into()),
    }
}

impl TemporaryFile {
    /// For a path whose links are followed. A file replaced keeps its mode.
    pub(super) fn create(path: &str, user: &User) -> Result<Self, TargetError> {
        let path = follow_links(path).map_err(TargetError::Io)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, paths::parent(&path), flags, Mode::empty())?;
        let target = CString::new(paths::file_name(&path)).map_err(|error| TargetError::Io(error.into()))?;
        Self::create_in(directory, target, None, user)
    }

    /// Beside what it shall become, so that the renaming is atomic. Without a mode it has that of the file it replaces.
    pub(super) fn create_in(
        directory: OwnedFd,
        target: CString,
        mode: Option<Mode>,
        user: &User,
    ) -> Result<Self, TargetError> {
        let (purpose, mode_there) = look_at(&directory, &target)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open =
            |directory: &OwnedFd, name: &CStr| rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR);
        let (name, file) = TemporaryName::make(directory, purpose, open).map_err(TargetError::Io)?;
        let file = Self { file: file.into(), name, target };
        rustix::fs::fchown(&file.file, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))?;
        // After the owner, whose change clears some bits.
        rustix::fs::fchmod(&file.file, mode.or(mode_there).unwrap_or(NEW_FILE_MODE))?;
        Ok(file)
    }

    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    pub(super) fn finish(self, metadata: &Metadata) -> io::Result<()> {
        metadata::write(&self.file, metadata)?;
        self.name.rename(&self.target)
    }
}
