//! The kernel's userfaultfd, see userfaultfd(2): one process registers memory, and another that holds the
//! descriptor is told of each missing page that is touched, and fills it.
use std::io;
use std::mem::size_of;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use linux_raw_sys::general::{
    UFFD_API, UFFD_EVENT_PAGEFAULT, UFFDIO_REGISTER_MODE_MISSING, uffd_msg, uffdio_api, uffdio_copy, uffdio_range,
    uffdio_register, uffdio_zeropage,
};
use linux_raw_sys::ioctl::{UFFDIO_API, UFFDIO_COPY, UFFDIO_REGISTER, UFFDIO_UNREGISTER, UFFDIO_WAKE, UFFDIO_ZEROPAGE};

/// `_IO(0xAA, 0)` of /dev/userfaultfd, which the bindings lack.
const USERFAULTFD_IOC_NEW: u32 = 0xAA00;

/// Messages that one read of a [`Userfault`] takes at most.
const BATCH: usize = 64;

/// How a request to fill a range ended: what the kernel did before it stopped, and why it stopped.
#[derive(Debug)]
#[must_use]
pub struct Filled {
    /// Bytes from the beginning of the range that are filled now.
    pub bytes: u64,
    /// Why the rest is not.
    pub stopped: Option<io::Error>,
}

/// A userfaultfd.
#[derive(Debug)]
pub struct Userfault(OwnedFd);

impl Userfault {
    /// A new one of this process, by an open /dev/userfaultfd: so no capability is needed, only that descriptor.
    pub fn new(device: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the request takes flags and no pointer.
        let made = unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW.into(), flags) };
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor, and nothing else knows it.
        let userfault = Self(unsafe { OwnedFd::from_raw_fd(made) });
        let mut api = uffdio_api { api: u64::from(UFFD_API), features: 0, ioctls: 0 };
        userfault.request(UFFDIO_API, &mut api)?;
        Ok(userfault)
    }

    /// From now on whoever touches a missing page of `memory` (addresses of the process that made this) waits for it.
    pub fn register_missing(&self, memory: Range<u64>) -> io::Result<()> {
        let mode = u64::from(UFFDIO_REGISTER_MODE_MISSING);
        let mut register = uffdio_register { range: range(&memory), mode, ioctls: 0 };
        self.request(UFFDIO_REGISTER, &mut register)
    }

    /// Lets go of `memory`: what is still missing becomes zeros when touched, and who waits goes on.
    pub fn unregister(&self, memory: Range<u64>) -> io::Result<()> {
        self.request(UFFDIO_UNREGISTER, &mut range(&memory))
    }

    /// Lets whoever waits for a page of `memory` look again.
    pub fn wake(&self, memory: Range<u64>) -> io::Result<()> {
        self.request(UFFDIO_WAKE, &mut range(&memory))
    }

    /// Puts `bytes` at `address` and wakes who waits there. Stops at the first page that is not missing (`EEXIST`).
    pub fn copy(&self, address: u64, bytes: &[u8]) -> Filled {
        let (src, len) = (bytes.as_ptr().expose_provenance() as u64, bytes.len() as u64);
        let mut copy = uffdio_copy { dst: address, src, len, mode: 0, copy: 0 };
        let outcome = self.request(UFFDIO_COPY, &mut copy);
        Filled { bytes: u64::try_from(copy.copy).unwrap_or(0), stopped: outcome.err() }
    }

    /// Makes `memory` zeros, like [`Userfault::copy`].
    pub fn zero(&self, memory: Range<u64>) -> Filled {
        let mut zero = uffdio_zeropage { range: range(&memory), mode: 0, zeropage: 0 };
        let outcome = self.request(UFFDIO_ZEROPAGE, &mut zero);
        Filled { bytes: u64::try_from(zero.zeropage).unwrap_or(0), stopped: outcome.err() }
    }

    /// Appends the addresses that somebody waits for to `faults`, as many as one read gives; none when nobody waits.
    pub fn read_faults(&self, faults: &mut Vec<u64>) -> io::Result<()> {
        // SAFETY: the kernel's structure is made of numbers alone, for which all zero is a value.
        let mut messages = unsafe { std::mem::zeroed::<[uffd_msg; BATCH]>() };
        let room = size_of::<[uffd_msg; BATCH]>();
        // SAFETY: the buffer is `room` bytes long, and any bytes are a valid message.
        let read = unsafe { libc::read(self.0.as_raw_fd(), messages.as_mut_ptr().cast(), room) };
        let Ok(read) = usize::try_from(read) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) };
        };
        for message in messages.iter().take(read / size_of::<uffd_msg>()) {
            if u32::from(message.event) == UFFD_EVENT_PAGEFAULT {
                // SAFETY: the event says that this is the member that the kernel has filled.
                faults.push(unsafe { message.arg.pagefault }.address);
            }
        }
        Ok(())
    }

    fn request<T>(&self, request: u32, argument: &mut T) -> io::Result<()> {
        // SAFETY: every caller in this file pairs the request with the structure that it reads and writes. Addresses in
        // it are of the registered process, or of a buffer borrowed for the call.
        let outcome = unsafe { libc::ioctl(self.0.as_raw_fd(), request.into(), std::ptr::from_mut(argument)) };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl From<OwnedFd> for Userfault {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl AsFd for Userfault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn range(memory: &Range<u64>) -> uffdio_range {
    uffdio_range { start: memory.start, len: memory.end.saturating_sub(memory.start) }
}
