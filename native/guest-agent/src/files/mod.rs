//! `/files`: files and whole directories up and down, of any size, in constant memory.
mod access;
pub(crate) mod archive;
mod body;
mod compose;
mod disk;
mod download;
mod encoding;
mod intake;
mod multipart;
mod range;
mod signature;
pub(crate) mod temporary;
mod upload;
mod validators;

pub(crate) use compose::compose;
pub(crate) use download::download;
pub(crate) use upload::upload;
