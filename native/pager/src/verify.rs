//! `verify`: every block of every layer that a header names, against its checksum.
use memory_image::{Header, Image, Layer, Result};
use serde_json::{Value, json};

use crate::arguments::Options;

pub(crate) fn run(mut options: Options) -> Result<Value> {
    let header = options.path("header")?;
    let layers = options.path("layers")?;
    options.finish()?;
    let image = Image::open(Header::read(&header)?, &layers)?;
    image.layers().iter().try_for_each(Layer::verify)?;
    let bytes = image.layers().iter().map(Layer::len).sum::<u64>();
    Ok(json!({ "layers": image.layers().len(), "bytes": bytes }))
}
