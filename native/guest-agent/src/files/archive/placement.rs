//! Puts the entries of an archive into a directory, and nothing anywhere else.
//!
//! Whatever the names in the archive and the links that lie there already: every directory is opened by the kernel with
//! the bound that it must lie beneath (`openat2`), and what is placed gets its name there in one step and without
//! following a link. What an entry replaces is never written through.
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;
use serde::Serialize;

use super::entry::{Entries, Entry, Kind};
use super::place::Place;
use crate::files::disk::{disk_error, ensure_directory};
use crate::files::temporary::{TemporaryFile, TemporaryName, look_at};
use crate::filesystem::metadata::Metadata;
use crate::server::body::HttpError;
use crate::users::User;

/// Set-user-id and set-group-id are dropped: what is placed belongs to the user, not to whom the bits were meant for.
const FILE_BITS: u32 = 0o777;
const DIRECTORY_BITS: u32 = 0o1777;
const NEW_DIRECTORY_MODE: u32 = 0o755;

/// How often the kernel may find that a directory was moved while it was looked for.
const LOOKUPS: usize = 16;

/// Data is compared with it to find holes that the archive does not know of.
static ZEROS: [u8; 4096] = [0; 4096];

#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Placed {
    pub(super) entries: u64,
    /// Of all files.
    pub(super) bytes: u64,
    /// Entries that are nothing here: devices and pipes.
    pub(super) skipped: u64,
}

struct Incoming {
    path: String,
    file: TemporaryFile,
    modified: Option<Timespec>,
    position: u64,
    /// Where it ends so far.
    written: u64,
}

pub(super) struct Placement {
    root: OwnedFd,
    user: User,
    placed: Placed,
    /// The directory that was used last: most entries share it with the one before.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Made here and not left yet, outermost first: what is put into a directory changes its time.
    times: Vec<(Vec<u8>, Timespec)>,
    file: Option<Incoming>,
}

fn at(time: Timespec) -> Timestamps {
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: time }
}

