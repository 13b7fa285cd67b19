//! A file that takes its name only once it is whole.
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::filesystem::metadata::{self, Metadata};
use crate::paths;
use crate::users::User;

/// Names of unfinished files: the watch service hides them and tells of their renaming as of a write in place.
const CREATE_PREFIX: &str = ".wrenn-new-";
const REPLACE_PREFIX: &str = ".wrenn-put-";

const MAX_LINKS: usize = 40;
const NEW_FILE_MODE: u32 = 0o644;

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

pub(super) struct TemporaryFile {
    file: File,
    path: String,
    target: String,
    finished: bool,
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
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

impl TemporaryFile {
    /// Beside what it shall become, so that the renaming is atomic. A file replaced keeps its mode.
    pub(super) fn create(path: &str, user: &User) -> Result<Self, TargetError> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);

        let target = follow_links(path).map_err(TargetError::Io)?;
        let (prefix, mode) = match fs::metadata(&target) {
            Ok(metadata) if metadata.is_dir() => return Err(TargetError::Directory),
            Ok(metadata) if !metadata.is_file() => return Err(TargetError::NotAFile),
            Ok(metadata) => (REPLACE_PREFIX, metadata.mode() & 0o777),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (CREATE_PREFIX, NEW_FILE_MODE),
            Err(error) => return Err(TargetError::Io(error)),
        };
        let directory = paths::parent(&target);
        let separator = if directory == "/" { "" } else { "/" };
        let file = loop {
            // The agent's pid tells apart what a predecessor left.
            let (pid, serial) = (std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
            let path = format!("{directory}{separator}{prefix}{pid:x}-{serial:x}");
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => break Self { file, path, target, finished: false },
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(TargetError::Io(error)),
            }
        };
        fchown(&file.file, Some(user.uid), Some(user.gid)).map_err(TargetError::Io)?;
        // After the owner, whose change clears some bits.
        file.file.set_permissions(Permissions::from_mode(mode)).map_err(TargetError::Io)?;
        Ok(file)
    }

    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    pub(super) fn finish(mut self, metadata: &Metadata) -> io::Result<()> {
        metadata::write(&self.file, metadata)?;
        fs::rename(&self.path, &self.target)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_file(&self.path);
        }
    }
}
