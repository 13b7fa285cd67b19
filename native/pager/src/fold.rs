//! `fold`: an image of many layers becomes a flat one with the same content.
use std::path::Path;

use memory_image::{BLOCK_BYTES, BLOCK_SIZE, FlatWriter, Header, Image, LayerId, Result, UnpublishedLayer, to_usize};
use serde_json::{Value, json};

use crate::arguments::Options;

pub(crate) fn run(mut options: Options) -> Result<Value> {
    let header = options.path("header")?;
    let layers = options.path("layers")?;
    let layer: LayerId = options.parsed("layer")?;
    let output = options.path("output")?;
    options.finish()?;
    let (folded, unpublished, bytes_written) = fold(&Image::open(Header::read(&header)?, &layers)?, &layers, layer)?;
    folded.write(&output)?;
    unpublished.publish();
    Ok(json!({
        "bytes_written": bytes_written,
        "extents": folded.extents().len(),
        "layers": [layer.to_string()],
        "flat": folded.is_flat(),
    }))
}

fn fold(image: &Image, layers: &Path, layer: LayerId) -> Result<(Header, UnpublishedLayer, u64)> {
    let memory_size = image.header().memory_size();
    let mut writer = FlatWriter::create(layers, layer)?;
    let mut reader = image.reader();
    let mut buffer = vec![0; BLOCK_BYTES];
    for guest in (0..memory_size).step_by(BLOCK_BYTES) {
        let end = memory_size.min(guest + BLOCK_SIZE);
        let block = buffer.get_mut(..to_usize(end - guest)).unwrap_or_default();
        reader.read(guest, block)?;
        writer.append(block)?;
    }
    let bytes_written = writer.bytes_written();
    let (header, unpublished) = writer.finish()?;
    Ok((header, unpublished, bytes_written))
}
