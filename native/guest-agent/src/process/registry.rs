//! Every process users have started, by pid and by tag; ended ones for a while longer.
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::cgroup::UserCgroup;
use super::launch::{self, Launch};
use super::output::Subscription;
use super::running::{Identity, Process, Started};
use super::spawn::Spawner;
use crate::connect::{Code, ConnectError};
use crate::proto::process::process_selector::Selector;
use crate::proto::process::{ProcessInfo, ProcessSelector};
use crate::sync::{blocking, lock};

/// A client that connects just after the end still learns how it ended.
const END_RETAINED: Duration = Duration::from_secs(30);

struct Entry {
    serial: u64,
    process: Arc<Process>,
}

#[derive(Clone)]
pub(crate) struct Processes(Arc<Shared>);

struct Shared {
    spawner: Spawner,
    cgroup: Option<UserCgroup>,
    entries: Mutex<HashMap<u32, Entry>>,
    /// Of processes that are being started. Locked before `entries`.
    claimed_tags: Mutex<HashSet<String>>,
    serial: AtomicU64,
}

/// A tag that nobody else may start a process with.
struct TagClaim {
    tag: String,
    shared: Arc<Shared>,
}

impl TagClaim {
    fn new(shared: &Arc<Shared>, tag: &str) -> Result<Self, ConnectError> {
        let mut claimed = lock(&shared.claimed_tags);
        let running = |entry: &Entry| entry.process.tag.as_deref() == Some(tag) && !entry.process.has_ended();
        if claimed.contains(tag) || lock(&shared.entries).values().any(running) {
            let message = format!("a process with tag {tag} is running already");
            return Err(ConnectError::new(Code::AlreadyExists, message));
        }
        claimed.insert(tag.to_owned());
        Ok(Self { tag: tag.to_owned(), shared: shared.clone() })
    }
}

impl Drop for TagClaim {
    fn drop(&mut self) {
        lock(&self.shared.claimed_tags).remove(&self.tag);
    }
}

impl Processes {
    pub(crate) fn new(cgroup: Option<UserCgroup>) -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            spawner: Spawner::new()?,
            cgroup,
            entries: Mutex::default(),
            claimed_tags: Mutex::default(),
            serial: AtomicU64::new(0),
        })))
    }

    /// The process runs, and is served, to its end even when the caller goes away at any moment.
    pub(super) async fn start(
        &self,
        launch: Launch,
        tag: Option<String>,
        deadline: Option<Duration>,
    ) -> Result<(Arc<Process>, Subscription), ConnectError> {
        let started = tokio::spawn(self.clone().start_detached(launch, tag, deadline));
        started.await.map_err(|error| ConnectError::internal(error.to_string()))?
    }

    async fn start_detached(
        self,
        launch: Launch,
        tag: Option<String>,
        deadline: Option<Duration>,
    ) -> Result<(Arc<Process>, Subscription), ConnectError> {
        // Held until the process is among the entries, so that of two starts at once only one has the tag.
        let _claim = tag.as_deref().map(|tag| TagClaim::new(&self.0, tag)).transpose()?;
        let processes = self.clone();
        let config = launch.config.clone();
        let serial = self.0.serial.fetch_add(1, Ordering::Relaxed);
        let launched = blocking(move || {
            let shared = &processes.0;
            // Without a group a process still runs; it is only harder to kill as a whole.
            let group = shared.cgroup.as_ref().and_then(|cgroup| cgroup.create(serial).ok());
            let oom_kills_before = shared.cgroup.as_ref().map_or(0, UserCgroup::oom_kills);
            match launch::start(&shared.spawner, &launch, group.as_ref()) {
                Ok((child, channels)) => Ok((child, channels, group, oom_kills_before)),
                Err(error) => {
                    if let (Some(cgroup), Some(group)) = (&shared.cgroup, group) {
                        cgroup.remove(group);
                    }
                    Err(error)
                }
            }
        })
        .await
        .map_err(|error| ConnectError::internal(error.to_string()))?;
        let (child, channels, cgroup, oom_kills_before) = launched?;

        let identity = Identity { config, tag, cgroup, oom_kills_before };
        let started = Started::new(identity, child, channels)
            .map_err(|error| ConnectError::io("error serving the process", &error))?;
        let process = started.process.clone();
        let subscription = process.subscribe(false);
        lock(&self.0.entries).insert(process.pid, Entry { serial, process: process.clone() });
        tokio::spawn(self.serve(started, serial, deadline));
        Ok((process, subscription))
    }

    async fn serve(self, started: Started, serial: u64, deadline: Option<Duration>) {
        let pid = started.process.pid;
        started.serve(deadline, self.0.cgroup.as_ref()).await;
        tokio::time::sleep(END_RETAINED).await;
        let mut entries = lock(&self.0.entries);
        // The pid may belong to another process by now.
        if entries.get(&pid).is_some_and(|entry| entry.serial == serial) {
            entries.remove(&pid);
        }
    }

    /// Running processes only, oldest first.
    pub(super) fn list(&self) -> Vec<ProcessInfo> {
        let entries = lock(&self.0.entries);
        let mut running: Vec<_> = entries.values().filter(|entry| !entry.process.has_ended()).collect();
        running.sort_unstable_by_key(|entry| entry.serial);
        running
            .into_iter()
            .map(|Entry { process, .. }| ProcessInfo {
                config: Some(process.config.clone()),
                pid: process.pid,
                tag: process.tag.clone(),
            })
            .collect()
    }

    /// The selected process, also within the time its end is kept.
    pub(super) fn find(&self, selector: Option<&ProcessSelector>) -> Result<Arc<Process>, ConnectError> {
        let selector = selector.and_then(|selector| selector.selector.as_ref());
        let entries = lock(&self.0.entries);
        let found = match selector {
            None => return Err(ConnectError::invalid_argument("the request names no process: give a pid or a tag")),
            Some(Selector::Pid(pid)) => entries.get(pid),
            // Of several with one tag a running one, then the newest.
            Some(Selector::Tag(tag)) => entries
                .values()
                .filter(|entry| entry.process.tag.as_deref() == Some(tag))
                .max_by_key(|entry| (!entry.process.has_ended(), entry.serial)),
        };
        found.map(|entry| entry.process.clone()).ok_or_else(|| match selector {
            Some(Selector::Tag(tag)) => ConnectError::not_found(format!("process with tag {tag} not found")),
            Some(Selector::Pid(pid)) => ConnectError::not_found(format!("process with pid {pid} not found")),
            None => ConnectError::not_found("process not found"),
        })
    }

    /// As `find`, but an ended process is no longer there.
    pub(super) fn find_running(&self, selector: Option<&ProcessSelector>) -> Result<Arc<Process>, ConnectError> {
        let process = self.find(selector)?;
        if process.has_ended() {
            return Err(ConnectError::not_found(format!("process with pid {} not found: it has ended", process.pid)));
        }
        Ok(process)
    }
}
