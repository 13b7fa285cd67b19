//! Whatever is done with memory between captures, every generation holds it as it was, on file systems of either kind.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::json;
use support::{Memory, PAGE, Store, layer};

/// The last block of 64 KiB is not a whole one.
const PAGES: usize = 70;

#[derive(Clone, Debug)]
enum Step {
    Write {
        page: usize,
        pages: usize,
        value: u8,
    },
    Zero {
        page: usize,
        pages: usize,
    },
    Capture,
    /// The engine ends, and another maps the image, folded if it is not flat.
    RestoreMapped,
    /// The engine ends, and another maps the layers of the image; an image without one in place is folded first.
    RestoreLayered,
    /// The engine ends, and a pager fills the memory of another from the image.
    RestoreFilled,
    Fold,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = || (0..PAGES, 1..20_usize);
    let step = prop_oneof![
        4 => (place(), 1..=u8::MAX).prop_map(|((page, pages), value)| Step::Write { page, pages, value }),
        2 => place().prop_map(|(page, pages)| Step::Zero { page, pages }),
        4 => Just(Step::Capture),
        1 => Just(Step::RestoreMapped),
        2 => Just(Step::RestoreLayered),
        1 => Just(Step::RestoreFilled),
        1 => Just(Step::Fold),
    ];
    vec(step, 1..16)
}

/// What memory is now, and what each generation has to hold.
struct Run {
    store: Store,
    memory: Memory,
    generations: Vec<Vec<u8>>,
}

impl Run {
    fn begin(directory: &Path) -> Self {
        let store = Store::in_directory(directory);
        let memory = Memory::over(&store.blank(PAGES * PAGE), PAGES * PAGE);
        Self { store, memory, generations: Vec::new() }
    }

    fn newest(&self) -> Option<u8> {
        u8::try_from(self.generations.len()).ok().filter(|&number| number > 0)
    }

    fn capture(&mut self) -> u8 {
        let number = self.newest().unwrap_or(0) + 1;
        self.store.capture(&self.memory, self.newest(), number).unwrap();
        self.generations.push(self.memory.bytes().to_vec());
        number
    }

    fn fold(&mut self, from: u8) -> u8 {
        self.store.fold(from, from + 1).unwrap();
        self.generations.push(self.generations.last().unwrap().clone());
        from + 1
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Write { page, pages, value } => {
                for number in page..PAGES.min(page + pages) {
                    self.memory.page(number).fill(value);
                }
            }
            Step::Zero { page, pages } => {
                for number in page..PAGES.min(page + pages) {
                    self.memory.page(number).fill(0);
                }
            }
            Step::Capture => drop(self.capture()),
            Step::RestoreMapped => {
                let captured = self.capture();
                let folded = self.fold(captured);
                self.memory = Memory::over(&self.store.layer_file(folded), PAGES * PAGE);
            }
            Step::RestoreLayered => {
                let captured = self.capture();
                self.memory = Memory::of_image(&self.store, captured).unwrap_or_else(|| {
                    let folded = self.fold(captured);
                    Memory::over(&self.store.layer_file(folded), PAGES * PAGE)
                });
                assert!(self.memory.bytes() == *self.generations.last().unwrap());
            }
            Step::RestoreFilled => {
                let captured = self.capture();
                self.memory = Memory::anonymous(PAGES * PAGE);
                self.memory.bytes().copy_from_slice(&self.store.content(captured));
            }
            Step::Fold => {
                if let Some(newest) = self.newest() {
                    self.fold(newest);
                }
            }
        }
    }

    fn assert_every_generation_holds(&self) {
        for (number, content) in (1..).zip(&self.generations) {
            self.store.verify(number).unwrap();
            assert!(self.store.content(number) == *content, "generation {number}");
        }
    }
}

