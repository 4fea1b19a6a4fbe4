//! One recording in every promised format: the text stays the same.

use std::path::{Path, PathBuf};

use warren_recordings::error_rate;
use warren_tests::{recordings, stack::Stack, wave};

/// File name and ffmpeg's options; the lossy ones have at least 128 kbit/s.
const COPIES: [(&str, &[&str]); 9] = [
    ("copy.mp3", &["-c:a", "libmp3lame", "-b:a", "128k"]),
    ("copy.m4a", &["-c:a", "aac", "-b:a", "128k"]),
    ("copy.flac", &["-c:a", "flac"]),
    ("vorbis.ogg", &["-c:a", "libvorbis", "-b:a", "128k", "-ar", "44100"]),
    ("opus.ogg", &["-c:a", "libopus", "-b:a", "128k"]),
    ("copy.mp4", &["-c:a", "aac", "-b:a", "128k", "-ar", "44100", "-ac", "2"]),
    ("copy.mkv", &["-c:a", "libvorbis", "-b:a", "128k", "-ar", "48000"]),
    ("copy.webm", &["-c:a", "libopus", "-b:a", "128k"]),
    ("unlabelled", &["-c:a", "flac", "-f", "flac"]),
];

#[test]
fn every_format_has_the_same_text() {
    let stack = Stack::start();
    let original = recordings::long_english(&stack.folder().join("original.wav"), 6);
    assert!(error_rate::normalised_words(&original.text).len() >= 200);
    let mut files = vec![original.path.clone()];
    files.extend(COPIES.iter().map(|(name, options)| copy(&original.path, stack.folder().join(name), options)));

    let mut arguments = vec!["transcribe", "--json", "--model", "tiny.en"];
    arguments.extend(files.iter().map(|file| file.to_str().expect("a plain name")));
    let heard = stack.warren(&arguments).ok().json_lines();
    assert_eq!(heard.len(), files.len());
    let text = |index: usize| heard[index]["text"].as_str().expect("a text");
    let of_wav = text(0);
    let errors = error_rate::words(&one_figure(&original.text), &one_figure(of_wav));
    println!("wav: {:.1} % from what was said", errors * 100.0);
    assert!(errors <= 0.15, "{of_wav}");
    let mut bad = Vec::new();
    for (index, (name, _)) in COPIES.iter().enumerate() {
        let errors = error_rate::words(&one_figure(of_wav), &one_figure(text(index + 1)));
        println!("{name}: {:.1} % from the wav's text", errors * 100.0);
        let duration = heard[index + 1]["duration"].as_f64().unwrap_or_default();
        // Encoders add a little silence.
        if errors > 0.02 || (duration - original.seconds).abs() > 0.2 {
            bad.push(format!("{name}: {errors:.3}, {duration} s: {}", text(index + 1)));
        }
    }
    assert!(bad.is_empty(), "the wav's text: {of_wav}\n{}", bad.join("\n"));
    stack.stop();
}

/// Figures that follow each other as one word: `1-234-5` and `1, 2, 3, 4, 5` were heard alike.
fn one_figure(text: &str) -> String {
    let mut plain = String::new();
    let mut in_figure = false;
    for word in error_rate::normalised_words(text) {
        let figure = word.chars().all(|c| c.is_ascii_digit());
        if !(figure && in_figure) {
            plain.push(' ');
        }
        plain.push_str(&word);
        in_figure = figure;
    }
    plain
}

/// Films get a picture too.
fn copy(from: &Path, to: PathBuf, options: &[&str]) -> PathBuf {
    if to.extension().is_none_or(|extension| extension != "mp4" && extension != "mkv") {
        return wave::convert(from, &to, options);
    }
    let picture =
        ["-f", "lavfi", "-i", "color=size=64x48:rate=5", "-map", "0:a", "-map", "1:v", "-c:v", "mpeg4", "-shortest"];
    wave::convert(from, &to, &[&picture, options].concat())
}

#[test]
fn figures_are_compared_by_their_digits() {
    assert_eq!(one_figure("One, two, three. Hello 1-23 world"), " 123 hello 123 world");
}
