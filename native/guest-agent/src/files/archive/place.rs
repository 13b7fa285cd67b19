//! Where beneath its directory an entry of an archive goes, and what is said when it cannot.
use std::ffi::CString;
use std::io;

use crate::files::disk::disk_error;
use crate::files::temporary::TargetError;
use crate::server::body::HttpError;

/// A path beneath the directory: that of the directory it is in, and its own name.
pub(super) struct Place {
    pub(super) path: Vec<u8>,
    parent_length: usize,
    pub(super) name: CString,
}

impl Place {
    /// Nothing for the directory itself. A leading slash counts for nothing, as with any tar.
    pub(super) fn parse(path: &[u8]) -> Result<Option<Self>, HttpError> {
        let mut clean = Vec::with_capacity(path.len());
        let mut parent_length = 0;
        for part in path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")) {
            if part == b".." {
                let path = String::from_utf8_lossy(path);
                return Err(HttpError::bad_request(format!("'{path}' leads out of the directory")));
            }
            parent_length = clean.len();
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(part);
        }
        let name = clean.get(parent_length..).unwrap_or_default();
        let name = name.strip_prefix(b"/").unwrap_or(name);
        if name.is_empty() {
            return Ok(None);
        }
        let name = CString::new(name).map_err(|_| HttpError::bad_request("a name cannot hold a NUL character"))?;
        Ok(Some(Self { path: clean, parent_length, name }))
    }

    pub(super) fn parent(&self) -> &[u8] {
        self.path.get(..self.parent_length).unwrap_or_default()
    }

    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }

    pub(super) fn error(&self, error: impl Into<io::Error>) -> HttpError {
        let error = error.into();
        match error.raw_os_error() {
            Some(libc::EXDEV) => HttpError::bad_request(format!("'{}' leads out of the directory", self.shown())),
            Some(libc::EEXIST) => {
                HttpError::bad_request(format!("a link to nowhere is in the way of '{}'", self.shown()))
            }
            _ => disk_error(&format!("error extracting '{}'", self.shown()), &error),
        }
    }

    pub(super) fn target_error(&self, error: TargetError) -> HttpError {
        match error {
            TargetError::Directory => HttpError::bad_request(format!("'{}' is a directory", self.shown())),
            TargetError::NotAFile => HttpError::bad_request(format!("'{}' is not a regular file", self.shown())),
            TargetError::Io(error) => self.error(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_beneath() {
        for (path, parent, name) in
            [("a", "", "a"), ("./a//b/", "a", "b"), ("/etc/passwd", "etc", "passwd"), ("a/./b/...", "a/b", "...")]
        {
            let place = Place::parse(path.as_bytes()).unwrap().unwrap();
            assert_eq!((place.parent(), place.name.to_bytes()), (parent.as_bytes(), name.as_bytes()), "{path}");
        }
        for path in ["", "/", "./", "././/."] {
            assert!(Place::parse(path.as_bytes()).unwrap().is_none(), "{path}");
        }
        for path in ["..", "../a", "a/../b", "a/..", "/..", "a\0b"] {
            assert!(Place::parse(path.as_bytes()).is_err(), "{path}");
        }
    }
}
