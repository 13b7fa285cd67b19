//! Lists a directory, several levels deep if wanted.
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::entry;
use crate::connect::{Code, ConnectError};
use crate::proto::filesystem::EntryInfo;
use crate::users::Names;

/// About 30 MB of reply. More is a mistake, and would exhaust a small guest's memory.
const MAX_ENTRIES: usize = 100_000;

struct Listing {
    entries: Vec<EntryInfo>,
    names: Names,
}

/// Sorted by name, each directory followed by what is in it. Links are listed, not followed, except the given path.
pub(super) fn list(path: &str, depth: u32) -> Result<Vec<EntryInfo>, ConnectError> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ConnectError::not_found(format!("directory not found: {path}")),
        _ => ConnectError::io(&format!("error reading directory {path}"), &error),
    })?;
    if !metadata.is_dir() {
        return Err(ConnectError::invalid_argument(format!("path is not a directory: {path}")));
    }
    let mut listing = Listing { entries: Vec::new(), names: Names::default() };
    listing.walk(path, depth).map_err(|error| match error {
        WalkError::Io(error) => ConnectError::io(&format!("error reading directory {path}"), &error),
        WalkError::TooMany => ConnectError::new(
            Code::ResourceExhausted,
            format!("{path} holds more than {MAX_ENTRIES} entries; list it with less depth"),
        ),
    })?;
    Ok(listing.entries)
}

enum WalkError {
    Io(io::Error),
    TooMany,
}

/// Names in a directory, the first of them last.
fn names_in(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

impl Listing {
    /// Without recursion: nesting is bounded by the length of a path alone, and a thread's stack is small.
    fn walk(&mut self, directory: &str, depth: u32) -> Result<(), WalkError> {
        let mut open = vec![(PathBuf::from(directory), names_in(Path::new(directory)).map_err(WalkError::Io)?)];
        while let Some((directory, names)) = open.last_mut() {
            let Some(name) = names.pop() else {
                open.pop();
                continue;
            };
            let path = directory.join(name);
            let shown = path.to_string_lossy().into_owned();
            let Ok(entry) = entry::describe(&shown, &mut self.names) else {
                // It was removed while we looked.
                continue;
            };
            if self.entries.len() == MAX_ENTRIES {
                return Err(WalkError::TooMany);
            }
            self.entries.push(entry);
            let deeper = u32::try_from(open.len()).is_ok_and(|levels| levels < depth);
            if deeper && fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                // Removed meanwhile, or a pseudo file system that refuses: what is left is still worth having.
                open.extend(names_in(&path).ok().map(|names| (path, names)));
            }
        }
        Ok(())
    }
}
