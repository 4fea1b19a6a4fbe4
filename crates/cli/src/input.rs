//! What a command reads: a file, or standard input.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use crate::error::CliError;

/// True for what stands for standard input among the files: `-`.
pub(crate) fn is_standard_input(file: &Path) -> bool {
    file == Path::new("-")
}

/// What to call the file, and all that it holds. Blocks, at a terminal for as long as somebody types.
///
/// # Errors
/// [`CliError::Usage`] when it cannot be read; it is named.
pub(crate) fn read(file: &Path) -> Result<(String, Vec<u8>), CliError> {
    let mut bytes = Vec::new();
    let (what, read) = if is_standard_input(file) {
        ("standard input".to_owned(), io::stdin().lock().read_to_end(&mut bytes))
    } else {
        (file.display().to_string(), File::open(file).and_then(|mut file| file.read_to_end(&mut bytes)))
    };
    read.map_err(CliError::unreadable(&what))?;
    Ok((what, bytes))
}
