//! Carries a process's output from its pipes or terminal to everyone who subscribed.
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use super::exit::ExitWatch;
use super::scrollback::Scrollback;
use super::subscriber::{Event, Stream, Subscriber};
use crate::connect::ConnectError;
use crate::proto::process::process_event::EndEvent;
use crate::sync::lock;

/// As much as a pipe gives at once in one message; E2B's agent uses the same.
const CHUNK_BYTES: usize = 32 * 1024;

/// How long the end of a process may be held back by a child of it that keeps the output open.
const AFTER_EXIT: Duration = Duration::from_millis(500);

#[derive(Default)]
struct State {
    subscribers: Vec<Arc<Subscriber>>,
    scrollback: Scrollback,
    end: Option<EndEvent>,
}

#[derive(Default)]
pub(super) struct Output {
    state: Mutex<State>,
}

/// A place among the readers, given up when dropped.
pub(super) struct Subscription {
    output: Arc<Output>,
    subscriber: Arc<Subscriber>,
    replay: std::vec::IntoIter<(Stream, Bytes)>,
}

impl Subscription {
    pub(super) async fn next(&mut self) -> Option<Result<Event, ConnectError>> {
        match self.replay.next() {
            Some((stream, bytes)) => Some(Ok(Event::Output(stream, bytes))),
            None => self.subscriber.next().await,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.subscriber.leave();
        lock(&self.output.state).subscribers.retain(|other| !Arc::ptr_eq(other, &self.subscriber));
    }
}

impl Output {
    /// Events from now on, after the kept output when `replay` is wanted. A process that has ended gives its end.
    pub(super) fn subscribe(self: &Arc<Self>, replay: bool) -> Subscription {
        let subscriber = Arc::new(Subscriber::default());
        let mut state = lock(&self.state);
        let replay = if replay { state.scrollback.pieces().collect() } else { Vec::new() };
        match &state.end {
            Some(end) => subscriber.end(end.clone()),
            None => state.subscribers.push(subscriber.clone()),
        }
        Subscription { output: self.clone(), subscriber, replay: replay.into_iter() }
    }

    async fn publish(&self, stream: Stream, bytes: Bytes) {
        let subscribers = {
            let mut state = lock(&self.state);
            state.scrollback.push(stream, &bytes);
            state.subscribers.clone()
        };
        for subscriber in subscribers {
            subscriber.push(stream, &bytes, || self.others_wait(&subscriber)).await;
        }
    }

    /// Whether somebody gets nothing because this one takes nothing.
    fn others_wait(&self, slow: &Arc<Subscriber>) -> bool {
        lock(&self.state).subscribers.iter().any(|other| !Arc::ptr_eq(other, slow) && other.has_room())
    }

    pub(super) fn finish(&self, end: &EndEvent) {
        let mut state = lock(&self.state);
        state.end = Some(end.clone());
        for subscriber in state.subscribers.drain(..) {
            subscriber.end(end.clone());
        }
    }

    /// Publishes what can be read until end of file, or until the process is gone and what it wrote has been read.
    /// Gives the source back when somebody else still holds its other end.
    pub(super) async fn carry(
        &self,
        stream: Stream,
        source: AsyncFd<OwnedFd>,
        mut exited: ExitWatch,
    ) -> Option<AsyncFd<OwnedFd>> {
        let mut reader = Reader { source, buffer: Vec::new() };
        loop {
            tokio::select! {
                biased;
                read = reader.read() => match read {
                    Ok(bytes) if bytes.is_empty() => return None,
                    Ok(bytes) => self.publish(stream, bytes).await,
                    Err(_) => return None,
                },
                () = exited.wait() => break,
            }
            if exited.has_happened() {
                break;
            }
        }

        // What the process itself wrote lies in the pipe by now; after that, its children have a short while.
        let mut own_bytes = reader.readable_bytes();
        let deadline = Instant::now() + AFTER_EXIT;
        loop {
            match timeout_at(deadline, reader.read()).await {
                Ok(Ok(bytes)) if bytes.is_empty() => return None,
                Ok(Err(_)) => return None,
                Ok(Ok(bytes)) => {
                    own_bytes = own_bytes.saturating_sub(bytes.len());
                    self.publish(stream, bytes).await;
                    if own_bytes == 0 && Instant::now() >= deadline {
                        return Some(reader.source);
                    }
                }
                Err(_) => return Some(reader.source),
            }
        }
    }
}

/// Reads and forgets, so that a child left behind does not die of a closed pipe.
pub(super) async fn drain(source: AsyncFd<OwnedFd>) {
    let mut reader = Reader { source, buffer: Vec::new() };
    while let Ok(bytes) = reader.read().await {
        if bytes.is_empty() {
            return;
        }
    }
}

struct Reader {
    source: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

impl Reader {
    /// Nothing at end of file. Does not lose bytes when dropped while waiting.
    async fn read(&mut self) -> io::Result<Bytes> {
        loop {
            let mut ready = self.source.readable().await?;
            self.buffer.reserve(CHUNK_BYTES);
            let read = rustix::io::read(self.source.get_ref(), rustix::buffer::spare_capacity(&mut self.buffer));
            match read {
                Ok(_) => return Ok(self.take()),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                // A terminal says so when its last user has closed it.
                Err(Errno::IO) => return Ok(Bytes::new()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Little output is copied, so that a small line does not hold a whole buffer while it waits for a subscriber.
    fn take(&mut self) -> Bytes {
        if self.buffer.len() <= CHUNK_BYTES / 4 {
            let bytes = Bytes::copy_from_slice(&self.buffer);
            self.buffer.clear();
            bytes
        } else {
            std::mem::take(&mut self.buffer).into()
        }
    }

    fn readable_bytes(&self) -> usize {
        rustix::io::ioctl_fionread(self.source.get_ref()).map_or(0, |bytes| usize::try_from(bytes).unwrap_or(0))
    }
}
