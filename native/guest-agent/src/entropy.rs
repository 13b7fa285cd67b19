//! The kernel's random generator: fed by the host side, and made to forget what a copy of this guest could know.
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;

/// What is worth mixing into the pool at once.
pub(crate) const MAX_BYTES: usize = 512;

/// As much as the generator holds: with less, copies of one guest would not be worlds apart.
pub(crate) const MIN_BYTES_TO_RESEED: usize = 32;

const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

/// Credited in full: the host made these bytes for this sandbox alone. Whatever is read from the generator afterwards depends
/// on them.
pub(crate) fn add(bytes: &[u8]) -> io::Result<()> {
    #[repr(C)]
    struct PoolInfo {
        bits: libc::c_int,
        bytes: libc::c_int,
        data: [u8; MAX_BYTES],
    }

    let length = i32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut info = PoolInfo { bits: length * 8, bytes: length, data: [0; MAX_BYTES] };
    for (to, from) in info.data.iter_mut().zip(bytes) {
        *to = *from;
    }
    let pool = OpenOptions::new().write(true).open("/dev/urandom")?;
    // SAFETY: the structure is laid out as the ioctl wants it, with its length within its array.
    let added = unsafe { libc::ioctl(pool.as_raw_fd(), RNDADDENTROPY, &raw const info) };
    if added < 0 {
        return Err(io::Error::last_os_error());
    }
    // The kernel takes from the pool about once a minute, and until then goes on as it would have without these bytes.
    // SAFETY: takes no argument.
    let reseeded = unsafe { libc::ioctl(pool.as_raw_fd(), RNDRESEEDCRNG) };
    match io::Error::last_os_error() {
        _ if reseeded == 0 => Ok(()),
        // Not seeded yet at all: whoever asks it anything first seeds it with these.
        error if error.raw_os_error() == Some(libc::ENODATA) => Ok(()),
        error => Err(error),
    }
}
