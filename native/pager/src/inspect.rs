//! `inspect`: what a header says of its image, without opening any layer.
use memory_image::{Header, Result};
use serde_json::{Value, json};

use crate::arguments::Options;

pub(crate) fn run(mut options: Options) -> Result<Value> {
    let header = options.path("header")?;
    options.finish()?;
    let header = Header::read(&header)?;
    Ok(json!({
        "memory_size": header.memory_size(),
        "extents": header.extents().len(),
        "layers": header.layers().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "flat": header.is_flat(),
    }))
}
