//! `serve`: gives one VM its memory page by page, as it touches it, and ends with it (docs/pager.md).
mod block_index;
mod confine;
mod faults;
mod fill;
mod guest_memory;
mod handshake;
mod page_set;
mod regions;
mod status;
mod vm;
mod working_set;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use memory_image::{Error, Header, Image, Result};
use serde_json::Value;

use self::faults::{End, Server};
use self::guest_memory::GuestMemory;
use self::handshake::Listener;
use self::status::{State, Status};
use self::vm::Vm;
use self::working_set::Recorder;
use crate::arguments::{Options, invalid};

/// How long a VM may take to come, unless told: an engine starts within a second on a busy host.
const ACCEPT_TIMEOUT_MS: u64 = 30_000;

/// What needs root is done first; the VM is listened to without any power.
pub(crate) fn run(mut options: Options) -> Result<Value> {
    let socket = options.path("socket")?;
    let status = options.path("status")?;
    let uid = options.parsed("uid")?;
    let header = options.path("header")?;
    let layers = options.path("layers")?;
    let working_set = options.optional("working-set")?.map(PathBuf::from);
    let record = options.optional("record")?.map(PathBuf::from);
    let cgroups = options.all("cgroup-procs");
    let accept_timeout = match options.optional("accept-timeout")? {
        Some(text) => text.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| invalid("--accept-timeout"))?,
        None => ACCEPT_TIMEOUT_MS,
    };
    options.finish()?;

    confine::join_cgroups(&cgroups)?;
    let image = Image::open(Header::read(&header)?, &layers)?;
    let size = image.header().memory_size();
    let expected = working_set.map(|file| working_set::read(&file, size)).unwrap_or_default();
    confine::drop_powers(uid)?;

    let mut status = Status::new(status);
    let listener = Listener::bind(socket)?;
    status.write(State::Listening)?;
    let deadline = Instant::now() + Duration::from_millis(accept_timeout);
    let vm = listener.accept(uid, deadline).map_err(|error| told(&mut status, error))?;
    drop(listener);
    status.vm_pid = Some(vm.pid());
    let served = serve(&vm, &image, deadline, Recorder::new(record, size, expected), &mut status);
    match served {
        Ok(End::Complete) => status.write(State::Complete)?,
        // Its directory may be on its way already.
        Ok(End::VmEnded) => drop(status.write(State::Serving)),
        Err(error) => {
            // Told first, so that who sees the VM end finds out why. Its vCPUs wait for pages meanwhile: none goes on.
            let error = told(&mut status, error);
            vm.kill();
            return Err(error);
        }
    }
    Ok(status.json())
}

fn serve(vm: &Vm, image: &Image, deadline: Instant, recorder: Recorder, status: &mut Status) -> Result<End> {
    let (userfault, regions) = vm.receive_memory(image.header().memory_size(), deadline)?;
    status.regions = regions.clone();
    status.write(State::Serving)?;
    let memory = GuestMemory::new(userfault, regions, image.header().memory_size());
    Server::new(vm, image, memory, recorder).run(status)
}

/// Writes down why it ends. A status that cannot be written either is told by the exit code alone.
fn told(status: &mut Status, error: Error) -> Error {
    status.message = Some(error.message.clone());
    match status.write(State::Failed) {
        Ok(()) => error,
        Err(unwritten) => Error::new(error.code, format!("{}; and {}", error.message, unwritten.message)),
    }
}
