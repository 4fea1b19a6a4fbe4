//! What conversion and the last look make of files, for those who try out what they may hold.

use std::path::Path;

use crate::{config, ctranslate2, safetensors};

/// Names of the tensors of a safetensors file.
///
/// # Errors
/// What is wrong with it.
pub fn tensors(file: &Path) -> Result<Vec<String>, String> {
    safetensors::names(file)
}

/// Converts `model.bin` and `config.json` of CTranslate2 in `folder` to `model.safetensors` there, and `config.json` to
/// that of Hugging Face.
///
/// # Errors
/// The file, and what is wrong with it.
pub fn converted(folder: &Path) -> Result<(), String> {
    let config = folder.join("config.json");
    let whisper = ctranslate2::convert(&folder.join("model.bin"), &folder.join("model.safetensors"))
        .map_err(|error| format!("model.bin: {error}"))?;
    config::write(&whisper, &config, &config).map_err(|error| error.to_string())
}
