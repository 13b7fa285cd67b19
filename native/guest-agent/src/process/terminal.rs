//! Pseudo-terminals.
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::proto::process::Pty;

/// What terminals have had since the VT100.
const DEFAULT_SIZE: (u16, u16) = (80, 24);

pub(super) fn window_size(pty: &Pty) -> Winsize {
    let size = pty.size.unwrap_or_default();
    let or_default = |value: u32, default: u16| match u16::try_from(value) {
        Ok(0) => default,
        Ok(value) => value,
        Err(_) => u16::MAX,
    };
    Winsize {
        ws_col: or_default(size.cols, DEFAULT_SIZE.0),
        ws_row: or_default(size.rows, DEFAULT_SIZE.1),
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// The kernel tells programs of a size that is new. One that is not comes from somebody who has just attached and needs
/// what fills the screen to draw itself again.
pub(super) fn resize(ours: impl AsFd, size: Winsize) -> rustix::io::Result<()> {
    let before = rustix::termios::tcgetwinsize(&ours)?;
    rustix::termios::tcsetwinsize(&ours, size)?;
    if (before.ws_col, before.ws_row) == (size.ws_col, size.ws_row)
        && let Ok(foreground) = rustix::termios::tcgetpgrp(&ours)
    {
        // Nobody may be in the foreground any more; by default the signal is ignored.
        let _ = rustix::process::kill_process_group(foreground, Signal::WINCH);
    }
    Ok(())
}

/// The agent's side, non-blocking, and the process's side.
pub(super) fn open(pty: &Pty, owner: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&ours)?;
    rustix::pty::unlockpt(&ours)?;
    let name = rustix::pty::ptsname(&ours, Vec::new())?;
    let theirs = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    // So that the user may open /dev/tty's device by name, as `screen` and `tmux` do.
    rustix::fs::fchown(&theirs, Some(rustix::fs::Uid::from_raw(owner)), None)?;
    rustix::termios::tcsetwinsize(&theirs, window_size(pty))?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}
