//! The events of a watched tree, one after another.
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::tree_watch::{Batch, TreeWatch, WatchEnd};
use crate::connect::{Code, ConnectError, EventSource};
use crate::proto::filesystem::watch_dir_response::{Event, KeepAlive, StartEvent};
use crate::proto::filesystem::{FilesystemEvent, WatchDirResponse};
use crate::readiness::readable;
use crate::sync::lock;

pub(super) struct WatchEvents {
    tree: Arc<Mutex<TreeWatch>>,
    ready: AsyncFd<OwnedFd>,
    /// Kept here so that a caller who stops waiting does not lose what is being read.
    reading: Option<JoinHandle<Batch>>,
    more: bool,
    pending: VecDeque<FilesystemEvent>,
    end: Option<WatchEnd>,
    ended: bool,
}

impl WatchEvents {
    pub(super) fn new(tree: TreeWatch) -> io::Result<Self> {
        let ready = readable(tree.descriptor()?)?;
        let tree = Arc::new(Mutex::new(tree));
        Ok(Self { tree, ready, reading: None, more: false, pending: VecDeque::new(), end: None, ended: false })
    }

    /// Nothing once the directory is gone. Loses nothing when the caller stops waiting.
    pub(super) async fn next(&mut self) -> Option<Result<FilesystemEvent, ConnectError>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(Ok(event));
            }
            match self.end.take() {
                Some(WatchEnd::Failed(error)) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                Some(WatchEnd::Removed) => self.ended = true,
                None => {}
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.refill().await {
                self.ended = true;
                return Some(Err(ConnectError::io("error reading events", &error)));
            }
        }
    }

    async fn refill(&mut self) -> io::Result<()> {
        if self.reading.is_none() {
            if !self.more {
                // Before reading: what is queued meanwhile wakes again.
                self.ready.readable().await?.clear_ready();
            }
            let tree = self.tree.clone();
            self.reading = Some(spawn_blocking(move || lock(&tree).read()));
        }
        if let Some(reading) = &mut self.reading {
            let batch = reading.await;
            self.reading = None;
            let batch = batch.map_err(io::Error::other)?;
            self.more = batch.more;
            self.pending.extend(batch.events);
            self.end = batch.end;
        }
        Ok(())
    }
}

pub(super) struct WatchStream {
    events: WatchEvents,
    started: bool,
    keepalive: Duration,
    deadline: Option<Instant>,
}

impl WatchStream {
    pub(super) fn new(events: WatchEvents, keepalive: Duration, deadline: Option<Instant>) -> Self {
        Self { events, started: false, keepalive, deadline }
    }
}

impl EventSource for WatchStream {
    type Message = WatchDirResponse;

    async fn next(&mut self) -> Option<Result<WatchDirResponse, ConnectError>> {
        let message = |event| WatchDirResponse { event: Some(event) };
        if !self.started {
            self.started = true;
            return Some(Ok(message(Event::Start(StartEvent {}))));
        }
        let keepalive = Instant::now() + self.keepalive;
        let deadline = self.deadline.unwrap_or(keepalive);
        tokio::select! {
            biased;
            () = sleep_until(deadline), if self.deadline.is_some() => Some(Err(ConnectError::new(
                Code::DeadlineExceeded,
                "the deadline of this watch has passed",
            ))),
            event = self.events.next() => event.map(|event| event.map(|event| message(Event::Filesystem(event)))),
            () = sleep_until(keepalive) => Some(Ok(message(Event::Keepalive(KeepAlive {})))),
        }
    }
}
