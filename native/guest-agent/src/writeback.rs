//! `POST /sync`: the disk holds all that has been written, so that without its memory, too, it is worth having.
use hyper::{Response, StatusCode};
use rustix::fs::{Mode, OFlags};

use crate::server::body::{Body, HttpError, empty};
use crate::sync::blocking;

/// A caller who waits no longer hangs up; the disk goes on.
pub(crate) async fn handle() -> Result<Response<Body>, HttpError> {
    blocking(sync_root).await.and_then(|outcome| outcome.map_err(Into::into)).map_err(|error| {
        HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("writing back the disk: {error}"))
    })?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Nothing but the root file system, which is the one disk: what a user has mounted may hang.
fn sync_root() -> rustix::io::Result<()> {
    let root = rustix::fs::open("/", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::syncfs(&root)
}
