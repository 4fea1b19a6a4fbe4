//! What a folder of the cache must hold, byte for byte.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{disk, progress::Phase, progress::Watch};

/// The manifest's own name in a model's folder.
pub(crate) const FILE: &str = "manifest.json";
/// What a model's folder holds besides.
pub(crate) const PRODUCTS: [&str; 3] = ["model.safetensors", "config.json", "tokenizer.json"];
/// Raise when the conversion writes something else; older folders then count as missing.
const FORMAT: u32 = 1;
/// No manifest of ours is longer.
const MAX_BYTES: u64 = 64 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    pub(crate) model: String,
    pub(crate) source: String,
    pub(crate) files: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) sha256: String,
}

impl Manifest {
    /// Hashes the products in `folder`, makes them durable, and writes the manifest beside them.
    pub(crate) fn write(folder: &Path, source: &str, watch: Watch<'_>) -> io::Result<Self> {
        let mut files = Vec::new();
        for name in PRODUCTS {
            let path = folder.join(name);
            let file = File::open(&path)?;
            file.sync_all()?;
            let size = file.metadata()?.len();
            let sha256 = disk::sha256(&path, |done| watch.tell(Phase::Checking, name, done, size))?;
            files.push(Entry { name: name.to_owned(), size, sha256 });
        }
        let manifest = Self { format: FORMAT, model: watch.model.to_owned(), source: source.to_owned(), files };
        let mut file = File::create(folder.join(FILE))?;
        file.write_all(serde_json::to_string_pretty(&manifest)?.as_bytes())?;
        file.sync_all()?;
        Ok(manifest)
    }

    /// `Ok(None)` when there is no model here, or one of another format; `Err` says why the manifest is no good.
    pub(crate) fn read(folder: &Path, model: &str) -> Result<Option<Self>, String> {
        let path = folder.join(FILE);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.exists() => return Ok(None),
            Err(error) => return Err(error.to_string()),
            Ok(found) if found.len() > MAX_BYTES => return Err("is far too long".to_owned()),
            Ok(_) => {}
        }
        let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let manifest: Self = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if manifest.format != FORMAT {
            return Ok(None);
        }
        let listed: Vec<_> = manifest.files.iter().map(|entry| entry.name.as_str()).collect();
        if manifest.model != model || listed != PRODUCTS {
            return Err(format!("describes {} with {}", manifest.model, listed.join(", ")));
        }
        Ok(Some(manifest))
    }
}
