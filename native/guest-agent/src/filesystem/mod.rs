//! Files and directories of the guest: described, made, moved, removed, watched.
//!
//! Everything is done as root and handed to the requesting user, as E2B's agent does.
pub(crate) mod directories;
pub(crate) mod entry;
mod list;
pub(crate) mod metadata;
mod removal;
mod service;
mod tree_watch;
mod watch_stream;
pub(crate) mod watchers;

pub(crate) use service::call;
