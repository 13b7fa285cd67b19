//! The loop that serves a VM. One thread: a fault is answered before anything else is done, and the rest of the working set is
//! fetched while none waits.
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use memory_image::{Error, ErrorCode, Image, Result};
use rustix::event::PollFlags;

use super::fill::Filler;
use super::guest_memory::{GuestMemory, Stop};
use super::status::Status;
use super::vm::{Vm, wait};
use super::working_set::Recorder;

/// How long a process may take to end whose memory is gone.
const ENDING: Duration = Duration::from_secs(5);

/// How serving ends when nothing fails.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Every page is filled, and the VM goes on by itself.
    Complete,
    VmEnded,
}

pub(crate) struct Server<'a> {
    vm: &'a Vm,
    filler: Filler<'a>,
    recorder: Recorder,
    /// Reused, so that it does not grow.
    faults: Vec<u64>,
}

impl<'a> Server<'a> {
    pub(crate) fn new(vm: &'a Vm, image: &'a Image, memory: GuestMemory, recorder: Recorder) -> Self {
        Self { vm, filler: Filler::new(image, memory), recorder, faults: Vec::new() }
    }

    /// Serves until the VM ends, needs nothing any more, or cannot be served.
    pub(crate) fn run(mut self, status: &mut Status) -> Result<End> {
        let end = match self.serve(status) {
            Ok(end) => Ok(end),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::MemoryGone) => self.vm_ended(),
        };
        status.counts = self.filler.counts();
        self.recorder.finish();
        end
    }

    fn serve(&mut self, status: &mut Status) -> std::result::Result<End, Stop> {
        loop {
            let deadline = if self.recorder.has_expected() { Some(Instant::now()) } else { self.recorder.deadline() };
            let userfault = self.filler.memory().userfault().as_fd();
            let [ended, faulted] = wait([(self.vm.pidfd(), PollFlags::IN), (userfault, PollFlags::IN)], deadline)?;
            if ended {
                return Ok(End::VmEnded);
            }
            if faulted {
                self.answer()?;
            } else if let Some(expected) = self.recorder.next_expected() {
                self.filler.prefetch(expected)?;
            }
            if self.recorder.finish_in_time() {
                status.counts = self.filler.counts();
                status.rewrite()?;
            }
            if self.filler.memory().filled().is_full() {
                self.filler.memory().unregister()?;
                return Ok(End::Complete);
            }
        }
    }

    fn answer(&mut self) -> std::result::Result<(), Stop> {
        self.faults.clear();
        self.filler.memory().userfault().read_faults(&mut self.faults).map_err(|error| {
            Error::new(ErrorCode::HandshakeFailed, format!("what the VM passed is no userfaultfd: {error}"))
        })?;
        for &address in &self.faults {
            // What lies outside was registered by the VM itself, and is its own to wait for.
            let Some(guest) = self.filler.memory().regions().guest_page(address) else { continue };
            self.recorder.note(guest);
            self.filler.fault(guest)?;
        }
        Ok(())
    }

    /// Its memory is gone, so it should be ending. If it is not, it unmapped its guest's memory.
    fn vm_ended(&self) -> Result<End> {
        if self.vm.ends_within(ENDING)? {
            return Ok(End::VmEnded);
        }
        Err(Error::new(ErrorCode::MemoryNotMapped, "the VM's memory is gone, but its process is not"))
    }
}
