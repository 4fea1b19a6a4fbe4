use std::{io::Cursor, path::Path};

use warren_fault::{Code, Fault};

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
fn without_an_ffmpeg_that_runs_a_stumble_is_no_end() {
    let broken = tempfile::NamedTempFile::new().unwrap();
    for ffmpeg in [Path::new("/nowhere/ffmpeg"), broken.path()] {
        let mut decoder = open(&DecodeOptions { ffmpeg: ffmpeg.to_owned(), ..DecodeOptions::default() });
        decoder.next_block().unwrap();
        decoder.frames = Box::new(Stumbling(|| Err(Stop::Damaged("nonsense".to_owned()))));
        let error = loop {
            match decoder.next_block() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended as if nothing were missing"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), Code::Internal, "{error}");
        assert!(matches!(error.fault(), Fault::Retryable(_)), "{error}");
    }
}

#[test]
fn damage_is_told_with_its_place() {
    let options = DecodeOptions::default();
    let end = |stumble: Next| {
        let mut decoder = open(&options);
        decoder.next_block().unwrap();
        decoder.frames = Box::new(Stumbling(stumble));
        while decoder.next_block().unwrap().is_some() {}
        decoder
    };
    assert_eq!(end(|| Ok(None)).damaged_at(), None);
    assert_eq!(end(|| Err(Stop::Damaged("nonsense".to_owned()))).damaged_at(), None, "ffmpeg has the rest");

    // Its end is not where its header says.
    for (container, declared, cut) in
        [(Container::Flac, 9.0, true), (Container::Flac, 6.5, false), (Container::Mp3, 9.0, false)]
    {
        let mut decoder = open(&options);
        (decoder.format.container, decoder.declared_seconds) = (container, Some(declared));
        while decoder.next_block().unwrap().is_some() {}
        let at = decoder.damaged_at();
        assert_eq!(at.is_some_and(|at| (5.8..=6.1).contains(&at)), cut, "{container}, {declared} s: {at:?}");
    }

    // Our own decoder gave all there is before it stumbled.
    let mut decoder = open(&options);
    while decoder.made < 6 * u64::from(SAMPLE_RATE) - 1000 {
        decoder.next_block().unwrap().unwrap();
    }
    decoder.frames = Box::new(Stumbling(|| Err(Stop::Damaged("nonsense".to_owned()))));
    while decoder.next_block().unwrap().is_some() {}
    let at = decoder.damaged_at().expect("nothing follows");
    assert!((5.8..=6.1).contains(&at), "{at}");

    let silence: Next = || Ok(Some(Chunk { rate: SAMPLE_RATE, channels: 1, damaged: true }));
    let mut decoder = open(&options);
    decoder.next_block().unwrap();
    decoder.frames = Box::new(Stumbling(silence));
    decoder.step().unwrap();
    let at = decoder.damaged_at().expect("a packet was lost");
    decoder.step().unwrap();
    assert!((0.5..6.1).contains(&at) && decoder.damaged_at() == Some(at), "the first place stands: {at}");
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
