//! The process whose memory is served: known by a pidfd, so that another with its number is never taken for it.
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use memory_image::{Error, ErrorCode, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use userfault::Userfault;

use super::handshake::receive;
use super::regions::Regions;

pub(crate) struct Vm {
    stream: UnixStream,
    pid: Pid,
    pidfd: OwnedFd,
}

impl Vm {
    /// Another process can have the number only if the VM has ended since it connected; that one is of the same user, which
    /// is the VM's own, or cannot be killed by this pager.
    pub(crate) fn new(stream: UnixStream, pid: Pid) -> Result<Self> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| Error::new(ErrorCode::ProcessGone, format!("cannot hold on to the VM: {error}")))?;
        Ok(Self { stream, pid, pidfd })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Becomes readable when the process ends.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Ends it at once. It may have ended already.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Whether it ends within this time.
    pub(crate) fn ends_within(&self, time: Duration) -> Result<bool> {
        Ok(wait([(self.pidfd(), PollFlags::IN)], Some(Instant::now() + time))? == [true])
    }

    /// Where its memory lies, and the descriptor to fill it by. Together the regions must be all of guest memory.
    pub(crate) fn receive_memory(&self, size: u64, deadline: Instant) -> Result<(Userfault, Regions)> {
        if wait([(self.stream.as_fd(), PollFlags::IN)], Some(deadline))? == [false] {
            return Err(refused("the VM connected, but said nothing"));
        }
        let (text, descriptors) = receive(&self.stream)?;
        let regions = Regions::parse(&text, size)?;
        let [userfault] = <[OwnedFd; 1]>::try_from(descriptors)
            .map_err(|descriptors| refused(&format!("the VM passed {} descriptors, not one", descriptors.len())))?;
        // Whoever made it may have left it blocking, and such a one cannot be polled.
        fcntl_getfl(&userfault)
            .and_then(|flags| fcntl_setfl(&userfault, flags | OFlags::NONBLOCK))
            .map_err(|error| refused(&format!("cannot use what the VM passed: {error}")))?;
        Ok((Userfault::from(userfault), regions))
    }
}

pub(crate) fn refused(reason: &str) -> Error {
    Error::new(ErrorCode::HandshakeFailed, reason)
}

/// Waits until something can be done with one of the descriptors or the time has come, and says with which.
pub(crate) fn wait<const N: usize>(
    descriptors: [(BorrowedFd<'_>, PollFlags); N],
    deadline: Option<Instant>,
) -> Result<[bool; N]> {
    let mut polled = descriptors.map(|(descriptor, flags)| PollFd::from_borrowed_fd(descriptor, flags));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => return Ok(polled.map(|descriptor| !descriptor.revents().is_empty())),
            Err(Errno::INTR) => {}
            Err(error) => {
                return Err(Error::new(ErrorCode::InputOutput, format!("cannot wait: {}", io::Error::from(error))));
            }
        }
    }
}
