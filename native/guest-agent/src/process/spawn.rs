//! Starts one program: a fork whose child only makes system calls, then becomes the program.
//!
//! No wrapper shell and no second program: under software emulation each exec costs milliseconds.
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::sync::lock;

/// What select(2) can hold; programs that want more raise it up to the hard limit.
const SOFT_OPEN_FILES: libc::rlim_t = 1024;

/// Everything the child needs, made before the fork: after it no memory may be allocated.
pub(crate) struct Program<'a> {
    pub(crate) path: &'a CStr,
    pub(crate) arguments: &'a [CString],
    pub(crate) environment: &'a [CString],
    pub(crate) directory: &'a CStr,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: &'a [u32],
    /// Descriptors that become 0, 1 and 2.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Whether descriptor 0 is a terminal the child shall control.
    pub(crate) terminal: bool,
    /// Directory of the cgroup to start in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

pub(crate) struct Child {
    pub(crate) pid: u32,
    /// Readable once the child has ended.
    pub(crate) handle: OwnedFd,
}

/// The step at which a child failed before it became the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Fork,
    Setup,
    Identity,
    Directory,
    Execute,
}

#[derive(Debug)]
pub(crate) struct SpawnError {
    pub(crate) step: Step,
    pub(crate) error: io::Error,
}

/// Memory shared with a child, in which it leaves what went wrong.
struct Report {
    step: AtomicI32,
    errno: AtomicI32,
}

pub(crate) struct Spawner {
    report: &'static Report,
    /// One child at a time uses the report.
    turn: Mutex<()>,
}

impl Spawner {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: a new anonymous mapping touches no memory in use.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<Report>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the page is mapped for good, aligned, zeroed (valid for atomics) and only ever used as this type.
        let report = unsafe { &*page.cast::<Report>() };
        Ok(Self { report, turn: Mutex::new(()) })
    }

    pub(crate) fn spawn(&self, program: &Program<'_>) -> Result<Child, SpawnError> {
        let arguments = pointers(program.arguments);
        let environment = pointers(program.environment);
        let _turn = lock(&self.turn);
        self.report.step.store(0, Ordering::Relaxed);

        let forked = match fork(program.cgroup) {
            // The cgroup may have just been removed, or the kernel may be too old to start a child in one.
            Err(_) if program.cgroup.is_some() => fork(None),
            outcome => outcome,
        };
        match forked.map_err(|error| SpawnError { step: Step::Fork, error })? {
            Forked::Child => become_program(program, &arguments, &environment, self.report),
            Forked::Parent(child) => match self.report.step.load(Ordering::Acquire) {
                0 => Ok(child),
                step => {
                    let error = io::Error::from_raw_os_error(self.report.errno.load(Ordering::Relaxed));
                    reap(&child);
                    let step = match step {
                        STEP_IDENTITY => Step::Identity,
                        STEP_DIRECTORY => Step::Directory,
                        STEP_EXECUTE => Step::Execute,
                        _ => Step::Setup,
                    };
                    Err(SpawnError { step, error })
                }
            },
        }
    }
}

const STEP_SETUP: i32 = 1;
const STEP_IDENTITY: i32 = 2;
const STEP_DIRECTORY: i32 = 3;
const STEP_EXECUTE: i32 = 4;

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

fn reap(child: &Child) {
    let _ = rustix::process::waitid(
        rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&child.handle)),
        rustix::process::WaitIdOptions::EXITED,
    );
}

enum Forked {
    Parent(Child),
    Child,
}

/// Returns in the parent once the child has become its program or has ended (`CLONE_VFORK`), so the report is final.
fn fork(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    // libc 0.2 spells these flags as c_int; all are positive.
    #[allow(clippy::cast_sign_loss)]
    let mut flags = (libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64;
    let mut handle: RawFd = -1;
    // SAFETY: all zeroes is a valid clone_args: "nothing wanted".
    let mut request: libc::clone_args = unsafe { std::mem::zeroed() };
    if let Some(cgroup) = cgroup {
        // CLONE_INTO_CGROUP does not fit the c_int libc gives it.
        flags |= 0x2_0000_0000;
        request.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or_default();
    }
    request.flags = flags;
    request.pidfd = ptr::from_mut(&mut handle) as u64;
    request.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    // SAFETY: without CLONE_VM the child is a copy, as after fork(2); it makes system calls only until it execs or exits.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, ptr::from_mut(&mut request), size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(Child {
            pid: u32::try_from(pid).unwrap_or_default(),
            // SAFETY: the kernel has just made this descriptor for us.
            handle: unsafe { OwnedFd::from_raw_fd(handle) },
        })),
    }
}

