//! Preloaded into an unmodified QEMU, whose `mmap` it stands in for: guest memory, and nothing else that QEMU maps, comes
//! from files mapped privately or page by page from the pager. `WRENN_GUEST_MEMORY` says which (see `configuration`).
//!
//! Everything that fails ends the process at once, for a guest must never run on memory that is not its own.
mod configuration;
mod guest_memory;
mod handshake;

use std::ffi::c_void;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{
    MADV_HUGEPAGE, MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE, c_int, off_t, size_t,
};

use crate::configuration::{Configuration, VARIABLE};

/// Exit code of a process whose guest memory could not be set up (`EX_OSERR` of sysexits.h).
const EXIT_CODE: c_int = 71;

static CONFIGURATION: OnceLock<Configuration> = OnceLock::new();
/// Address of guest memory, once it is there.
static MEMORY: AtomicUsize = AtomicUsize::new(0);

/// # Safety
/// As mmap(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(
    address: *mut c_void,
    length: size_t,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: off_t,
) -> *mut c_void {
    // SAFETY: the caller keeps the rules of mmap(2).
    let mapped = unsafe { map_by_kernel(address, length, protection, flags, file, offset) };
    if mapped != MAP_FAILED
        && is_guest_memory(length, protection, flags)
        && MEMORY.compare_exchange(0, mapped.addr(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    {
        replace(mapped);
    }
    mapped
}

/// What C programs that are built for large files, as QEMU is, call.
///
/// # Safety
/// As mmap(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(
    address: *mut c_void,
    length: size_t,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: off_t,
) -> *mut c_void {
    // SAFETY: the caller keeps the rules of mmap(2).
    unsafe { mmap(address, length, protection, flags, file, offset) }
}

/// QEMU asks for huge pages in guest memory. They would make every page around one that a guest writes its own, for 2 MiB, where
/// copies of it share what they do not write.
///
/// # Safety
/// As madvise(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn madvise(address: *mut c_void, length: size_t, advice: c_int) -> c_int {
    let memory = MEMORY.load(Ordering::Relaxed);
    if advice == MADV_HUGEPAGE && memory != 0 && address.addr().wrapping_sub(memory) < configuration().size {
        return 0;
    }
    // SAFETY: the caller keeps the rules of madvise(2).
    let result = unsafe { libc::syscall(libc::SYS_madvise, address, length, advice) };
    c_int::try_from(result).unwrap_or(-1)
}

/// mmap(2) itself, and `errno`: the C library's function is not called, for that is the one above.
///
/// # Safety
/// As mmap(2).
unsafe fn map_by_kernel(
    address: *mut c_void,
    length: size_t,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: off_t,
) -> *mut c_void {
    // SAFETY: the caller keeps the rules of mmap(2).
    let mapped = unsafe { libc::syscall(libc::SYS_mmap, address, length, protection, flags, file, offset) };
    // `syscall` returns every result as a number. MAP_FAILED is the largest address.
    std::ptr::with_exposed_provenance_mut(usize::try_from(mapped.cast_unsigned()).unwrap_or(usize::MAX))
}

/// QEMU reserves addresses first and then maps a guest's memory there: private, anonymous, and exactly as long as the
/// guest's memory. The first such mapping is it.
fn is_guest_memory(length: size_t, protection: c_int, flags: c_int) -> bool {
    const FLAGS: c_int = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    flags & FLAGS == FLAGS && protection == PROT_READ | PROT_WRITE && length == configuration().size
}

fn configuration() -> &'static Configuration {
    CONFIGURATION.get_or_init(|| Configuration::from_environment().unwrap_or_else(|error| fail(&error)))
}

fn replace(memory: *mut c_void) {
    if let Err(error) = guest_memory::replace(memory, configuration()) {
        fail(&error);
    }
}

fn fail(reason: &io::Error) -> ! {
    // Where this cannot be written, the exit code still tells.
    let _ = writeln!(io::stderr(), "libwrenn-memory: {VARIABLE}: {reason}");
    // SAFETY: ends the process without running handlers of the program, which may expect memory that is not there.
    unsafe { libc::_exit(EXIT_CODE) }
}
