//! Captures of a real process hold its memory, page by page, at the cost of what has changed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;
use support::{Memory, PAGE, Store, layer};

const PAGES: usize = 1000;

/// Content that tells which page it is and which generation wrote it.
fn fill(page: &mut [u8], number: usize, generation: u8) {
    for (at, byte) in page.iter_mut().enumerate() {
        *byte = u8::try_from((at + number * 31) % 251).unwrap() ^ generation;
    }
}

#[test]
fn every_page_is_captured_as_the_process_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let mut memory = Memory::over(&store.blank(PAGES * PAGE), PAGES * PAGE);
    for number in (0..PAGES).filter(|number| number % 7 < 3 || *number > 900) {
        fill(memory.page(number), number, 1);
    }
    // Read only: the process has them mapped, but not of its own.
    assert!((500..600).any(|number| memory.page(number).iter().all(|byte| *byte == 0)));
    let captured = store.capture(&memory, None, 1).unwrap();
    assert_eq!(captured.get("flat"), Some(&json!(true)));
    for (number, page) in store.content(1).chunks(PAGE).enumerate() {
        assert!(page == memory.page(number), "page {number}");
    }
}

#[test]
fn a_flat_image_can_be_mapped_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let mut memory = Memory::over(&store.blank(PAGES * PAGE), PAGES * PAGE);
    for number in [3, 4, 500] {
        fill(memory.page(number), number, 1);
    }
    let captured = store.capture(&memory, None, 1).unwrap();
    assert!(fs::read(store.layer_file(1)).unwrap() == memory.bytes());
    // Two blocks of 64 KiB hold all of it: the rest takes no space.
    assert_eq!(captured.get("bytes_written"), Some(&json!(2 * 65_536)));
    assert!(fs::metadata(store.layer_file(1)).unwrap().blocks() * 512 <= 3 * 65_536);
}

#[test]
fn a_capture_with_a_parent_writes_the_changed_pages_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let mut memory = Memory::over(&store.blank(PAGES * PAGE), PAGES * PAGE);
    (0..200).for_each(|number| fill(memory.page(number), number, 1));
    store.capture(&memory, None, 1).unwrap();

    let mut memory = Memory::over(&store.layer_file(1), PAGES * PAGE);
    for number in [5, 6, 7, 300] {
        fill(memory.page(number), number, 2);
    }
    memory.page(10).fill(0);
    // Written with what they hold: their own, but not changed.
    fill(memory.page(20), 20, 1);
    memory.page(400).fill(0);
    let captured = store.capture(&memory, Some(1), 2).unwrap();
    for (field, value) in
        [("pages_examined", 7), ("pages_written", 4), ("pages_zeroed", 1), ("bytes_written", 4 * PAGE)]
    {
        assert_eq!(captured.get(field), Some(&json!(value)), "{field}");
    }
    assert!(store.content(2) == memory.bytes());
    store.verify(2).unwrap();
}

#[test]
fn a_capture_without_a_change_leaves_no_layer() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let mut memory = Memory::over(&store.blank(PAGES * PAGE), PAGES * PAGE);
    fill(memory.page(3), 3, 1);
    store.capture(&memory, None, 1).unwrap();
    let captured = store.capture(&memory, Some(1), 2).unwrap();
    assert_eq!(captured.get("layers"), Some(&json!([layer(1).to_string()])));
    assert_eq!(captured.get("flat"), Some(&json!(true)));
    assert!(!layer(2).directory(&store.layers()).exists());
    assert!(store.content(2) == memory.bytes());
}

#[test]
fn zeroed_pages_stay_zero_through_three_generations() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let mut memory = Memory::over(&store.blank(PAGES * PAGE), PAGES * PAGE);
    (0..100).for_each(|number| fill(memory.page(number), number, 1));
    store.capture(&memory, None, 1).unwrap();
    let mut memory = Memory::over(&store.layer_file(1), PAGES * PAGE);
    (40..60).for_each(|number| memory.page(number).fill(0));
    store.capture(&memory, Some(1), 2).unwrap();
    for generation in 3..=5 {
        fill(memory.page(usize::from(generation)), 1, generation);
        store.capture(&memory, Some(generation - 1), generation).unwrap();
        assert!(store.content(generation) == memory.bytes());
    }
    store.fold(5, 6).unwrap();
    assert!(store.content(6) == memory.bytes());
    assert!(store.content(6).chunks(PAGE).skip(40).take(20).all(|page| page.iter().all(|byte| *byte == 0)));
}

#[test]
fn extents_point_straight_at_the_layer_that_holds_the_page_and_layers_without_one_are_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let mut memory = Memory::anonymous(PAGES * PAGE);
    (0..PAGES).for_each(|number| fill(memory.page(number), number, 1));
    store.capture(&memory, None, 1).unwrap();
    fill(memory.page(3), 3, 2);
    let second = store.capture(&memory, Some(1), 2).unwrap();
    fill(memory.page(3), 3, 3);
    let third = store.capture(&memory, Some(2), 3).unwrap();
    let both = |generation| json!([layer(1).to_string(), layer(generation).to_string()]);
    // On file systems that share blocks between files the images are flat, and have a layer each.
    if second.get("flat") == Some(&json!(false)) {
        assert_eq!(second.get("layers"), Some(&both(2)));
        assert_eq!(third.get("layers"), Some(&both(3)), "nothing lies in the second any more");
        assert_eq!(third.get("extents"), Some(&json!(3)));
    }
    assert!(store.content(3) == memory.bytes());
}

