//! A directory tree, or one file, as the bytes of a tar archive: made as they are asked for, from a tree that may change
//! meanwhile.
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::header::{self, Content};
use super::holes::{self, Segment};
use super::{BLOCK_BYTES, END_BYTES};
use crate::files::body::{CHUNK_BYTES, Source};
use crate::files::disk::disk_error;
use crate::paths;
use crate::server::body::HttpError;

/// proc, sysfs, debugfs, tracefs, securityfs, cgroup2, bpf: what lies in them is made up, and some of it never ends.
const PSEUDO_FILE_SYSTEMS: [i64; 7] =
    [0x9fa0, 0x6265_6572, 0x6462_6720, 0x7472_6163, 0x7363_6673, 0x6367_7270, 0xcafe_4a11];

/// A directory that is being read.
struct Level {
    entries: Dir,
    device: u64,
    /// Of the path to the directory above.
    path_length: usize,
}

/// A file whose data is being read: as much as its header says, whatever has become of it since.
struct Reading {
    file: File,
    segment: Segment,
    segments: std::vec::IntoIter<Segment>,
    /// It has become shorter. What is missing is sent as zeros, as tar does.
    ended: bool,
}

pub(super) struct Walk {
    /// What the archive is of, for the log.
    of: String,
    keep_holes: bool,
    levels: Vec<Level>,
    /// Of the entry at hand, relative to where the walk began.
    path: Vec<u8>,
    reading: Option<Reading>,
    out: Vec<u8>,
}

/// Nothing when what was to be opened is no longer there, or no longer what it was.
fn still_there<T>(outcome: Result<T, Errno>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL | Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn open_directory(parent: impl AsFd, name: impl rustix::path::Arg, more: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | more, Mode::empty())
}

