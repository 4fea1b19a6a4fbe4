//! Where a recording comes from: a file, or what standard input holds.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use crate::error::CliError;

/// A recording, readable as often as an upload has to start over.
#[derive(Debug)]
pub(crate) struct Source {
    /// What the server is to call it.
    pub name: String,
    /// Where its bytes are.
    pub path: PathBuf,
    /// Keeps the bytes of standard input.
    _kept: Option<File>,
}

impl Source {
    /// A file, not opened yet.
    pub(crate) fn file(path: &Path) -> Self {
        let name = path.file_name().map_or_else(|| "recording".to_owned(), |name| name.to_string_lossy().into_owned());
        Self { name, path: path.to_owned(), _kept: None }
    }

    /// Reads standard input to its end. Blocks.
    ///
    /// # Errors
    /// When it cannot be read, or there is no room for it in the folder of temporary files.
    pub(crate) fn standard_input() -> Result<Self, CliError> {
        Self::read("stdin", &mut io::stdin().lock())
    }

    fn read(name: &str, from: &mut impl io::Read) -> Result<Self, CliError> {
        // Without a name, so that nothing is left of it however this process ends.
        let mut kept = tempfile::tempfile().map_err(CliError::file("make a temporary file"))?;
        io::copy(from, &mut kept).map_err(CliError::file("keep standard input in a temporary file"))?;
        // Opened by this path it is read from its start, each time anew.
        let path = PathBuf::from(format!("/proc/self/fd/{}", kept.as_raw_fd()));
        Ok(Self { name: name.to_owned(), path, _kept: Some(kept) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_through_a_pipe_can_be_read_again() {
        let source = Source::read("stdin", &mut b"RIFF and so on".as_slice()).expect("kept");
        for _ in 0..2 {
            assert_eq!(std::fs::read(&source.path).expect("readable"), b"RIFF and so on");
        }
        assert_eq!(std::fs::metadata(&source.path).expect("there").len(), 14);
    }
}
