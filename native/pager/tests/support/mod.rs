//! What the tests of captures share: guest memory in this process, and the pager as another.
#![allow(dead_code, reason = "not every test file needs all of it")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;

use memory_image::{Extent, Header, Image, LayerId, Source};
use rustix::mm::{MapFlags, ProtFlags};
use serde_json::Value;

pub(crate) const PAGE: usize = 4096;

/// A directory with layers and headers.
pub(crate) struct Store(pub(crate) PathBuf);

impl Store {
    pub(crate) fn in_directory(directory: &Path) -> Self {
        fs::create_dir(directory.join("layers")).unwrap();
        Self(directory.to_owned())
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.0.join("layers")
    }

    pub(crate) fn header(&self, number: u8) -> PathBuf {
        self.0.join(format!("header-{number}"))
    }

    /// The only layer of a flat image.
    pub(crate) fn layer_file(&self, number: u8) -> PathBuf {
        layer(number).directory(&self.layers()).join("memory")
    }

    /// A file of `size` bytes without data.
    pub(crate) fn blank(&self, size: usize) -> PathBuf {
        let path = self.0.join("blank");
        File::create(&path).unwrap().set_len(size as u64).unwrap();
        path
    }

    /// All that image `number` holds.
    pub(crate) fn content(&self, number: u8) -> Vec<u8> {
        let header = Header::read(&self.header(number)).unwrap();
        let mut content = vec![0xee; usize::try_from(header.memory_size()).unwrap()];
        Image::open(header, &self.layers()).unwrap().reader().read(0, &mut content).unwrap();
        content
    }

    /// Names in the directory and in that of its layers.
    pub(crate) fn names(&self) -> Vec<String> {
        let names =
            |path: PathBuf| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path().display().to_string());
        let mut all = names(self.0.clone()).chain(names(self.layers())).collect::<Vec<_>>();
        all.sort();
        all
    }

    /// Captures this process's memory as image and layer `number`.
    pub(crate) fn capture(&self, memory: &Memory, parent: Option<u8>, number: u8) -> Result<Value, String> {
        let mut command = pager("capture");
        command.args(["--pid", &std::process::id().to_string(), "--memory-size", &memory.length.to_string()]);
        match &memory.place {
            Place::File(file) => command.arg("--mapped-file").arg(file),
            Place::Layers(in_place) => command.arg("--layered-over").arg(in_place),
            Place::Anonymous => command.args(["--address", &format!("{:#x}", memory.pointer.addr())]),
        };
        if let Some(parent) = parent {
            command.arg("--parent").arg(self.header(parent));
        }
        self.finish(command, number)
    }

    /// Adds where layers are and where the result goes, and runs it.
    pub(crate) fn finish(&self, mut command: Command, number: u8) -> Result<Value, String> {
        command.arg("--layers").arg(self.layers()).args(["--layer", &layer(number).to_string()]);
        result(command.arg("--header").arg(self.header(number)))
    }

    pub(crate) fn fold(&self, from: u8, number: u8) -> Result<Value, String> {
        let mut command = pager("fold");
        command.arg("--header").arg(self.header(from)).arg("--layers").arg(self.layers());
        command.args(["--layer", &layer(number).to_string()]);
        result(command.arg("--output").arg(self.header(number)))
    }

    pub(crate) fn verify(&self, number: u8) -> Result<Value, String> {
        result(pager("verify").arg("--header").arg(self.header(number)).arg("--layers").arg(self.layers()))
    }
}

pub(crate) fn layer(number: u8) -> LayerId {
    LayerId::from_bytes([number; 16])
}

pub(crate) fn pager(subcommand: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wrenn-pager"));
    command.arg(subcommand);
    command
}

/// What the pager printed, or the code of its error.
pub(crate) fn result(command: &mut Command) -> Result<Value, String> {
    let output = command.output().unwrap();
    if output.status.success() {
        assert!(output.stderr.is_empty());
        return Ok(serde_json::from_slice(&output.stdout).unwrap());
    }
    assert_eq!(output.status.code(), Some(1));
    let Ok(error) = serde_json::from_slice::<Value>(&output.stderr) else {
        panic!("not an error: {}", String::from_utf8_lossy(&output.stderr))
    };
    assert!(error.pointer("/error/message").and_then(Value::as_str).is_some_and(|message| !message.is_empty()));
    Err(error.pointer("/error/code").and_then(Value::as_str).unwrap().to_owned())
}

/// Guest memory, as an engine has it mapped.
pub(crate) struct Memory {
    pointer: *mut u8,
    length: usize,
    place: Place,
}

enum Place {
    File(PathBuf),
    /// The layer of which every part lies at its own address.
    Layers(PathBuf),
    Anonymous,
}

impl Memory {
    /// Privately over a file.
    pub(crate) fn over(file: &Path, length: usize) -> Self {
        let opened = File::open(file).unwrap();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let pointer = unsafe { rustix::mm::mmap(ptr::null_mut(), length, protection, MapFlags::PRIVATE, &opened, 0) };
        Self { pointer: pointer.unwrap().cast(), length, place: Place::File(file.to_owned()) }
    }

    /// Without a file, as when a pager fills it.
    pub(crate) fn anonymous(length: usize) -> Self {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: as above.
        let pointer = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), length, protection, MapFlags::PRIVATE) };
        Self { pointer: pointer.unwrap().cast(), length, place: Place::Anonymous }
    }

    /// Of the layers of an image, piece by piece, as the library does that QEMU has preloaded. None where no layer is in place.
    pub(crate) fn of_image(store: &Store, number: u8) -> Option<Self> {
        let header = Header::read(&store.header(number)).unwrap();
        let file_of = |layer: LayerId| layer.directory(&store.layers()).join("memory");
        let in_place = file_of(header.layer_in_place()?);
        let mut memory = Self::anonymous(usize::try_from(header.memory_size()).unwrap());
        memory.place = Place::Layers(in_place);
        for Extent { guest, length, source } in header.extents() {
            let Source::Layer { index, offset } = source else { continue };
            let layer = header.layers().get(usize::try_from(*index).unwrap()).unwrap();
            let at = memory.pointer.wrapping_byte_add(usize::try_from(*guest).unwrap()).cast();
            let (length, file) = (usize::try_from(*length).unwrap(), File::open(file_of(*layer)).unwrap());
            let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED);
            // SAFETY: extents lie inside memory, which was mapped above and nothing points into yet.
            unsafe { rustix::mm::mmap(at, length, protection, flags, &file, *offset) }.unwrap();
        }
        Some(memory)
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is this value's alone, that long, readable and writable, and lives as long as it.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.length) }
    }

    pub(crate) fn page(&mut self, number: usize) -> &mut [u8] {
        self.bytes().chunks_mut(PAGE).nth(number).unwrap()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: nothing borrows from the mapping any more.
        unsafe { rustix::mm::munmap(self.pointer.cast(), self.length) }.unwrap();
    }
}
