//! The guest's boot id, which tells apart copies of one guest as it tells apart boots of one machine. The kernel makes it once
//! and offers no way to change it, so a file of ours lies over it. `/proc`s that containers mount for themselves show the kernel's.
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

use rustix::fs::PROC_SUPER_MAGIC;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Gives another one to each reader.
const RANDOM_ID: &str = "/proc/sys/kernel/random/uuid";

/// In memory: it means nothing to the next boot.
const DIRECTORY: &str = "/run/wrenn";
const OURS: &str = "/run/wrenn/boot_id";

/// Only for process 1 and the agent of a guest: it changes the machine. Once it has been called, as at boot, all that is left
/// to do is a write to memory.
pub(crate) fn renew() -> io::Result<()> {
    let id = fs::read(RANDOM_ID)?;
    if is_ours()? {
        // Always of the same length, so nobody reads less than one.
        return OpenOptions::new().write(true).open(BOOT_ID)?.write_all(&id);
    }
    match DirBuilder::new().mode(0o755).create(DIRECTORY) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => fs::write(OURS, &id)?,
    }
    fs::set_permissions(OURS, Permissions::from_mode(0o444))?;
    Ok(rustix::mount::mount_bind(OURS, BOOT_ID)?)
}

fn is_ours() -> io::Result<bool> {
    Ok(rustix::fs::statfs(BOOT_ID)?.f_type != PROC_SUPER_MAGIC)
}
