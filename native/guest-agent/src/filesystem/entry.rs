//! Describes one file or directory.
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::filesystem::metadata;
use crate::paths;
use crate::proto::filesystem::{EntryInfo, FileType};
use crate::timestamp::Timestamp;
use crate::users::Names;

const PERMISSION_BITS: u32 = 0o777;

fn file_type(metadata: &Metadata) -> FileType {
    let kind = metadata.file_type();
    if kind.is_file() {
        FileType::File
    } else if kind.is_dir() {
        FileType::Directory
    } else if kind.is_symlink() {
        FileType::Symlink
    } else {
        FileType::Unspecified
    }
}

/// As `ls -l` prints it.
fn permissions(metadata: &Metadata) -> String {
    let kind = metadata.file_type();
    let mode = metadata.mode();
    let mut text = String::with_capacity(10);
    text.push(match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () if kind.is_block_device() => 'b',
        () if kind.is_char_device() => 'c',
        () => '-',
    });
    for (shift, special, marks) in [(6, 0o4000, ('s', 'S')), (3, 0o2000, ('s', 'S')), (0, 0o1000, ('t', 'T'))] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => marks.0,
            (false, true) => marks.1,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Of a symbolic link: its own size, owner and time, but type and mode of what it leads to. A link to nowhere is
/// described as a link.
pub(crate) fn describe(path: &str, names: &mut Names) -> io::Result<EntryInfo> {
    let own = fs::symlink_metadata(path)?;
    let (target, symlink_target) = if own.is_symlink() {
        let resolved = fs::canonicalize(path).ok();
        let target = resolved.as_ref().and_then(|resolved| fs::metadata(resolved).ok());
        let shown = resolved.or_else(|| fs::read_link(path).ok()).map(|path| path.to_string_lossy().into_owned());
        (target, shown)
    } else {
        (None, None)
    };
    let described = target.as_ref().unwrap_or(&own);
    Ok(EntryInfo {
        name: paths::file_name(path).to_owned(),
        r#type: file_type(described).into(),
        path: path.to_owned(),
        size: own.size().cast_signed(),
        mode: described.mode() & PERMISSION_BITS,
        permissions: permissions(&own),
        owner: names.user(own.uid()),
        group: names.group(own.gid()),
        modified_time: Some(Timestamp::nearest(own.mtime(), own.mtime_nsec())),
        symlink_target,
        metadata: metadata::read(Path::new(path)),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn permissions_read_as_ls_prints_them() {
        let path = std::env::temp_dir().join(format!("wrenn-entry-{}", std::process::id()));
        fs::write(&path, "x").unwrap();
        for (mode, expected) in
            [(0o644, "-rw-r--r--"), (0o4755, "-rwsr-xr-x"), (0o2640, "-rw-r-S---"), (0o1001, "---------t")]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(permissions(&fs::symlink_metadata(&path).unwrap()), expected);
        }
        fs::remove_file(&path).unwrap();
    }
}
