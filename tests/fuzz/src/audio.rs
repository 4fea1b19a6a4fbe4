//! Recordings, decoded in this process. What only ffmpeg reads is a child's business, bounded there.

use std::{io::Cursor, path::PathBuf};

use warren_audio::{AudioError, BLOCK, Container, DecodeOptions, Decoder, HEAD_BYTES, Limits, declared_seconds, sniff};

/// Seconds and samples, so that one input takes milliseconds. The product's limits differ in size alone.
const MAX_SECONDS: f64 = 600.0;
const MAX_SAMPLES: u64 = 20_000_000;
/// What the decoder lets through, see `mix`; the resampler overshoots a little.
const LOUDEST: f32 = 16.0;

/// The first bytes of an upload, which decide whether it is a recording and how long it claims to be.
pub fn audio_head(data: &[u8]) {
    let head = &data[..data.len().min(HEAD_BYTES)];
    match sniff(head) {
        Ok(container) => assert!(!container.as_str().is_empty()),
        Err(stranger) => assert!(!stranger.fault("it").cause().message.is_empty()),
    }
    for size in [data.len() as u64, u64::MAX] {
        assert!(declared_seconds(head, size).is_none_or(f64::is_finite));
    }
}

macro_rules! containers {
    ($($(#[doc = $doc:literal])+ $name:ident $($container:ident)+,)+) => {
        $($(#[doc = $doc])+ pub fn $name(data: &[u8]) {
            decode(data, &[$(Container::$container),+]);
        })+
    };
}

containers! {
    /// Plain samples in RIFF WAVE and its 64-bit forms.
    audio_wav Wav,
    /// RIFF WAVE of other codecs: ADPCM of Microsoft and IMA.
    audio_wav_adpcm Wav,
    /// MPEG layer III.
    audio_mp3 Mp3,
    /// AAC in ADTS frames.
    audio_aac Aac,
    /// FLAC.
    audio_flac Flac,
    /// Vorbis in Ogg.
    audio_ogg_vorbis OggVorbis,
    /// FLAC in Ogg.
    audio_ogg_flac OggFlac,
    /// AAC in MPEG-4 and its relatives, whole and in fragments.
    audio_mp4_aac Mp4 M4a Mov ThreeGp,
    /// Apple Lossless in MPEG-4.
    audio_mp4_alac Mp4 M4a Mov ThreeGp,
    /// FLAC, MP3 and plain samples in MPEG-4 and QuickTime.
    audio_mp4_other Mp4 M4a Mov ThreeGp,
    /// AAC, FLAC, MP3, Vorbis and plain samples in Matroska and WebM.
    audio_mkv Matroska Webm,
}

/// Decodes what is in one of these containers, to the end.
fn decode(data: &[u8], containers: &[Container]) {
    if sniff(&data[..data.len().min(HEAD_BYTES)]).is_ok_and(|found| !containers.contains(&found)) {
        return;
    }
    let options = DecodeOptions {
        limits: Limits { max_seconds: MAX_SECONDS, max_samples: MAX_SAMPLES, ..Limits::default() },
        ffmpeg: PathBuf::from("/nowhere/ffmpeg"),
        ..DecodeOptions::default()
    };
    let mut decoder = match Decoder::open(Cursor::new(data.to_owned()), &options) {
        Ok(decoder) => decoder,
        Err(error) => return refused(&error),
    };
    assert!(!decoder.format().to_string().is_empty());
    let mut samples = 0;
    loop {
        match decoder.next_block() {
            Ok(Some(block)) => {
                assert!((1..=BLOCK).contains(&block.len()), "a block of {}", block.len());
                assert!(block.iter().all(|sample| sample.abs() <= LOUDEST), "a sample that is none");
                samples += block.len() as u64;
            }
            Ok(None) => break,
            Err(error) => return refused(&error),
        }
    }
    assert_eq!(decoder.delivered_samples(), samples);
    assert!(samples > 0 && samples as f64 <= MAX_SECONDS * 16_000.0 + BLOCK as f64, "{samples} samples");
    assert!(decoder.damaged_at().is_none_or(|at| (0.0..=MAX_SECONDS + 1.0).contains(&at)));
}

fn refused(error: &AudioError) {
    assert!(!matches!(error, AudioError::Read { .. }), "memory can always be read: {error}");
    let fault = error.fault();
    let message = &fault.cause().message;
    assert!(message.contains("the recording") || message.contains("ffmpeg"), "{message}");
    assert!(message.len() < 1_000, "{} bytes of message", message.len());
}

/// Small recordings of every plain kind.
pub fn waves() -> Vec<Vec<u8>> {
    let kinds = [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64), (6, 8), (7, 8), (0xfffe, 16)];
    kinds.into_iter().flat_map(|(tag, bits)| [wave(tag, bits, 1), wave(tag, bits, 2)]).collect()
}

fn wave(tag: u16, bits: u16, channels: u16) -> Vec<u8> {
    let block = channels * bits / 8;
    let samples: Vec<u8> = (0..u16::from(u8::MAX) * block).map(|at| (at * 7) as u8).collect();
    let mut bytes = b"RIFF\xff\xff\xff\xffWAVEfmt ".to_vec();
    let extensible = tag == 0xfffe;
    bytes.extend(if extensible { 40_u32 } else { 16 }.to_le_bytes());
    bytes.extend([tag, channels].iter().flat_map(|value| value.to_le_bytes()));
    bytes.extend(8_000_u32.to_le_bytes());
    bytes.extend((8_000 * u32::from(block)).to_le_bytes());
    bytes.extend([block, bits].iter().flat_map(|value| value.to_le_bytes()));
    if extensible {
        bytes.extend([22, bits, 3, 0].iter().flat_map(|value| value.to_le_bytes()));
        bytes.extend(b"\x01\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71");
    }
    bytes.extend(b"data");
    bytes.extend((samples.len() as u32).to_le_bytes());
    bytes.extend(samples);
    bytes
}
