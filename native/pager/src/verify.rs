//! `verify`: every block of every layer that a header names, against its checksum.
use memory_image::{BLOCK_BYTES, Header, Image, Result};
use serde_json::{Value, json};

use crate::arguments::Options;

pub(crate) fn run(mut options: Options) -> Result<Value> {
    let header = options.path("header")?;
    let layers = options.path("layers")?;
    options.finish()?;
    let image = Image::open(Header::read(&header)?, &layers)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut bytes = 0;
    for layer in image.layers() {
        for index in 0..layer.block_count() {
            layer.read_block(index, &mut block)?;
        }
        bytes += layer.len();
    }
    Ok(json!({ "layers": image.layers().len(), "bytes": bytes }))
}
