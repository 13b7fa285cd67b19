//! What is written is read as it was, by this agent and by another program's reader; and so is what others write.
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use tar::{Archive, Builder, EntryType, Header};

use super::scratch::Scratch;
use super::walk::Walk;
use crate::files::body::Source;

fn archive(path: &Path, keep_holes: bool) -> Vec<u8> {
    let mut walk = Some(Walk::begin(path.to_str().unwrap(), keep_holes).unwrap());
    let mut all = Vec::new();
    while let Some(left) = walk {
        let (bytes, rest) = left.next().unwrap();
        all.extend_from_slice(&bytes);
        walk = rest;
    }
    all
}

fn make_tree(base: &Path) {
    fs::create_dir_all(base.join("empty")).unwrap();
    fs::create_dir_all(base.join("deep").join("x".repeat(90)).join("y".repeat(90))).unwrap();
    fs::write(base.join("deep").join("x".repeat(90)).join("y".repeat(90)).join("file"), "deep").unwrap();
    fs::write(base.join("script"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(base.join("script"), Permissions::from_mode(0o751)).unwrap();
    fs::write(base.join("nothing"), "").unwrap();
    fs::write(base.join("block"), vec![b'b'; 512]).unwrap();
    fs::write(base.join("large"), (0..1_000_003_u32).map(|at| at.to_le_bytes()[0] | 1).collect::<Vec<_>>()).unwrap();
    fs::write(base.join("line\nbreak \u{e9}"), "odd").unwrap();
    // Not UTF-8, and longer than a header's field.
    let odd = [&[0xff; 120][..], b"x"].concat();
    fs::write(base.join(std::ffi::OsStr::from_bytes(&odd)), "bytes").unwrap();
    symlink("script", base.join("link")).unwrap();
    symlink("l".repeat(300), base.join("long-link")).unwrap();
    symlink("../../outside", base.join("out")).unwrap();
    let sparse = File::create(base.join("sparse")).unwrap();
    sparse.write_all_at(b"middle", 700_000).unwrap();
    sparse.set_len(3_000_001).unwrap();
    fs::set_permissions(base.join("empty"), Permissions::from_mode(0o1777)).unwrap();
    for name in ["empty", "script", "deep"] {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        File::open(base.join(name)).unwrap().set_modified(time).unwrap();
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        base.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
}

/// Names, modes, times, links and contents of all but pipes.
fn describe(path: &Path, base: &Path) -> Vec<String> {
    let metadata = fs::symlink_metadata(path).unwrap();
    let content = if metadata.is_file() { fs::read(path).unwrap() } else { Vec::new() };
    let link = fs::read_link(path).unwrap_or_default();
    let time = if metadata.is_symlink() || path == base { 0 } else { metadata.mtime() };
    let name = path.strip_prefix(base).unwrap();
    let mut all = vec![format!("{name:?} {:o} {time} {link:?} {content:?}", metadata.mode())];
    if metadata.is_dir() {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.retain(|name| !name.ends_with("pipe"));
        names.sort();
        all.extend(names.iter().flat_map(|name| describe(name, base)));
    }
    all
}

#[test]
fn a_tree_comes_back_as_it_was() {
    for keep_holes in [false, true] {
        let scratch = Scratch::new();
        let tree = scratch.base.join("tree");
        make_tree(&tree);
        let archive = archive(&tree, keep_holes);
        assert_eq!(archive.len() % 512, 0);
        // A sparse file takes less where its holes are kept.
        assert_eq!(archive.len() < 2_000_000, keep_holes);
        let placed = scratch.extract(&archive, 1000).unwrap();
        assert_eq!((placed.entries, placed.skipped), (15, 0));
        assert_eq!(describe(&scratch.inside, &scratch.inside), describe(&tree, &tree));
        assert!(fs::metadata(scratch.inside.join("sparse")).unwrap().blocks() * 512 < 1_000_000);
    }
}

#[test]
fn another_reader_sees_the_same() {
    for keep_holes in [false, true] {
        let scratch = Scratch::new();
        let tree = scratch.base.join("tree");
        make_tree(&tree);
        let bytes = archive(&tree, keep_holes);
        let mut reader = Archive::new(bytes.as_slice());
        let mut seen = 0;
        for entry in reader.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = tree.join(entry.path().unwrap());
            let metadata = fs::symlink_metadata(&path).unwrap();
            assert_eq!(entry.header().mode().unwrap(), metadata.mode() & 0o7777);
            assert_eq!(entry.header().mtime().unwrap(), metadata.mtime().cast_unsigned());
            match entry.header().entry_type() {
                EntryType::Directory => assert!(metadata.is_dir()),
                EntryType::Symlink => {
                    assert_eq!(fs::read_link(&path).unwrap(), entry.link_name().unwrap().unwrap());
                }
                _ => {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content).unwrap();
                    assert_eq!(content, fs::read(&path).unwrap());
                }
            }
            seen += 1;
        }
        assert_eq!(seen, 15);
    }
}

#[test]
fn one_file_is_an_archive_of_one() {
    let scratch = Scratch::new();
    let bytes = archive(&scratch.outside.join("b"), false);
    assert_eq!(scratch.extract(&bytes, 512).unwrap().bytes, 6);
    assert_eq!(fs::read(scratch.inside.join("b")).unwrap(), b"canary");
}

#[test]
fn an_empty_directory_is_an_archive_of_nothing() {
    let scratch = Scratch::new();
    let bytes = archive(&scratch.outside.join("a"), false);
    assert_eq!(bytes, [0; 1024]);
    assert_eq!(scratch.extract(&bytes, 512).unwrap().entries, 0);
}

#[test]
fn a_size_beyond_8_gib_fits() {
    let scratch = Scratch::new();
    let size = 20 * 1024 * 1024 * 1024;
    let huge = scratch.outside.join("huge");
    let file = File::create(&huge).unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(b"end", size - 3).unwrap();
    let bytes = archive(&huge, true);
    assert!(bytes.len() < 1_000_000);
    assert_eq!(scratch.extract(&bytes, 1000).unwrap().bytes, size);
    let back = File::open(scratch.inside.join("huge")).unwrap();
    assert_eq!(back.metadata().unwrap().len(), size);
    let mut end = [0; 4];
    back.read_exact_at(&mut end, size - 4).unwrap();
    assert_eq!(&end, b"\0end");
    // And without its holes, as far as one wants to wait.
    let (first, _) = Walk::begin(huge.to_str().unwrap(), false).unwrap().next().unwrap();
    assert_eq!(Header::from_byte_slice(&first[..512]).entry_size().unwrap(), size);
}

#[test]
fn a_file_with_many_holes_keeps_them() {
    let scratch = Scratch::new();
    let file = File::create(scratch.outside.join("holes")).unwrap();
    for at in 0..200 {
        file.write_all_at(b"x", at * 65_536 + 40_000).unwrap();
    }
    let bytes = archive(&scratch.outside.join("holes"), true);
    scratch.extract(&bytes, 700).unwrap();
    let (from, to) = (scratch.outside.join("holes"), scratch.inside.join("holes"));
    assert_eq!(fs::read(from).unwrap(), fs::read(&to).unwrap());
    assert!(fs::metadata(to).unwrap().blocks() * 512 < 6_000_000);
}

#[test]
fn a_file_that_changes_while_it_is_read_harms_only_itself() {
    let scratch = Scratch::new();
    let tree = scratch.base.join("tree");
    fs::create_dir(&tree).unwrap();
    for name in ["shrinks", "grows"] {
        fs::write(tree.join(name), vec![b'x'; 1_000_000]).unwrap();
    }
    let walk = Walk::begin(tree.to_str().unwrap(), false).unwrap();
    let (mut bytes, mut rest) = (Vec::new(), Some(walk));
    while let Some(left) = rest {
        let (piece, later) = left.next().unwrap();
        bytes.extend_from_slice(&piece);
        rest = later;
        // Both, whichever is being read.
        for name in ["shrinks", "grows"] {
            let length = if name == "shrinks" { 10 } else { 2_000_000 };
            File::options().write(true).open(tree.join(name)).unwrap().set_len(length).unwrap();
        }
        fs::write(tree.join("late"), "x").unwrap();
        let _ = fs::remove_file(tree.join("late"));
    }
    assert!(scratch.extract(&bytes, 10_000).unwrap().entries >= 2);
}

fn builder_entry(kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(1_000_000_000);
    header
}

#[test]
fn what_others_write_is_understood() {
    let scratch = Scratch::new();
    let mut builder = Builder::new(Vec::new());
    // Names in the two fields of the POSIX format, in an order that no walk gives, without directories, one of them later.
    let long = format!("{}/{}/file", "p".repeat(80), "q".repeat(80));
    builder.append_data(&mut builder_entry(EntryType::Regular, 3, 0o600), &long, &b"one"[..]).unwrap();
    builder.append_data(&mut builder_entry(EntryType::Continuous, 3, 0o4755), "set-id", &b"two"[..]).unwrap();
    builder.append_pax_extensions([("path", &b"in/pax\nline"[..]), ("mtime", b"1234567890.25")]).unwrap();
    builder.append_data(&mut builder_entry(EntryType::Regular, 5, 0o640), "short", &b"three"[..]).unwrap();
    builder.append_link(&mut builder_entry(EntryType::Link, 0, 0), "hard", "in/pax\nline").unwrap();
    builder.append_data(&mut builder_entry(EntryType::Char, 0, 0o600), "device", &b""[..]).unwrap();
    builder.append_data(&mut builder_entry(EntryType::Fifo, 0, 0o600), "pipe", &b""[..]).unwrap();
    builder.append_data(&mut builder_entry(EntryType::XGlobalHeader, 17, 0), "g", &b"17 comment=01234\n"[..]).unwrap();
    builder.append_data(&mut builder_entry(EntryType::Directory, 0, 0o700), "./d/", &b""[..]).unwrap();
    builder.append_data(&mut builder_entry(EntryType::Directory, 0, 0o700), "./", &b""[..]).unwrap();
    let mode = fs::metadata(&scratch.inside).unwrap().mode();
    let placed = scratch.extract(&builder.into_inner().unwrap(), 333).unwrap();
    assert_eq!((placed.entries, placed.bytes, placed.skipped), (5, 11, 2));
    assert_eq!(fs::read(scratch.inside.join(&long)).unwrap(), b"one");
    let metadata = |name: &str| fs::metadata(scratch.inside.join(name)).unwrap();
    assert_eq!(metadata("set-id").mode() & 0o7777, 0o755);
    let pax = metadata("in/pax\nline");
    assert_eq!((pax.mtime(), pax.mtime_nsec(), pax.nlink()), (1_234_567_890, 250_000_000, 2));
    assert_eq!(metadata("hard").ino(), pax.ino());
    assert_eq!((metadata("d").mode() & 0o7777, metadata("d").mtime()), (0o700, 1_000_000_000));
    assert_eq!(metadata(".").mode(), mode);
    assert!(!scratch.inside.join("device").exists() && !scratch.inside.join("pipe").exists());
}

#[test]
fn holes_in_the_posix_format_are_kept() {
    let scratch = Scratch::new();
    let mut data = b"2\n4096\n3\n1000000\n0\n".to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"abc");
    let mut builder = Builder::new(Vec::new());
    let extensions = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"real"),
        ("GNU.sparse.realsize", b"1000000"),
    ];
    builder.append_pax_extensions(extensions).unwrap();
    let size = data.len() as u64;
    builder.append_data(&mut builder_entry(EntryType::Regular, size, 0o644), "GNUSparseFile.0/real", &*data).unwrap();
    let placed = scratch.extract(&builder.into_inner().unwrap(), 100).unwrap();
    assert_eq!((placed.entries, placed.bytes), (1, 1_000_000));
    let content = fs::read(scratch.inside.join("real")).unwrap();
    assert_eq!((content.len(), &content[4096..4099]), (1_000_000, &b"abc"[..]));
    assert!(content[..4096].iter().chain(&content[4099..]).all(|byte| *byte == 0));
}

