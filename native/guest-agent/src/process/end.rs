//! How the end of a process is told.
use rustix::process::WaitIdStatus;

use crate::proto::process::process_event::EndEvent;

/// Why a process was killed, as far as this agent knows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Circumstances {
    pub(super) timed_out: bool,
    pub(super) oom_killed: bool,
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGQUIT => "quit",
        libc::SIGILL => "illegal instruction",
        libc::SIGTRAP => "trace/breakpoint trap",
        libc::SIGABRT => "aborted",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "floating point exception",
        libc::SIGKILL => "killed",
        libc::SIGUSR1 => "user defined signal 1",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGUSR2 => "user defined signal 2",
        libc::SIGPIPE => "broken pipe",
        libc::SIGALRM => "alarm clock",
        libc::SIGTERM => "terminated",
        other => return other.to_string(),
    };
    name.to_owned()
}

/// The words are those of E2B's agent, which are Go's; the exit code of a signalled process is a shell's.
pub(super) fn describe(status: Option<&WaitIdStatus>, circumstances: Circumstances) -> EndEvent {
    let signal = status.and_then(WaitIdStatus::terminating_signal);
    let exit_code = status.and_then(WaitIdStatus::exit_status).unwrap_or_default();
    let status = match signal {
        Some(signal) => format!("signal: {}", signal_name(signal)),
        None => format!("exit status {exit_code}"),
    };
    let error = if circumstances.timed_out {
        Some(format!("{status} (deadline exceeded)"))
    } else if circumstances.oom_killed {
        Some(format!("{status} (the sandbox ran out of memory)"))
    } else if signal.is_some() || exit_code != 0 {
        Some(status.clone())
    } else {
        None
    };
    EndEvent {
        exit_code: signal.map_or(exit_code, |signal| 128 + signal),
        exited: signal.is_none(),
        status,
        error,
        oom_killed: circumstances.oom_killed,
        timed_out: circumstances.timed_out,
    }
}
