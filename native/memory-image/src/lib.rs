//! Memory images: what a frozen guest's memory is kept in. A header says where every byte of it lies, as extents over
//! layers; a layer is one immutable file with a checksum of each of its blocks. docs/memory-images.md has the format.
mod durable;
mod encoding;
mod error;
mod extents;
mod fields;
mod flat_clone;
mod flat_writer;
mod header;
mod image;
mod layer;
mod layer_id;
mod layer_writer;
mod new_layer;
mod successor;
mod sums;
mod units;

pub use error::{Error, ErrorCode, Result};
pub use extents::ExtentList;
pub use fields::{Fields, checked, with_sum};
pub use flat_clone::FlatClone;
pub use flat_writer::FlatWriter;
pub use header::{Extent, Header, MAX_LAYERS, MAX_MEMORY_SIZE, Source};
pub use image::{Image, ImageReader};
pub use layer::{Layer, MEMORY_FILE, SUMS_FILE};
pub use layer_id::LayerId;
pub use layer_writer::LayerWriter;
pub use new_layer::UnpublishedLayer;
pub use successor::Successor;
pub use units::{BLOCK_BYTES, BLOCK_SIZE, PAGE_BYTES, PAGE_SIZE, is_zero, to_usize};
