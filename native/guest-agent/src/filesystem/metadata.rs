//! What users attach to files: extended attributes `user.e2b.<key>`.
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

pub(crate) const PREFIX: &str = "user.e2b.";

/// Bounds of ext4: what one inode has room for, and the kernel's 255 bytes for a name.
pub(crate) const MAX_TOTAL_BYTES: usize = 4096;
const MAX_NAME_BYTES: usize = 255;

pub(crate) type Metadata = BTreeMap<String, String>;

/// Nothing where the file system has no such attributes, or the file is gone.
pub(crate) fn read(path: &Path) -> Metadata {
    let mut names = vec![0; MAX_TOTAL_BYTES];
    let length = match rustix::fs::listxattr(path, names.as_mut_slice()) {
        // By far the most common: files without attributes.
        Ok(0) | Err(_) => return Metadata::new(),
        Ok(length) => length,
    };
    names.truncate(length);
    let names = String::from_utf8_lossy(&names);
    names
        .split_terminator('\0')
        .filter_map(|name| Some((name.strip_prefix(PREFIX)?.to_owned(), value(path, name)?)))
        .collect()
}

fn value(path: &Path, name: &str) -> Option<String> {
    let mut bytes = vec![0; MAX_TOTAL_BYTES];
    let length = rustix::fs::getxattr(path, name, bytes.as_mut_slice()).ok()?;
    bytes.truncate(length);
    String::from_utf8(bytes).ok()
}

pub(crate) fn write(file: impl AsFd, metadata: &Metadata) -> io::Result<()> {
    for (key, value) in metadata {
        let written = rustix::fs::fsetxattr(&file, format!("{PREFIX}{key}"), value.as_bytes(), XattrFlags::empty());
        written.map_err(|error| match error {
            // The attributes' block is full, whatever the disk is.
            Errno::RANGE => io::Error::from(Errno::NOSPC),
            error => error.into(),
        })?;
    }
    Ok(())
}

/// One sentence on what is wrong, if anything is.
pub(crate) fn check(metadata: &Metadata) -> Result<(), String> {
    let printable = |text: &str| text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    let mut total = 0;
    for (key, value) in metadata {
        if key.is_empty() || !printable(key) {
            return Err(format!("metadata key '{}' must be printable ASCII", key.escape_debug()));
        }
        if PREFIX.len() + key.len() > MAX_NAME_BYTES {
            return Err(format!("metadata key '{key}' is longer than {} bytes", MAX_NAME_BYTES - PREFIX.len()));
        }
        if !printable(value) {
            return Err(format!("the value of metadata key '{key}' must be printable ASCII"));
        }
        total += PREFIX.len() + key.len() + value.len();
    }
    if total > MAX_TOTAL_BYTES {
        return Err(format!("metadata takes {total} bytes, more than {MAX_TOTAL_BYTES}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_must_be_printable_and_small() {
        let metadata = |key: &str, value: &str| Metadata::from([(key.to_owned(), value.to_owned())]);
        assert!(check(&metadata("author", "A. B.")).is_ok());
        assert!(check(&metadata(&"k".repeat(246), "")).is_ok());
        assert!(check(&metadata(&"k".repeat(247), "")).is_err());
        assert!(check(&metadata("", "x")).is_err());
        assert!(check(&metadata("k", "caf\u{e9}")).is_err());
        assert!(check(&metadata("k", &"x".repeat(4096 - 9 - 1))).is_ok());
        assert!(check(&metadata("k", &"x".repeat(4096 - 9))).is_err());
    }
}
