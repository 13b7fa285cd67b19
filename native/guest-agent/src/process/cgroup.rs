//! The control group of users' processes: it keeps them from starving the agent, names those the kernel killed for
//! memory, and reaches every descendant of a process, however it detached itself.
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{Mode, OFlags};

use crate::metrics::meminfo_bytes;
use crate::sync::lock;

const ROOT: &str = "/sys/fs/cgroup";
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// Of the memory that is available before any user's process runs, left to the agent and the kernel: this much, or that
/// fraction, whichever is more. So it is the group that runs out, not the guest.
const RESERVED_BYTES: u64 = 16 * 1024 * 1024;
const RESERVED_FRACTION: u64 = 32;

/// Groups emptied only after their process had ended are removed so many at a time.
const SWEEP: usize = 8;

pub(crate) struct UserCgroup {
    path: PathBuf,
    leftover: Mutex<Vec<PathBuf>>,
}

/// The group of one process and its descendants.
pub(super) struct ProcessCgroup {
    path: PathBuf,
    directory: OwnedFd,
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    // Not fs::write: there is nothing to create or truncate in a control file system.
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn available_memory() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    Some(meminfo_bytes(&meminfo, "MemAvailable")).filter(|bytes| *bytes > 0)
}

impl UserCgroup {
    /// Nothing where there is no cgroup2 to use: processes then run ungrouped.
    pub(crate) fn set_up() -> Option<Self> {
        if rustix::fs::statfs(ROOT).ok()?.f_type != CGROUP2_MAGIC {
            return None;
        }
        let path = Path::new(ROOT).join("user");
        let existed = match fs::create_dir(&path) {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => true,
            Err(_) => return None,
        };
        // One by one: a kernel without one of them still gives the others.
        for controller in ["+cpu", "+memory", "+pids"] {
            let _ = write(&Path::new(ROOT).join("cgroup.subtree_control"), controller);
        }
        // An agent that takes over from one that died finds the limits set, and processes using what they allow.
        if !existed {
            if let Some(available) = available_memory() {
                let limit = available.saturating_sub(RESERVED_BYTES.max(available / RESERVED_FRACTION));
                let _ = write(&path.join("memory.max"), &limit.to_string());
            }
            if let Some(threads) = number("/proc/sys/kernel/threads-max") {
                let _ = write(&path.join("pids.max"), &(threads - threads / RESERVED_FRACTION).to_string());
            }
        }
        Some(Self { path, leftover: Mutex::default() })
    }

    /// How many processes of users the kernel has killed for memory so far.
    pub(super) fn oom_kills(&self) -> u64 {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        count.unwrap_or_default()
    }

    /// No controller is enabled in it, so making one costs microseconds and leaves nothing charged to it behind.
    pub(super) fn create(&self, serial: u64) -> io::Result<ProcessCgroup> {
        // With the agent's pid, because an agent before this one may have left groups.
        let path = self.path.join(format!("p{}-{serial}", std::process::id()));
        fs::create_dir(&path)?;
        let directory = rustix::fs::open(&path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(ProcessCgroup { path, directory })
    }

    /// Removes the group, later if somebody is still in it.
    pub(super) fn remove(&self, cgroup: ProcessCgroup) {
        let mut leftover = lock(&self.leftover);
        leftover.push(cgroup.path);
        let from = leftover.len().saturating_sub(SWEEP);
        let candidates = leftover.split_off(from);
        leftover.splice(0..0, candidates.into_iter().filter(|path| fs::remove_dir(path).is_err()));
    }
}

impl ProcessCgroup {
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    pub(super) fn kill(&self) -> io::Result<()> {
        File::options().write(true).open(self.path.join("cgroup.kill"))?.write_all(b"1")
    }
}
