//! One reader of a process's output, with a bounded backlog.
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::connect::{Code, ConnectError};
use crate::proto::process::process_event::EndEvent;
use crate::sync::lock;

/// Output a subscriber may be behind before the process has to wait for it.
const BACKLOG_BYTES: usize = 256 * 1024;

/// How long a subscriber may take nothing at all while others wait for it. Alone it may take as long as it likes, as
/// with any pipe; that it is still there is for its connection to find out.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
    Pty,
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    Output(Stream, Bytes),
    End(EndEvent),
}

#[derive(Default)]
struct Backlog {
    events: VecDeque<Event>,
    bytes: usize,
    /// Nothing will be added any more; the error, if any, follows what is queued.
    closed: bool,
    error: Option<ConnectError>,
}

#[derive(Default)]
pub(super) struct Subscriber {
    backlog: Mutex<Backlog>,
    filled: Notify,
    emptied: Notify,
}

impl Subscriber {
    /// Waits while the backlog is full. A subscriber that stalls while others wait is given up.
    pub(super) async fn push(&self, stream: Stream, bytes: &Bytes, others_wait: impl Fn() -> bool) {
        loop {
            let emptied = self.emptied.notified();
            {
                let mut backlog = lock(&self.backlog);
                if backlog.closed {
                    return;
                }
                if backlog.bytes < BACKLOG_BYTES {
                    backlog.bytes += bytes.len();
                    backlog.events.push_back(Event::Output(stream, bytes.clone()));
                    break;
                }
            }
            if timeout(STALL_LIMIT, emptied).await.is_err() && others_wait() {
                self.give_up();
            }
        }
        self.filled.notify_one();
    }

    /// Whether it would take more now.
    pub(super) fn has_room(&self) -> bool {
        let backlog = lock(&self.backlog);
        !backlog.closed && backlog.bytes < BACKLOG_BYTES
    }

    /// The process has ended; there is always room to say so.
    pub(super) fn end(&self, end: EndEvent) {
        let mut backlog = lock(&self.backlog);
        if !backlog.closed {
            backlog.closed = true;
            backlog.events.push_back(Event::End(end));
        }
        drop(backlog);
        self.filled.notify_one();
    }

    fn give_up(&self) {
        let mut backlog = lock(&self.backlog);
        backlog.closed = true;
        backlog.events.clear();
        backlog.bytes = 0;
        backlog.error = Some(ConnectError::new(
            Code::ResourceExhausted,
            format!(
                "output was not read for {} seconds while others waited for it, so some is lost here; \
                 connect to the process again",
                STALL_LIMIT.as_secs()
            ),
        ));
        drop(backlog);
        self.filled.notify_one();
    }

    /// Nobody reads any more.
    pub(super) fn leave(&self) {
        let mut backlog = lock(&self.backlog);
        backlog.closed = true;
        backlog.events.clear();
        drop(backlog);
        // Two pipes may be waiting.
        self.emptied.notify_waiters();
    }

    pub(super) async fn next(&self) -> Option<Result<Event, ConnectError>> {
        loop {
            let filled = self.filled.notified();
            {
                let mut backlog = lock(&self.backlog);
                if let Some(event) = backlog.events.pop_front() {
                    if let Event::Output(_, bytes) = &event {
                        backlog.bytes = backlog.bytes.saturating_sub(bytes.len());
                    }
                    drop(backlog);
                    self.emptied.notify_waiters();
                    return Some(Ok(event));
                }
                if let Some(error) = backlog.error.take() {
                    return Some(Err(error));
                }
                if backlog.closed {
                    return None;
                }
            }
            filled.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk() -> Bytes {
        Bytes::from(vec![0; BACKLOG_BYTES / 2])
    }

    /// Reads all there is, waiting before each piece; gives the bytes read when the end was told.
    async fn read_slowly(subscriber: &Subscriber, pause: Duration) -> Option<usize> {
        let mut bytes = 0;
        while let Some(event) = subscriber.next().await {
            tokio::time::sleep(pause).await;
            match event.unwrap() {
                Event::Output(_, chunk) => bytes += chunk.len(),
                Event::End(_) => return Some(bytes),
            }
            assert!(lock(&subscriber.backlog).bytes <= 2 * BACKLOG_BYTES);
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_loses_nothing_and_holds_the_writer_back() {
        for (pause, others_wait) in [(STALL_LIMIT / 2, true), (STALL_LIMIT * 100, false)] {
            let subscriber = std::sync::Arc::new(Subscriber::default());
            let writer = subscriber.clone();
            let writing = tokio::spawn(async move {
                for _ in 0..20 {
                    writer.push(Stream::Stdout, &chunk(), || others_wait).await;
                }
                writer.end(EndEvent::default());
            });
            assert_eq!(read_slowly(&subscriber, pause).await, Some(10 * BACKLOG_BYTES));
            writing.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stalls_while_others_wait_is_given_up_with_an_error() {
        let subscriber = Subscriber::default();
        for _ in 0..20 {
            subscriber.push(Stream::Stdout, &chunk(), || true).await;
        }
        assert_eq!(subscriber.next().await.unwrap().unwrap_err().code, Code::ResourceExhausted);
        assert!(subscriber.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_leaves_frees_the_writer_at_once() {
        let subscriber = std::sync::Arc::new(Subscriber::default());
        let writer = subscriber.clone();
        let writing = tokio::spawn(async move {
            for _ in 0..20 {
                writer.push(Stream::Stdout, &chunk(), || false).await;
            }
        });
        tokio::task::yield_now().await;
        subscriber.leave();
        let before = tokio::time::Instant::now();
        writing.await.unwrap();
        assert!(before.elapsed() < Duration::from_secs(1));
    }
}
