//! A capture of memory that an engine has written into a file: what lies there has changed, holes have not.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::fs::File;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{PAGE, Store, layer, pager};

const PAGES: usize = 1000;

/// A file as long as memory, with these pages in it, each filled with its byte.
fn written(store: &Store, name: &str, pages: &[(usize, u8)]) -> PathBuf {
    let path = store.0.join(name);
    let file = File::create(&path).unwrap();
    file.set_len((PAGES * PAGE) as u64).unwrap();
    for (number, byte) in pages {
        file.write_all_at(&[*byte; PAGE], (number * PAGE) as u64).unwrap();
    }
    path
}

fn capture(store: &Store, file: &Path, parent: Option<u8>, number: u8) -> Result<Value, String> {
    let mut command = pager("capture");
    command.arg("--memory-file").arg(file).args(["--memory-size", &(PAGES * PAGE).to_string()]);
    if let Some(parent) = parent {
        command.arg("--parent").arg(store.header(parent));
    }
    store.finish(command, number)
}

#[test]
fn without_a_parent_it_becomes_a_flat_image_and_holes_are_zeros() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let file = written(&store, "memory", &[(0, 1), (300, 2), (999, 3)]);
    let captured = capture(&store, &file, None, 1).unwrap();
    assert_eq!(captured.get("flat"), Some(&json!(true)));
    assert!(store.content(1) == std::fs::read(&file).unwrap());
    store.verify(1).unwrap();
}

#[test]
fn with_a_parent_holes_are_what_it_holds_and_only_what_differs_is_stored() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let first = written(&store, "first", &[(1, 1), (2, 1), (3, 1), (600, 1)]);
    capture(&store, &first, None, 1).unwrap();
    // Written with what was there before, zeroed, changed, and new.
    let second = written(&store, "second", &[(1, 1), (2, 0), (3, 7), (500, 9)]);
    let captured = capture(&store, &second, Some(1), 2).unwrap();
    assert_eq!(captured.get("pages_written"), Some(&json!(2)));
    assert_eq!(captured.get("pages_zeroed"), Some(&json!(1)));
    let expected = written(&store, "expected", &[(1, 1), (3, 7), (500, 9), (600, 1)]);
    assert!(store.content(2) == std::fs::read(expected).unwrap());
    // All of memory, as it is written when nobody knows any more what has changed, comes to the same.
    let whole = store.0.join("whole");
    std::fs::write(&whole, store.content(2)).unwrap();
    let captured = capture(&store, &whole, Some(1), 3).unwrap();
    assert_eq!(captured.get("pages_written"), Some(&json!(2)));
    assert!(store.content(3) == store.content(2));
}

#[test]
fn nothing_written_needs_no_layer() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    capture(&store, &written(&store, "first", &[(1, 1)]), None, 1).unwrap();
    let captured = capture(&store, &written(&store, "second", &[]), Some(1), 2).unwrap();
    assert_eq!(captured.get("layers"), Some(&json!([layer(1).to_string()])));
    assert!(store.content(2) == store.content(1));
}

#[test]
fn what_is_no_file_of_that_size_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let file = written(&store, "memory", &[(1, 1)]);
    let link = store.0.join("link");
    symlink(&file, &link).unwrap();
    assert_eq!(capture(&store, &link, None, 1).unwrap_err(), "io_failed");
    File::options().write(true).open(&file).unwrap().set_len(PAGE as u64).unwrap();
    assert_eq!(capture(&store, &file, None, 1).unwrap_err(), "memory_size_mismatch");
    assert!(store.names().iter().all(|name| !name.contains("header")));
}
