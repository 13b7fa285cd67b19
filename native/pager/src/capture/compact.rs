//! What has changed since the parent, as a layer of just the changed pages.
use std::path::Path;

use memory_image::{Image, LayerId, LayerWriter, Result, Successor};

use super::changes::{Change, for_each_change};
use super::{Capture, Counts, Guest};

pub(super) fn capture(guest: &Guest, parent: &Image, layers: &Path, layer: LayerId) -> Result<Capture> {
    let mut counts = Counts::default();
    let mut successor = Successor::of(parent.header());
    // Made with the first page that needs it: memory without a change leaves no layer.
    let mut writer = None;
    for_each_change(guest, parent, &mut counts, |Change { guest, bytes, zero }| {
        let length = bytes.len() as u64;
        if zero {
            successor.zero(guest, length);
            return Ok(());
        }
        if writer.is_none() {
            writer = Some(LayerWriter::create(layers, layer)?);
        }
        if let Some(writer) = &mut writer {
            successor.write(guest, length, writer.append(bytes)?);
        }
        Ok(())
    })?;
    let header = successor.finish(layer)?;
    let layer = writer.map(LayerWriter::finish).transpose()?;
    Ok(Capture { header, layer, counts })
}
