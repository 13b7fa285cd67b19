//! The pseudo file systems, and the way from the initramfs to the root filesystem.
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::Path;

use rustix::mount::MountFlags;

use super::{BootError, failed, warn};

pub(super) const NEW_ROOT: &str = "/sysroot";

fn make_directory(path: &str) {
    // A root filesystem should have it; where it is there already, this changes nothing.
    let _ = fs::DirBuilder::new().mode(0o755).create(path);
}

fn mount(kind: &str, target: &str, flags: MountFlags, options: &CStr) -> Result<(), BootError> {
    make_directory(target);
    rustix::mount::mount(kind, target, kind, flags, options).map_err(failed(format_args!("mounting {target}")))
}

pub(super) fn mount_devices() -> Result<(), BootError> {
    mount("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=755")
}

/// Below the new root, before it is the root.
pub(super) fn mount_all() -> Result<(), BootError> {
    const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
    let below = |path: &str| format!("{NEW_ROOT}{path}");

    let devices = below("/dev");
    make_directory(&devices);
    rustix::mount::mount_move("/dev", devices.as_str()).map_err(failed("moving /dev"))?;
    mount("proc", &below("/proc"), QUIET, c"")?;
    mount("sysfs", &below("/sys"), QUIET, c"")?;
    mount("devpts", &below("/dev/pts"), MountFlags::NOSUID | MountFlags::NOEXEC, c"gid=5,mode=620,ptmxmode=666")?;
    mount("tmpfs", &below("/dev/shm"), MountFlags::NOSUID | MountFlags::NODEV, c"mode=1777")?;
    mount("tmpfs", &below("/run"), MountFlags::NOSUID | MountFlags::NODEV, c"mode=755")?;
    make_directory(&below("/run/lock"));
    // Without it processes run ungrouped.
    if let Err(BootError(error)) = mount("cgroup2", &below("/sys/fs/cgroup"), QUIET, c"memory_recursiveprot") {
        warn(error);
    }
    link_descriptors(&devices);
    Ok(())
}

/// Shells need /dev/fd for process substitution; devtmpfs does not bring it.
fn link_descriptors(devices: &str) {
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        if let Err(error) = symlink(target, format!("{devices}/{name}"))
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            warn(format_args!("/dev/{name}: {error}"));
        }
    }
}

/// Frees the initramfs (this program goes on from its mapped file) and makes the root filesystem the root.
pub(super) fn switch_root() -> Result<(), BootError> {
    if let Ok(root) = fs::metadata("/") {
        remove_contents(Path::new("/"), root.dev());
    }
    std::env::set_current_dir(NEW_ROOT).map_err(failed(NEW_ROOT))?;
    rustix::mount::mount_move(".", "/").map_err(failed("moving the root"))?;
    rustix::process::chroot(".").map_err(failed("changing the root"))?;
    std::env::set_current_dir("/").map_err(failed("/"))
}

/// Leaves alone whatever is another file system, above all the new root.
fn remove_contents(directory: &Path, device: u64) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.dev() != device {
            continue;
        }
        if metadata.is_dir() {
            remove_contents(&path, device);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}
