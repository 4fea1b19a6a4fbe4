//! MPEG audio has no signature, only frames; one header could be chance, several in a row are not.

use super::Container;

/// What must stay the same from frame to frame.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind {
    container: Container,
    version: u8,
    layer: u8,
    rate: u8,
}

/// Frames in a row that count as proof at the very start, and after junk.
const PROOF_AT_START: usize = 2;
const PROOF_IN_JUNK: usize = 4;

/// The first place where enough frames follow one another, and what they are.
pub(super) fn find_stream(head: &[u8]) -> Option<(Container, usize)> {
    (0..head.len().saturating_sub(3)).filter(|at| head[*at] == 0xff).find_map(|at| {
        let wanted = if at == 0 { PROOF_AT_START } else { PROOF_IN_JUNK };
        frames_in_a_row(head, at, wanted).map(|container| (container, at))
    })
}

fn frames_in_a_row(head: &[u8], start: usize, wanted: usize) -> Option<Container> {
    let (first, mut len) = frame(&head[start..])?;
    let mut at = start;
    for _ in 1..wanted {
        at += len;
        if at == head.len() && start == 0 {
            // A whole file of a single frame.
            return Some(first.container);
        }
        let (kind, next) = frame(head.get(at..)?)?;
        if kind != first {
            return None;
        }
        len = next;
    }
    Some(first.container)
}

/// The frame whose header starts here, and its length in bytes.
fn frame(bytes: &[u8]) -> Option<(Kind, usize)> {
    let [0xff, b, c, d, ..] = *bytes else { return None };
    if b & 0xe0 != 0xe0 {
        return None;
    }
    let (version, layer) = (b >> 3 & 3, b >> 1 & 3);
    if layer == 0 {
        return adts(bytes, b, c, d);
    }
    let (bitrate, rate, padding) = (c >> 4, c >> 2 & 3, usize::from(c >> 1 & 1));
    if version == 1 || rate == 3 || bitrate == 0 || bitrate == 15 {
        return None;
    }
    let hz = [44_100, 48_000, 32_000][usize::from(rate)] / [4, 1, 2, 1][usize::from(version)];
    let bits = 1000 * kilobits(version, layer, bitrate);
    let len = match (layer, version) {
        (3, _) => (12 * bits / hz + padding) * 4,
        (1, 0 | 2) => 72 * bits / hz + padding,
        _ => 144 * bits / hz + padding,
    };
    let container = if layer == 1 { Container::Mp3 } else { Container::Mp2 };
    Some((Kind { container, version, layer, rate }, len))
}

/// Bit rates of MPEG-1 layers I, II, III and MPEG-2 layer I, layers II and III (ISO 11172-3 2.4.2.3, 13818-3 2.4.2.3).
fn kilobits(version: u8, layer: u8, index: u8) -> usize {
    const ROWS: [[usize; 15]; 5] = [
        [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ];
    let row = match (version, layer) {
        (3, 3) => 0,
        (3, 2) => 1,
        (3, _) => 2,
        (_, 3) => 3,
        _ => 4,
    };
    ROWS[row][usize::from(index)]
}

/// An ADTS header: layer 0, twelve sync bits, a rate that exists, and a length that covers the header.
fn adts(bytes: &[u8], b: u8, c: u8, d: u8) -> Option<(Kind, usize)> {
    let rate = c >> 2 & 0xf;
    if b & 0xf0 != 0xf0 || rate > 12 {
        return None;
    }
    let (e, f) = (*bytes.get(4)?, *bytes.get(5)?);
    let len = usize::from(d & 3) << 11 | usize::from(e) << 3 | usize::from(f >> 5);
    (len > 7).then_some((Kind { container: Container::Aac, version: b >> 3 & 1, layer: 0, rate }, len))
}