#[test]
fn memory_that_a_pager_filled_is_compared_with_its_image() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let mut memory = Memory::anonymous(PAGES * PAGE);
    (0..300).for_each(|number| fill(memory.page(number), number, 1));
    store.capture(&memory, None, 1).unwrap();
    // The same content at another address; pages from 300 on were never filled, or read as zeros.
    let content = store.content(1);
    let mut filled = Memory::anonymous(PAGES * PAGE);
    let half = 300 * PAGE;
    filled.bytes().split_at_mut(half).0.copy_from_slice(content.split_at(half).0);
    assert!((400..450).all(|number| filled.page(number).iter().all(|byte| *byte == 0)));
    fill(filled.page(100), 100, 2);
    let captured = store.capture(&filled, Some(1), 2).unwrap();
    assert_eq!(captured.get("pages_written"), Some(&json!(1)));
    assert!(store.content(2) == filled.bytes());
}

#[test]
fn memory_of_several_layers_is_found_and_compared_with_its_image() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let mut memory = Memory::anonymous(PAGES * PAGE);
    (0..300).for_each(|number| fill(memory.page(number), number, 1));
    store.capture(&memory, None, 1).unwrap();
    // The first and the last pages are replaced and zeroed: memory neither begins nor ends with what lies in place.
    for number in [0, 100, 101, 299] {
        fill(memory.page(number), number, 2);
    }
    for number in [1, 102] {
        memory.page(number).fill(0);
    }
    store.capture(&memory, Some(1), 2).unwrap();
    let mut restored = Memory::of_image(&store, 2).unwrap();
    assert!(restored.bytes() == memory.bytes());
    for number in [0, 1, 50, 100, 400] {
        fill(restored.page(number), number, 3);
    }
    restored.page(51).fill(0);
    let captured = store.capture(&restored, Some(2), 3).unwrap();
    assert_eq!((captured.get("pages_written"), captured.get("pages_zeroed")), (Some(&json!(5)), Some(&json!(1))));
    assert!(store.content(3) == restored.bytes());
}

#[test]
fn verify_reads_what_is_not_known_yet_and_tells_which_layer_lies_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let mut memory = Memory::anonymous(PAGES * PAGE);
    (0..300).for_each(|number| fill(memory.page(number), number, 1));
    store.capture(&memory, None, 1).unwrap();
    fill(memory.page(3), 3, 2);
    store.capture(&memory, Some(1), 2).unwrap();
    let all = store.verify(2).unwrap();
    let header = store.header(2);
    let mut command = support::pager("verify");
    command.arg("--header").arg(header).arg("--layers").arg(store.layers());
    let rest = support::result(command.args(["--known", &layer(1).to_string()])).unwrap();
    // On file systems that share blocks between files the image is flat.
    let flat = all.get("layers") == Some(&json!(1));
    let in_place = json!(layer(if flat { 2 } else { 1 }).to_string());
    assert_eq!((all.get("in_place"), rest.get("in_place")), (Some(&in_place), Some(&in_place)));
    assert_eq!(rest.get("layers"), Some(&json!(1)));
    // What is known is not read: it may be damaged meanwhile.
    if !flat {
        let mut bytes = fs::read(store.layer_file(1)).unwrap();
        bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1);
        fs::remove_file(store.layer_file(1)).unwrap();
        fs::write(store.layer_file(1), bytes).unwrap();
        support::result(&mut command).unwrap();
        assert_eq!(store.verify(2), Err("layer_damaged".to_owned()));
    }
}

#[test]
fn memory_over_a_file_with_data_is_captured_whole_when_no_parent_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let file = directory.path().join("data");
    fs::write(&file, vec![7; PAGES * PAGE]).unwrap();
    let mut memory = Memory::over(&file, PAGES * PAGE);
    fill(memory.page(3), 3, 1);
    store.capture(&memory, None, 1).unwrap();
    assert!(store.content(1) == memory.bytes());
}

#[test]
fn folding_keeps_the_content_in_one_flat_layer() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let mut memory = Memory::anonymous(PAGES * PAGE);
    (0..PAGES / 2).for_each(|number| fill(memory.page(number), number, 1));
    store.capture(&memory, None, 1).unwrap();
    for generation in 2..10 {
        (0..PAGES).step_by(usize::from(generation)).for_each(|number| fill(memory.page(number), number, generation));
        (0..PAGES).skip(3).step_by(17).for_each(|number| memory.page(number).fill(0));
        store.capture(&memory, Some(generation - 1), generation).unwrap();
    }
    let folded = store.fold(9, 10).unwrap();
    assert_eq!(folded.get("flat"), Some(&json!(true)));
    assert!(fs::read(store.layer_file(10)).unwrap() == memory.bytes());
    store.verify(10).unwrap();
}

#[test]
fn inspect_tells_what_a_header_says() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let mut memory = Memory::anonymous(64 * PAGE);
    fill(memory.page(20), 20, 1);
    store.capture(&memory, None, 1).unwrap();
    let inspected = support::result(support::pager("inspect").arg("--header").arg(store.header(1))).unwrap();
    let layers = [layer(1).to_string()];
    assert_eq!(inspected, json!({ "memory_size": 64 * PAGE, "extents": 3, "layers": layers, "flat": true }));
}
