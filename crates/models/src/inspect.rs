//! A last look at a model's files before they are published: is each what its name says?

use std::{fs, path::Path};

use serde_json::Value;

use crate::{Family, manifest::PRODUCTS, safetensors};

/// A tokenizer is a few megabytes.
const MAX_JSON: u64 = 64 * 1024 * 1024;

/// Says which file is not what it should be, and why.
pub(crate) fn products(folder: &Path, family: Family) -> Result<(), String> {
    let [weights, config, tokenizer] = PRODUCTS;
    let names = safetensors::names(&folder.join(weights)).map_err(|why| format!("{weights}: {why}"))?;
    if names.is_empty() {
        return Err(format!("{weights}: holds no tensor"));
    }
    let config_keys = match family {
        Family::Whisper => ["d_model", "num_mel_bins", "vocab_size"],
        Family::Bert => ["hidden_size", "num_hidden_layers", "vocab_size"],
    };
    for (file, keys) in [(config, &config_keys[..]), (tokenizer, &["model"][..])] {
        let value = json(&folder.join(file)).map_err(|why| format!("{file}: {why}"))?;
        if let Some(missing) = keys.iter().find(|key| value.get(**key).is_none()) {
            return Err(format!("{file}: has no `{missing}`"));
        }
    }
    Ok(())
}

/// Reads a JSON file of a size that makes sense.
pub(crate) fn json(path: &Path) -> Result<Value, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_JSON {
        return Err(format!("{size} bytes are too many"));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}
