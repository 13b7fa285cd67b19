//! Directories made for a user.
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};

use crate::paths;
use crate::users::User;

/// What stands in the way of a directory.
#[derive(Debug)]
pub(crate) enum MakeError {
    IsFile(String),
    Io(String, io::Error),
}

/// Makes a directory and those above it. What is made belongs to the user; what was there stays as it is.
pub(crate) fn ensure(path: &str, user: &User) -> Result<(), MakeError> {
    let mut missing = Vec::new();
    let mut directory = path;
    loop {
        match fs::metadata(directory) {
            Ok(metadata) if metadata.is_dir() => break,
            Ok(_) => return Err(MakeError::IsFile(directory.to_owned())),
            // A file above: the directory above says so.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(MakeError::Io(directory.to_owned(), error)),
        }
        missing.push(directory);
        if directory == "/" {
            break;
        }
        directory = paths::parent(directory);
    }
    missing.into_iter().rev().try_for_each(|directory| make(directory, user))
}

fn make(path: &str, user: &User) -> Result<(), MakeError> {
    let failed = |error| MakeError::Io(path.to_owned(), error);
    match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => chown(path, Some(user.uid), Some(user.gid)).map_err(failed),
        // Somebody else made it just now. A dangling link is in the way for good.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::metadata(path).is_ok() => Ok(()),
        Err(error) => Err(failed(error)),
    }
}