/// Does not wait for the writer of a pipe that has taken the file's name.
fn open_file(parent: impl AsFd, name: impl rustix::path::Arg, more: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | more;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

impl Walk {
    /// With `keep_holes`, files with holes are sent as GNU tar's sparse entries, which not every reader knows; without, as
    /// the zeros that they read as.
    pub(super) fn begin(path: &str, keep_holes: bool) -> Result<Self, HttpError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => {
                HttpError::new(hyper::StatusCode::NOT_FOUND, format!("path '{path}' does not exist"))
            }
            _ => disk_error(&format!("error opening '{path}'"), &error),
        };
        let metadata = fs::metadata(path).map_err(failed)?;
        let mut walk = Self {
            of: path.to_owned(),
            keep_holes,
            levels: Vec::new(),
            path: Vec::new(),
            reading: None,
            out: Vec::new(),
        };
        if metadata.is_dir() {
            let directory = open_directory(CWD, path, OFlags::empty()).map_err(|error| failed(error.into()))?;
            walk.enter(directory, 0).map_err(failed)?;
        } else if metadata.is_file() {
            let file = open_file(CWD, path, OFlags::empty()).map_err(|error| failed(error.into()))?;
            walk.path.extend_from_slice(paths::file_name(path).as_bytes());
            walk.begin_file(file).map_err(failed)?;
        } else {
            return Err(HttpError::bad_request(format!("path '{path}' is neither a directory nor a file")));
        }
        Ok(walk)
    }

    fn enter(&mut self, directory: OwnedFd, path_length: usize) -> io::Result<()> {
        let device = rustix::fs::fstat(&directory)?.st_dev;
        self.levels.push(Level { entries: Dir::new(directory)?, device, path_length });
        Ok(())
    }

    fn begin_file(&mut self, file: OwnedFd) -> io::Result<()> {
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let (file, size) = (File::from(file), size(&stat));
        let map = if self.keep_holes { holes::find(&file, &stat, size)? } else { None };
        let content =
            map.as_deref().map_or(Content::File { size }, |segments| Content::FileWithHoles { size, segments });
        header::write(&mut self.out, &self.path, &stat, &content);
        let segments = map.unwrap_or_else(|| vec![Segment { offset: 0, length: size }]);
        let segment = Segment { offset: 0, length: 0 };
        self.reading = Some(Reading { file, segment, segments: segments.into_iter(), ended: false });
        Ok(())
    }

    /// False at the end of the tree.
    fn next_entry(&mut self) -> io::Result<bool> {
        let Some(level) = self.levels.last_mut() else { return Ok(false) };
        let path_length = self.path.len();
        let Some(entry) = level.entries.read() else {
            self.path.truncate(level.path_length);
            self.levels.pop();
            return Ok(true);
        };
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            return Ok(true);
        }
        let parent = level.entries.fd()?;
        let Some(stat) = still_there(rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW))? else {
            return Ok(true);
        };
        self.path.extend_from_slice(name.to_bytes());
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                if let Some(directory) = still_there(open_directory(parent, name, OFlags::NOFOLLOW))? {
                    self.path.push(b'/');
                    header::write(&mut self.out, &self.path, &stat, &Content::Directory);
                    if stat.st_dev == level.device || !is_pseudo(&directory)? {
                        return self.enter(directory, path_length).map(|()| true);
                    }
                }
            }
            FileType::RegularFile => {
                if let Some(file) = still_there(open_file(parent, name, OFlags::NOFOLLOW))? {
                    self.begin_file(file)?;
                }
            }
            FileType::Symlink => {
                if let Some(link) = still_there(rustix::fs::readlinkat(parent, name, Vec::new()))? {
                    header::write(&mut self.out, &self.path, &stat, &Content::Symlink(link.as_bytes()));
                }
            }
            // Sockets, pipes and devices are nothing elsewhere.
            _ => {}
        }
        self.path.truncate(path_length);
        Ok(true)
    }

    /// Until there is enough for one trip. False at the end of the archive.
    fn fill(&mut self) -> io::Result<bool> {
        while self.out.len() < CHUNK_BYTES {
            if let Some(reading) = &mut self.reading {
                if !reading.append_to(&mut self.out)? {
                    self.reading = None;
                }
            } else if !self.next_entry()? {
                self.out.resize(self.out.len() + END_BYTES, 0);
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn is_pseudo(directory: &OwnedFd) -> io::Result<bool> {
    Ok(PSEUDO_FILE_SYSTEMS.contains(&rustix::fs::fstatfs(directory)?.f_type))
}

impl Source for Walk {
    fn next(mut self) -> io::Result<(Bytes, Option<Self>)> {
        let more = self.fill().inspect_err(|error| {
            // The client can only be shown that there was one.
            let path = String::from_utf8_lossy(&self.path);
            eprintln!("wrenn-guest: archive of {} broken off at '{path}': {error}", self.of);
        })?;
        let bytes = std::mem::take(&mut self.out).into();
        Ok((bytes, more.then_some(self)))
    }
}

impl Reading {
    /// False once all has been read; then the data has been brought to a whole number of blocks.
    fn append_to(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        while self.segment.length == 0 {
            let Some(segment) = self.segments.next() else { return Ok(false) };
            self.segment = segment;
        }
        // Whole blocks, so that the pieces of an archive always end with one.
        let wanted = (CHUNK_BYTES.saturating_sub(out.len())).next_multiple_of(BLOCK_BYTES) as u64;
        let wanted = usize::try_from(self.segment.length.min(wanted)).unwrap_or_default();
        let start = out.len();
        out.resize(start + wanted, 0);
        let into = out.get_mut(start..).unwrap_or_default();
        if !self.ended {
            self.ended = read_full_at(&self.file, into, self.segment.offset)? < wanted;
        }
        self.segment.offset += wanted as u64;
        self.segment.length -= wanted as u64;
        header::pad(out);
        Ok(true)
    }
}

/// How much there was.
fn read_full_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = into.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
