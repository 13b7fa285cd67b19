//! Watches a directory, and all below it when asked, through inotify.
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::entry;
use crate::connect::{Code, ConnectError};
use crate::files::temporary;
use crate::proto::filesystem::{EventType, FilesystemEvent};
use crate::users::Names;

/// Room for at least 200 events with the longest names.
const READ_BYTES: usize = 64 * 1024;

/// Events told before more are read.
const MAX_BATCH: usize = 1024;

#[derive(Clone, Copy)]
pub(super) struct WatchOptions {
    pub(super) recursive: bool,
    pub(super) include_entry: bool,
}

pub(super) struct TreeWatch {
    inotify: OwnedFd,
    root: String,
    options: WatchOptions,
    /// Watch descriptors and the directories they stand for, relative to the root (which is empty).
    directories: HashMap<i32, String>,
    /// Entries of new directories that were reported from looking, and may also come as events queued before that.
    /// Those of the last reading, whose events come with this one at the latest, and those of this one.
    reported: [HashSet<(i32, String)>; 2],
    /// Set when an upload's temporary file is renamed: the cookie its new name will carry.
    upload: Option<(u32, temporary::Purpose)>,
}

/// What reading gave, and whether there will be more.
pub(super) struct Batch {
    pub(super) events: Vec<FilesystemEvent>,
    pub(super) end: Option<WatchEnd>,
    /// Not all that is queued has been read.
    pub(super) more: bool,
}

pub(super) enum WatchEnd {
    /// The directory itself is gone.
    Removed,
    Failed(ConnectError),
}

struct Raw {
    watch: i32,
    flags: ReadFlags,
    cookie: u32,
    name: String,
}

fn watched() -> WatchFlags {
    WatchFlags::CREATE
        | WatchFlags::MODIFY
        | WatchFlags::ATTRIB
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
}

fn join(directory: &str, name: &str) -> String {
    match (directory, name) {
        ("", name) => name.to_owned(),
        (directory, "") => directory.to_owned(),
        (directory, name) => format!("{directory}/{name}"),
    }
}

