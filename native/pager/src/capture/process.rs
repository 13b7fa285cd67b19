//! The process whose memory is captured, through files of /proc that stay this process's whatever becomes of its number.
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use memory_image::{Error, ErrorCode, PAGE_SIZE, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub(crate) struct Process {
    pid: u32,
    directory: OwnedFd,
    memory: File,
    pagemap: File,
}

impl Process {
    pub(crate) fn open(pid: u32) -> Result<Self> {
        let failed = |error: Errno| process_error(pid, "open", &error.into());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty()).map_err(failed)?;
        let open = |name| open_in(&directory, name).map_err(|error| process_error(pid, "open", &error));
        let (memory, pagemap) = (open("mem")?, open("pagemap")?);
        Ok(Self { pid, directory, memory, pagemap })
    }

    /// What the process has mapped, as the kernel lists it.
    pub(crate) fn maps(&self) -> Result<Vec<u8>> {
        let mut maps = Vec::new();
        open_in(&self.directory, "maps")
            .and_then(|mut file| file.read_to_end(&mut maps))
            .map_err(|error| process_error(self.pid, "read the mappings of", &error))?;
        // A process that has ended and is still waited for maps nothing.
        if maps.is_empty() { Err(gone(self.pid)) } else { Ok(maps) }
    }

    /// The kernel's entries for the pages from `address`: one of eight bytes each, into all of `entries`.
    pub(crate) fn read_pagemap(&self, address: u64, entries: &mut [u8]) -> Result<()> {
        self.read(&self.pagemap, "read the page table of", address / PAGE_SIZE * 8, entries)
    }

    /// Memory from `address`, into all of `buffer`.
    pub(crate) fn read_memory(&self, address: u64, buffer: &mut [u8]) -> Result<()> {
        self.read(&self.memory, "read the memory of", address, buffer)
    }

    fn read(&self, file: &File, step: &str, offset: u64, buffer: &mut [u8]) -> Result<()> {
        file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
            // Both files end at once when the process gives its memory back.
            io::ErrorKind::UnexpectedEof => gone(self.pid),
            _ => process_error(self.pid, step, &error),
        })
    }
}

fn open_in(directory: &OwnedFd, name: &str) -> io::Result<File> {
    Ok(File::from(rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?))
}

fn process_error(pid: u32, step: &str, error: &io::Error) -> Error {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::SRCH) => gone(pid),
        // The addresses are mapped, but a page of them cannot be had, or they are mapped no more.
        Some(Errno::IO | Errno::FAULT) => {
            Error::new(ErrorCode::MemoryNotMapped, format!("cannot {step} process {pid}: {error}"))
        }
        _ => Error::new(ErrorCode::InputOutput, format!("cannot {step} process {pid}: {error}")),
    }
}

fn gone(pid: u32) -> Error {
    Error::new(ErrorCode::ProcessGone, format!("process {pid} has ended"))
}
