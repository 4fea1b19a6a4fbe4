//! Files that are not what they should be: a clear refusal, or what can be saved of them.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod media;

use std::{
    fs::{self, File},
    io::{self, Cursor, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use media::{Media, RATE, decode, drain, options, voice, wav};
use warren_audio::{AudioError, DecodeOptions, Decoder, Limits};
use warren_fault::Code;

fn refused(bytes: &[u8]) -> AudioError {
    Decoder::open(Cursor::new(bytes.to_vec()), &options()).expect_err("this should have been refused")
}

fn seconds(samples: &[f32]) -> f64 {
    samples.len() as f64 / f64::from(RATE)
}

#[test]
fn what_is_no_recording_is_refused_with_its_reason() {
    let cases: [(&[u8], &str); 7] = [
        (b"", "the recording is empty"),
        (b"Dear all, please find attached", "looks like text"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "looks like text"),
        (&[0; 200_000], "nothing but zeros"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", "PNG"),
        (&wav(&[], 16_000, 1), "the recording (wav) holds no audio"),
        (b"RIFF\x24\0\0\0WAVE", "cannot be decoded"),
    ];
    for (bytes, reason) in cases {
        let error = refused(bytes);
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(error.code(), Code::InputInvalid);
        assert!(error.fault().is_input());
    }
}

#[test]
fn impossible_headers_are_refused() {
    for rate in [0, 1, u32::MAX] {
        let mut bytes = wav(&voice(1.0, RATE), RATE, 1);
        bytes[24..28].copy_from_slice(&rate.to_le_bytes());
        let error = refused(&bytes);
        assert_eq!(error.code(), Code::InputInvalid, "{rate} Hz: {error}");
    }
}

#[test]
fn samples_that_are_no_numbers_become_silence() {
    let mut bytes = wav(&[0.0; 8000], RATE, 1);
    bytes[20] = 3;
    bytes[32] = 4;
    bytes[34] = 32;
    for (i, sample) in bytes[44..].chunks_exact_mut(4).enumerate() {
        let value = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30][i % 4];
        sample.copy_from_slice(&value.to_le_bytes());
    }
    let (samples, _) = drain(Decoder::open(Cursor::new(bytes), &options()).unwrap()).unwrap();
    assert_eq!(samples.len(), 4000);
    assert!(samples.iter().all(|s| s.is_finite() && s.abs() <= 4.0));
}

#[test]
fn a_cut_off_recording_gives_what_is_there() {
    let media = Media::new();
    let original = media.write("original.wav", &wav(&voice(20.0, 44_100), 44_100, 1));
    let cases: [(&str, &[&str]); 7] = [
        ("a.mp3", &["-b:a", "128k"]),
        ("a.aac", &["-b:a", "128k"]),
        ("a.flac", &[]),
        ("a.ogg", &["-c:a", "libvorbis", "-b:a", "128k"]),
        ("a.opus", &["-b:a", "128k"]),
        ("a.mkv", &["-c:a", "flac"]),
        ("a.wav", &[]),
    ];
    for (name, arguments) in cases {
        let whole = fs::read(media.convert(&original, name, arguments)).unwrap();
        let cut = media.write(&format!("cut-{name}"), &whole[..whole.len() / 2 + 13]);
        let (samples, _) = decode(&cut).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!((7.0..13.0).contains(&seconds(&samples)), "{name}: {} s of half of 20 s", seconds(&samples));
    }
    let whole = fs::read(media.convert(&original, "late.mp4", &["-b:a", "128k"])).unwrap();
    let error = refused(&whole[..whole.len() / 2]);
    assert_eq!(error.code(), Code::InputInvalid, "without its index nothing can be found: {error}");
    let index_first = ["-b:a", "128k", "-movflags", "+faststart"];
    let whole = fs::read(media.convert(&original, "early.mp4", &index_first)).unwrap();
    let (samples, _) = decode(&media.write("cut.mp4", &whole[..whole.len() / 2])).unwrap();
    assert!((7.0..13.0).contains(&seconds(&samples)), "{} s", seconds(&samples));
}

#[test]
fn junk_around_and_inside_a_recording_is_passed_over() {
    let media = Media::new();
    let original = media.write("original.wav", &wav(&voice(20.0, 44_100), 44_100, 1));
    for (name, arguments) in [("a.mp3", &["-b:a", "128k"][..]), ("a.flac", &[]), ("a.wav", &[])] {
        let whole = fs::read(media.convert(&original, name, arguments)).unwrap();
        let (clean, _) = decode(&media.path(name)).unwrap();
        let followed = [&whole[..], &b"TAG and other words".repeat(300)].concat();
        let (samples, _) = decode(&media.write(&format!("followed-{name}"), &followed)).unwrap();
        assert!(samples.len().abs_diff(clean.len()) <= 1600, "{name}: {} of {}", samples.len(), clean.len());
        let mut hurt = whole.clone();
        let middle = hurt.len() / 2;
        hurt[middle..middle + 5000].fill(0x5a);
        let (samples, _) = decode(&media.write(&format!("hurt-{name}"), &hurt)).unwrap();
        let lost = seconds(&clean) - seconds(&samples);
        assert!((-0.2..1.0).contains(&lost), "{name}: {lost} s lost to 5000 bytes");
    }
}

#[test]
fn damage_midway_is_told_and_a_sound_recording_has_none() {
    let media = Media::new();
    let original = media.write("original.wav", &wav(&voice(20.0, 44_100), 44_100, 1));
    let damaged_at = |path: &Path| {
        let mut decoder = media::open(path).unwrap();
        while decoder.next_block().unwrap_or_else(|error| panic!("{path:?}: {error}")).is_some() {}
        decoder.damaged_at()
    };
    for (name, arguments) in [
        ("a.m4a", &["-b:a", "128k", "-movflags", "+faststart"][..]),
        ("a.ogg", &["-c:a", "libvorbis", "-b:a", "128k"]),
        ("a.mkv", &["-c:a", "aac"]),
        ("a.mp3", &["-b:a", "128k"]),
        ("a.flac", &[]),
        ("a.opus", &[]),
    ] {
        let whole = fs::read(media.convert(&original, name, arguments)).unwrap();
        assert_eq!(damaged_at(&media.path(name)), None, "{name}");
        let mut hurt = whole;
        let middle = hurt.len() / 2;
        hurt[middle..middle + 5000].fill(0x5a);
        let at = damaged_at(&media.write(&format!("hurt-{name}"), &hurt));
        // Some formats let a reader skip to the next sound part, so that nobody notices.
        assert!(at.is_none_or(|at| (8.0..13.0).contains(&at)), "{name}: {at:?}");
        assert!(at.is_some() || name != "a.m4a", "its packets have places of their own");
    }
}

#[test]
fn nothing_decodable_is_refused_with_a_reason() {
    let head: &[u8] = b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2";
    for start in [head, b"fLaC\x00\x00\x00\x22", b"OggS\x00\x02", b"\x1a\x45\xdf\xa3\xa3\x42\x82\x88matroska"] {
        let bytes = [start, &b"\x37\x91\xaa\x05\xf0".repeat(5000)].concat();
        let error = refused(&bytes);
        assert_eq!(error.code(), Code::InputInvalid, "{error}");
    }
    let silent = Media::new();
    let plain = silent.write("a.wav", &wav(&voice(1.0, RATE), RATE, 1));
    let film = ["-f", "lavfi", "-i", "testsrc=s=64x64:r=5:d=1", "-map", "1:v"];
    let error = decode(&silent.convert(&plain, "film.mp4", &film)).unwrap_err();
    assert!(error.to_string().contains("holds no audio"), "a film without sound: {error}");
    assert_eq!(error.code(), Code::InputInvalid);
}

#[test]
fn no_mutilated_recording_panics_or_is_blamed_on_us() {
    let media = Media::new();
    let original = media.write("original.wav", &wav(&voice(3.0, 44_100), 44_100, 1));
    let mut state = 99u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize
    };
    // Without ffmpeg, so that it is our own decoders that meet the damage.
    let options = DecodeOptions { ffmpeg: PathBuf::from("/nowhere/ffmpeg"), ..options() };
    for (name, arguments) in [
        ("a.mp3", &["-b:a", "64k"][..]),
        ("a.m4a", &["-b:a", "64k"]),
        ("a.flac", &[]),
        ("a.ogg", &["-c:a", "libvorbis"]),
        ("a.mkv", &["-c:a", "aac"]),
        ("a.wav", &[]),
    ] {
        let whole = fs::read(media.convert(&original, name, arguments)).unwrap();
        for _ in 0..40 {
            let mut hurt = whole.clone();
            for _ in 0..1 + random() % 20 {
                // Headers are where it hurts.
                let at = if random() % 2 == 0 { random() % 600 } else { random() } % hurt.len();
                hurt[at] = random() as u8;
            }
            if let Err(error) = Decoder::open(Cursor::new(hurt), &options).and_then(drain) {
                let blame = matches!(error, AudioError::FfmpegMissing { .. }) || error.code().is_input();
                assert!(blame, "{name}: {error}");
            }
        }
    }
}

#[test]
fn what_unpacks_beyond_the_limits_is_stopped() {
    let media = Media::new();
    let zeros = media.write("zeros.wav", &wav(&vec![0.0; 600 * 8000], 8000, 1));
    for (name, arguments) in [("zeros.flac", &[][..]), ("zeros.opus", &["-b:a", "8k"])] {
        let path = media.convert(&zeros, name, arguments);
        let limits = Limits { max_seconds: 60.0, ..Limits::default() };
        let limited = DecodeOptions { limits, ..options() };
        let error = Decoder::open(File::open(&path).unwrap(), &limited).and_then(drain).unwrap_err();
        assert_eq!(error.code(), Code::InputTooLong, "{name}: {error}");
    }
    let limits = Limits { max_samples: 1_000_000, ..Limits::default() };
    let error = Decoder::open(File::open(&zeros).unwrap(), &DecodeOptions { limits, ..options() });
    assert_eq!(error.and_then(drain).unwrap_err().code(), Code::InputTooLong);
}

/// A source that fails past a point, as a storage does that goes away.
struct Failing {
    inner: Cursor<Vec<u8>>,
    beyond: u64,
}

impl Read for Failing {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.inner.position() >= self.beyond {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the storage does not answer"));
        }
        let room = usize::try_from(self.beyond - self.inner.position()).unwrap().min(into.len());
        self.inner.read(&mut into[..room])
    }
}