impl Placement {
    pub(super) fn new(path: &str, user: User) -> Result<Self, HttpError> {
        ensure_directory(path, &user)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| disk_error(&format!("error opening '{path}'"), &error.into()))?;
        Ok(Self { root, user, placed: Placed::default(), parent: None, times: Vec::new(), file: None })
    }

    pub(super) fn finish(mut self) -> Result<Placed, HttpError> {
        self.leave_directories(b"")?;
        Ok(self.placed)
    }

    /// By way of links too, but not out of the root.
    fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        if path.is_empty() {
            return rustix::io::fcntl_dupfd_cloexec(&self.root, 0);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut outcome = Err(Errno::AGAIN);
        for _ in 0..LOOKUPS {
            outcome = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve);
            if !matches!(outcome, Err(Errno::AGAIN)) {
                break;
            }
        }
        outcome
    }

    /// The directory that something is in, made when missing.
    fn open_parent(&mut self, place: &Place) -> Result<OwnedFd, HttpError> {
        let path = place.parent();
        if let Some((known, directory)) = &self.parent
            && known == path
        {
            return directory.try_clone().map_err(|error| place.error(error));
        }
        let directory = match self.open(path) {
            Err(Errno::NOENT) => self.make_all(path),
            outcome => outcome,
        };
        let directory = directory.map_err(|error| place.error(error))?;
        let known = directory.try_clone().map_err(|error| place.error(error))?;
        self.parent = Some((path.to_vec(), known));
        Ok(directory)
    }

    /// What could not be made, because there is something: made just now by somebody else, or a link to nowhere.
    fn open_there(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.open(path).map_err(|error| if error == Errno::NOENT { Errno::EXIST } else { error })
    }

    fn make_all(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut parent = self.open(b"")?;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let mut start = 0;
        for end in ends.chain([path.len()]) {
            let upto = path.get(..end).unwrap_or_default();
            let name = path.get(start..end).unwrap_or_default();
            parent = match self.open(upto) {
                Err(Errno::NOENT) => match self.make_directory(&parent, name, NEW_DIRECTORY_MODE) {
                    Err(Errno::EXIST) => self.open_there(upto)?,
                    outcome => outcome?,
                },
                outcome => outcome?,
            };
            start = end + 1;
        }
        Ok(parent)
    }

    fn make_directory(
        &self,
        parent: impl AsFd,
        name: impl rustix::path::Arg + Copy,
        mode: u32,
    ) -> Result<OwnedFd, Errno> {
        rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        rustix::fs::fchown(&directory, Some(Uid::from_raw(self.user.uid)), Some(Gid::from_raw(self.user.gid)))?;
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode & DIRECTORY_BITS))?;
        Ok(directory)
    }

    /// Gives those that do not hold `path` the time that they shall have.
    fn leave_directories(&mut self, path: &[u8]) -> Result<(), HttpError> {
        while let Some((directory, modified)) = self
            .times
            .pop_if(|(directory, _)| path.strip_prefix(directory.as_slice()).is_none_or(|rest| !rest.starts_with(b"/")))
        {
            match self.open(&directory).and_then(|opened| rustix::fs::futimens(opened, &at(modified))) {
                // Somebody else has moved or removed it.
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
                Err(error) => {
                    let shown = String::from_utf8_lossy(&directory);
                    return Err(disk_error(&format!("error extracting '{shown}'"), &error.into()));
                }
            }
        }
        Ok(())
    }

    /// One that is there stays as it is.
    fn place_directory(
        &mut self,
        place: Place,
        mode: Option<u32>,
        modified: Option<Timespec>,
    ) -> Result<(), HttpError> {
        let parent = self.open_parent(&place)?;
        match self.make_directory(&parent, place.name.as_c_str(), mode.unwrap_or(NEW_DIRECTORY_MODE)) {
            Ok(_) => {
                self.times.extend(modified.map(|modified| (place.path, modified)));
                Ok(())
            }
            Err(Errno::EXIST) => match self.open(&place.path) {
                Ok(_) => Ok(()),
                Err(Errno::NOENT) => Err(HttpError::bad_request(format!("'{}' is a link to nowhere", place.shown()))),
                Err(error) => Err(place.error(error)),
            },
            Err(error) => Err(place.error(error)),
        }
    }

    fn place_file(&mut self, place: &Place, entry: &Entry) -> Result<(), HttpError> {
        let parent = self.open_parent(place)?;
        let path = place.shown();
        let mode = entry.mode.map(|mode| Mode::from_raw_mode(mode & FILE_BITS));
        let file = TemporaryFile::create_in(parent, place.name.clone(), mode, &self.user)
            .map_err(|error| place.target_error(error))?;
        self.file = Some(Incoming { path, file, modified: entry.modified, position: 0, written: 0 });
        Ok(())
    }

    fn place_symlink(&mut self, place: &Place, link: &[u8], modified: Option<Timespec>) -> Result<(), HttpError> {
        let link = CString::new(link).ok().filter(|link| !link.is_empty());
        let link = link.ok_or_else(|| HttpError::bad_request(format!("'{}' is a link to nowhere", place.shown())))?;
        let parent = self.open_parent(place)?;
        let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid));
        let placed = put(place, parent, |directory, name| {
            rustix::fs::symlinkat(link.as_c_str(), directory, name)?;
            rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            match modified {
                Some(modified) => rustix::fs::utimensat(directory, name, &at(modified), AtFlags::SYMLINK_NOFOLLOW),
                None => Ok(()),
            }
        });
        // The directory known last may have been reached by way of the link that was there.
        self.parent = None;
        placed
    }

    /// To a file that was placed before, or lay there: the same file under another name.
    fn place_hard_link(&mut self, place: &Place, link: &[u8]) -> Result<(), HttpError> {
        let refused = || {
            let link = String::from_utf8_lossy(link);
            HttpError::bad_request(format!("'{}' links to '{link}', which is no file that is there", place.shown()))
        };
        let target = Place::parse(link)?.ok_or_else(refused)?;
        let from = self.open(target.parent()).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR => refused(),
            error => target.error(error),
        })?;
        let look = |directory: &OwnedFd, name: &CStr| rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        let linked = look(&from, &target.name).map_err(|_| refused())?;
        if !matches!(FileType::from_raw_mode(linked.st_mode), FileType::RegularFile | FileType::Symlink) {
            return Err(refused());
        }
        let parent = self.open_parent(place)?;
        // Renaming one name of a file to another would do nothing.
        if look(&parent, &place.name).is_ok_and(|there| (there.st_dev, there.st_ino) == (linked.st_dev, linked.st_ino))
        {
            return Ok(());
        }
        put(place, parent, |directory, name| {
            rustix::fs::linkat(&from, target.name.as_c_str(), directory, name, AtFlags::empty())
        })
    }
}

