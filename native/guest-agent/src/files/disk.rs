//! Work that waits for a disk, and what its failures mean to a client.
use std::io;

use hyper::StatusCode;

use crate::filesystem::directories::{self, MakeError};
use crate::server::body::HttpError;
use crate::sync::blocking;
use crate::users::User;

/// On a thread that may wait.
pub(super) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HttpError> + Send + 'static,
) -> Result<T, HttpError> {
    blocking(work).await.unwrap_or_else(|error| Err(disk_error("error using the disk", &error)))
}

/// The status tells what is wrong: 404 that something is missing, 400 that a path leads to something of another kind or
/// to nowhere, 403 that it may not be touched, 507 that there is no room; anything else is a fault of ours, 500.
pub(super) fn disk_error(doing: &str, error: &io::Error) -> HttpError {
    let status = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            return HttpError::new(StatusCode::INSUFFICIENT_STORAGE, "not enough disk space available");
        }
        // No file system has room for any size.
        Some(libc::EFBIG) => StatusCode::INSUFFICIENT_STORAGE,
        Some(libc::ENOENT) => StatusCode::NOT_FOUND,
        Some(libc::ENOTDIR | libc::EISDIR | libc::ELOOP | libc::ENAMETOOLONG) => StatusCode::BAD_REQUEST,
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => StatusCode::FORBIDDEN,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    HttpError::new(status, format!("{doing}: {error}"))
}

/// Makes a directory and those above it, for the user.
pub(super) fn ensure_directory(path: &str, user: &User) -> Result<(), HttpError> {
    directories::ensure(path, user).map_err(|error| match error {
        MakeError::IsFile(path) => {
            HttpError::bad_request(format!("error ensuring directories: path is a file: {path}"))
        }
        MakeError::Io(path, error) => disk_error(&format!("error ensuring directories: {path}"), &error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_tells_what_is_wrong() {
        for (errno, status) in [
            (libc::ENOENT, 404),
            (libc::ENOTDIR, 400),
            (libc::EISDIR, 400),
            (libc::ELOOP, 400),
            (libc::ENAMETOOLONG, 400),
            (libc::EACCES, 403),
            (libc::EPERM, 403),
            (libc::EROFS, 403),
            (libc::ENOSPC, 507),
            (libc::EDQUOT, 507),
            (libc::EFBIG, 507),
            (libc::EIO, 500),
            (libc::EMFILE, 500),
        ] {
            assert_eq!(disk_error("trying", &io::Error::from_raw_os_error(errno)).status, status);
        }
        assert_eq!(disk_error("trying", &io::Error::other("odd")).status, 500);
    }
}