impl Seek for Failing {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

#[test]
fn trouble_of_the_storage_is_never_taken_for_damage() {
    let media = Media::new();
    let original = media.write("original.wav", &wav(&voice(60.0, 44_100), 44_100, 1));
    for (name, arguments) in [
        ("a.wav", &[][..]),
        ("a.mp3", &["-b:a", "128k"]),
        ("a.flac", &[]),
        ("a.m4a", &["-b:a", "128k"]),
        ("a.ogg", &["-c:a", "libvorbis"]),
        ("a.opus", &["-b:a", "128k"]),
    ] {
        let bytes = fs::read(media.convert(&original, name, arguments)).unwrap();
        for beyond in [0, 100_000, bytes.len() as u64 - 50_000] {
            let source = Failing { inner: Cursor::new(bytes.clone()), beyond };
            let error = Decoder::open(source, &options()).and_then(drain).expect_err(name);
            assert!(matches!(error, AudioError::Read { .. }), "{name} from {beyond}: {error}");
            assert!(error.to_string().contains("does not answer"), "{error}");
            assert!(!error.fault().is_input());
        }
    }
}

#[test]
fn a_missing_ffmpeg_is_named_with_the_remedy() {
    let media = Media::new();
    let original = media.write("original.wav", &wav(&voice(2.0, 44_100), 44_100, 1));
    let opus = media.convert(&original, "a.opus", &[]);
    let limits = Limits { ffmpeg_stall: Duration::from_secs(5), ..Limits::default() };
    for program in ["/nowhere/ffmpeg", "ffmpeg-that-nobody-has"] {
        let options = DecodeOptions { ffmpeg: PathBuf::from(program), limits: limits.clone(), ..options() };
        let error = Decoder::open(File::open(&opus).unwrap(), &options).unwrap_err();
        assert!(matches!(error, AudioError::FfmpegMissing { .. }), "{error}");
        assert!(error.to_string().contains("install the package `ffmpeg`"), "{error}");
        assert!(!error.fault().is_input(), "the caller is not to blame");
    }
}