impl TreeWatch {
    pub(super) fn new(root: &str, options: WatchOptions) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut tree = Self {
            inotify,
            root: root.to_owned(),
            options,
            directories: HashMap::new(),
            reported: Default::default(),
            upload: None,
        };
        let watch = tree.watch("")?;
        if options.recursive {
            // Whatever appears from here on is seen twice rather than never.
            tree.watch_below(watch, "", &mut Vec::new());
            tree.reported = Default::default();
        }
        Ok(tree)
    }

    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.inotify.try_clone()
    }

    fn absolute(&self, relative: &str) -> String {
        match (self.root.as_str(), relative) {
            (root, "") => root.to_owned(),
            ("/", relative) => format!("/{relative}"),
            (root, relative) => format!("{root}/{relative}"),
        }
    }

    fn watch(&mut self, relative: &str) -> io::Result<i32> {
        let watch = inotify::add_watch(&self.inotify, self.absolute(relative), watched())?;
        self.directories.insert(watch, relative.to_owned());
        Ok(watch)
    }

    /// Watches every directory below one that is watched, and notes all entries found on the way.
    fn watch_below(&mut self, watch: i32, relative: &str, found: &mut Vec<String>) {
        // A list, not recursion: nesting is bounded by the length of a path alone, and a thread's stack is small.
        let mut unseen = vec![(watch, relative.to_owned())];
        while let Some((watch, directory)) = unseen.pop() {
            let Ok(entries) = fs::read_dir(self.absolute(&directory)) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = join(&directory, &name);
                self.reported[1].insert((watch, name));
                found.push(path.clone());
                if entry.file_type().is_ok_and(|kind| kind.is_dir())
                    && let Some(watch) = self.watch_directory(&path)
                {
                    unseen.push((watch, path));
                }
            }
        }
    }

    /// It may be gone already, or be a link by now: then there is nothing to watch.
    fn watch_directory(&mut self, relative: &str) -> Option<i32> {
        let is_directory = fs::symlink_metadata(self.absolute(relative)).is_ok_and(|metadata| metadata.is_dir());
        is_directory.then(|| self.watch(relative).ok()).flatten()
    }

    /// A directory that left the tree takes its watches with it unless they are removed.
    fn forget(&mut self, relative: &str) {
        let below = format!("{relative}/");
        let gone: Vec<i32> = self
            .directories
            .iter()
            .filter(|(_, path)| *path == relative || path.starts_with(&below))
            .map(|(watch, _)| *watch)
            .collect();
        for watch in gone {
            self.directories.remove(&watch);
            let _ = inotify::remove_watch(&self.inotify, watch);
        }
    }

    /// What is queued, up to a bound. Looks at files: not for the serving thread.
    pub(super) fn read(&mut self) -> Batch {
        let mut batch = Batch { events: Vec::new(), end: None, more: false };
        match self.read_raw() {
            Ok((raw, more)) => {
                batch.more = more;
                for event in raw {
                    self.translate(&event, &mut batch);
                    if batch.end.is_some() {
                        break;
                    }
                }
                let [last, this] = &mut self.reported;
                if !more {
                    last.clear();
                }
                last.extend(this.drain());
            }
            Err(error) => {
                batch.end = Some(WatchEnd::Failed(ConnectError::io("error reading events", &error.into())));
            }
        }
        batch
    }

    fn read_raw(&self) -> Result<(Vec<Raw>, bool), Errno> {
        let mut buffer = vec![MaybeUninit::uninit(); READ_BYTES];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut events = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => events.push(Raw {
                    watch: event.wd(),
                    flags: event.events(),
                    cookie: event.cookie(),
                    name: event.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
                }),
                Err(Errno::AGAIN) => return Ok((events, false)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
            // The rest of a flood is read once this much has been passed on.
            if reader.is_buffer_empty() && events.len() >= MAX_BATCH {
                return Ok((events, true));
            }
        }
    }

    fn translate(&mut self, raw: &Raw, batch: &mut Batch) {
        if raw.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            let message =
                "more changed than could be told in time: events were lost; look at the directory and watch it again";
            batch.end = Some(WatchEnd::Failed(ConnectError::new(Code::ResourceExhausted, message)));
            return;
        }
        let Some(directory) = self.directories.get(&raw.watch).cloned() else { return };
        if raw.flags.contains(ReadFlags::IGNORED) {
            self.directories.remove(&raw.watch);
            return;
        }
        let own = raw.flags.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT);
        if own {
            // Of directories below, the one above tells.
            if directory.is_empty() {
                let moved = raw.flags.contains(ReadFlags::MOVE_SELF);
                self.emit(".", if moved { EventType::Rename } else { EventType::Remove }, batch);
                batch.end = Some(WatchEnd::Removed);
            }
            return;
        }
        if let Some(purpose) = temporary::purpose(&raw.name) {
            // A file of this agent's own that is not whole yet.
            if raw.flags.contains(ReadFlags::MOVED_FROM) {
                self.upload = Some((raw.cookie, purpose));
            }
            return;
        }
        let path = if raw.name.is_empty() { ".".to_owned() } else { join(&directory, &raw.name) };
        let path = if raw.name.is_empty() && !directory.is_empty() { directory } else { path };
        self.translate_entry(raw, &path, batch);
    }

    fn translate_entry(&mut self, raw: &Raw, path: &str, batch: &mut Batch) {
        let flags = raw.flags;
        if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            let upload =
                self.upload.take().filter(|(cookie, _)| flags.contains(ReadFlags::MOVED_TO) && *cookie == raw.cookie);
            match upload {
                // As if the file had been written in place, which is what clients of the protocol expect to see.
                Some((_, purpose)) => {
                    if purpose == temporary::Purpose::Create {
                        self.emit(path, EventType::Create, batch);
                    }
                    self.emit(path, EventType::Write, batch);
                }
                None if self.was_reported(raw) => {}
                None => self.created(path, flags.contains(ReadFlags::ISDIR), batch),
            }
        }
        if flags.contains(ReadFlags::MODIFY) {
            self.emit(path, EventType::Write, batch);
        }
        if flags.contains(ReadFlags::ATTRIB) {
            self.emit(path, EventType::Chmod, batch);
        }
        if flags.contains(ReadFlags::DELETE) {
            self.was_reported(raw);
            self.emit(path, EventType::Remove, batch);
        }
        if flags.contains(ReadFlags::MOVED_FROM) {
            self.was_reported(raw);
            if flags.contains(ReadFlags::ISDIR) {
                self.forget(path);
            }
            self.emit(path, EventType::Rename, batch);
        }
    }

    /// Whether the entry was told of already; asked once.
    fn was_reported(&mut self, raw: &Raw) -> bool {
        let key = (raw.watch, raw.name.clone());
        let [last, this] = &mut self.reported;
        last.remove(&key) | this.remove(&key)
    }

    fn created(&mut self, path: &str, is_directory: bool, batch: &mut Batch) {
        self.emit(path, EventType::Create, batch);
        if is_directory && self.options.recursive {
            // What was made in it before it was watched would otherwise never be told.
            let mut found = Vec::new();
            if let Some(watch) = self.watch_directory(path) {
                self.watch_below(watch, path, &mut found);
            }
            for path in found {
                self.emit(&path, EventType::Create, batch);
            }
        }
    }

    fn emit(&self, name: &str, kind: EventType, batch: &mut Batch) {
        let carries_entry = matches!(kind, EventType::Create | EventType::Write | EventType::Chmod);
        let entry = if self.options.include_entry && carries_entry {
            let path = self.absolute(if name == "." { "" } else { name });
            entry::describe(&path, &mut Names::default()).ok()
        } else {
            None
        };
        batch.events.push(FilesystemEvent { name: name.to_owned(), r#type: kind.into(), entry });
    }
}
