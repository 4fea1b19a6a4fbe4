//! Where the bytes come from, read by whichever decoder is having its turn.

use std::{
    io::{self, Read, Seek, SeekFrom},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use symphonia::core::io::MediaSource;

/// Anything that can be read and sought, such as a file or an object in storage.
pub trait Source: Read + Seek + Send {}

impl<T: Read + Seek + Send> Source for T {}

struct Inner {
    source: Box<dyn Source>,
    len: u64,
    /// Where the source stands, when that is known: a seek may cost a remote source its connection.
    at: Option<u64>,
    failure: Option<io::Error>,
}

/// One source, handed to one decoder after another.
///
/// It remembers the first failed read, so that trouble of the storage is never taken for a damaged recording.
#[derive(Clone)]
pub(crate) struct SharedSource {
    inner: Arc<Mutex<Inner>>,
}

impl SharedSource {
    pub(crate) fn new(mut source: Box<dyn Source>) -> io::Result<Self> {
        let len = source.seek(SeekFrom::End(0))?;
        Ok(Self { inner: Arc::new(Mutex::new(Inner { source, len, at: Some(len), failure: None })) })
    }

    pub(crate) fn len(&self) -> u64 {
        self.lock().len
    }

    /// The first failure of the source, if there was one since the last call.
    pub(crate) fn take_failure(&self) -> Option<io::Error> {
        self.lock().failure.take()
    }

    /// A reader of everything from `start` on, with positions counted from there.
    pub(crate) fn view(&self, start: u64) -> View {
        View { shared: self.clone(), start, position: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A decoder that panicked in the middle of a read leaves nothing half-done here: the position is forgotten and sought again.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct View {
    shared: SharedSource,
    start: u64,
    position: u64,
}

impl View {
    pub(crate) fn len(&self) -> u64 {
        self.shared.len().saturating_sub(self.start)
    }

    /// Reads until `into` is full or the source ends; returns the number of bytes read.
    pub(crate) fn fill(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.read(&mut into[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl Read for View {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.shared.lock();
        let at = self.start.saturating_add(self.position);
        // Damaged headers send decoders anywhere, and a file cannot be sought beyond what its system allows.
        if at >= inner.len {
            return Ok(0);
        }
        // Forgotten until the read has succeeded: a failure, or a panic, may leave the source anywhere.
        let there = inner.at.take() == Some(at);
        let sought = if there { Ok(at) } else { inner.source.seek(SeekFrom::Start(at)) };
        match sought.and_then(|_| inner.source.read(into)) {
            Ok(read) => {
                inner.at = Some(at + read as u64);
                self.position += read as u64;
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                inner.failure.get_or_insert(error);
                Err(copy)
            }
        }
    }
}

impl Seek for View {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let wanted = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.len().checked_add_signed(by),
        };
        self.position = wanted.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek before the start"))?;
        Ok(self.position)
    }
}

impl MediaSource for View {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.len())
    }
}
