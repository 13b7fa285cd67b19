//! Headers come back as they were written, and nothing else is taken for one.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]
use memory_image::{ErrorCode, Extent, ExtentList, Header, LayerId, MAX_MEMORY_SIZE, PAGE_SIZE, Source};
use proptest::collection::vec;
use proptest::prelude::*;

fn layer(number: u8) -> LayerId {
    LayerId::from_bytes([number; 16])
}

/// Headers of a few extents in up to five layers.
fn headers() -> impl Strategy<Value = Header> {
    let extent = (1..40_u64, proptest::option::of((0..5_u32, 0..100_u64)));
    vec(extent, 1..30).prop_map(|extents| {
        let mut list = ExtentList::new();
        let mut used = Vec::new();
        for (pages, place) in extents {
            let source = place.map_or(Source::Zero, |(number, page)| {
                let index = used.iter().position(|&other| other == number).unwrap_or_else(|| {
                    used.push(number);
                    used.len() - 1
                });
                Source::Layer { index: u32::try_from(index).unwrap(), offset: page * PAGE_SIZE }
            });
            list.push(pages * PAGE_SIZE, source);
        }
        let layers = used.iter().map(|&number| layer(u8::try_from(number).unwrap())).collect();
        Header::new(list.end(), layers, list.into_extents()).unwrap()
    })
}

fn flat(pages: u64) -> Header {
    let source = Source::Layer { index: 0, offset: 0 };
    let extents = vec![Extent { guest: 0, length: pages * PAGE_SIZE, source }];
    Header::new_flat(pages * PAGE_SIZE, layer(1), extents).unwrap()
}

fn assert_damaged(bytes: &[u8]) {
    assert_eq!(Header::decode(bytes).unwrap_err().code, ErrorCode::HeaderDamaged);
}

