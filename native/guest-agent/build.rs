//! Generates the messages of the envd protocol, with both codecs, from the protocol files all of Wrenn shares.
use std::path::Path;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packages/contract/proto");
    println!("cargo::rerun-if-changed={}", protos.display());

    let descriptors = protox::compile(["process.proto", "filesystem.proto"], [&protos])?;
    let encoded = descriptors.encode_to_vec();

    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        .extern_path(".google.protobuf.Timestamp", "crate::timestamp::Timestamp")
        .compile_fds(descriptors)?;

    // Clients newer than this agent may send fields it does not know.
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .btree_map(["."])
        .ignore_unknown_fields()
        .build(&[".process", ".filesystem"])?;
    Ok(())
}
