//! No archive, however it was made, writes outside its directory, takes the agent down, or is read differently when the
//! network cuts it differently.
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use proptest::prelude::*;
use tar::{EntryType, Header};

use super::scratch::{Scratch, snapshot};

/// A name or the target of a link, out of few parts, so that entries meet. `@` stands for the place beside the directory.
fn path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "c", "..", ".", "", "@", "out", "up", "loop", "inner"]);
    (any::<bool>(), prop::collection::vec(part, 1..5)).prop_map(|(absolute, parts)| {
        let path = parts.join("/");
        if absolute { format!("/{path}") } else { path }
    })
}

#[derive(Clone, Debug)]
struct Hostile {
    kind: u8,
    path: String,
    link: String,
    mode: u32,
    size: u64,
    /// How the name is given: in the header, in one of GNU's before it, or in one of the POSIX format.
    naming: u8,
}

fn entry() -> impl Strategy<Value = Hostile> {
    let kind = prop::sample::select(b"0125512512346SxgLK7V!".to_vec());
    (kind, path(), path(), 0_u32..0o10000, 0_u64..1500, 0_u8..3)
        .prop_map(|(kind, path, link, mode, size, naming)| Hostile { kind, path, link, mode, size, naming })
}

fn header(kind: u8, name: &[u8], link: &[u8], mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    for (slot, byte) in header.as_old_mut().name.iter_mut().zip(name) {
        *slot = *byte;
    }
    for (slot, byte) in header.as_old_mut().linkname.iter_mut().zip(link) {
        *slot = *byte;
    }
    header.set_entry_type(EntryType::new(kind));
    header.set_mode(mode);
    header.set_mtime(1);
    header.set_size(size);
    header
}

fn append(archive: &mut Vec<u8>, mut header: Header, data: &[u8]) {
    header.set_cksum();
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(512), 0);
}

fn pax_record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let length = (1..10_000).find(|length| length.to_string().len() + rest.len() == *length).unwrap();
    format!("{length}{rest}")
}

