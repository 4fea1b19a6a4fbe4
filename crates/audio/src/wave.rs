//! Plain samples in RIFF WAVE, RF64 and BW64.
//!
//! Headers are believed only as far as they make sense. Recorders that were cut off, streams and careless writers
//! leave sizes of 0 or 0xffffffff, extensible headers that are too short, and block sizes that do not fit; the samples
//! behind them are fine.

use std::io::{self, Seek as _, SeekFrom};

use crate::{
    Container,
    decode::{Chunk, Format, Frames, Stop, mix},
    source::View,
};

const PCM: u16 = 1;
const FLOAT: u16 = 3;
const A_LAW: u16 = 6;
const MU_LAW: u16 = 7;
const EXTENSIBLE: u16 = 0xfffe;

/// Frames read at a time.
const STEP: usize = 16_384;
/// No recording has more; a header that says so is damaged.
const MAX_CHANNELS: u16 = 64;
/// A `fmt ` chunk longer than this holds nothing more of interest.
const FMT_BYTES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sample {
    U8,
    I16,
    I24,
    I32,
    F32,
    F64,
    ALaw,
    MuLaw,
}

#[derive(Debug, PartialEq, Eq)]
struct Layout {
    sample: Sample,
    /// Bytes from one sample to the next; wider than the sample when it is padded.
    stride: usize,
    channels: u16,
    rate: u32,
}

pub(crate) struct Wave {
    view: View,
    layout: Layout,
    left: u64,
    frames: u64,
    bytes: Vec<u8>,
    interleaved: Vec<f32>,
}

impl Wave {
    pub(crate) fn open(mut view: View) -> Result<Self, Stop> {
        let read = |error: io::Error| Stop::Damaged(error.to_string());
        let mut head = [0; 12];
        view.fill(&mut head).map_err(read)?;
        if head.starts_with(b"RIFX") {
            return Err(Stop::Unsupported("a big-endian wav".to_owned()));
        }
        let mut layout = None;
        let mut long_size = None;
        loop {
            let mut chunk = [0; 8];
            if view.fill(&mut chunk).map_err(read)? < chunk.len() {
                return Err(match layout {
                    Some(_) => Stop::Empty,
                    None => Stop::Damaged("the header ends before the format of the samples".to_owned()),
                });
            }
            let [a, b, c, d, size @ ..] = chunk;
            let size = u32::from_le_bytes(size);
            let body = view.stream_position().map_err(read)?;
            match &[a, b, c, d] {
                b"data" => {
                    let layout =
                        layout.ok_or_else(|| Stop::Damaged("the samples come before their format".to_owned()))?;
                    let left = data_len(&mut view, body, size, long_size).map_err(read)?;
                    view.seek(SeekFrom::Start(body)).map_err(read)?;
                    return Self::new(view, layout, left);
                }
                b"fmt " => {
                    let mut fmt = [0; FMT_BYTES];
                    let wanted = usize::try_from(size).unwrap_or(FMT_BYTES).clamp(16, FMT_BYTES);
                    let got = view.fill(&mut fmt[..wanted]).map_err(read)?;
                    let fmt = &fmt[..got];
                    layout = Some(Layout::parse(fmt)?);
                    // A header that claims more than it has runs into the samples: go on where they are announced.
                    let cut = fmt.windows(4).skip(16).position(|id| id == b"data" || id == b"fact");
                    let end = cut.map_or(u64::from(size) + u64::from(size & 1), |at| at as u64 + 16);
                    view.seek(SeekFrom::Start(body + end)).map_err(read)?;
                    continue;
                }
                b"ds64" => {
                    let mut sizes = [0; 16];
                    if view.fill(&mut sizes).map_err(read)? == sizes.len() {
                        long_size = sizes.last_chunk().map(|bytes| u64::from_le_bytes(*bytes));
                    }
                }
                _ => {}
            }
            view.seek(SeekFrom::Start(body + u64::from(size) + u64::from(size & 1))).map_err(read)?;
        }
    }