/// Under another name first, so that what is there is replaced in one step.
fn put(
    place: &Place,
    parent: OwnedFd,
    make: impl Fn(&OwnedFd, &CStr) -> rustix::io::Result<()>,
) -> Result<(), HttpError> {
    let (purpose, _) = look_at(&parent, &place.name).map_err(|error| place.target_error(error))?;
    let (name, ()) = TemporaryName::make(parent, purpose, make).map_err(|error| place.error(error))?;
    name.rename(&place.name).map_err(|error| place.error(error))
}

impl Entries for Placement {
    fn begin(&mut self, mut entry: Entry) -> Result<(), HttpError> {
        if entry.kind == Kind::Special {
            self.placed.skipped += 1;
            return Ok(());
        }
        let Some(place) = Place::parse(&entry.path)? else {
            return match entry.kind {
                // The directory itself stays as it is.
                Kind::Directory => Ok(()),
                _ => Err(HttpError::bad_request("an entry has no name")),
            };
        };
        self.leave_directories(&place.path)?;
        match std::mem::replace(&mut entry.kind, Kind::Special) {
            Kind::File(size) => {
                self.place_file(&place, &entry)?;
                self.placed.bytes = self.placed.bytes.saturating_add(size);
            }
            Kind::Directory => self.place_directory(place, entry.mode, entry.modified)?,
            Kind::Symlink(link) => self.place_symlink(&place, &link, entry.modified)?,
            Kind::HardLink(link) => self.place_hard_link(&place, &link)?,
            Kind::Special => {}
        }
        self.placed.entries += 1;
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        // What reads as zeros need not take room.
        if bytes.chunks(ZEROS.len()).all(|chunk| ZEROS.starts_with(chunk)) {
            return self.hole(bytes.len() as u64);
        }
        let Some(incoming) = &mut self.file else { return Ok(()) };
        let written = incoming.file.file().write_all_at(bytes, incoming.position);
        written.map_err(|error| disk_error(&format!("error extracting '{}'", incoming.path), &error))?;
        incoming.position += bytes.len() as u64;
        incoming.written = incoming.position;
        Ok(())
    }

    fn hole(&mut self, length: u64) -> Result<(), HttpError> {
        if let Some(incoming) = &mut self.file {
            incoming.position += length;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), HttpError> {
        let Some(Incoming { path, mut file, modified, position, written }) = self.file.take() else { return Ok(()) };
        let mut finish = || {
            if position > written {
                file.file().set_len(position)?;
            }
            if let Some(modified) = modified {
                rustix::fs::futimens(file.file(), &at(modified))?;
            }
            Ok(())
        };
        let outcome = finish().and_then(|()| file.finish(&Metadata::new()));
        outcome.map_err(|error| disk_error(&format!("error extracting '{path}'"), &error))
    }
}