fn archive_of(entries: &[Hostile], outside: &str) -> Vec<u8> {
    let mut archive = Vec::new();
    for Hostile { kind, path, link, mode, size, naming } in entries {
        let name = path.replace('@', outside);
        let link = link.replace('@', outside);
        let short = |text: &str| text.as_bytes()[..text.len().min(100)].to_vec();
        let mut named = short("a");
        match naming {
            0 => named = short(&name),
            1 => {
                for (kind, value) in [(b'L', &name), (b'K', &link)] {
                    append(&mut archive, header(kind, b"", b"", 0, value.len() as u64), value.as_bytes());
                }
            }
            _ => {
                let records = pax_record("path", &name) + &pax_record("linkpath", &link);
                append(&mut archive, header(b'x', b"", b"", 0, records.len() as u64), records.as_bytes());
            }
        }
        let data = vec![b'x'; usize::try_from(*size).unwrap()];
        let mut header = header(*kind, &named, &short(&link), *mode, if *kind == b'0' { *size } else { 0 });
        if *kind == b'S' {
            header.as_gnu_mut().unwrap().set_real_size(*size);
        }
        append(&mut archive, header, if *kind == b'0' { &data } else { b"" });
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// What may lie in the directory already: links out of it, some by name alone.
fn prepare(scratch: &Scratch) {
    symlink(&scratch.outside, scratch.inside.join("out")).unwrap();
    symlink("../outside", scratch.inside.join("up")).unwrap();
    symlink("loop", scratch.inside.join("loop")).unwrap();
    fs::create_dir(scratch.inside.join("a")).unwrap();
    symlink("a", scratch.inside.join("inner")).unwrap();
}

/// Of what was placed: names, contents and modes, without what differs from one time to the next.
fn result(scratch: &Scratch) -> Vec<String> {
    fn describe(path: &std::path::Path, base: &std::path::Path, all: &mut Vec<String>) {
        let metadata = fs::symlink_metadata(path).unwrap();
        let content = if metadata.is_file() { fs::read(path).unwrap() } else { Vec::new() };
        let name = path.strip_prefix(base).unwrap();
        let line = format!("{name:?} {:o} {} {content:?}", metadata.mode(), metadata.nlink());
        all.push(line.replace(base.file_name().unwrap().to_str().unwrap(), "base"));
        if metadata.is_dir() {
            let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
            names.sort();
            for name in &names {
                describe(name, base, all);
            }
        }
    }
    let mut all = Vec::new();
    describe(&scratch.inside, &scratch.base, &mut all);
    all
}

fn unfinished(results: &[String]) -> bool {
    results.iter().any(|line| line.contains(".wrenn-"))
}

fn bits(results: &[String]) -> bool {
    results.iter().any(|line| {
        let mode = line.split_whitespace().nth(1).and_then(|mode| u32::from_str_radix(mode, 8).ok());
        mode.is_some_and(|mode| mode & 0o6000 != 0)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_written_outside(
        entries in prop::collection::vec(entry(), 1..8),
        prepared in any::<bool>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
        piece in 1_usize..3000,
    ) {
        let outcomes = [piece, usize::MAX].map(|piece| {
            let scratch = Scratch::new();
            if prepared {
                prepare(&scratch);
            }
            let mut archive = archive_of(&entries, scratch.outside.to_str().unwrap().trim_start_matches('/'));
            if let Some(cut) = cut {
                archive.truncate(cut.index(archive.len()));
            }
            let before = snapshot(&scratch.outside);
            let placed = scratch.extract(&archive, piece).map_err(|error| error.status.as_u16());
            // The status of what an archive can cause is never that of a fault of ours.
            assert!(!matches!(placed, Err(500..)), "{entries:?}: {placed:?}");
            assert_eq!(before, snapshot(&scratch.outside));
            let names: Vec<_> = fs::read_dir(&scratch.base).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names.len(), 2, "{names:?}");
            let result = result(&scratch);
            assert!(!unfinished(&result), "{result:?}");
            assert!(!bits(&result), "{result:?}");
            (placed, if cut.is_none() { result } else { Vec::new() })
        });
        let [first, second] = outcomes;
        prop_assert_eq!(first, second);
    }

    #[test]
    fn damage_harms_nothing(
        entries in prop::collection::vec(entry(), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        mend in any::<bool>(),
        piece in 1_usize..3000,
    ) {
        let scratch = Scratch::new();
        prepare(&scratch);
        let mut archive = archive_of(&entries, scratch.outside.to_str().unwrap().trim_start_matches('/'));
        for (at, byte) in &damage {
            let at = at.index(archive.len());
            archive[at] = *byte;
        }
        if mend {
            // With checksums that are right again, the damage reaches what lies behind them.
            for block in archive.chunks_exact_mut(512).filter(|block| block.iter().any(|byte| *byte != 0)) {
                let mut header = Header::from_byte_slice(block).clone();
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
        let before = snapshot(&scratch.outside);
        let _ = scratch.extract(&archive, piece);
        prop_assert_eq!(before, snapshot(&scratch.outside));
        prop_assert!(!unfinished(&result(&scratch)));
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..4096), piece in 1_usize..3000) {
        let scratch = Scratch::new();
        let outcome = scratch.extract(&bytes, piece).map_err(|error| error.status.as_u16());
        prop_assert!(matches!(outcome, Ok(_) | Err(400)));
    }
}

#[test]
fn links_out_of_the_directory_are_refused() {
    for (entries, reason) in [
        (vec![(b'2', "l", "../outside", ""), (b'0', "l/new", "", "x")], "leads out"),
        (vec![(b'2', "l", "@", ""), (b'0', "l/b", "", "x")], "leads out"),
        (vec![(b'2', "l", "../outside/b", ""), (b'1', "h", "l/x", "")], "leads out"),
        (vec![(b'1', "h", "../outside/b", "")], "leads out"),
        (vec![(b'1', "h", "@/b", "")], "no file that is there"),
        (vec![(b'0', "../outside/new", "", "x")], "leads out"),
        (vec![(b'2', "l", "nowhere", ""), (b'0', "l/x", "", "x")], "link to nowhere"),
        (vec![(b'2', "l", "l", ""), (b'0', "l/x", "", "x")], "symbolic link"),
        (vec![(b'2', "d", "../outside", ""), (b'5', "d", "", "")], "leads out"),
        (vec![(b'0', "f", "", "x"), (b'0', "f/x", "", "x")], "Not a directory"),
        (vec![(b'5', "d", "", ""), (b'0', "d", "", "x")], "is a directory"),
        (vec![(b'0', "", "", "x")], "no name"),
    ] {
        let scratch = Scratch::new();
        let outside = scratch.outside.to_str().unwrap().to_owned();
        let mut archive = Vec::new();
        for (kind, path, link, data) in &entries {
            let link = link.replace('@', &outside);
            append(
                &mut archive,
                header(*kind, path.as_bytes(), link.as_bytes(), 0o644, data.len() as u64),
                data.as_bytes(),
            );
        }
        archive.resize(archive.len() + 1024, 0);
        let before = snapshot(&scratch.outside);
        let error = scratch.extract(&archive, 512).unwrap_err();
        assert_eq!(error.status, 400);
        assert!(error.message.contains(reason), "{entries:?}: {}", error.message);
        assert_eq!(before, snapshot(&scratch.outside));
    }
}

#[test]
fn sizes_that_no_disk_has_are_no_fault_of_ours() {
    for size in [i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
        let scratch = Scratch::new();
        let mut archive = Vec::new();
        for name in [b"1", b"2", b"3"] {
            let mut header = header(b'S', name, b"", 0o644, 0);
            header.as_gnu_mut().unwrap().set_real_size(size);
            append(&mut archive, header, b"");
        }
        append(&mut archive, header(b'0', b"4", b"", 0o644, size), b"");
        let status = scratch.extract(&archive, 512).map_err(|error| error.status.as_u16());
        assert!(matches!(status, Err(400 | 507)), "{size}: {status:?}");
        let names: Vec<_> = fs::read_dir(&scratch.inside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| !name.to_str().unwrap().starts_with('.')), "{names:?}");
    }
}

#[test]
fn a_link_is_replaced_and_never_written_through() {
    let scratch = Scratch::new();
    prepare(&scratch);
    symlink(scratch.outside.join("b"), scratch.inside.join("f")).unwrap();
    fs::hard_link(scratch.outside.join("b"), scratch.inside.join("h")).unwrap();
    let mut archive = Vec::new();
    for path in ["f", "h", "out", "inner/x"] {
        append(&mut archive, header(b'0', path.as_bytes(), b"", 0o7755, 3), b"new");
    }
    archive.resize(archive.len() + 1024, 0);
    assert_eq!(scratch.extract(&archive, 512).unwrap().entries, 4);
    assert_eq!(fs::read(scratch.outside.join("b")).unwrap(), b"canary");
    for path in ["f", "h", "out", "a/x"] {
        let metadata = fs::symlink_metadata(scratch.inside.join(path)).unwrap();
        assert_eq!((metadata.is_file(), metadata.mode() & 0o7777, metadata.len()), (true, 0o755, 3), "{path}");
    }
}
