//! Signals to a process with everything it started.
use std::fs;
use std::io;

use rustix::process::{Pid, Signal};

use super::cgroup::ProcessCgroup;

/// To the process's group: the process leads one of its own.
pub(super) fn signal_group(pid: u32, signal: Signal) -> io::Result<()> {
    let group = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::kill_process_group(group, signal)?)
}

/// Everything: the group, and what left it for another.
pub(super) fn kill_all(pid: u32, cgroup: Option<&ProcessCgroup>) -> io::Result<()> {
    let outcome = signal_group(pid, Signal::KILL);
    if let Some(Ok(())) = cgroup.map(ProcessCgroup::kill) {
        return Ok(());
    }
    kill_session(pid);
    outcome
}

/// Where there are no cgroups: whoever shares the session, which job control and `setpgid` do not leave.
fn kill_session(session: u32) {
    let Ok(entries) = fs::read_dir("/proc") else { return };
    for entry in entries.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { continue };
        let Ok(stat) = fs::read(entry.path().join("stat")) else { continue };
        if session_of(&String::from_utf8_lossy(&stat)) == Some(session) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// The sixth field of /proc/<pid>/stat. The second is the name in parentheses and may hold anything.
fn session_of(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_session_is_found_behind_any_process_name() {
        assert_eq!(super::session_of("42 (a) b) (c) S 1 42 77 0 -1 4194560"), Some(77));
        assert_eq!(super::session_of("garbage"), None);
    }
}
