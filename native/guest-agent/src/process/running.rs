//! One process from its start to its end.
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus};
use tokio::io::unix::AsyncFd;

use super::cgroup::{ProcessCgroup, UserCgroup};
use super::end::{self, Circumstances};
use super::exit::Exit;
use super::input::{Input, InputError, write_while_running};
use super::kill;
use super::launch::Channels;
use super::output::{Output, Subscription, drain};
use super::spawn::Child;
use super::subscriber::Stream;
use super::terminal;
use crate::connect::ConnectError;
use crate::proto::process::{ProcessConfig, Pty};
use crate::readiness::{readable, writable};
use crate::sync::lock;

pub(crate) struct Process {
    pub(super) pid: u32,
    pub(super) config: ProcessConfig,
    pub(super) tag: Option<String>,
    output: Arc<Output>,
    input: Input,
    terminal: Option<Arc<Terminal>>,
    cgroup: Mutex<Option<ProcessCgroup>>,
    exited: Exit,
    timed_out: AtomicBool,
    killed_on_request: AtomicBool,
    oom_kills_before: u64,
}

/// A terminal's descriptor is read by one task and written by others.
struct Terminal {
    descriptor: AsyncFd<OwnedFd>,
    turn: tokio::sync::Mutex<()>,
}

type Source = (Stream, AsyncFd<OwnedFd>);

/// A process, and what its owner has to run for it to be served.
pub(super) struct Started {
    pub(super) process: Arc<Process>,
    handle: AsyncFd<OwnedFd>,
    sources: Vec<Source>,
}

pub(super) struct Identity {
    pub(super) config: ProcessConfig,
    pub(super) tag: Option<String>,
    pub(super) cgroup: Option<ProcessCgroup>,
    pub(super) oom_kills_before: u64,
}

impl Started {
    pub(super) fn new(identity: Identity, child: Child, channels: Channels) -> io::Result<Self> {
        let (input, terminal, sources) = match channels {
            Channels::Pipes { stdin, stdout, stderr } => {
                let input = match stdin {
                    Some(stdin) => Input::Pipe(tokio::sync::Mutex::new(Some(writable(stdin)?))),
                    None => Input::None,
                };
                let sources = vec![(Stream::Stdout, readable(stdout)?), (Stream::Stderr, readable(stderr)?)];
                (input, None, sources)
            }
            Channels::Terminal(descriptor) => {
                let source = readable(descriptor.try_clone()?)?;
                let terminal = Terminal { descriptor: writable(descriptor)?, turn: tokio::sync::Mutex::default() };
                (Input::None, Some(Arc::new(terminal)), vec![(Stream::Pty, source)])
            }
        };
        let process = Arc::new(Process {
            pid: child.pid,
            config: identity.config,
            tag: identity.tag,
            output: Arc::default(),
            input,
            terminal,
            cgroup: Mutex::new(identity.cgroup),
            exited: Exit::default(),
            timed_out: AtomicBool::new(false),
            killed_on_request: AtomicBool::new(false),
            oom_kills_before: identity.oom_kills_before,
        });
        Ok(Self { process, handle: readable(child.handle)?, sources })
    }

    /// Carries output until the process has ended and its end is told. The subscription of whoever started it must
    /// exist by then, or it would miss the beginning.
    pub(super) async fn serve(self, deadline: Option<Duration>, user_cgroup: Option<&UserCgroup>) {
        let Self { process, handle, sources } = self;
        let carriers: Vec<_> = sources
            .into_iter()
            .map(|(stream, source)| {
                let output = process.output.clone();
                let exited = process.exited.watch();
                tokio::spawn(async move { output.carry(stream, source, exited).await })
            })
            .collect();

        let status = process.wait(&handle, deadline).await;
        let circumstances = process.circumstances(status.as_ref(), user_cgroup);
        process.exited.announce();
        // So that children left behind read end of file. Whoever was writing has just been told that it is over.
        let _ = process.input.close().await;

        for carrier in carriers {
            if let Ok(Some(source)) = carrier.await {
                tokio::spawn(drain(source));
            }
        }
        process.output.finish(&end::describe(status.as_ref(), circumstances));
        if let (Some(cgroup), Some(user_cgroup)) = (lock(&process.cgroup).take(), user_cgroup) {
            user_cgroup.remove(cgroup);
        }
    }
}