#[test]
fn what_cannot_be_read_is_refused_with_the_reason() {
    let mut whole = Builder::new(Vec::new());
    whole.append_data(&mut builder_entry(EntryType::Regular, 600, 0o644), "f", &[b'x'; 600][..]).unwrap();
    let whole = whole.into_inner().unwrap();
    let mut unknown = whole.clone();
    let mut header = Header::from_byte_slice(&whole[..512]).clone();
    header.set_entry_type(EntryType::new(b'M'));
    header.set_cksum();
    unknown[..512].copy_from_slice(header.as_bytes());
    let mut huge = Builder::new(Vec::new());
    let header = &mut builder_entry(EntryType::GNULongName, 2 * 1024 * 1024, 0);
    header.set_cksum();
    huge.append(header, &vec![b'x'; 2 * 1024 * 1024][..]).unwrap();
    for (archive, reason) in [
        (vec![], "it is empty"),
        (b"hello".to_vec(), "it is cut short"),
        (vec![b'x'; 1024], "no tar archive"),
        ([&[0x1f, 0x8b][..], &[0; 600]].concat(), "compressed"),
        (whole[..100].to_vec(), "it is cut short"),
        (whole[..700].to_vec(), "it is cut short"),
        // Between two entries: only the end mark tells that.
        (whole[..1536].to_vec(), "it is cut short"),
        (unknown, "'M'"),
        (huge.into_inner().unwrap(), "too large"),
    ] {
        let scratch = Scratch::new();
        let error = scratch.extract(&archive, 512).unwrap_err();
        assert_eq!(error.status, 400);
        assert!(error.message.contains(reason), "{}", error.message);
    }
}
