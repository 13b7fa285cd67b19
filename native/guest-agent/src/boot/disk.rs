//! The root disk: waited for, mounted, and its file system grown to the size of the device.
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::mount::MountFlags;

use super::mounts::NEW_ROOT;
use super::{BootError, failed, warn};

const DEVICE: &str = "/dev/vda";

/// The driver finds its devices while it loads; this only covers a kernel that looks for them in the background.
const DEVICE_LIMIT: Duration = Duration::from_secs(10);
const DEVICE_POLL: Duration = Duration::from_micros(500);

pub(super) fn mount_root(target: &str) -> Result<(), BootError> {
    let deadline = Instant::now() + DEVICE_LIMIT;
    while rustix::fs::stat(DEVICE).is_err() {
        if Instant::now() > deadline {
            return Err(BootError(format!("{DEVICE} did not appear in {} s", DEVICE_LIMIT.as_secs())));
        }
        std::thread::sleep(DEVICE_POLL);
    }
    std::fs::create_dir_all(target).map_err(failed(target))?;
    // No lazy initialisation of inode tables: it would write to the overlay in the background.
    rustix::mount::mount(DEVICE, target, "ext4", MountFlags::NOATIME, c"noinit_itable")
        .map_err(failed(format_args!("mounting {DEVICE}")))
}

/// A root filesystem that stays small still boots.
pub(super) fn grow_root() {
    if let Err(error) = grow() {
        warn(format_args!("growing the file system of {DEVICE}: {error}"));
    }
}

struct Superblock {
    blocks: u64,
    block_bytes: u64,
}

/// Offsets are those of struct `ext4_super_block`, which lies 1024 bytes into the device.
fn parse_superblock(bytes: &[u8; 1024]) -> Option<Superblock> {
    let word = |offset: usize| bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes);
    let high = word(0x150)?;
    let shift = word(0x18)?;
    Some(Superblock {
        blocks: u64::from(high) << 32 | u64::from(word(0x4)?),
        block_bytes: 1024_u64.checked_shl(shift)?,
    })
}

fn grow() -> io::Result<()> {
    const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610;

    let mut device = File::open(DEVICE)?;
    let mut bytes = [0; 1024];
    device.read_exact_at(&mut bytes, 1024)?;
    let superblock = parse_superblock(&bytes).ok_or(io::ErrorKind::InvalidData)?;
    let device_bytes = device.seek(SeekFrom::End(0))?;
    let blocks = device_bytes.checked_div(superblock.block_bytes).ok_or(io::ErrorKind::InvalidData)?;
    if blocks <= superblock.blocks {
        return Ok(());
    }
    let root = File::open(NEW_ROOT)?;
    // SAFETY: the ioctl reads one u64, the wanted number of blocks.
    let result = unsafe { libc::ioctl(root.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_tells_its_size() {
        let mut bytes = [0; 1024];
        bytes[0x4..0x8].copy_from_slice(&327_680_u32.to_le_bytes());
        bytes[0x18..0x1c].copy_from_slice(&2_u32.to_le_bytes());
        let superblock = parse_superblock(&bytes).unwrap();
        assert_eq!((superblock.blocks, superblock.block_bytes), (327_680, 4096));
        bytes[0x18..0x1c].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(parse_superblock(&bytes).is_none());
    }
}
