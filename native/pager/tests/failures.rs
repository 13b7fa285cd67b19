//! A capture or fold that cannot be done says why, and leaves nothing.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
mod support;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, UnmountFlags};
use support::{Memory, PAGE, Store, layer, pager, result};

/// A file system of its own, of a given size.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf, pages: usize) -> Self {
        fs::create_dir_all(&path).unwrap();
        let size = std::ffi::CString::new(format!("size={}", pages * PAGE)).unwrap();
        rustix::mount::mount("tmpfs", &path, "tmpfs", MountFlags::empty(), Some(size.as_c_str())).unwrap();
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

/// Random enough that no page is zero or like another.
fn scribble(memory: &mut Memory) {
    for (number, byte) in memory.bytes().iter_mut().enumerate() {
        *byte = u8::try_from((number / 7 + number / PAGE) % 255).unwrap() + 1;
    }
}

/// Does it on a disk of one page, two, and so on until it fits, so that each of its writes is one that fails. Returns
/// how often it failed.
fn on_disks_of_every_size(store: &Store, mut attempt: impl FnMut() -> Result<serde_json::Value, String>) -> usize {
    for pages in 1..60 {
        let disk = SmallDisk::mount(store.layers(), pages);
        match attempt() {
            Ok(_) => return pages - 1,
            Err(code) => assert_eq!(code, "disk_full"),
        }
        assert_eq!(fs::read_dir(&disk.0).unwrap().count(), 0, "left on a disk of {pages} pages");
    }
    panic!("it does not fit on a disk of 60 pages")
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_whichever_write_it_stops() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root may mount a small disk");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let mut memory = Memory::anonymous(20 * PAGE);
    scribble(&mut memory);
    // The header lies on the small disk too.
    let failures = on_disks_of_every_size(&store, || {
        let mut command = pager("capture");
        command.args(["--pid", &std::process::id().to_string(), "--memory-size", &(20 * PAGE).to_string()]);
        command.args(["--address", &format!("{:#x}", memory.bytes().as_ptr().addr())]);
        command.arg("--layers").arg(store.layers()).args(["--layer", &layer(1).to_string()]);
        result(command.arg("--header").arg(store.layers().join("header")))
    });
    assert!(failures > 20, "{failures}");
}

#[test]
fn a_process_that_has_ended_is_told_whether_or_not_it_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    // Its output ends when it does; it is waited for only later.
    std::io::copy(&mut child.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
    let pid = child.id().to_string();
    let capture = || {
        let mut command = pager("capture");
        command.args(["--pid", &pid, "--memory-size", "4096", "--address", "10000"]);
        store.finish(command, 1)
    };
    assert_eq!(capture(), Err("process_gone".to_owned()));
    child.wait().unwrap();
    assert_eq!(capture(), Err("process_gone".to_owned()));
    assert_eq!(store.names().len(), 1);
}

/// A process with the same memory as this one, at the same addresses.
struct Twin(libc::pid_t);

impl Twin {
    fn fork() -> Self {
        // SAFETY: until it is killed, the child does nothing but wait, which needs nothing that other threads held.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            // SAFETY: it takes numbers alone. The child ends with the test, however that ends.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            loop {
                // SAFETY: it takes nothing and returns only after a signal handler, of which there is none.
                unsafe { libc::pause() };
            }
        }
        Self(pid)
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        // SAFETY: the child was not waited for, so that the number is still its own.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        // SAFETY: no status is asked for, so that nothing is written.
        assert_eq!(unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) }, self.0);
    }
}

#[test]
fn a_process_that_ends_while_it_is_captured_leaves_nothing_half_made() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let mut memory = Memory::anonymous(64 << 20);
    scribble(&mut memory);
    let before = store.names();
    let mut gone = 0;
    for written in 0..10 {
        let twin = Twin::fork();
        let mut command = pager("capture");
        command.args(["--pid", &twin.0.to_string(), "--memory-size", &(64 << 20).to_string()]);
        command.args(["--address", &format!("{:#x}", memory.bytes().as_ptr().addr())]);
        command.arg("--layers").arg(store.layers()).args(["--layer", &layer(1).to_string()]);
        command.arg("--header").arg(store.header(1)).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut capturing = command.spawn().unwrap();
        let enough = || fs::metadata(store.layer_file(1)).is_ok_and(|file| file.len() >= written * (4 << 20));
        while !enough() && capturing.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        drop(twin);
        let output = capturing.wait_with_output().unwrap();
        if output.status.success() {
            assert!(store.content(1) == memory.bytes());
            fs::remove_dir_all(layer(1).directory(&store.layers())).unwrap();
            fs::remove_file(store.header(1)).unwrap();
        } else {
            assert!(String::from_utf8_lossy(&output.stderr).contains("\"process_gone\""), "{output:?}");
            gone += 1;
        }
        assert_eq!(store.names(), before);
    }
    assert!(gone > 0, "it never ended early enough");
}

