//! What an agent must not forget when it dies: kept in a file without a name that process 1 holds for the next one.
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::MemfdFlags;

use crate::settings::Settings;

pub(crate) struct Memory(OwnedFd);

/// Far above what `/init` accepts.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

impl Memory {
    pub(crate) fn create() -> io::Result<Self> {
        Ok(Self(rustix::fs::memfd_create("wrenn-settings", MemfdFlags::CLOEXEC)?))
    }

    /// For an agent to inherit.
    pub(crate) fn share(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    pub(crate) fn store(&self, settings: &Settings) -> io::Result<()> {
        let encoded = serde_json::to_vec(settings)?;
        // An agent that dies between the two leaves what cannot be read rather than half of it.
        rustix::fs::ftruncate(&self.0, 0)?;
        let mut written = 0;
        while let Some(rest) = encoded.get(written..).filter(|rest| !rest.is_empty()) {
            written += rustix::io::pwrite(&self.0, rest, written as u64)?;
        }
        Ok(())
    }

    /// Nothing before the first `store`.
    pub(crate) fn recall(&self) -> Option<Settings> {
        let length = u64::try_from(rustix::fs::fstat(&self.0).ok()?.st_size).ok()?;
        if length == 0 || length > MAX_BYTES {
            return None;
        }
        let mut encoded = vec![0; usize::try_from(length).ok()?];
        let read = rustix::io::pread(&self.0, encoded.as_mut_slice(), 0).ok()?;
        serde_json::from_slice(encoded.get(..read)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_agent_knows_what_the_last_one_was_told() {
        let memory = Memory::create().unwrap();
        assert!(memory.recall().is_none());
        let mut settings = Settings { token: Some("long enough to be shortened".into()), ..Settings::default() };
        memory.store(&settings).unwrap();
        settings.token = Some("t".into());
        settings.environment.insert("A".into(), "b".into());
        memory.store(&settings).unwrap();
        let recalled = memory.share().unwrap().recall().unwrap();
        assert_eq!(recalled.token.as_deref(), Some("t"));
        assert_eq!(recalled.environment, settings.environment);
    }
}
