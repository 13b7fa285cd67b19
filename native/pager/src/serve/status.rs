//! What the pager writes down for the host agent, and replaces as a whole.
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use memory_image::{Error, Result};
use serde::Serialize;
use serde_json::{Value, json};

use super::fill::Counts;
use super::regions::Regions;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Listening,
    Serving,
    Complete,
    Failed,
}

pub(crate) struct Status {
    path: PathBuf,
    state: State,
    pub(crate) vm_pid: Option<u32>,
    pub(crate) regions: Regions,
    pub(crate) message: Option<String>,
    pub(crate) counts: Counts,
}

impl Status {
    pub(crate) fn new(path: PathBuf) -> Self {
        let (regions, counts) = (Regions::default(), Counts::default());
        Self { path, state: State::Listening, vm_pid: None, regions, message: None, counts }
    }

    pub(crate) fn write(&mut self, state: State) -> Result<()> {
        self.state = state;
        self.rewrite()
    }

    /// With what has changed since.
    pub(crate) fn rewrite(&self) -> Result<()> {
        replace(&self.path, format!("{}\n", self.json()).as_bytes())
    }

    pub(crate) fn json(&self) -> Value {
        let mut status = json!({
            "state": self.state, "vm_pid": self.vm_pid, "regions": self.regions, "counts": self.counts,
        });
        if let (Some(message), Some(fields)) = (&self.message, status.as_object_mut()) {
            fields.insert("message".to_owned(), json!(message));
        }
        status
    }
}

/// A file that readers see as it was or as it is now. After a power cut it may be neither: nothing is waited for.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_added_extension("new");
    // Left by one that was killed. Otherwise it is not there.
    let _ = fs::remove_file(&temporary);
    // Never through a link that somebody put there.
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
    written
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|error| Error::io("write", path, &error))
}
