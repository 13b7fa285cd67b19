//! Gives up what root can do before anything is heard from a VM.
use std::ffi::OsString;
use std::io;
use std::path::Path;

use memory_image::{Error, ErrorCode, Result};

use crate::arguments::invalid;

/// `PR_CAPBSET_DROP` refuses the first number that is no capability: there are 41 today, at most 64 ever.
const MOST_CAPABILITIES: libc::c_ulong = 64;

/// Counts this process, and the page cache it fills, with the VM.
pub(crate) fn join_cgroups(procs_files: &[OsString]) -> Result<()> {
    for file in procs_files {
        std::fs::write(file, std::process::id().to_string())
            .map_err(|error| Error::io("join the control group", Path::new(file), &error))?;
    }
    Ok(())
}

/// Becomes user and group `uid`, without other groups, capabilities, network or a way back.
pub(crate) fn drop_powers(uid: u32) -> Result<()> {
    if uid == 0 {
        return Err(invalid("--uid 0: a pager has a user of its own VM"));
    }
    // SAFETY: takes no pointer. This process has one thread, and uses no network.
    step("leave the network", || unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    for capability in 0..MOST_CAPABILITIES {
        // SAFETY: takes no pointer.
        let dropped = step("drop capabilities", || unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) });
        if capability == 0 {
            dropped?;
        } else if dropped.is_err() {
            break;
        }
    }
    // SAFETY: a list of no groups is read from no pointer.
    step("leave all groups", || unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: takes no pointer.
    step("change the group", || unsafe { libc::setresgid(uid, uid, uid) })?;
    // The last that needs power: the kernel clears all capabilities with it.
    // SAFETY: takes no pointer.
    step("change the user", || unsafe { libc::setresuid(uid, uid, uid) })?;
    // SAFETY: takes no pointer.
    step("forbid new privileges", || unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
}

fn step(what: &str, call: impl FnOnce() -> libc::c_int) -> Result<()> {
    if call() >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(Error::new(ErrorCode::InputOutput, format!("cannot {what}: {error}")))
}
