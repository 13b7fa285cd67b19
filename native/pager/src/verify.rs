//! `verify`: every block of every layer that a header names, but those that the caller knows, against its checksum.
use memory_image::{Header, Image, Layer, LayerId, Result};
use serde_json::{Value, json};

use crate::arguments::{Options, invalid};

pub(crate) fn run(mut options: Options) -> Result<Value> {
    let header = options.path("header")?;
    let layers = options.path("layers")?;
    let known = options.all("known");
    options.finish()?;
    let known = known
        .iter()
        .map(|id| id.to_str().and_then(|id| id.parse().ok()).ok_or_else(|| invalid("--known is no layer's id")))
        .collect::<Result<Vec<LayerId>>>()?;
    let image = Image::open(Header::read(&header)?, &layers)?;
    let verified = || image.layers().iter().filter(|layer| !known.contains(&layer.id()));
    verified().try_for_each(Layer::verify)?;
    Ok(json!({
        "layers": verified().count(),
        "bytes": verified().map(Layer::len).sum::<u64>(),
        "in_place": image.header().layer_in_place().map(|layer| layer.to_string()),
    }))
}
