//! From a request to a running process: environment, program, pipes or terminal, errors in a user's words.
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

use super::cgroup::ProcessCgroup;
use super::spawn::{Child, Program, SpawnError, Spawner, Step};
use super::terminal;
use crate::connect::{Code, ConnectError};
use crate::paths;
use crate::proto::process::{ProcessConfig, Pty};
use crate::users::User;

/// Debian's for root; for users the system directories cost nothing and `sudo`-less tools in them work.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) struct Launch {
    pub(super) config: ProcessConfig,
    pub(super) pty: Option<Pty>,
    pub(super) stdin: bool,
    pub(super) user: User,
    pub(super) default_directory: Option<String>,
    pub(super) sandbox_environment: BTreeMap<String, String>,
}

/// The agent's ends, none of which blocks.
pub(super) enum Channels {
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    Terminal(OwnedFd),
}

fn c_string(what: &str, value: impl Into<Vec<u8>>) -> Result<CString, ConnectError> {
    CString::new(value).map_err(|_| ConnectError::invalid_argument(format!("{what} cannot hold a NUL character")))
}

/// Defaults, then the sandbox's variables, then the request's: the later win.
fn environment(launch: &Launch) -> BTreeMap<&str, &str> {
    let user = &launch.user;
    let mut variables = BTreeMap::from([
        ("PATH", DEFAULT_PATH),
        ("HOME", user.home.as_str()),
        ("USER", user.name.as_str()),
        ("LOGNAME", user.name.as_str()),
        ("SHELL", user.shell.as_str()),
        // Nothing logs in here, so nobody else would read the template's /etc/default/locale.
        ("LANG", "C.UTF-8"),
    ]);
    if launch.pty.is_some() {
        variables.insert("TERM", "xterm-256color");
    }
    let given = launch.sandbox_environment.iter().chain(&launch.config.envs);
    variables.extend(given.map(|(key, value)| (key.as_str(), value.as_str())));
    variables
}

fn encode_environment(variables: &BTreeMap<&str, &str>) -> Result<Vec<CString>, ConnectError> {
    let encode = |(key, value): (&&str, &&str)| {
        if key.is_empty() || key.contains('=') {
            return Err(ConnectError::invalid_argument(format!("'{key}' cannot be the name of a variable")));
        }
        c_string("an environment variable", format!("{key}={value}"))
    };
    variables.iter().map(encode).collect()
}

/// Where a shell would find the command. Names with a slash are taken as they are, from the process's directory.
fn find_program(command: &str, path: &str, directory: &str) -> Result<CString, ConnectError> {
    if command.is_empty() {
        return Err(ConnectError::invalid_argument("the command is empty"));
    }
    if command.contains('/') {
        return c_string("the command", command);
    }
    let mut denied = false;
    for candidate in path.split(':').map(|part| Path::new(directory).join(part).join(command)) {
        let Ok(stat) = rustix::fs::stat(&candidate) else { continue };
        let mode = Mode::from_raw_mode(stat.st_mode);
        if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
            if mode.intersects(Mode::XUSR | Mode::XGRP | Mode::XOTH) {
                return c_string("the command", candidate.as_os_str().as_bytes());
            }
            denied = true;
        }
    }
    Err(if denied { not_executable(command) } else { not_found(command) })
}

fn not_found(command: &str) -> ConnectError {
    ConnectError::not_found(format!("command '{command}' not found"))
}

fn not_executable(command: &str) -> ConnectError {
    ConnectError::new(Code::PermissionDenied, format!("command '{command}' cannot be executed: permission denied"))
}

