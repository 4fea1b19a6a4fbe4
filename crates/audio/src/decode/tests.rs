use std::io::Cursor;

use super::*;

/// Six seconds of a rising tone as a 16 kHz wav.
fn rising() -> Vec<u8> {
    let samples = (0..96_000i32).flat_map(|i| {
        let t = f64::from(i) / 16_000.0;
        let value = (t * (1000.0 + 300.0 * t)).sin() * 9000.0;
        (value.round() as i16).to_le_bytes()
    });
    let mut bytes =
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\0\0\0\0".to_vec();
    bytes.extend(samples);
    bytes
}

/// A decoder that does something else than decode.
struct Stumbling(Next);

impl Frames for Stumbling {
    fn format(&self) -> Format {
        Format { container: Container::Wav, codec: None, sample_rate: None, channels: None, ffmpeg: false }
    }

    fn declared_seconds(&self) -> Option<f64> {
        None
    }

    fn next(&mut self, _: &mut Vec<f32>) -> Result<Option<Chunk>, Stop> {
        self.0()
    }
}

type Next = fn() -> Result<Option<Chunk>, Stop>;

fn samples(mut decoder: Decoder, stumble: Option<Next>) -> Vec<f32> {
    let mut samples = decoder.next_block().unwrap().unwrap();
    if let Some(stumble) = stumble {
        decoder.frames = Box::new(Stumbling(stumble));
    }
    for block in decoder {
        samples.extend(block.unwrap());
    }
    samples
}

fn open(options: &DecodeOptions) -> Decoder {
    Decoder::open(Cursor::new(rising()), options).unwrap()
}

#[test]
fn ffmpeg_goes_on_where_our_decoder_stumbles_or_panics() {
    let options = DecodeOptions::default();
    let whole = samples(open(&options), None);
    assert_eq!(whole.len(), 96_000);
    let damaged: Next = || Err(Stop::Damaged("nonsense".to_owned()));
    for stumble in [damaged, || panic!("a decoder's own mistake")] {
        let saved = samples(open(&options), Some(stumble));
        assert_eq!(saved.len(), whole.len());
        let worst = saved.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-3, "off by {worst}");
    }
}

#[test]
fn without_ffmpeg_a_stumble_is_the_end() {
    let options = DecodeOptions { ffmpeg: "/nowhere/ffmpeg".into(), ..DecodeOptions::default() };
    let saved = samples(open(&options), Some(|| Err(Stop::Damaged("nonsense".to_owned()))));
    assert!((16_000..96_000).contains(&saved.len()));
}

#[test]
fn mixing_takes_the_mean_of_finite_samples() {
    let mut mono = Vec::new();
    mix(&[0.5, 0.25, f32::NAN, 1.0, f32::INFINITY, f32::NEG_INFINITY, 9.0, 0.0], 2, &mut mono);
    assert_eq!(mono, [0.375, 0.5, 0.0, LOUDEST / 2.0]);
}

#[test]
fn a_format_reads_like_a_sentence() {
    let mut format =
        Format { container: Container::Mp3, codec: None, sample_rate: Some(44_100), channels: Some(2), ffmpeg: false };
    assert_eq!(format.to_string(), "mp3, 44100 Hz, 2 channels");
    format = Format { channels: Some(1), codec: Some("x".to_owned()), ..format };
    assert_eq!(format.to_string(), "mp3, x, 44100 Hz, 1 channel");
}
