//! The VM's memory as it fills: what is missing is filled once, and the kernel's refusals are told apart.
use std::ops::Range;
use std::thread::yield_now;

use memory_image::{Error, ErrorCode, PAGE_SIZE, to_usize};
use rustix::io::Errno;
use userfault::{Filled, Userfault};

use super::page_set::PageSet;
use super::regions::Regions;

/// Times that the kernel may say "again" in a row: it does while another changes the mappings, for microseconds.
const MOST_ATTEMPTS: u32 = 10_000;

/// Why no more is filled.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The memory is gone, as when the process ends.
    MemoryGone,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

pub(crate) struct GuestMemory {
    userfault: Userfault,
    regions: Regions,
    filled: PageSet,
}

impl GuestMemory {
    pub(crate) fn new(userfault: Userfault, regions: Regions, size: u64) -> Self {
        Self { userfault, regions, filled: PageSet::new(size) }
    }

    pub(crate) const fn userfault(&self) -> &Userfault {
        &self.userfault
    }

    pub(crate) const fn regions(&self) -> &Regions {
        &self.regions
    }

    pub(crate) const fn filled(&self) -> &PageSet {
        &self.filled
    }

    /// Puts `bytes` wherever memory is missing from `guest` on. Returns how many pages were.
    pub(crate) fn copy(&mut self, guest: u64, bytes: &[u8]) -> Result<u64, Stop> {
        self.fill(guest..guest + bytes.len() as u64, |userfault, at, addresses| {
            let length = to_usize(addresses.end - addresses.start);
            let start = to_usize(at - guest);
            userfault.copy(addresses.start, bytes.get(start..start + length).unwrap_or_default())
        })
    }

    /// Makes zeros of what is missing in `guest`. Returns how many pages were.
    pub(crate) fn zero(&mut self, guest: Range<u64>) -> Result<u64, Stop> {
        self.fill(guest, |userfault, _, addresses| userfault.zero(addresses))
    }

    /// For who waits for a page that was filled before. Mostly another vCPU touched it at the same time; if it was given back to
    /// the kernel (`MADV_DONTNEED`), zeros are what it holds now.
    pub(crate) fn release(&mut self, guest: u64) -> Result<(), Stop> {
        let Some(page) = self.regions.addresses(&(guest..guest + PAGE_SIZE)) else { return Ok(()) };
        let Filled { stopped, .. } = self.userfault.zero(page.clone());
        match stopped.as_ref().and_then(Errno::from_io_error) {
            None => Ok(()),
            // Busy: whoever waits looks again, and asks again.
            Some(Errno::EXIST | Errno::AGAIN) => self.wake(page),
            Some(errno) => Err(stop(errno)),
        }
    }

    /// Lets go of all of it: from now on the kernel answers for it as for any memory.
    pub(crate) fn unregister(&self) -> Result<(), Stop> {
        for region in self.regions.all() {
            self.userfault.unregister(region).map_err(|error| refused(&error))?;
        }
        Ok(())
    }

    fn fill(
        &mut self,
        range: Range<u64>,
        request: impl Fn(&Userfault, u64, Range<u64>) -> Filled,
    ) -> Result<u64, Stop> {
        let (mut at, mut filled, mut attempts) = (range.start, 0, 0);
        while let Some(run) = self.filled.first_run_outside(at..range.end) {
            let Some(addresses) = self.regions.addresses(&run) else { break };
            let Filled { bytes, stopped } = request(&self.userfault, run.start, addresses.clone());
            self.filled.insert(run.start..run.start + bytes);
            filled += bytes / PAGE_SIZE;
            at = run.start + bytes;
            attempts = if bytes > 0 { 0 } else { attempts + 1 };
            match stopped.as_ref().and_then(Errno::from_io_error) {
                None if bytes > 0 => {}
                // There already: nothing of this pager's, so that whoever waits for it may look again.
                Some(Errno::EXIST) => {
                    let page = addresses.start + bytes;
                    self.wake(page..page + PAGE_SIZE)?;
                    self.filled.insert(at..at + PAGE_SIZE);
                    at += PAGE_SIZE;
                }
                // Also how the kernel says that it did a part: the rest is asked for again, and then it says why.
                Some(Errno::AGAIN) if attempts < MOST_ATTEMPTS => {
                    if bytes == 0 {
                        yield_now();
                    }
                }
                errno => return Err(stop(errno.unwrap_or(Errno::AGAIN))),
            }
        }
        Ok(filled)
    }

    fn wake(&self, addresses: Range<u64>) -> Result<(), Stop> {
        self.userfault.wake(addresses).map_err(|error| refused(&error))
    }
}

fn refused(error: &std::io::Error) -> Stop {
    stop(Errno::from_io_error(error).unwrap_or(Errno::IO))
}

fn stop(errno: Errno) -> Stop {
    let code = match errno {
        // No such process; or its mappings are gone, which they are before it is.
        Errno::SRCH | Errno::NOENT => return Stop::MemoryGone,
        Errno::NOMEM => ErrorCode::OutOfMemory,
        _ => ErrorCode::InputOutput,
    };
    Stop::Failed(Error::new(code, format!("the kernel does not fill the VM's memory: {errno}")))
}