#[test]
fn memory_that_is_not_mapped_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let blank = store.blank(8 * PAGE);
    let memory = Memory::over(&blank, 8 * PAGE);
    let capture = |option: &str, value: &std::ffi::OsStr, size: usize| {
        let mut command = pager("capture");
        command.args(["--pid", &std::process::id().to_string(), "--memory-size", &size.to_string()]);
        command.arg(option).arg(value);
        store.finish(command, 1)
    };
    let not_mapped = Err("memory_not_mapped".to_owned());
    assert_eq!(capture("--mapped-file", "/no/such/file".as_ref(), 8 * PAGE), not_mapped);
    assert_eq!(capture("--mapped-file", blank.as_os_str(), 9 * PAGE), not_mapped);
    assert_eq!(capture("--address", "1000".as_ref(), 8 * PAGE), not_mapped);
    assert_eq!(store.names().len(), 2);
    drop(memory);
}

#[test]
fn a_parent_of_another_size_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    store.capture(&Memory::anonymous(8 * PAGE), None, 1).unwrap();
    let before = store.names();
    assert_eq!(store.capture(&Memory::anonymous(9 * PAGE), Some(1), 2), Err("memory_size_mismatch".to_owned()));
    assert_eq!(store.names(), before);
}

#[test]
fn a_layer_is_never_captured_over_another() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let mut memory = Memory::anonymous(8 * PAGE);
    store.capture(&memory, None, 1).unwrap();
    scribble(&mut memory);
    assert_eq!(store.capture(&memory, None, 1), Err("layer_exists".to_owned()));
    assert!(store.content(1).iter().all(|byte| *byte == 0));
}

#[test]
fn damaged_and_missing_files_are_told_and_never_folded() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    let mut memory = Memory::anonymous(40 * PAGE);
    scribble(&mut memory);
    store.capture(&memory, None, 1).unwrap();
    let files = layer(1).directory(&store.layers());
    let before = store.names();
    for (path, code) in [
        (files.join("memory"), "layer_damaged"),
        (files.join("memory.sums"), "layer_damaged"),
        (store.header(1), "header_damaged"),
    ] {
        let right = fs::read(&path).unwrap();
        let mut wrong = right.clone();
        *wrong.last_mut().unwrap() ^= 1;
        fs::write(&path, wrong).unwrap();
        assert_eq!(store.verify(1), Err(code.to_owned()), "{}", path.display());
        assert_eq!(store.fold(1, 2), Err(code.to_owned()), "{}", path.display());
        fs::remove_file(&path).unwrap();
        assert_eq!(store.verify(1), Err(code.replace("damaged", "missing")), "{}", path.display());
        fs::write(&path, right).unwrap();
    }
    assert_eq!(store.names(), before);
    store.verify(1).unwrap();
}

#[test]
fn a_header_that_cannot_be_written_leaves_no_layer() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_directory(directory.path());
    fs::create_dir(store.header(1)).unwrap();
    let before = store.names();
    assert_eq!(store.capture(&Memory::anonymous(8 * PAGE), None, 1), Err("io_failed".to_owned()));
    assert_eq!(store.names(), before);
}

#[test]
fn options_that_are_missing_wrong_or_unknown_are_named() {
    let invalid = Err("invalid_arguments".to_owned());
    for arguments in [
        &[][..],
        &["thaw"],
        &["inspect"],
        &["inspect", "--header"],
        &["inspect", "--header", "a", "--header", "b"],
        &["inspect", "--header", "a", "--footer", "b"],
        &["inspect", "a"],
        &["capture", "--pid", "1", "--memory-size", "5000"],
        &["capture", "--pid", "1", "--memory-size", "4096", "--address", "10", "--layers", "/", "--layer", "x"],
    ] {
        assert_eq!(result(Command::new(env!("CARGO_BIN_EXE_wrenn-pager")).args(arguments)), invalid, "{arguments:?}");
    }
}
