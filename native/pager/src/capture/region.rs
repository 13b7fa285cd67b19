//! Where guest memory lies in the address space of its process.
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use memory_image::{Error, ErrorCode, Result};

/// How the caller names guest memory.
pub(crate) enum Place {
    /// The private mapping of this file, from its beginning.
    MappedFile(PathBuf),
    /// Mappings of several files, of which each of this one lies as far from the beginning as in the file.
    LayeredOver(PathBuf),
    /// Private memory from this address.
    Address(u64),
}

/// One line of the kernel's list of mappings.
struct Mapping<'a> {
    addresses: Range<u64>,
    private: bool,
    offset: u64,
    name: &'a [u8],
}

impl Place {
    /// The address that guest memory begins at, when all `size` bytes of it are mapped as they should be.
    pub(crate) fn find(&self, maps: &[u8], size: u64) -> Result<u64> {
        let mappings =
            || maps.split(|&byte| byte == b'\n').filter_map(Mapping::parse).filter(|mapping| mapping.private);
        let of_file = |path: &Path| {
            let names = names_of(path);
            mappings().filter(move |mapping| names.iter().any(|name| name == mapping.name))
        };
        let found = match self {
            Self::Address(address) => covered(mappings(), *address, size).then_some(*address),
            Self::LayeredOver(path) => {
                let begin = of_file(path).next().and_then(|mapping| mapping.begin());
                begin.filter(|&begin| covered(mappings(), begin, size))
            }
            Self::MappedFile(path) => {
                let begin = of_file(path).find(|mapping| mapping.offset == 0).map(|mapping| mapping.addresses.start);
                // The kernel splits a mapping where its flags differ: the parts still lie at their own places.
                begin.filter(|&begin| {
                    covered(of_file(path).filter(|mapping| mapping.begin() == Some(begin)), begin, size)
                })
            }
        };
        found.ok_or_else(|| {
            let what = match self {
                Self::MappedFile(path) => format!("{} privately, from its beginning", path.display()),
                Self::LayeredOver(path) => format!("memory around {} privately", path.display()),
                Self::Address(address) => format!("private memory at {address:#x}"),
            };
            Error::new(ErrorCode::MemoryNotMapped, format!("the process does not map {size} bytes of {what}"))
        })
    }
}

/// Whether mappings, in the order of their addresses, leave no gap in `size` bytes from `begin`.
fn covered<'a>(mappings: impl Iterator<Item = Mapping<'a>>, begin: u64, size: u64) -> bool {
    let mut covered_to = begin;
    for Mapping { addresses, .. } in mappings {
        if addresses.contains(&covered_to) {
            covered_to = addresses.end;
        }
    }
    begin.checked_add(size).is_some_and(|end| covered_to >= end)
}

/// How the kernel may write the file's name: it escapes line feeds, and marks files that have lost their name.
fn names_of(path: &Path) -> [Vec<u8>; 2] {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut name = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        if byte == b'\n' { name.extend_from_slice(b"\\012") } else { name.push(byte) }
    }
    [name.clone(), [name.as_slice(), b" (deleted)"].concat()]
}

impl<'a> Mapping<'a> {
    /// `start-end permissions offset device inode      name`
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(6, |&byte| byte == b' ');
        let (start, end) = std::str::from_utf8(fields.next()?).ok()?.split_once('-')?;
        let permissions = fields.next()?;
        let offset = std::str::from_utf8(fields.next()?).ok()?;
        let hexadecimal = |text| u64::from_str_radix(text, 16).ok();
        Some(Self {
            addresses: hexadecimal(start)?..hexadecimal(end)?,
            private: permissions.last() == Some(&b'p'),
            offset: hexadecimal(offset)?,
            name: fields.nth(2).unwrap_or_default().trim_ascii_start(),
        })
    }

    /// Where the beginning of the file would be mapped.
    const fn begin(&self) -> Option<u64> {
        self.addresses.start.checked_sub(self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &[u8] = b"\
10000-20000 r--p 00000000 fe:00 11                         /usr/bin/qemu-system-x86_64
7f0000000000-7f0000100000 rw-p 00000000 fe:00 12           /layers/a b/memory
7f0000100000-7f0000200000 rw-p 00100000 fe:00 12           /layers/a b/memory
7f0000200000-7f0000300000 rw-p 00000000 00:00 0
7f0000300000-7f0000400000 rw-p 00000000 fe:00 13           /layers/c/memory (deleted)
7f0000500000-7f0000600000 rw-s 00000000 fe:00 14           /layers/d/memory
";

    fn find(place: &Place, size: u64) -> Option<u64> {
        place.find(MAPS, size).map_err(|error| assert_eq!(error.code, ErrorCode::MemoryNotMapped)).ok()
    }

    #[test]
    fn a_mapping_of_several_parts_is_found_whole() {
        let file = Place::MappedFile("/layers/a b/memory".into());
        assert_eq!(find(&file, 0x0020_0000), Some(0x7f00_0000_0000));
        assert_eq!(find(&file, 0x0020_1000), None);
    }

    #[test]
    fn memory_of_several_files_begins_where_one_of_them_says() {
        let over = Place::LayeredOver("/layers/a b/memory".into());
        assert_eq!(find(&over, 0x0040_0000), Some(0x7f00_0000_0000));
        assert_eq!(find(&over, 0x0040_1000), None, "a gap is no memory");
        assert_eq!(find(&Place::LayeredOver("/layers/d/memory".into()), 0x1000), None, "nor is what is shared");
    }

    #[test]
    fn a_file_that_lost_its_name_is_found() {
        assert_eq!(find(&Place::MappedFile("/layers/c/memory".into()), 0x0010_0000), Some(0x7f00_0030_0000));
    }

    #[test]
    fn shared_mappings_and_gaps_are_not_guest_memory() {
        assert_eq!(find(&Place::MappedFile("/layers/d/memory".into()), 0x0010_0000), None);
        assert_eq!(find(&Place::Address(0x7f00_0000_0000), 0x0040_0000), Some(0x7f00_0000_0000));
        assert_eq!(find(&Place::Address(0x7f00_0000_0000), 0x0050_0000), None);
        assert_eq!(find(&Place::Address(u64::MAX - 4095), 0x0010_0000), None);
    }
}
