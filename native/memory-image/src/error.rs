//! What can be wrong with an image or its files: a stable code for programs, and a sentence that names the step and the
//! file for people.
use std::fmt;
use std::io;
use std::path::Path;

use rustix::io::Errno;

/// Codes are a promise to the host agent: docs/memory-images.md says what each means and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The caller asked for what cannot be: sizes that are no pages, a layer over itself.
    InvalidArguments,
    /// The header is not there.
    HeaderMissing,
    /// The header is cut, changed, of an unknown version or contradicts itself.
    HeaderDamaged,
    /// A layer that the header names, or its checksums, is not there.
    LayerMissing,
    /// A layer or its checksums is cut or changed.
    LayerDamaged,
    /// A layer of that id is there already: layers are never written again.
    LayerExists,
    /// The parent's memory is larger or smaller than what is captured.
    MemorySizeMismatch,
    /// The process ended, or another has its number.
    ProcessGone,
    /// The process has no such memory mapped as it should be.
    MemoryNotMapped,
    /// No engine asked for its memory in time.
    NoClient,
    /// What an engine said of its memory is not what the image is for, or cannot be understood.
    HandshakeFailed,
    /// The host, or the cgroup that the engine's memory is counted in, has none left.
    OutOfMemory,
    /// No space is left, or the quota is used up.
    DiskFull,
    /// The kernel refused a read or write for another reason.
    InputOutput,
}

impl ErrorCode {
    /// As it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidArguments => "invalid_arguments",
            Self::HeaderMissing => "header_missing",
            Self::HeaderDamaged => "header_damaged",
            Self::LayerMissing => "layer_missing",
            Self::LayerDamaged => "layer_damaged",
            Self::LayerExists => "layer_exists",
            Self::MemorySizeMismatch => "memory_size_mismatch",
            Self::ProcessGone => "process_gone",
            Self::MemoryNotMapped => "memory_not_mapped",
            Self::NoClient => "no_client",
            Self::HandshakeFailed => "handshake_failed",
            Self::OutOfMemory => "out_of_memory",
            Self::DiskFull => "disk_full",
            Self::InputOutput => "io_failed",
        }
    }
}

#[derive(Debug)]
pub struct Error {
    pub code: ErrorCode,
    pub message: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A step that the kernel refused: "cannot STEP PATH: reason". A full disk has its own code whatever the step.
    #[must_use]
    pub fn io(step: &str, path: &Path, error: &io::Error) -> Self {
        let code = match Errno::from_io_error(error) {
            Some(Errno::NOSPC | Errno::DQUOT) => ErrorCode::DiskFull,
            _ => ErrorCode::InputOutput,
        };
        Self::new(code, format!("cannot {step} {}: {error}", path.display()))
    }

    /// [`Error::io`], with a code of its own for a file that is not there.
    #[must_use]
    pub fn io_or_missing(missing: ErrorCode, step: &str, path: &Path, error: &io::Error) -> Self {
        let failed = Self::io(step, path, error);
        if error.kind() == io::ErrorKind::NotFound { Self { code: missing, ..failed } } else { failed }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code.name(), self.message)
    }
}

impl std::error::Error for Error {}
