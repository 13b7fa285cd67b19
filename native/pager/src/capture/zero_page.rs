//! The page that the kernel lends to everyone who reads memory that nothing was written to.
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::ptr;

use memory_image::{PAGE_BYTES, PAGE_SIZE};
use rustix::mm::{MapFlags, ProtFlags};

use super::candidates::{FRAME, PRESENT};

/// Its frame number. A guest that a pager has filled has this page wherever its image is zero, for most of memory: it
/// need not be read to know what it holds. Nothing, where the kernel does not tell frame numbers.
pub(super) fn frame() -> Option<u64> {
    // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
    let page = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), PAGE_BYTES, ProtFlags::READ, MapFlags::PRIVATE) };
    let page = page.ok()?;
    // SAFETY: the page was just mapped for reading, and is unmapped only below. A volatile read does happen.
    let value = unsafe { page.cast::<u8>().read_volatile() };
    let mut entry = [0; 8];
    let found = File::open("/proc/self/pagemap")
        .and_then(|pagemap| pagemap.read_exact_at(&mut entry, page.addr() as u64 / PAGE_SIZE * 8));
    // SAFETY: nothing points into the page.
    let unmapped = unsafe { rustix::mm::munmap(page, PAGE_BYTES) };
    let entry = u64::from_ne_bytes(entry);
    (value == 0 && found.is_ok() && unmapped.is_ok() && entry & PRESENT != 0)
        .then_some(entry & FRAME)
        .filter(|&frame| frame != 0)
}
