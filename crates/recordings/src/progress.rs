//! What is told while recordings are fetched.

/// How far a package is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The package and its version.
    pub package: &'a str,
    /// What is being done.
    pub phase: Phase,
    /// Bytes here so far.
    pub bytes_done: u64,
    /// Bytes there will be.
    pub bytes_total: u64,
}

/// Steps of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Another process fetches; this one waits for it.
    Waiting,
    /// Bytes are on their way.
    Downloading,
    /// Sums are computed and files written.
    Unpacking,
}

/// Gets the progress.
pub(crate) type Tell<'a> = &'a dyn Fn(Progress<'_>);
