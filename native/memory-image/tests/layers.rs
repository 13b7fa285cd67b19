//! Layers hold what was written, tell when they no longer do, and are there whole or not at all.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use memory_image::{
    BLOCK_BYTES, BLOCK_SIZE, ErrorCode, Extent, Header, Image, Layer, LayerId, LayerWriter, MEMORY_FILE, PAGE_SIZE,
    SUMS_FILE, Source, Successor,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn id(number: u8) -> LayerId {
    LayerId::from_bytes([number; 16])
}

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

/// A layer of `bytes`.
fn write(layers: &Path, id: LayerId, bytes: &[u8]) -> Layer {
    let mut writer = LayerWriter::create(layers, id).unwrap();
    writer.append(bytes).unwrap();
    writer.finish().unwrap().publish();
    Layer::open(layers, id).unwrap()
}

fn read(layer: &Layer) -> Vec<u8> {
    let mut buffer = vec![0; BLOCK_BYTES];
    (0..layer.block_count()).flat_map(|index| layer.read_block(index, &mut buffer).unwrap().to_vec()).collect()
}

/// Changes the byte at `at` of a file that nothing may change.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_layer_holds_what_was_appended_and_zeros_in_its_holes(
        pieces in vec((prop_oneof![1..70_usize, 60_000..70_000_usize, 1..3_000_000_usize], any::<bool>()), 0..8),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = LayerWriter::create(directory.path(), id(1)).unwrap();
        let mut expected = Vec::new();
        for (number, (length, hole)) in pieces.into_iter().enumerate() {
            prop_assert_eq!(writer.len(), expected.len() as u64);
            if hole {
                writer.append_hole(length as u64).unwrap();
                expected.resize(expected.len() + length, 0);
            } else {
                let bytes = vec![u8::try_from(number).unwrap() + 1; length];
                prop_assert_eq!(writer.append(&bytes).unwrap(), expected.len() as u64);
                expected.extend(bytes);
            }
        }
        writer.finish().unwrap().publish();
        let layer = Layer::open(directory.path(), id(1)).unwrap();
        prop_assert_eq!(layer.len(), expected.len() as u64);
        prop_assert!(read(&layer) == expected);
    }

    /// Any chain of generations reads like memory to which the same was done.
    #[test]
    fn successors_read_like_memory_that_was_changed_the_same_way(
        generations in vec(vec((0..48_u64, 1..9_u64, prop::option::of(1..=u8::MAX)), 0..8), 1..6),
    ) {
        const PAGES: u64 = 48;
        let directory = tempfile::tempdir().unwrap();
        let mut memory = vec![0_u8; usize::try_from(PAGES * PAGE_SIZE).unwrap()];
        let zero = Extent { guest: 0, length: PAGES * PAGE_SIZE, source: Source::Zero };
        let mut header = Header::new(PAGES * PAGE_SIZE, vec![], vec![zero]).unwrap();
        for (number, mut changes) in generations.into_iter().enumerate() {
            changes.sort_unstable();
            let layer = id(u8::try_from(number).unwrap() + 1);
            let mut writer = LayerWriter::create(directory.path(), layer).unwrap();
            let mut successor = Successor::of(&header);
            let mut from = 0;
            for (page, pages, value) in changes {
                let (page, end) = (page.max(from), (page + pages).min(PAGES));
                if page >= end {
                    continue;
                }
                from = end;
                let (guest, length) = (page * PAGE_SIZE, (end - page) * PAGE_SIZE);
                let range = usize::try_from(guest).unwrap()..usize::try_from(guest + length).unwrap();
                memory[range.clone()].fill(value.unwrap_or(0));
                match value {
                    None => successor.zero(guest, length),
                    Some(_) => successor.write(guest, length, writer.append(&memory[range]).unwrap()),
                }
            }
            writer.finish().unwrap().publish();
            header = successor.finish(layer).unwrap();
            let image = Image::open(header.clone(), directory.path()).unwrap();
            let mut content = vec![1; memory.len()];
            image.reader().read(0, &mut content).unwrap();
            prop_assert!(content == memory);
            for pair in header.extents().windows(2) {
                prop_assert_ne!(pair[0].source.advanced(pair[0].length), pair[1].source, "extents that are one");
            }
        }
    }
}

