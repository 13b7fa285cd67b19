//! `capture`: the memory of a stopped guest becomes an image: a flat one of its own, or what has changed since its parent.
mod candidates;
mod changes;
mod cloned;
mod compact;
mod full;
mod process;
mod region;
mod written;
mod zero_page;

use std::fs::File;
use std::path::Path;

use memory_image::{Error, ErrorCode, Header, Image, LayerId, MAX_MEMORY_SIZE, PAGE_SIZE, Result, UnpublishedLayer};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use serde_json::{Value, json};

use self::candidates::{Candidates, Run};
use self::process::Process;
use self::region::Place;
use self::written::WrittenMemory;
use crate::arguments::{Options, invalid};

/// A stopped guest's memory, and which of its pages have to be looked at.
struct Guest {
    memory_size: u64,
    memory: Memory,
}

/// Where the content of a guest's memory is found.
enum Memory {
    /// In its engine's process, from the address `base`.
    InProcess { process: Process, base: u64, candidates: Candidates },
    /// In a file that its engine has written.
    Written(WrittenMemory),
}

#[derive(Default)]
struct Counts {
    /// Pages that were looked at.
    examined: u64,
    /// Pages whose content went into the new layer.
    written: u64,
    /// Pages that are zero now and were not in the parent.
    zeroed: u64,
}

/// An image whose header is not written yet. Without a new layer it lies in its parent's alone.
struct Capture {
    header: Header,
    layer: Option<UnpublishedLayer>,
    counts: Counts,
}

pub(crate) fn run(mut options: Options) -> Result<Value> {
    let written = options.optional("memory-file")?;
    let in_process = if written.is_none() { Some((options.parsed("pid")?, place(&mut options)?)) } else { None };
    let memory_size = memory_size(&mut options)?;
    let parent = options.optional("parent")?;
    let layers = options.path("layers")?;
    let layer: LayerId = options.parsed("layer")?;
    let header = options.path("header")?;
    options.finish()?;
    if let (Some((_, Place::LayeredOver(_))), None) = (&in_process, &parent) {
        return Err(invalid("--layered-over needs --parent: layers are those of an image"));
    }
    let parent = parent.map(|path| open_parent(Path::new(&path), &layers, memory_size)).transpose()?;
    let memory = match (in_process, written) {
        (Some((pid, place)), _) => in_process_memory(pid, &place, memory_size, parent.is_some())?,
        (None, file) => Memory::Written(WrittenMemory::open(Path::new(&file.unwrap_or_default()), memory_size)?),
    };
    let guest = Guest { memory_size, memory };
    let capture = match &parent {
        None => full::capture(&guest, &layers, layer)?,
        Some(parent) => match cloned::capture(&guest, parent, &layers, layer)? {
            Some(capture) => capture,
            None => compact::capture(&guest, parent, &layers, layer)?,
        },
    };
    capture.header.write(&header)?;
    if let Some(layer) = capture.layer {
        layer.publish();
    }
    Ok(json!({
        "pages_examined": capture.counts.examined,
        "pages_written": capture.counts.written,
        "pages_zeroed": capture.counts.zeroed,
        "bytes_written": capture.counts.written * PAGE_SIZE,
        "extents": capture.header.extents().len(),
        "layers": capture.header.layers().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "flat": capture.header.is_flat(),
    }))
}

fn memory_size(options: &mut Options) -> Result<u64> {
    let size: u64 = options.parsed("memory-size")?;
    let valid = size > 0 && size <= MAX_MEMORY_SIZE && size.is_multiple_of(PAGE_SIZE);
    if valid { Ok(size) } else { Err(invalid("--memory-size is no number of pages in bytes")) }
}

fn place(options: &mut Options) -> Result<Place> {
    match (options.optional("mapped-file")?, options.optional("layered-over")?, options.optional("address")?) {
        (Some(path), None, None) => Ok(Place::MappedFile(path.into())),
        (None, Some(path), None) => Ok(Place::LayeredOver(path.into())),
        (None, None, Some(address)) => {
            let digits = address.to_str().map(|text| text.strip_prefix("0x").unwrap_or(text));
            let address = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
            address
                .filter(|address| address.is_multiple_of(PAGE_SIZE))
                .map(Place::Address)
                .ok_or_else(|| invalid("--address is no hexadecimal address of a page"))
        }
        _ => Err(invalid("one of --mapped-file, --layered-over and --address has to be given")),
    }
}

fn in_process_memory(pid: u32, place: &Place, memory_size: u64, has_parent: bool) -> Result<Memory> {
    let process = Process::open(pid)?;
    let base = place.find(&process.maps()?, memory_size)?;
    let candidates = candidates(place, has_parent)?;
    Ok(Memory::InProcess { process, base, candidates })
}

fn open_parent(path: &Path, layers: &Path, memory_size: u64) -> Result<Image> {
    let parent = Header::read(path)?;
    if parent.memory_size() != memory_size {
        let message = format!("{}: it has {} bytes of memory, not {memory_size}", path.display(), parent.memory_size());
        return Err(Error::new(ErrorCode::MemorySizeMismatch, message));
    }
    Image::open(parent, layers)
}

/// Pages that are not the process's own hold what the parent holds. Without one they are zero, if the file that is mapped
/// is blank; what any other file holds is read like the rest.
fn candidates(place: &Place, has_parent: bool) -> Result<Candidates> {
    let Place::MappedFile(path) = place else { return Ok(Candidates::OwnPages) };
    if has_parent {
        return Ok(Candidates::OwnPages);
    }
    let file = File::open(path).map_err(|error| Error::io("open the mapped file", path, &error))?;
    match rustix::fs::seek(&file, SeekFrom::Data(0)) {
        // There are no data from the beginning on.
        Err(Errno::NXIO) => Ok(Candidates::OwnPages),
        _ => Ok(Candidates::AllPages),
    }
}

impl Guest {
    /// Calls `examine` for every run of pages that have to be looked at, in order.
    fn for_each_run(&self, examine: impl FnMut(Run) -> Result<()>) -> Result<()> {
        match &self.memory {
            Memory::InProcess { process, base, candidates } => {
                candidates.for_each_run(process, *base, self.memory_size, examine)
            }
            Memory::Written(file) => file.for_each_run(examine),
        }
    }

    /// What the pages of `run` hold, into all of `buffer`.
    fn read(&self, run: &Run, buffer: &mut [u8]) -> Result<()> {
        if run.zero {
            buffer.fill(0);
            return Ok(());
        }
        match &self.memory {
            Memory::InProcess { process, base, .. } => process.read_memory(base + run.range.start, buffer),
            Memory::Written(file) => file.read(run.range.start, buffer),
        }
    }
}
