//! Lists a directory, several levels deep if wanted.
use std::fs;
use std::io;
use std::path::Path;

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

impl Listing {
    fn walk(&mut self, directory: &str, depth: u32) -> Result<(), WalkError> {
        let mut names = fs::read_dir(directory)
            .and_then(|entries| {
                entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<Vec<_>, _>>()
            })
            .map_err(WalkError::Io)?;
        names.sort_unstable();
        for name in names {
            let path = Path::new(directory).join(name).to_string_lossy().into_owned();
            let Ok(entry) = entry::describe(&path, &mut self.names) else {
                // It was removed while we looked.
                continue;
            };
            if self.entries.len() == MAX_ENTRIES {
                return Err(WalkError::TooMany);
            }
            self.entries.push(entry);
            if depth > 1 && fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                match self.walk(&path, depth - 1) {
                    // Removed meanwhile, or a pseudo file system that refuses: what is left is still worth having.
                    Ok(()) | Err(WalkError::Io(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
