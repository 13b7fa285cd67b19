//! What has changed since a flat parent, written over a clone of its layer: the image is flat again, and costs no more
//! than its changes.
use std::path::Path;

use memory_image::{FlatClone, Image, LayerId, Result};

use super::changes::{Change, for_each_change};
use super::{Capture, Counts, Guest};

/// Nothing, when the parent is not flat or its file system has no clones.
pub(super) fn capture(guest: &Guest, parent: &Image, layers: &Path, layer: LayerId) -> Result<Option<Capture>> {
    let Some(mut clone) = FlatClone::create(layers, layer, parent)? else { return Ok(None) };
    let mut counts = Counts::default();
    for_each_change(guest, parent, &mut counts, |Change { guest, bytes, zero }| {
        if zero { clone.zero(guest, bytes) } else { clone.write(guest, bytes) }
    })?;
    if counts.written + counts.zeroed == 0 {
        return Ok(Some(Capture { header: parent.header().clone(), layer: None, counts }));
    }
    let (header, unpublished) = clone.finish()?;
    Ok(Some(Capture { header, layer: Some(unpublished), counts }))
}
