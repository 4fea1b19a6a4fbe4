//! Transcripts as files.

use std::fmt::Write;

use serde::Serialize;

use super::Segment;

/// A transcript as a JSON document; serialise it with any serde format.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Document<'a> {
    /// ISO 639-1; empty when nothing was said.
    pub language: &'a str,
    /// Seconds of the recording.
    pub duration: f64,
    /// Model that heard it.
    pub model: &'a str,
    /// How it was decoded: `fast`, `balanced` or `best`.
    pub quality: &'a str,
    /// Hypotheses that were followed side by side; 1 is greedy.
    pub beam_size: u32,
    /// False when parts are missing.
    pub complete: bool,
    /// The whole text.
    pub text: String,
    /// In order of time.
    pub segments: &'a [Segment],
}

/// Languages written without spaces between words.
///
/// Source: the set that Whisper's tokenizer splits by character instead of by space
/// (openai/whisper `tokenizer.py`, `split_to_word_tokens`), and Khmer and Tibetan, whose scripts do the same.
const UNSPACED: [&str; 8] = ["zh", "ja", "th", "lo", "my", "yue", "km", "bo"];

/// The plain text of a transcript. `language`: ISO 639-1; decides whether segments are joined by a space.
pub fn text(segments: &[Segment], language: &str) -> String {
    joined(segments.iter().map(|segment| segment.text.as_str()), language)
}

/// Joins pieces of speech as `language` writes them. Blank pieces leave no trace.
pub fn joined<'a>(pieces: impl IntoIterator<Item = &'a str>, language: &str) -> String {
    let primary = language.split(['-', '_']).next().unwrap_or_default();
    let glue = if UNSPACED.iter().any(|unspaced| primary.eq_ignore_ascii_case(unspaced)) { "" } else { " " };
    let mut out = String::new();
    for piece in pieces.into_iter().map(str::trim).filter(|piece| !piece.is_empty()) {
        if !out.is_empty() {
            out.push_str(glue);
        }
        out.push_str(piece);
    }
    out
}

/// SubRip: numbered cues, `HH:MM:SS,mmm`. Empty without segments.
pub fn srt(segments: &[Segment]) -> String {
    let mut out = String::new();
    for (index, segment) in segments.iter().enumerate() {
        // An arrow inside the text would read as a cue of its own.
        let text = one_line(&segment.text).replace("-->", "->");
        let (start, end) = (time(segment.start, ','), time(segment.end, ','));
        write!(out, "{}\n{start} --> {end}\n{text}\n\n", index + 1).expect("a String takes any write");
    }
    out
}

/// WebVTT: `WEBVTT`, then cues with `HH:MM:SS.mmm`; the text is escaped.
///
/// Source: W3C "WebVTT: The Web Video Text Tracks Format", section 4.
pub fn vtt(segments: &[Segment]) -> String {
    let mut out = String::from("WEBVTT\n\n");
    for segment in segments {
        let text = one_line(&segment.text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let (start, end) = (time(segment.start, '.'), time(segment.end, '.'));
        write!(out, "{start} --> {end}\n{text}\n\n").expect("a String takes any write");
    }
    out
}

/// A blank line would end the cue early.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn time(seconds: f64, point: char) -> String {
    // The cast saturates, so odd values give odd times but no panic.
    let ms = (seconds * 1000.0).round() as u64;
    format!("{:02}:{:02}:{:02}{point}{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: f64, end: f64, text: &str) -> Segment {
        Segment { start, end, text: text.into(), avg_logprob: -0.25, no_speech_prob: 0.5 }
    }

    #[test]
    fn srt_numbers_its_cues() {
        let srt = srt(&[segment(0.0, 1.9996, "Hello."), segment(3661.5, 360_000.25, "two\n\nlines --> here")]);
        assert_eq!(
            srt,
            "1\n00:00:00,000 --> 00:00:02,000\nHello.\n\n2\n01:01:01,500 --> 100:00:00,250\ntwo lines -> here\n\n"
        );
    }

    #[test]
    fn vtt_has_its_header_and_escapes_text() {
        assert_eq!(vtt(&[]), "WEBVTT\n\n");
        let vtt = vtt(&[segment(59.999, 60.0, "a < b & c --> d")]);
        assert_eq!(vtt, "WEBVTT\n\n00:00:59.999 --> 00:01:00.000\na &lt; b &amp; c --&gt; d\n\n");
    }

    #[test]
    fn words_are_joined_as_the_language_writes() {
        let pieces = |one, two| [segment(0.0, 1.0, one), segment(1.0, 2.0, "  "), segment(2.0, 3.0, two)];
        assert_eq!(text(&pieces("Hello", " world "), "en"), "Hello world");
        assert_eq!(text(&pieces("你好", "世界"), "zh"), "你好世界");
        assert_eq!(text(&pieces("你好", "世界"), "ZH-tw"), "你好世界");
        assert_eq!(text(&pieces("annyeong", "hi"), "ko"), "annyeong hi");
        assert_eq!(text(&[], "en"), "");
    }

    #[test]
    fn json_names_its_fields() {
        let segments = [segment(0.0, 1.5, "Hi")];
        let document = Document {
            language: "en",
            duration: 1.5,
            model: "whisper-tiny",
            quality: "balanced",
            beam_size: 1,
            complete: true,
            text: text(&segments, "en"),
            segments: &segments,
        };
        let expected = concat!(
            r#"{"language":"en","duration":1.5,"model":"whisper-tiny","quality":"balanced","#,
            r#""beam_size":1,"complete":true,"text":"Hi","#,
            r#""segments":[{"start":0.0,"end":1.5,"text":"Hi","avg_logprob":-0.25,"no_speech_prob":0.5}]}"#
        );
        assert_eq!(serde_json::to_string(&document).unwrap(), expected);
    }
}