    fn new(view: View, layout: Layout, bytes: u64) -> Result<Self, Stop> {
        let frame = layout.stride as u64 * u64::from(layout.channels);
        let frames = bytes / frame;
        if frames == 0 {
            return Err(Stop::Empty);
        }
        Ok(Self { view, layout, left: frames * frame, frames, bytes: Vec::new(), interleaved: Vec::new() })
    }

    fn chunk(&self) -> Chunk {
        Chunk { rate: self.layout.rate, channels: u32::from(self.layout.channels), damaged: false }
    }
}

/// How many bytes of samples there are, whatever the header says.
fn data_len(view: &mut View, body: u64, size: u32, long_size: Option<u64>) -> io::Result<u64> {
    let there = view.len().saturating_sub(body);
    let claimed = u64::from(size);
    let len = match size {
        u32::MAX => long_size.filter(|size| (1..=there).contains(size)).unwrap_or(there),
        // Never filled in, unless another chunk follows: then there is really nothing.
        0 => {
            let mut id = [0; 8];
            view.seek(SeekFrom::Start(body))?;
            let next = view.fill(&mut id)? == id.len()
                && [b"LIST", b"fact", b"cue ", b"id3 ", b"ID3 ", b"bext", b"smpl"]
                    .iter()
                    .any(|known| id.starts_with(*known));
            if next { 0 } else { there }
        }
        // Past 4 GiB a careless writer's size wraps round.
        _ if there > u64::from(u32::MAX) && claimed == there & u64::from(u32::MAX) => there,
        _ => claimed.min(there),
    };
    Ok(len)
}

impl Layout {
    fn parse(fmt: &[u8]) -> Result<Self, Stop> {
        let u16_at = |at: usize| fmt.get(at..at + 2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
        let short = || Stop::Damaged("the header is cut short".to_owned());
        let (Some(mut tag), Some(channels), Some(rate_low), Some(rate_high), Some(block), Some(bits)) =
            (u16_at(0), u16_at(2), u16_at(4), u16_at(6), u16_at(12), u16_at(14))
        else {
            return Err(short());
        };
        let rate = u32::from(rate_high) << 16 | u32::from(rate_low);
        if tag == EXTENSIBLE {
            // Without the part that says more, plain integers are all but certain.
            tag = u16_at(24).filter(|tag| matches!(*tag, PCM | FLOAT | A_LAW | MU_LAW)).unwrap_or(PCM);
        }
        if channels == 0 || channels > MAX_CHANNELS {
            return Err(Stop::Damaged(format!("the header says {channels} channels")));
        }
        if rate == 0 {
            return Err(Stop::Damaged("the header says 0 Hz".to_owned()));
        }
        let needed = usize::from(bits).div_ceil(8);
        let per_channel = usize::from(block / channels);
        let fits = block % channels == 0 && (needed.max(1)..=8).contains(&per_channel);
        let stride = if fits { per_channel } else { needed };
        let sample = match (tag, stride) {
            (PCM, 1) => Sample::U8,
            (PCM, 2) => Sample::I16,
            (PCM, 3) => Sample::I24,
            (PCM, 4..=8) => Sample::I32,
            (FLOAT, 4) => Sample::F32,
            (FLOAT, 8) => Sample::F64,
            (A_LAW, 1) => Sample::ALaw,
            (MU_LAW, 1) => Sample::MuLaw,
            (PCM | FLOAT | A_LAW | MU_LAW, _) => {
                return Err(Stop::Damaged(format!("the header says {bits} bits per sample")));
            }
            _ => return Err(Stop::Unsupported(format!("a wav of codec {tag:#06x}"))),
        };
        Ok(Self { sample, stride, channels, rate })
    }
}

impl Sample {
    fn read(self, bytes: &[u8]) -> f32 {
        let whole = |bytes: &[u8]| {
            // Integers are aligned to the top of their container.
            let top = &bytes[bytes.len().saturating_sub(4)..];
            top.iter().rev().fold(0u32, |value, byte| value << 8 | u32::from(*byte)) << (32 - 8 * top.len())
        };
        match self {
            Self::U8 => (f32::from(bytes[0]) - 128.0) / 128.0,
            Self::I16 | Self::I24 | Self::I32 => (whole(bytes).cast_signed() as f64 / 2_147_483_648.0) as f32,
            Self::F32 => f32::from_bits(whole(bytes)),
            Self::F64 => bytes.first_chunk().map_or(0.0, |bytes| f64::from_le_bytes(*bytes) as f32),
            Self::ALaw => a_law(bytes[0]),
            Self::MuLaw => mu_law(bytes[0]),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::U8 => "8-bit",
            Self::I16 => "16-bit",
            Self::I24 => "24-bit",
            Self::I32 => "32-bit",
            Self::F32 => "32-bit float",
            Self::F64 => "64-bit float",
            Self::ALaw => "A-law",
            Self::MuLaw => "mu-law",
        }
    }
}

/// ITU-T G.711.
fn a_law(byte: u8) -> f32 {
    let bits = byte ^ 0x55;
    let (exponent, mantissa) = (i32::from(bits >> 4 & 7), i32::from(bits & 0xf));
    let value = if exponent == 0 { mantissa << 4 | 8 } else { (mantissa << 4 | 0x108) << (exponent - 1) };
    (if bits & 0x80 != 0 { value } else { -value }) as f32 / 32_768.0
}

/// ITU-T G.711.
fn mu_law(byte: u8) -> f32 {
    let bits = !byte;
    let value = ((i32::from(bits & 0xf) << 3 | 0x84) << (bits >> 4 & 7)) - 0x84;
    (if bits & 0x80 != 0 { -value } else { value }) as f32 / 32_768.0
}

impl Frames for Wave {
    fn format(&self) -> Format {
        Format {
            container: Container::Wav,
            codec: Some(self.layout.sample.name().to_owned()),
            sample_rate: Some(self.layout.rate),
            channels: Some(u32::from(self.layout.channels)),
            ffmpeg: false,
        }
    }

