//! What a file is, by its content. Names and declared types are not looked at: they lie.

mod containers;
mod mpeg;
mod strangers;

use std::fmt;

pub use containers::Container;
pub(crate) use containers::Route;
use warren_fault::{Code, Fault};

/// How much of a file's start [`sniff`] can make use of.
pub const HEAD_BYTES: usize = 64 * 1024;

/// The content is no known audio or video format. Displays as a predicate: "looks like text, not like audio".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAudio {
    looks: String,
}

impl NotAudio {
    fn new(looks: impl Into<String>) -> Self {
        Self { looks: looks.into() }
    }

    /// The refusal of the recording called `name`: permanent, `InputInvalid`.
    pub fn fault(&self, name: &str) -> Fault {
        Fault::permanent(Code::InputInvalid, format!("{name} {self}"))
    }
}

impl fmt::Display for NotAudio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.looks)
    }
}

impl std::error::Error for NotAudio {}

/// Decides what a file is from its first bytes; give it [`HEAD_BYTES`], or the whole file when it is shorter.
///
/// # Errors
/// [`NotAudio`] says what the content looks like instead.
pub fn sniff(head: &[u8]) -> Result<Container, NotAudio> {
    sniff_at(head).map(|found| found.container)
}

/// A container, and where in the head it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) container: Container,
    pub(crate) start: usize,
}

/// Like [`sniff`], and says where the first frame is when junk or a tag precedes it.
pub(crate) fn sniff_at(head: &[u8]) -> Result<Found, NotAudio> {
    let tag = id3_len(head);
    let past_tag = usize::try_from(tag).unwrap_or(usize::MAX);
    let Some(body) = head.get(past_tag..).filter(|body| tag == 0 || !body.is_empty()) else {
        // The tag (a large cover picture) fills the head. What follows one is an MPEG stream in all but odd cases, and
        // the decoder looks again past the tag.
        return Ok(Found { container: Container::Mp3, start: 0 });
    };
    if let Some(container) = containers::by_signature(body) {
        return Ok(Found { container, start: past_tag });
    }
    // Signatures of other things come before MPEG frames, which pictures and programs contain by chance.
    if let Some(stranger) = strangers::by_signature(body) {
        return Err(NotAudio::new(stranger));
    }
    if let Some((container, start)) = mpeg::find_stream(body) {
        return Ok(Found { container, start: past_tag + start });
    }
    if tag > 0 {
        return Err(NotAudio::new("holds an ID3 tag and no audio after it"));
    }
    Err(NotAudio::new(strangers::by_look(body)))
}

/// The length of the ID3v2 tag at the start, or 0.
pub(crate) fn id3_len(head: &[u8]) -> u64 {
    match head {
        [b'I', b'D', b'3', major, _, flags, a, b, c, d, ..] if *major < 0xff && (a | b | c | d) & 0x80 == 0 => {
            let body = u64::from(*a) << 21 | u64::from(*b) << 14 | u64::from(*c) << 7 | u64::from(*d);
            let footer = if flags & 0x10 != 0 { 10 } else { 0 };
            10 + body + footer
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
