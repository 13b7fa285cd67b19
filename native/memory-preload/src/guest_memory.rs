//! Puts what the configuration names in the place of guest memory that was just mapped.
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::mem::forget;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use libc::{MADV_NOHUGEPAGE, MAP_FAILED, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE};
use memory_image::{Extent, Header, Source as Lies, to_usize};
use userfault::Userfault;

use crate::configuration::{Configuration, Source};
use crate::handshake::hand_over;
use crate::map_by_kernel;

pub(crate) fn replace(memory: *mut c_void, configuration: &Configuration) -> io::Result<()> {
    let size = configuration.size;
    match &configuration.source {
        Source::File(file) => map_file(memory, size, *file),
        Source::Image { header, layers } => map_image(memory, size, *header, *layers),
        Source::Pager { userfault_device, socket } => serve_by_pager(memory, size, *userfault_device, socket),
    }
}

/// What is written stays in this process; what is not is the page cache's, shared by all who map the file.
fn map_file(memory: *mut c_void, size: usize, file: RawFd) -> io::Result<()> {
    let file = File::from(inherited(file)?);
    // A file shorter than the memory would end the guest with a bus error, at whatever moment it gets there.
    let length = length_of(&file)?;
    if length != size as u64 {
        return Err(io::Error::other(format!("the memory file is {length} bytes long, guest memory {size}")));
    }
    // SAFETY: the region was mapped by our caller a moment ago, is `size` long, and nothing points into it yet.
    unsafe { map_over(memory, size, &file, 0) }
}

/// The same of many pieces. What is zero in the image stays as it is: anonymous memory that nothing was written to.
fn map_image(memory: *mut c_void, size: usize, header: RawFd, count: RawFd) -> io::Result<()> {
    let opened = File::from(inherited(header)?);
    let image = Header::read_file(opened, Path::new("the inherited header"))
        .map_err(|error| io::Error::other(error.message))?;
    let layers = (1..=count).map(|layer| Ok(File::from(inherited(header + layer)?))).collect::<io::Result<Vec<_>>>()?;
    if image.memory_size() != size as u64 || image.layers().len() != layers.len() {
        let (memory_size, named) = (image.memory_size(), image.layers().len());
        let message = format!("an image of {memory_size} bytes in {named} layers, but {size} in {count} are wanted");
        return Err(io::Error::other(message));
    }
    let lengths = layers.iter().map(length_of).collect::<io::Result<Vec<_>>>()?;
    for Extent { guest, length, source } in image.extents() {
        let Lies::Layer { index, offset } = source else { continue };
        let index = usize::try_from(*index).unwrap_or(usize::MAX);
        let (Some(layer), Some(end)) = (layers.get(index), lengths.get(index)) else {
            return Err(io::Error::other(format!("there is no layer {index}")));
        };
        if *end < offset + length {
            return Err(io::Error::other(format!("layer {index} ends before the memory that lies in it")));
        }
        let at = memory.wrapping_byte_add(to_usize(*guest));
        // SAFETY: as above; a header is valid only if its extents lie inside its memory, which is as long as the region.
        unsafe { map_over(at, to_usize(*length), layer, *offset)? };
    }
    Ok(())
}

/// # Safety
/// Nothing must point into these `size` bytes, which are mapped.
unsafe fn map_over(memory: *mut c_void, size: usize, file: &File, offset: u64) -> io::Result<()> {
    let flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE;
    let offset = offset.try_into().map_err(io::Error::other)?;
    // SAFETY: the caller keeps the rule above.
    let mapped = unsafe { map_by_kernel(memory, size, PROT_READ | PROT_WRITE, flags, file.as_raw_fd(), offset) };
    if mapped == MAP_FAILED {
        return Err(failed("cannot map the memory file", &io::Error::last_os_error()));
    }
    Ok(())
}

fn length_of(file: &File) -> io::Result<u64> {
    Ok(file.metadata().map_err(|error| failed("cannot examine the memory file", &error))?.len())
}

fn serve_by_pager(memory: *mut c_void, size: usize, device: RawFd, socket: &Path) -> io::Result<()> {
    let device = inherited(device)?;
    // A huge page would be filled with zeros around the one page that the pager has given.
    // SAFETY: advice about memory that was mapped by our caller a moment ago.
    if unsafe { libc::madvise(memory, size, MADV_NOHUGEPAGE) } < 0 {
        let error = io::Error::last_os_error();
        // A kernel that has no huge pages knows no advice about them either.
        if error.kind() != io::ErrorKind::InvalidInput {
            return Err(failed("cannot forbid huge pages", &error));
        }
    }
    let userfault = Userfault::new(device.as_fd()).map_err(|error| failed("cannot make a userfaultfd", &error))?;
    let base = memory.expose_provenance() as u64;
    userfault
        .register_missing(base..base + size as u64)
        .map_err(|error| failed("cannot register guest memory with userfaultfd", &error))?;
    hand_over(&userfault, base, size, socket)
        .map_err(|error| failed(&format!("cannot hand guest memory to the pager at {}", socket.display()), &error))?;
    // Open for as long as the process lives: closed with the pager's own copy, the kernel would fill missing pages with
    // zeros, and the guest would go on with garbage. So it waits instead, and is ended.
    forget(userfault);
    Ok(())
}

fn inherited(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: asks about a number, open or not.
    if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0 {
        return Err(failed(&format!("descriptor {descriptor} was not inherited"), &io::Error::last_os_error()));
    }
    // SAFETY: whoever started this process passed the descriptor for this purpose, and nothing else in it uses it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn failed(step: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{step}: {error}"))
}