impl Process {
    async fn wait(&self, handle: &AsyncFd<OwnedFd>, deadline: Option<Duration>) -> Option<WaitIdStatus> {
        let ended = async {
            loop {
                let Ok(mut ready) = handle.readable().await else { return None };
                let id = WaitId::PidFd(std::os::fd::AsFd::as_fd(handle.get_ref()));
                match rustix::process::waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                    Ok(Some(status)) => return Some(status),
                    Ok(None) => ready.clear_ready(),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return None,
                }
            }
        };
        tokio::pin!(ended);
        if let Some(deadline) = deadline {
            if let Ok(status) = tokio::time::timeout(deadline, &mut ended).await {
                return status;
            }
            self.timed_out.store(true, Ordering::Relaxed);
            let _ = self.kill_all();
        }
        ended.await
    }

    fn kill_all(&self) -> io::Result<()> {
        kill::kill_all(self.pid, lock(&self.cgroup).as_ref())
    }

    fn circumstances(&self, status: Option<&WaitIdStatus>, user_cgroup: Option<&UserCgroup>) -> Circumstances {
        let timed_out = self.timed_out.load(Ordering::Relaxed);
        // A shell whose child was killed exits with 137 itself.
        let killed = status.is_some_and(|status| {
            status.terminating_signal() == Some(libc::SIGKILL) || status.exit_status() == Some(128 + libc::SIGKILL)
        });
        let unexplained = killed && !timed_out && !self.killed_on_request.load(Ordering::Relaxed);
        let oom_killed = unexplained && user_cgroup.is_some_and(|group| group.oom_kills() > self.oom_kills_before);
        Circumstances { timed_out, oom_killed }
    }

    pub(super) fn subscribe(&self, replay: bool) -> Subscription {
        self.output.subscribe(replay)
    }

    /// True from the moment it is gone, also while readers still take what it has written.
    pub(super) fn has_ended(&self) -> bool {
        self.exited.has_happened()
    }

    fn ended(&self) -> ConnectError {
        ConnectError::failed_precondition(format!("process {} has ended", self.pid))
    }

    fn input_error(&self, error: InputError) -> ConnectError {
        match error {
            InputError::ProcessEnded => self.ended(),
            InputError::Closed if self.has_ended() => self.ended(),
            InputError::Closed => ConnectError::failed_precondition("stdin is not enabled or is closed"),
            InputError::Failed(message) => {
                ConnectError::internal(format!("error writing to process {}: {message}", self.pid))
            }
        }
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), ConnectError> {
        let outcome = if signal == Signal::KILL {
            self.killed_on_request.store(true, Ordering::Relaxed);
            self.kill_all()
        } else {
            kill::signal_group(self.pid, signal)
        };
        outcome.map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => ConnectError::not_found(format!("process with pid {} not found", self.pid)),
            _ => ConnectError::io("error sending signal", &error),
        })
    }

    pub(super) async fn write_stdin(&self, bytes: &[u8]) -> Result<(), ConnectError> {
        if self.terminal.is_some() {
            return Err(ConnectError::failed_precondition("the process has a terminal: write to pty, not to stdin"));
        }
        let written = self.input.write(bytes, self.exited.watch()).await;
        written.map_err(|error| self.input_error(error))
    }

    pub(super) async fn write_terminal(&self, bytes: &[u8]) -> Result<(), ConnectError> {
        let terminal = self.terminal()?;
        let _turn = terminal.turn.lock().await;
        let written = write_while_running(&terminal.descriptor, bytes, self.exited.watch()).await;
        written.map_err(|error| self.input_error(error))
    }

    fn terminal(&self) -> Result<&Terminal, ConnectError> {
        self.terminal
            .as_deref()
            .ok_or_else(|| ConnectError::failed_precondition("the process has no terminal: write to stdin, not to pty"))
    }

    pub(super) async fn close_stdin(&self) -> Result<(), ConnectError> {
        if self.terminal.is_some() {
            return Err(ConnectError::failed_precondition("a terminal cannot be closed: send Ctrl+D (0x04) instead"));
        }
        self.input.close().await.map_err(|error| self.input_error(error))
    }

    pub(super) fn resize(&self, pty: &Pty) -> Result<(), ConnectError> {
        let terminal = self
            .terminal
            .as_deref()
            .ok_or_else(|| ConnectError::failed_precondition("the process has no terminal to resize"))?;
        terminal::resize(terminal.descriptor.get_ref(), terminal::window_size(pty))
            .map_err(|error| ConnectError::io("error resizing the terminal", &error.into()))
    }
}
