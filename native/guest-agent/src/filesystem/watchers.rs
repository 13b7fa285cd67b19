//! Watches whose events are fetched by polling.
use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex};

use tokio::task::AbortHandle;

use super::watch_stream::WatchEvents;
use crate::connect::{Code, ConnectError};
use crate::proto::filesystem::FilesystemEvent;
use crate::sync::lock;

/// Events kept for a client that does not fetch them; as many as the kernel keeps for us.
const MAX_PENDING: usize = 16_384;

#[derive(Default)]
struct Pending {
    events: Vec<FilesystemEvent>,
    error: Option<ConnectError>,
}

struct Watcher {
    pending: Arc<Mutex<Pending>>,
    collecting: AbortHandle,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.collecting.abort();
    }
}

#[derive(Default)]
pub(crate) struct Watchers {
    watchers: Mutex<HashMap<String, Watcher>>,
}

fn unknown(id: &str) -> ConnectError {
    ConnectError::not_found(format!("watcher with id {id} not found"))
}

async fn collect(mut events: WatchEvents, pending: Arc<Mutex<Pending>>) {
    while let Some(event) = events.next().await {
        let mut pending = lock(&pending);
        match event {
            Ok(_) if pending.events.len() == MAX_PENDING => {
                let message = format!("more than {MAX_PENDING} events were not fetched; create another watcher");
                pending.error = Some(ConnectError::new(Code::ResourceExhausted, message));
                return;
            }
            Ok(event) => pending.events.push(event),
            Err(error) => pending.error = Some(error),
        }
    }
}

impl Watchers {
    pub(super) fn add(&self, events: WatchEvents) -> String {
        let pending = Arc::<Mutex<Pending>>::default();
        let collecting = tokio::spawn(collect(events, pending.clone())).abort_handle();
        let mut random = [0; 8];
        // A guest of ours never boots without a seeded pool; were it so, ids would still differ by the loop below.
        let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
        let mut number = u64::from_le_bytes(random);
        let mut watchers = lock(&self.watchers);
        while watchers.contains_key(&format!("w{number:016x}")) {
            number = number.wrapping_add(1);
        }
        let id = format!("w{number:016x}");
        watchers.insert(id.clone(), Watcher { pending, collecting });
        id
    }

    /// What has happened since the last call. An error comes after the events before it, and stays.
    pub(super) fn take_events(&self, id: &str) -> Result<Vec<FilesystemEvent>, ConnectError> {
        let watchers = lock(&self.watchers);
        let watcher = watchers.get(id).ok_or_else(|| unknown(id))?;
        let mut pending = lock(&watcher.pending);
        let events = mem::take(&mut pending.events);
        match &pending.error {
            Some(error) if events.is_empty() => Err(error.clone()),
            _ => Ok(events),
        }
    }

    pub(super) fn remove(&self, id: &str) -> Result<(), ConnectError> {
        lock(&self.watchers).remove(id).map(drop).ok_or_else(|| unknown(id))
    }
}
