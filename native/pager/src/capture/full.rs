//! All of a guest's memory, as a flat image.
use std::path::Path;

use memory_image::{FlatWriter, LayerId, PAGE_SIZE, Result, to_usize};

use super::candidates::RUN_BYTES;
use super::{Capture, Counts, Guest};

pub(super) fn capture(guest: &Guest, layers: &Path, layer: LayerId) -> Result<Capture> {
    let mut counts = Counts::default();
    let mut writer = FlatWriter::create(layers, layer)?;
    // One stretch of memory, put together of its runs of pages; between them it is zero.
    let mut window = vec![0; to_usize(RUN_BYTES.min(guest.memory_size))];
    let mut window_at = None;
    guest.for_each_run(|run| {
        let start = run.start - run.start % RUN_BYTES;
        if window_at != Some(start) {
            advance(&mut writer, window_at, &mut window, start)?;
            window_at = Some(start);
        }
        let target = window.get_mut(to_usize(run.start - start)..to_usize(run.end - start)).unwrap_or_default();
        counts.examined += (run.end - run.start) / PAGE_SIZE;
        guest.read(run.start, target)
    })?;
    advance(&mut writer, window_at, &mut window, guest.memory_size)?;
    counts.written = writer.bytes_written() / PAGE_SIZE;
    let (header, unpublished) = writer.finish()?;
    Ok(Capture { header, layer: Some(unpublished), counts })
}

/// Writes the window that began at `window_at`, if any, then zeros as far as `guest`, and blanks the window.
fn advance(writer: &mut FlatWriter, window_at: Option<u64>, window: &mut [u8], guest: u64) -> Result<()> {
    if let Some(start) = window_at {
        let length = to_usize(guest - start).min(window.len());
        writer.append(window.get(..length).unwrap_or_default())?;
        window.fill(0);
    }
    writer.append_zeros_until(guest)
}