fn explain(failure: &SpawnError, command: &str, directory: &str, user: &User) -> ConnectError {
    let os_error = failure.error.raw_os_error();
    match (failure.step, os_error) {
        (Step::Directory, Some(libc::ENOENT)) => {
            ConnectError::invalid_argument(format!("cwd '{directory}' does not exist"))
        }
        (Step::Directory, Some(libc::ENOTDIR)) => {
            ConnectError::invalid_argument(format!("cwd '{directory}' is not a directory"))
        }
        (Step::Directory, Some(libc::EACCES)) => ConnectError::new(
            Code::PermissionDenied,
            format!("cwd '{directory}' cannot be entered by user '{}'", user.name),
        ),
        (Step::Execute, Some(libc::ENOENT | libc::ENOTDIR)) => not_found(command),
        (Step::Execute, Some(libc::EACCES | libc::EPERM)) => not_executable(command),
        (Step::Execute, Some(libc::ENOEXEC)) => {
            ConnectError::invalid_argument(format!("command '{command}' is neither a program nor a script with '#!'"))
        }
        (Step::Execute, Some(libc::E2BIG)) => {
            ConnectError::invalid_argument("arguments and environment are together too large for the kernel")
        }
        (step, _) => ConnectError::io(&format!("error starting process '{command}' ({step:?})"), &failure.error),
    }
}

struct Stdio {
    theirs: [OwnedFd; 3],
    ours: Channels,
}

fn pipes(stdin: bool) -> io::Result<Stdio> {
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
    let (stdout, their_stdout) = pipe()?;
    let (stderr, their_stderr) = pipe()?;
    let (their_stdin, stdin) = if stdin {
        let (theirs, ours) = pipe()?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        (theirs, Some(ours))
    } else {
        (rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?, None)
    };
    // Only our ends: non-blocking is a property of the open pipe end, and programs do not expect it of theirs.
    rustix::io::ioctl_fionbio(&stdout, true)?;
    rustix::io::ioctl_fionbio(&stderr, true)?;
    Ok(Stdio { theirs: [their_stdin, their_stdout, their_stderr], ours: Channels::Pipes { stdin, stdout, stderr } })
}

fn pseudo_terminal(pty: &Pty, owner: u32) -> io::Result<Stdio> {
    let (ours, theirs) = terminal::open(pty, owner)?;
    Ok(Stdio { theirs: [theirs.try_clone()?, theirs.try_clone()?, theirs], ours: Channels::Terminal(ours) })
}

/// Touches the disk, which may hang: not for the serving thread.
pub(super) fn start(
    spawner: &Spawner,
    launch: &Launch,
    cgroup: Option<&ProcessCgroup>,
) -> Result<(Child, Channels), ConnectError> {
    let ProcessConfig { cmd, args, cwd, .. } = &launch.config;
    let directory =
        paths::resolve(cwd.as_deref().unwrap_or_default(), &launch.user, launch.default_directory.as_deref())
            .map_err(ConnectError::invalid_argument)?;
    let variables = environment(launch);
    let path = find_program(cmd, variables.get("PATH").copied().unwrap_or_default(), &directory)?;
    let arguments = std::iter::once(cmd)
        .chain(args)
        .map(|argument| c_string("an argument", argument.as_str()))
        .collect::<Result<Vec<_>, _>>()?;
    let environment = encode_environment(&variables)?;
    let c_directory = c_string("cwd", directory.as_str())?;
    let groups = launch.user.group_ids();

    let made = match &launch.pty {
        Some(pty) => pseudo_terminal(pty, launch.user.uid),
        None => pipes(launch.stdin),
    };
    let Stdio { theirs: [stdin, stdout, stderr], ours } =
        made.map_err(|error| ConnectError::io("error preparing input and output", &error))?;
    let program = Program {
        path: &path,
        arguments: &arguments,
        environment: &environment,
        directory: &c_directory,
        uid: launch.user.uid,
        gid: launch.user.gid,
        groups: &groups,
        stdio: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
        terminal: launch.pty.is_some(),
        cgroup: cgroup.map(ProcessCgroup::directory),
    };
    let child = spawner.spawn(&program).map_err(|failure| explain(&failure, cmd, &directory, &launch.user))?;
    Ok((child, ours))
}
