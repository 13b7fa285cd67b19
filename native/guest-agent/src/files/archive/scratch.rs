//! For tests: a directory of its own to extract into, with something beside it that must stay as it is.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::placement::{Placed, Placement};
use super::reader::Reader;
use crate::server::body::HttpError;
use crate::users::User;

pub(super) struct Scratch {
    pub(super) base: PathBuf,
    /// What archives are extracted into.
    pub(super) inside: PathBuf,
    /// What they try to reach.
    pub(super) outside: PathBuf,
}

impl Scratch {
    pub(super) fn new() -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let base = std::env::temp_dir().join(format!("wrenn-archive-{}-{serial}", std::process::id()));
        let (inside, outside) = (base.join("inside"), base.join("outside"));
        fs::create_dir_all(&inside).unwrap();
        fs::create_dir_all(outside.join("a")).unwrap();
        fs::write(outside.join("b"), "canary").unwrap();
        Self { base, inside, outside }
    }

    /// In pieces of the given size.
    pub(super) fn extract(&self, archive: &[u8], piece: usize) -> Result<Placed, HttpError> {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let user = User { name: "me".into(), uid, gid, home: "/".into(), shell: "/bin/sh".into() };
        let mut placement = Placement::new(self.inside.to_str().unwrap(), user)?;
        let mut reader = Reader::default();
        for bytes in archive.chunks(piece.max(1)) {
            reader.push(bytes, &mut placement)?;
        }
        reader.finish()?;
        placement.finish()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.base);
    }
}

/// Everything there is to know of a tree, but for the times when it was read.
pub(super) fn snapshot(path: &Path) -> Vec<String> {
    let metadata = fs::symlink_metadata(path).unwrap();
    let content = if metadata.is_file() { fs::read(path).unwrap() } else { Vec::new() };
    let link = fs::read_link(path).unwrap_or_default();
    let mut all = vec![format!(
        "{path:?} {:o} {} {} {} {} {}.{} {link:?} {content:?}",
        metadata.mode(),
        metadata.ino(),
        metadata.nlink(),
        metadata.uid(),
        metadata.size(),
        metadata.ctime(),
        metadata.ctime_nsec()
    )];
    if metadata.is_dir() {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        all.extend(names.iter().flat_map(|name| snapshot(name)));
    }
    all
}
