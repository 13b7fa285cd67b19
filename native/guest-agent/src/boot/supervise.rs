//! What process 1 does for the rest of the guest's life: keep an agent running, reap orphans, power off when told.
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions};

use super::{BootError, failed, power_off, warn};
use crate::memory::Memory;
use crate::serve::{self, Options};

/// An agent that dies sooner than this is started again only after a pause.
const SHORT_LIFE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(200);

/// The guest's own `kill 1` and the shutdown tools of its distribution.
const POWER_OFF_SIGNALS: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGPWR];

pub(super) fn run(options: &Options) -> Result<std::convert::Infallible, BootError> {
    let signals = block_signals().map_err(failed("blocking signals"))?;
    // The memory killer may take anything but this process and the agent.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let memory = Memory::create().map_err(failed("making a file in memory"))?;
    loop {
        let started = Instant::now();
        match start_agent(options, &memory, &signals) {
            Ok(agent) => {
                wait_for_end_of(agent, &signals);
                warn("the agent has died and is started again");
            }
            // Out of processes or memory for now: no reason to end a guest whose users still run.
            Err(error) => warn(format_args!("starting the agent: {error}")),
        }
        if started.elapsed() < SHORT_LIFE {
            pause(&signals);
        }
    }
}

fn block_signals() -> io::Result<libc::sigset_t> {
    // SAFETY: all zeroes is the empty set.
    let mut signals: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in POWER_OFF_SIGNALS.into_iter().chain([libc::SIGCHLD]) {
        // SAFETY: a valid set and a valid signal number.
        unsafe { libc::sigaddset(&raw mut signals, signal) };
    }
    set_mask(libc::SIG_BLOCK, &signals)?;
    Ok(signals)
}

fn set_mask(how: libc::c_int, signals: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: a valid set to read, nothing to fill.
    let result = unsafe { libc::sigprocmask(how, std::ptr::from_ref(signals), std::ptr::null_mut()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A fork without exec: the agent is this program, already in memory.
fn start_agent(options: &Options, memory: &Memory, signals: &libc::sigset_t) -> io::Result<Pid> {
    // SAFETY: there is one thread, so the child may do whatever a program does.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if let Some(pid) = Pid::from_raw(pid) {
        return Ok(pid);
    }
    let outcome = set_mask(libc::SIG_UNBLOCK, signals)
        .and_then(|()| memory.share())
        .and_then(|memory| serve::run(options, Some(memory)));
    if let Err(error) = outcome {
        warn(error);
    }
    std::process::exit(1)
}

fn wait_for_end_of(agent: Pid, signals: &libc::sigset_t) {
    loop {
        // SAFETY: a valid set to read; the details of the signal are not wanted.
        let signal = unsafe { libc::sigwaitinfo(std::ptr::from_ref(signals), std::ptr::null_mut()) };
        if handle(signal).contains(&agent) {
            return;
        }
    }
}

/// Powers off when asked to; else reaps who has ended. One SIGCHLD may stand for several children.
fn handle(signal: libc::c_int) -> Vec<Pid> {
    if POWER_OFF_SIGNALS.contains(&signal) {
        power_off();
    }
    std::iter::from_fn(|| rustix::process::wait(WaitOptions::NOHANG).ok().flatten()).map(|(pid, _)| pid).collect()
}

/// Keeps reaping: what has ended counts against the number of processes until then.
fn pause(signals: &libc::sigset_t) {
    let deadline = Instant::now() + PAUSE;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        let limit = libc::timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
        // SAFETY: a valid set and a valid time to read; the details of the signal are not wanted.
        let signal = unsafe { libc::sigtimedwait(signals, std::ptr::null_mut(), &raw const limit) };
        handle(signal);
    }
}