fn become_program(
    program: &Program<'_>,
    arguments: &[*const libc::c_char],
    environment: &[*const libc::c_char],
    report: &Report,
) -> ! {
    let step = prepare(program).err().unwrap_or_else(|| {
        // SAFETY: path and both arrays are NUL-terminated and outlive the call.
        unsafe { libc::execve(program.path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        STEP_EXECUTE
    });
    report.errno.store(io::Error::last_os_error().raw_os_error().unwrap_or_default(), Ordering::Relaxed);
    report.step.store(step, Ordering::Release);
    // SAFETY: ends the child without running the parent's exit handlers.
    unsafe { libc::_exit(127) }
}

fn check(result: i64, step: i32) -> Result<(), i32> {
    if result < 0 { Err(step) } else { Ok(()) }
}

/// In the child: from the agent's identity, priority and limits to the user's.
fn prepare(program: &Program<'_>) -> Result<(), i32> {
    // A session of its own, so that a signal to the group reaches all of it and nothing else.
    // SAFETY: plain system call.
    check(unsafe { libc::setsid() }.into(), STEP_SETUP)?;
    if program.terminal {
        // SAFETY: the descriptor is open; the ioctl takes an integer.
        check(unsafe { libc::ioctl(program.stdio[0].as_raw_fd(), libc::TIOCSCTTY, 0) }.into(), STEP_SETUP)?;
    }
    for (target, source) in (0..).zip(program.stdio) {
        // SAFETY: sources are above 2, because the agent keeps its own 0, 1 and 2 open; so none is overwritten.
        check(unsafe { libc::dup2(source.as_raw_fd(), target) }.into(), STEP_SETUP)?;
    }
    // SAFETY: plain system call. Descriptors are close-on-exec already; this covers any that a library forgot.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    reset_privileged_state();

    // System calls, not the C library's functions, which would want to tell threads that this child does not have.
    // SAFETY: the array is valid for its length.
    check(unsafe { libc::syscall(libc::SYS_setgroups, program.groups.len(), program.groups.as_ptr()) }, STEP_IDENTITY)?;
    // SAFETY: plain system call.
    check(unsafe { libc::syscall(libc::SYS_setresgid, program.gid, program.gid, program.gid) }, STEP_IDENTITY)?;
    // SAFETY: plain system call.
    check(unsafe { libc::syscall(libc::SYS_setresuid, program.uid, program.uid, program.uid) }, STEP_IDENTITY)?;
    // As the user, so that a directory the user may not enter is refused.
    // SAFETY: a NUL-terminated path.
    check(unsafe { libc::chdir(program.directory.as_ptr()) }.into(), STEP_DIRECTORY)
}

/// Gives up the agent's priority, protection and limits. None of it is worth failing a start for.
fn reset_privileged_state() {
    // SAFETY: a NUL-terminated path.
    let file = unsafe { libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    if file >= 0 {
        // SAFETY: one byte of static memory.
        unsafe { libc::write(file, c"0".as_ptr().cast(), 1) };
    }
    // SAFETY: plain system call.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid structure to fill.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0 {
        limit.rlim_cur = limit.rlim_max.min(SOFT_OPEN_FILES);
        // SAFETY: a valid structure to read.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
    // SAFETY: plain system call.
    unsafe { libc::umask(0o022) };
    // Rust ignores SIGPIPE, and exec would hand that on: shell pipelines rely on dying of it.
    // SAFETY: the default action is no handler of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: all zeroes is the empty signal set.
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a valid set to read, nothing to fill.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) };
}