    fn declared_seconds(&self) -> Option<f64> {
        Some(self.frames as f64 / f64::from(self.layout.rate))
    }

    fn next(&mut self, mono: &mut Vec<f32>) -> Result<Option<Chunk>, Stop> {
        let channels = usize::from(self.layout.channels);
        let frame = self.layout.stride * channels;
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(STEP * frame);
        self.bytes.resize(wanted, 0);
        let got = self.view.fill(&mut self.bytes).map_err(|error| Stop::Damaged(error.to_string()))?;
        let whole = got / frame * frame;
        if whole == 0 {
            return Ok(None);
        }
        // A source that got shorter under us ends here.
        self.left = if got < wanted { 0 } else { self.left - wanted as u64 };
        self.interleaved.clear();
        let sample = self.layout.sample;
        if (sample, self.layout.stride) == (Sample::I16, 2) {
            // Nearly all of them: worth a loop of its own, which the compiler vectorises.
            let pairs = self.bytes[..whole].chunks_exact(2);
            let samples = pairs.map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0);
            self.interleaved.extend(samples);
            mix(&self.interleaved, channels, mono);
            return Ok(Some(self.chunk()));
        }
        self.interleaved.extend(self.bytes[..whole].chunks_exact(self.layout.stride).map(|bytes| sample.read(bytes)));
        mix(&self.interleaved, channels, mono);
        Ok(Some(self.chunk()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SharedSource;

    fn header(tag: u16, channels: u16, bits: u16, block: u16, data_size: u32) -> Vec<u8> {
        let mut bytes = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\x00\x00\x00".to_vec();
        bytes.extend([tag, channels].iter().flat_map(|v| v.to_le_bytes()));
        bytes.extend(16_000u32.to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend([block, bits].iter().flat_map(|v| v.to_le_bytes()));
        bytes.extend(b"data");
        bytes.extend(data_size.to_le_bytes());
        bytes
    }

    fn read(bytes: Vec<u8>) -> Result<Vec<f32>, Stop> {
        let shared = SharedSource::new(Box::new(io::Cursor::new(bytes))).unwrap();
        let mut wave = Wave::open(shared.view(0))?;
        let mut mono = Vec::new();
        while wave.next(&mut mono)?.is_some() {}
        Ok(mono)
    }

    fn with(header: Vec<u8>, samples: &[u8]) -> Result<Vec<f32>, Stop> {
        read([&header, samples].concat())
    }

    #[test]
    fn every_sample_kind_reads_its_half_scale() {
        let half: [(u16, u16, &[u8]); 8] = [
            (1, 8, &[192]),
            (1, 16, &[0, 0x40]),
            (1, 24, &[0, 0, 0x40]),
            (1, 32, &[0, 0, 0, 0x40]),
            (3, 32, &0.5f32.to_le_bytes()),
            (3, 64, &0.5f64.to_le_bytes()),
            (0xfffe, 16, &[0, 0x40]),
            (1, 12, &[0, 0x40]),
        ];
        for (tag, bits, bytes) in half {
            let block = bytes.len() as u16;
            assert_eq!(with(header(tag, 1, bits, block, block.into()), bytes).unwrap(), [0.5], "{tag} {bits}");
        }
    }

    #[test]
    fn companded_samples_follow_g711() {
        assert_eq!(
            with(header(7, 1, 8, 1, 3), &[0xff, 0x80, 0x00]).unwrap(),
            [0.0, 32_124.0 / 32_768.0, -32_124.0 / 32_768.0]
        );
        assert_eq!(with(header(6, 1, 8, 1, 2), &[0xd5, 0xaa]).unwrap(), [8.0 / 32_768.0, 32_256.0 / 32_768.0]);
    }

    #[test]
    fn sizes_that_lie_are_not_believed() {
        let samples = [0, 0x40, 0, 0xc0];
        for size in [0, u32::MAX, 4, 5000] {
            assert_eq!(with(header(1, 1, 16, 2, size), &samples).unwrap(), [0.5, -0.5], "data size {size}");
        }
        assert_eq!(with(header(1, 1, 16, 2, 2), &samples).unwrap(), [0.5], "what follows the samples is not sound");
        assert_eq!(with(header(1, 2, 16, 0, 4), &samples).unwrap(), [0.0], "a block size of 0");
        assert_eq!(with(header(1, 1, 16, 2, 4), &samples[..3]).unwrap(), [0.5], "half a sample at the end");
    }

    #[test]
    fn a_header_shorter_than_it_claims_is_read() {
        let mut bytes = header(0xfffe, 1, 16, 2, 4);
        bytes[16] = 40;
        assert_eq!(with(bytes, &[0, 0x40, 0, 0xc0]).unwrap(), [0.5, -0.5]);
    }

    #[test]
    fn empty_and_impossible_headers_are_refused() {
        assert!(matches!(with(header(1, 1, 16, 2, 0), &[]), Err(Stop::Empty)));
        assert!(matches!(with(header(1, 1, 16, 2, 0), b"LIST\x00\x00\x00\x00"), Err(Stop::Empty)));
        assert!(matches!(with(header(1, 0, 16, 2, 4), &[0; 4]), Err(Stop::Damaged(_))), "no channels");
        assert!(matches!(with(header(1, 1, 0, 0, 4), &[0; 4]), Err(Stop::Damaged(_))), "no bits");
        assert!(matches!(with(header(2, 1, 4, 1, 4), &[0; 4]), Err(Stop::Unsupported(_))), "ADPCM");
        assert!(matches!(read(b"RIFF\x00\x00\x00\x00WAVE".to_vec()), Err(Stop::Damaged(_))));
        let mut silent = header(1, 1, 16, 2, 4);
        silent[24..28].fill(0);
        assert!(matches!(with(silent, &[0; 4]), Err(Stop::Damaged(_))), "0 Hz");
    }
}
