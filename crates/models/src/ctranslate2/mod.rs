//! Whisper models in CTranslate2's `model.bin`, rewritten as safetensors with the tensor names of Hugging Face.
//!
//! Tensors keep their element type and are copied from file to file: the memory used does not depend on the model.

mod index;
mod layout;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write as _},
    path::Path,
};

use index::Index;
pub(crate) use layout::Whisper;

use crate::safetensors::write_header;

/// Why a `model.bin` cannot be converted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConvertError {
    /// The file is cut or garbled.
    #[error("{what} at byte {at}")]
    Damaged {
        /// What is wrong.
        what: String,
        /// Where.
        at: u64,
    },
    /// A sound file that holds something else than an unquantised Whisper model.
    #[error("{0}")]
    Unsupported(String),
    /// The disk fails.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Converts `from` into `to` and returns the model's dimensions.
pub(crate) fn convert(from: &Path, to: &Path) -> Result<Whisper, ConvertError> {
    let file = File::open(from)?;
    let size = file.metadata()?.len();
    let mut from = BufReader::new(file);
    let index = Index::read(&mut from, size)?;
    let (whisper, copies) = layout::plan(&index)?;
    let mut to = BufWriter::new(File::create(to)?);
    let tensors: Vec<_> = copies.iter().map(|copy| copy.tensor.clone()).collect();
    write_header(&mut to, &tensors)?;
    for copy in &copies {
        from.seek(SeekFrom::Start(copy.first))?;
        let wanted = copy.tensor.bytes().unwrap_or(0);
        let copied = std::io::copy(&mut from.by_ref().take(wanted), &mut to)?;
        if copied != wanted {
            return Err(ConvertError::Damaged { what: format!("{} is cut", copy.tensor.name), at: copy.first });
        }
    }
    to.flush()?;
    Ok(whisper)
}