fn run_sequences(directory: &Path, cases: u32) {
    let mut runner = TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
    let run = |steps: Vec<Step>| {
        let directory = tempfile::tempdir_in(directory).unwrap();
        let mut run = Run::begin(directory.path());
        for step in &steps {
            run.step(step);
        }
        run.capture();
        run.assert_every_generation_holds();
        Ok(())
    };
    runner.run(&steps(), run).unwrap();
}

/// A file system that can share blocks between files, for as long as the value lives.
struct SharingDisk {
    mounted: PathBuf,
    _directory: tempfile::TempDir,
}

impl SharingDisk {
    /// Nothing, where one cannot be made.
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let (image, mounted) = (directory.path().join("image"), directory.path().join("mounted"));
        fs::create_dir(&mounted).unwrap();
        fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
        let done = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let made = done(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image))
            && done(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted));
        if !made {
            eprintln!("skipped: mkfs.xfs and the right to mount are needed");
        }
        made.then_some(Self { mounted, _directory: directory })
    }

    /// Free space in bytes.
    fn free(&self) -> u64 {
        // Else the file system keeps what it set aside for more changes.
        for option in ["remount,ro", "remount,rw"] {
            assert!(Command::new("mount").args(["-o", option]).arg(&self.mounted).status().unwrap().success());
        }
        let state = rustix::fs::statvfs(&self.mounted).unwrap();
        state.f_bfree * state.f_frsize
    }
}

impl Drop for SharingDisk {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg(&self.mounted).status().unwrap().success());
    }
}

#[test]
fn any_sequence_of_changes_captures_and_restores_keeps_every_generation() {
    run_sequences(&std::env::temp_dir(), 32);
}

#[test]
fn any_sequence_keeps_every_generation_where_files_share_blocks() {
    if let Some(disk) = SharingDisk::mount() {
        run_sequences(&disk.mounted, 32);
    }
}

#[test]
fn where_files_share_blocks_a_capture_over_a_flat_image_is_flat_and_takes_no_more_space_than_its_changes() {
    let Some(disk) = SharingDisk::mount() else { return };
    let store = Store::in_directory(&disk.mounted);
    let pages = 4096;
    let mut memory = Memory::over(&store.blank(pages * PAGE), pages * PAGE);
    memory.bytes().fill(1);
    store.capture(&memory, None, 1).unwrap();
    let before = disk.free();
    let mut memory = Memory::over(&store.layer_file(1), pages * PAGE);
    for number in (0..pages).step_by(100) {
        memory.page(number).fill(2);
        memory.page(number + 1).fill(0);
    }
    (1024..1040).for_each(|number| memory.page(number).fill(0));
    let captured = store.capture(&memory, Some(1), 2).unwrap();
    assert_eq!(captured.get("flat"), Some(&json!(true)));
    assert_eq!(captured.get("layers"), Some(&json!([layer(2).to_string()])));
    assert_eq!(captured.get("pages_written"), Some(&json!(41)));
    assert_eq!(captured.get("extents"), Some(&json!(3)), "the block that is all zero is one of its own");
    assert!(fs::read(store.layer_file(2)).unwrap() == memory.bytes());
    store.verify(2).unwrap();
    let taken = before - disk.free();
    assert!(taken < 4 * 41 * 4096, "{taken} bytes");
}

#[test]
fn a_clone_is_never_made_of_a_corrupt_block() {
    let Some(disk) = SharingDisk::mount() else { return };
    let store = Store::in_directory(&disk.mounted);
    let mut memory = Memory::anonymous(PAGES * PAGE);
    memory.bytes().fill(1);
    store.capture(&memory, None, 1).unwrap();
    let mut bytes = fs::read(store.layer_file(1)).unwrap();
    bytes.splice(100..101, [9]);
    fs::write(store.layer_file(1), bytes).unwrap();
    let before = store.names();
    memory.page(1).fill(2);
    assert_eq!(store.capture(&memory, Some(1), 2), Err("layer_damaged".to_owned()));
    assert_eq!(store.names(), before);
}
