//! What an archive holds, and who takes it.
use rustix::fs::Timespec;

use crate::server::body::HttpError;

/// An archive that cannot be read.
#[derive(Debug)]
pub(super) struct Malformed(String);

impl Malformed {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl From<Malformed> for HttpError {
    fn from(Malformed(message): Malformed) -> Self {
        Self::bad_request(format!("the archive cannot be read: {message}"))
    }
}

#[derive(Debug, PartialEq)]
pub(super) enum Kind {
    /// With the size that it has with its holes.
    File(u64),
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    /// A device or a pipe.
    Special,
}

#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: Option<u32>,
    pub(super) modified: Option<Timespec>,
}

/// Who takes the entries. Data, holes and an end follow the beginning of a file, and nothing that of others.
pub(super) trait Entries {
    fn begin(&mut self, entry: Entry) -> Result<(), HttpError>;
    fn data(&mut self, bytes: &[u8]) -> Result<(), HttpError>;
    fn hole(&mut self, length: u64) -> Result<(), HttpError>;
    fn end(&mut self) -> Result<(), HttpError>;
}