#[test]
fn a_layer_is_read_only_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), id(1), b"secret");
    for file in [MEMORY_FILE, SUMS_FILE] {
        assert_eq!(fs::metadata(id(1).directory(directory.path()).join(file)).unwrap().mode() & 0o7777, 0o400);
    }
}

#[test]
fn a_layer_that_is_not_published_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = LayerWriter::create(directory.path(), id(1)).unwrap();
    writer.append(&[1; 100]).unwrap();
    assert_eq!(entries(directory.path()), 1);
    drop(writer);
    assert_eq!(entries(directory.path()), 0);
    drop(LayerWriter::create(directory.path(), id(1)).unwrap().finish().unwrap());
    assert_eq!(entries(directory.path()), 0);
}

#[test]
fn a_layer_is_never_written_over_another() {
    let directory = tempfile::tempdir().unwrap();
    let layer = write(directory.path(), id(1), b"first");
    let error = LayerWriter::create(directory.path(), id(1)).err().unwrap();
    assert_eq!(error.code, ErrorCode::LayerExists);
    assert_eq!(read(&layer), b"first");
}

#[test]
fn a_changed_byte_is_found_in_its_block_and_in_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let layer = write(directory.path(), id(1), &vec![7; 3 * BLOCK_BYTES + 10]);
    for changed in [0, BLOCK_BYTES + 5, 3 * BLOCK_BYTES + 9] {
        let path = id(1).directory(directory.path()).join(MEMORY_FILE);
        flip(&path, changed);
        for index in 0..4 {
            let result =
                layer.read_block(index, &mut vec![0; BLOCK_BYTES]).map(<[u8]>::len).map_err(|error| error.code);
            let right = if index == 3 { 10 } else { BLOCK_BYTES };
            let damaged = index == changed as u64 / BLOCK_SIZE;
            assert_eq!(result, if damaged { Err(ErrorCode::LayerDamaged) } else { Ok(right) });
        }
        flip(&path, changed);
    }
    assert_eq!(layer.read_block(4, &mut vec![0; BLOCK_BYTES]).unwrap_err().code, ErrorCode::LayerDamaged);
}

#[test]
fn a_layer_of_another_length_is_damaged_and_one_that_is_not_there_missing() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), id(1), &[7; 100]);
    let files = id(1).directory(directory.path());
    fs::write(files.join(MEMORY_FILE), [7; 99]).unwrap();
    assert_eq!(Layer::open(directory.path(), id(1)).err().unwrap().code, ErrorCode::LayerDamaged);
    fs::remove_file(files.join(MEMORY_FILE)).unwrap();
    assert_eq!(Layer::open(directory.path(), id(1)).err().unwrap().code, ErrorCode::LayerMissing);
    fs::remove_file(files.join(SUMS_FILE)).unwrap();
    assert_eq!(Layer::open(directory.path(), id(1)).err().unwrap().code, ErrorCode::LayerMissing);
}

#[test]
fn checksums_that_are_changed_or_belong_to_another_layer_are_damaged() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), id(1), &[7; 100]);
    write(directory.path(), id(2), &[7; 100]);
    let sums = id(1).directory(directory.path()).join(SUMS_FILE);
    let length = fs::read(&sums).unwrap().len();
    for at in 0..length {
        flip(&sums, at);
        assert_eq!(Layer::open(directory.path(), id(1)).err().unwrap().code, ErrorCode::LayerDamaged, "byte {at}");
        flip(&sums, at);
    }
    fs::copy(id(2).directory(directory.path()).join(SUMS_FILE), &sums).unwrap();
    assert_eq!(Layer::open(directory.path(), id(1)).err().unwrap().code, ErrorCode::LayerDamaged);
}

#[test]
fn an_extent_beyond_the_end_of_its_layer_is_found_before_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), id(1), &[7; 8192]);
    for (offset, fits) in [(0, true), (4096, false)] {
        let extent = Extent { guest: 0, length: 8192, source: Source::Layer { index: 0, offset } };
        let header = Header::new(8192, vec![id(1)], vec![extent]).unwrap();
        let opened = Image::open(header, directory.path());
        assert_eq!(opened.err().map(|error| error.code), (!fits).then_some(ErrorCode::LayerDamaged));
    }
}
