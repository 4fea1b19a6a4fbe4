//! The same recording in every format decodes to the same sound.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod media;

use media::{Media, RATE, decode, likeness, voice, wav};
use warren_audio::{HEAD_BYTES, declared_seconds};

const SECONDS: f64 = 12.4;

fn assert_same(name: &str, samples: &[f32], wanted: &[f32]) {
    let seconds = |samples: &[f32]| samples.len() as f64 / f64::from(RATE);
    let drift = (seconds(samples) - seconds(wanted)).abs();
    assert!(drift < 0.1, "{name}: {} s instead of {} s", seconds(samples), seconds(wanted));
    let likeness = likeness(samples, wanted);
    assert!(likeness > 0.97, "{name}: likeness {likeness}");
    // The end too: a lag that grows would show here.
    let tail = |samples: &[f32]| samples[samples.len() - 3 * RATE as usize..].to_vec();
    let likeness = media::likeness(&tail(samples), &tail(wanted));
    assert!(likeness > 0.97, "{name}: likeness {likeness} at the end");
}

#[test]
fn every_format_sounds_like_the_wav() {
    let media = Media::new();
    let original = media.write("original.wav", &wav(&voice(SECONDS, 44_100), 44_100, 2));
    let (wanted, format) = decode(&original).unwrap();
    assert_eq!(format, "wav, 16-bit, 44100 Hz, 2 channels");
    let video = ["-f", "lavfi", "-i", "testsrc=s=64x64:r=5:d=12", "-shortest"];
    let with_video = |rest: &[&'static str]| [&video[..], rest].concat();
    let cases: Vec<(&str, Vec<&str>, &str)> = vec![
        ("a.mp3", vec!["-b:a", "128k"], "mp3, 44100 Hz, 2 channels"),
        ("mono.mp3", vec!["-b:a", "64k", "-ac", "1", "-ar", "22050"], "mp3, 22050 Hz, 1 channel"),
        ("a.m4a", vec!["-b:a", "128k"], "m4a, aac, 44100 Hz, 2 channels"),
        ("alac.m4a", vec!["-c:a", "alac"], "m4a, alac, 44100 Hz, 2 channels"),
        ("a.aac", vec!["-b:a", "128k"], "aac, 44100 Hz, 2 channels"),
        ("a.flac", vec![], "flac, 44100 Hz, 2 channels"),
        ("a.ogg", vec!["-c:a", "libvorbis", "-b:a", "128k"], "ogg/vorbis, 44100 Hz, 2 channels"),
        ("flac.ogg", vec!["-c:a", "flac"], "ogg/flac, 44100 Hz, 2 channels"),
        ("a.opus", vec!["-c:a", "libopus", "-b:a", "128k"], "ogg/opus, through ffmpeg"),
        ("sound.mp4", vec!["-b:a", "128k"], "mp4, aac, 44100 Hz, 2 channels"),
        ("film.mp4", with_video(&["-c:a", "aac", "-b:a", "128k"]), "mp4, aac, 44100 Hz, 2 channels"),
        ("parts.mp4", vec!["-b:a", "128k", "-movflags", "frag_keyframe+empty_moov"], "mp4, aac, 44100 Hz, 2 channels"),
        ("film.mov", with_video(&["-c:a", "aac", "-b:a", "128k"]), "mov, aac, 44100 Hz, 2 channels"),
        ("film.mkv", with_video(&["-c:a", "aac", "-b:a", "128k"]), "mkv, aac, 44100 Hz, 2 channels"),
        ("flac.mkv", vec!["-c:a", "flac"], "mkv, flac, 44100 Hz, 2 channels"),
        ("vorbis.webm", vec!["-c:a", "libvorbis", "-b:a", "128k"], "webm, vorbis, 44100 Hz, 2 channels"),
        ("opus.webm", vec!["-c:a", "libopus", "-b:a", "128k"], "webm, through ffmpeg"),
        ("ac3.mp4", vec!["-c:a", "ac3", "-b:a", "192k"], "mp4, through ffmpeg"),
        ("adpcm.wav", vec!["-c:a", "adpcm_ms"], "wav, adpcm_ms, 44100 Hz, 2 channels"),
        ("law.wav", vec!["-c:a", "pcm_alaw", "-ar", "8000", "-ac", "1"], "wav, A-law, 8000 Hz, 1 channel"),
        ("a.w64", vec![], "w64, through ffmpeg"),
        ("a.aiff", vec![], "aiff, through ffmpeg"),
        ("a.caf", vec![], "caf, through ffmpeg"),
        ("a.au", vec![], "au, through ffmpeg"),
        ("a.mp2", vec!["-b:a", "192k"], "mp2, through ffmpeg"),
        ("a.ac3", vec!["-b:a", "192k"], "ac3, through ffmpeg"),
        ("a.wma", vec!["-b:a", "128k"], "asf, through ffmpeg"),
        ("a.ts", vec!["-c:a", "mp2", "-b:a", "192k"], "mpeg-ts, through ffmpeg"),
        ("a.mpg", with_video(&["-c:a", "mp2", "-b:a", "192k", "-r", "25"]), "mpeg-ps, through ffmpeg"),
        ("a.avi", with_video(&["-c:a", "mp3", "-b:a", "128k"]), "avi, through ffmpeg"),
        ("a.flv", with_video(&["-c:a", "mp3", "-b:a", "128k"]), "flv, through ffmpeg"),
        ("a.wv", vec![], "wavpack, through ffmpeg"),
        ("a.tta", vec![], "tta, through ffmpeg"),
    ];
    for (name, arguments, format) in cases {
        let path = media.convert(&original, name, &arguments);
        let (samples, found) = decode(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found, format, "{name}");
        let film = arguments.contains(&"lavfi");
        // The film is a little shorter than the sound and cuts it.
        let wanted = if film { &wanted[..samples.len().clamp(12 * 16_000 - 1600, wanted.len())] } else { &wanted[..] };
        assert_same(name, &samples, wanted);
    }
}

#[test]
fn every_rate_width_and_count_of_channels_is_read() {
    let media = Media::new();
    let original = media.write("original.wav", &wav(&voice(SECONDS, 48_000), 48_000, 1));
    let (wanted, _) = decode(&original).unwrap();
    let cases: [(&str, &[&str]); 12] = [
        ("8k.wav", &["-ar", "8000"]),
        ("16k.wav", &["-ar", "16000"]),
        ("96k.wav", &["-ar", "96000"]),
        ("192k.flac", &["-ar", "192000"]),
        ("eight-bit.wav", &["-c:a", "pcm_u8"]),
        ("24.wav", &["-c:a", "pcm_s24le"]),
        ("32.wav", &["-c:a", "pcm_s32le"]),
        ("float.wav", &["-c:a", "pcm_f32le"]),
        ("double.wav", &["-c:a", "pcm_f64le"]),
        ("stereo.wav", &["-ac", "2"]),
        ("eight.wav", &["-af", "pan=7.1|c0=c0|c1=c0|c2=c0|c3=c0|c4=c0|c5=c0|c6=c0|c7=c0"]),
        ("rf64.wav", &["-rf64", "always"]),
    ];
    for (name, arguments) in cases {
        let path = media.convert(&original, name, arguments);
        let (samples, format) = decode(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!format.contains("ffmpeg"), "{name}: {format}");
        assert_same(name, &samples, &wanted);
        assert!(samples.len().abs_diff(wanted.len()) <= 8, "{name}: {} of {}", samples.len(), wanted.len());
    }
}

#[test]
fn a_large_cover_picture_does_not_hide_the_sound() {
    let media = Media::new();
    let original = media.write("original.wav", &wav(&voice(SECONDS, 44_100), 44_100, 1));
    let (wanted, _) = decode(&original).unwrap();
    let plain = std::fs::read(media.convert(&original, "plain.mp3", &["-b:a", "128k"])).unwrap();
    let size = 300_000usize;
    let mut tagged = b"ID3\x03\x00\x00".to_vec();
    tagged.extend([21, 14, 7, 0].map(|shift| (size >> shift & 0x7f) as u8));
    tagged.extend(vec![0; size]);
    tagged.extend(plain);
    let (samples, format) = decode(&media.write("tagged.mp3", &tagged)).unwrap();
    assert_eq!(format, "mp3, 44100 Hz, 1 channel");
    assert_same("tagged.mp3", &samples, &wanted);
}

#[test]
fn the_length_it_claims_is_known_beforehand() {
    let media = Media::new();
    let original = media.write("original.wav", &wav(&voice(SECONDS, 44_100), 44_100, 1));
    for (name, arguments) in [("a.m4a", &["-b:a", "128k"][..]), ("a.flac", &[]), ("a.wav", &[])] {
        let claimed = media::open(&media.convert(&original, name, arguments)).unwrap().declared_seconds();
        assert!(claimed.is_some_and(|seconds| (seconds - SECONDS).abs() < 0.1), "{name}: {claimed:?}");
    }
}

#[test]
fn the_first_bytes_tell_the_length_where_the_format_has_it_there() {
    let media = Media::new();
    let original = media.write("original.wav", &wav(&voice(45.0, 44_100), 44_100, 1));
    let told = |name: &str, arguments: &[&str]| {
        let bytes = std::fs::read(media.convert(&original, name, arguments)).unwrap();
        let head = &bytes[..bytes.len().min(HEAD_BYTES)];
        declared_seconds(head, bytes.len() as u64).map(|seconds| seconds.round())
    };
    assert_eq!(told("a.wav", &["-c:a", "pcm_s24le"]), Some(45.0));
    assert_eq!(told("a.flac", &[]), Some(45.0));
    assert_eq!(told("a.mp3", &["-b:a", "96k"]), None, "only its end tells");
    assert_eq!(declared_seconds(b"no recording", 12), None);
}
