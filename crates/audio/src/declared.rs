//! How long a recording says it is, from its first bytes alone.

use std::{
    io::{self, Read, Seek, SeekFrom},
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{
    Container,
    decode::Frames as _,
    packets::Packets,
    sniff,
    source::{SharedSource, View},
    wave::Wave,
};

/// The length in seconds that a recording of `size` bytes claims in its first bytes, `head`. `None` when they do not
/// tell: the format keeps it elsewhere, has none, or makes no sense. Only what has an exact length is asked.
pub fn declared_seconds(head: &[u8], size: u64) -> Option<f64> {
    let found = sniff::sniff_at(head).ok()?;
    let source = Head { bytes: head.to_owned(), size, position: 0 };
    let view = SharedSource::new(Box::new(source)).ok()?.view(found.start as u64);
    // Decoders may panic over hostile input.
    let asked = catch_unwind(AssertUnwindSafe(|| length(view, found.container)));
    asked.ok().flatten().filter(|seconds| seconds.is_finite())
}

fn length(view: View, container: Container) -> Option<f64> {
    match container {
        Container::Wav => Wave::open(view).ok()?.declared_seconds(),
        Container::Flac => Packets::open(view, container).ok()?.declared_seconds(),
        _ => None,
    }
}

/// The start of a recording whose rest has not come yet.
struct Head {
    bytes: Vec<u8>,
    size: u64,
    position: u64,
}

impl Read for Head {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let at = usize::try_from(self.position).unwrap_or(usize::MAX).min(self.bytes.len());
        let read = (&self.bytes[at..]).read(into)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Head {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let wanted = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        self.position = wanted.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek before the start"))?;
        Ok(self.position)
    }
}
