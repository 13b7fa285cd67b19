//! Standard input of a process, or what is typed into its terminal.
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::exit::ExitWatch;

/// How long an end may take to be noticed.
const ENDING: Duration = Duration::from_millis(100);

pub(super) enum Input {
    /// The start asked for none: the process reads end of file.
    None,
    /// Nothing in it once closed. The lock keeps concurrent calls from mixing their bytes; it is fair, so order holds.
    Pipe(Mutex<Option<AsyncFd<OwnedFd>>>),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum InputError {
    Closed,
    ProcessEnded,
    Failed(String),
}

/// Waits for as long as the process takes to read. Bytes are written in order and in full.
pub(super) async fn write_all(target: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = target.writable().await?;
        match rustix::io::write(target.get_ref(), bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes, but not beyond the life of the process: a child of it may hold the other end open and never read.
pub(super) async fn write_while_running(
    target: &AsyncFd<OwnedFd>,
    bytes: &[u8],
    mut exited: ExitWatch,
) -> Result<(), InputError> {
    let outcome = tokio::select! {
        biased;
        outcome = write_all(target, bytes) => outcome,
        () = exited.wait() => return Err(InputError::ProcessEnded),
    };
    match outcome {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {
            // A process that ends closes its pipes a moment before it can be seen to have ended.
            let ended = timeout(ENDING, exited.wait()).await.is_ok();
            Err(if ended { InputError::ProcessEnded } else { InputError::Closed })
        }
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Err(InputError::ProcessEnded),
        Err(error) => Err(InputError::Failed(error.to_string())),
    }
}

impl Input {
    pub(super) async fn write(&self, bytes: &[u8], exited: ExitWatch) -> Result<(), InputError> {
        let Self::Pipe(pipe) = self else { return Err(InputError::Closed) };
        match pipe.lock().await.as_ref() {
            Some(pipe) => write_while_running(pipe, bytes, exited).await,
            None => Err(InputError::Closed),
        }
    }

    /// After whatever is being written. Closing twice is fine.
    pub(super) async fn close(&self) -> Result<(), InputError> {
        let Self::Pipe(pipe) = self else { return Err(InputError::Closed) };
        pipe.lock().await.take();
        Ok(())
    }
}
