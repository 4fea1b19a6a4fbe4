//! Compiles `proto/warren/v1/*.proto` in pure Rust: no protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut files: Vec<_> =
        fs::read_dir(root.join("warren/v1"))?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.sort();

    let descriptors = protox::compile(&files, [&root])?;
    let bytes = prost::Message::encode_to_vec(&descriptors);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), &bytes)?;

    tonic_prost_build::configure()
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::pbjson_types")
        .bytes(".warren.v1.UploadRequest.chunk")
        // In one order, so that a message has one body.
        .btree_map(".warren.v1")
        .compile_fds(descriptors)?;
    pbjson_build::Builder::new()
        .register_descriptors(&bytes)?
        .btree_map([".warren.v1"])
        .ignore_unknown_fields()
        .build(&[".warren.v1"])?;
    Ok(())
}
