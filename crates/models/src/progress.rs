//! What a caller sees while a model is fetched.

/// One observation; many come each second at most, and the last of a phase has `bytes_done == bytes_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The model.
    pub model: &'a str,
    /// The file or package in hand.
    pub file: &'a str,
    /// What is being done with it.
    pub phase: Phase,
    /// Bytes of `file` done.
    pub bytes_done: u64,
    /// Bytes of `file` in all; 0 when not known.
    pub bytes_total: u64,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Another process is fetching the same model.
    Waiting,
    /// Bytes come in.
    Downloading,
    /// sha256 is being computed.
    Checking,
    /// Files are unpacked and converted.
    Converting,
}

/// The model's name and the caller's function, passed down together.
#[derive(Clone, Copy)]
pub(crate) struct Watch<'a> {
    pub(crate) model: &'a str,
    pub(crate) tell: &'a dyn Fn(Progress<'_>),
}

impl Watch<'_> {
    pub(crate) fn tell(&self, phase: Phase, file: &str, bytes_done: u64, bytes_total: u64) {
        (self.tell)(Progress { model: self.model, file, phase, bytes_done, bytes_total });
    }
}