/// `bytes` with the checksum that belongs to them: what it protects from is let through.
fn with_right_sum(mut bytes: Vec<u8>) -> Vec<u8> {
    let content = bytes.len() - 4;
    let sum = crc32c::crc32c(&bytes[..content]);
    bytes[content..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

proptest! {
    #[test]
    fn a_header_comes_back_as_it_was_written(header in headers()) {
        prop_assert_eq!(Header::decode(&header.encode()).unwrap(), header.clone());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("header");
        header.write(&path).unwrap();
        prop_assert_eq!(Header::read(&path).unwrap(), header);
        prop_assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_page_is_found_where_its_extent_says(header in headers()) {
        for extent in header.extents() {
            for guest in (extent.guest..extent.end()).step_by(4096) {
                prop_assert_eq!(header.lookup(guest), Some(extent));
                let piece = header.pieces(guest..guest + PAGE_SIZE).collect::<Vec<_>>();
                prop_assert_eq!(&piece[..], &[Extent { guest, length: PAGE_SIZE, source: extent.source.advanced(guest - extent.guest) }]);
            }
        }
        prop_assert_eq!(header.lookup(header.memory_size()), None);
        prop_assert_eq!(header.pieces(0..u64::MAX).collect::<Vec<_>>(), header.extents());
    }

    #[test]
    fn a_changed_header_is_never_accepted(header in headers(), changes in vec((any::<prop::sample::Index>(), 1..=u8::MAX), 1..6)) {
        let mut bytes = header.encode();
        let original = bytes.clone();
        for (at, change) in changes {
            let at = at.index(bytes.len());
            bytes[at] ^= change;
        }
        prop_assume!(bytes != original);
        assert_damaged(&bytes);
    }

    #[test]
    fn a_cut_or_longer_header_is_never_accepted(header in headers(), cut in any::<prop::sample::Index>(), more in vec(any::<u8>(), 1..64)) {
        let bytes = header.encode();
        assert_damaged(&bytes[..cut.index(bytes.len())]);
        assert_damaged(&[bytes, more].concat());
    }

    #[test]
    fn bytes_of_any_kind_are_refused(bytes in vec(any::<u8>(), 0..512)) {
        assert_damaged(&bytes);
    }

    /// As from a writer that is wrong, not a disk that is: whatever is accepted is written back as it was.
    #[test]
    fn fields_of_any_value_under_a_right_checksum_are_refused_or_mean_one_thing(
        header in headers(),
        changes in vec((8..4096_usize, prop_oneof![Just(0_u8), Just(1), Just(16), Just(u8::MAX), any::<u8>()]), 1..8),
    ) {
        let mut bytes = header.encode();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let bytes = with_right_sum(bytes);
        match Header::decode(&bytes) {
            Ok(header) => prop_assert_eq!(header.encode(), bytes),
            Err(error) => prop_assert_eq!(error.code, ErrorCode::HeaderDamaged),
        }
    }
}

#[test]
fn counts_of_four_thousand_million_are_refused_without_memory_for_them() {
    for at in [32, 36] {
        let mut bytes = flat(4).encode();
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let bytes = with_right_sum(bytes);
        assert_damaged(&bytes);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        assert_eq!(Header::read(file.path()).unwrap_err().code, ErrorCode::HeaderDamaged);
    }
}

#[test]
fn an_unknown_version_is_named() {
    let mut bytes = flat(4).encode();
    bytes[8] = 2;
    assert!(Header::decode(&with_right_sum(bytes)).unwrap_err().message.contains("version 2"));
}

#[test]
fn a_missing_header_is_told_from_a_damaged_one() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(Header::read(&directory.path().join("none")).unwrap_err().code, ErrorCode::HeaderMissing);
}

#[test]
fn a_header_that_contradicts_itself_cannot_be_made() {
    let zero = |guest, length| Extent { guest, length, source: Source::Zero };
    let layered = |index, offset| Extent { guest: 0, length: 8192, source: Source::Layer { index, offset } };
    let cases: [(u64, Vec<LayerId>, Vec<Extent>); 14] = [
        (0, vec![], vec![]),
        (8192, vec![], vec![]),
        (8191, vec![], vec![zero(0, 8191)]),
        (MAX_MEMORY_SIZE * 2, vec![], vec![zero(0, MAX_MEMORY_SIZE * 2)]),
        (8192, vec![], vec![zero(0, 4096)]),
        (8192, vec![], vec![zero(4096, 4096)]),
        (8192, vec![], vec![zero(0, 4096), zero(0, 4096)]),
        (8192, vec![], vec![zero(0, 12288)]),
        (8192, vec![], vec![zero(0, 0), zero(0, 8192)]),
        (8192, vec![], vec![layered(0, 0)]),
        (8192, vec![layer(1)], vec![layered(1, 0)]),
        (8192, vec![layer(1)], vec![layered(0, 1)]),
        (8192, vec![layer(1)], vec![layered(0, u64::MAX - 4095)]),
        (8192, vec![layer(1), layer(1)], vec![layered(0, 0)]),
    ];
    for (memory_size, layers, extents) in cases {
        let error = Header::new(memory_size, layers.clone(), extents.clone()).unwrap_err();
        assert_eq!(error.code, ErrorCode::HeaderDamaged, "{memory_size} {layers:?} {extents:?}");
    }
    assert!(Header::new(8192, vec![layer(1)], vec![zero(0, 8192)]).is_err(), "a layer that nothing lies in");
    assert!(Header::new_flat(8192, layer(1), vec![layered(0, 4096)]).is_err(), "flat, but moved");
    assert!(Header::new_flat(8192, layer(1), vec![zero(0, 8192)]).is_ok());
}

#[test]
fn a_layer_is_in_place_when_all_of_it_lies_at_its_own_address() {
    let pages = |count: u64| count * PAGE_SIZE;
    let of = |index, guest, offset| Extent { guest, length: pages(1), source: Source::Layer { index, offset } };
    let image = |extents| Header::new(pages(3), vec![layer(1), layer(2)], extents).unwrap().layer_in_place();
    assert_eq!(flat(4).layer_in_place(), Some(layer(1)));
    let zeros = vec![Extent { guest: 0, length: pages(4), source: Source::Zero }];
    assert_eq!(Header::new_flat(pages(4), layer(1), zeros).unwrap().layer_in_place(), None, "nothing of it is mapped");
    assert_eq!(image(vec![of(1, 0, 0), of(0, pages(1), 0), of(1, pages(2), pages(2))]), Some(layer(2)));
    assert_eq!(image(vec![of(1, 0, 0), of(0, pages(1), 0), of(1, pages(2), pages(1))]), None);
}
