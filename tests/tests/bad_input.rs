//! What is not a good recording is refused with a documented code, or transcribed rightly; no worker dies of it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use warren_recordings::error_rate;
use warren_tests::{
    cases::Cases,
    nightly,
    recordings::{self, Recording, inaugural},
    stack::Stack,
    wait::until,
    wave,
};

/// A recording of hours takes its time.
const LONG: Duration = Duration::from_secs(590);

#[test]
fn nothing_dies_of_bad_input() {
    let stack = Stack::start();
    let before = stack.ps();
    let mut cases = Cases::new();
    cases.case("an empty file", || {
        refused(&stack, &file(&stack, "empty.wav", b""), "InputInvalid");
    });
    cases.case("a text that is called a recording", || {
        let text = "This is no recording, whatever its name says.\n".repeat(1000);
        refused(&stack, &file(&stack, "text.mp3", text.as_bytes()), "InputInvalid");
    });
    cases.case("noise without any format", || {
        let noise: Vec<u8> = (0_u32..200_000).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        refused(&stack, &file(&stack, "noise.wav", &noise), "InputInvalid");
    });
    cases.case("an mp3 that breaks off", || an_mp3_that_breaks_off(&stack));
    cases.case("an m4a that breaks off", || an_m4a_that_breaks_off(&stack));
    cases.case("a wav that breaks off", || a_wav_that_breaks_off(&stack));
    cases.case("a wav of no length", || {
        let heard = transcribe(&stack, &file(&stack, "nothing.wav", &wave::header(16_000, 1, 0)));
        let empty = heard["state"] == "succeeded" && heard["text"] == "";
        assert!(empty || heard["error"]["code"] == "InputInvalid", "{heard}");
    });
    for (name, options) in [
        ("8 kHz", &["-ar", "8000"][..]),
        ("96 kHz", &["-ar", "96000"]),
        ("stereo", &["-ac", "2", "-ar", "44100"]),
        ("24 bits", &["-c:a", "pcm_s24le"]),
        ("eight channels", &["-ac", "8", "-ar", "48000"]),
    ] {
        cases.case(name, || {
            let voice = inaugural();
            let copy = wave::convert(&voice.path, &stack.folder().join(format!("{name}.wav")), options);
            let heard = transcribe(&stack, &copy);
            let errors = error_rate::words(&voice.text, heard["text"].as_str().unwrap_or_default());
            assert!(errors <= 0.15, "{errors}: {heard}");
        });
    }
    cases.case("an unknown model", || {
        let output = stack.warren(&["transcribe", "--json", "--model", "huge", path(&inaugural().path)]).expect_code(1);
        assert_eq!(output.json()["error"]["code"], "ModelUnknown");
    });
    cases.case("a file that is not there", || {
        refused(&stack, &stack.folder().join("missing.wav"), "InputInvalid");
    });
    cases.case("a folder", || {
        refused(&stack, stack.folder(), "InputInvalid");
    });
    cases.case("zeros without a header", || zeros_without_a_header(&stack));
    cases.case("hours of silence", || hours_of_silence(&stack));
    cases.case("afterwards all is as before", || all_is_as_before(&stack, &before));
    cases.finish();
    stack.stop();
}

fn path(path: &Path) -> &str {
    path.to_str().expect("test files have plain names")
}

fn file(stack: &Stack, name: &str, content: &[u8]) -> PathBuf {
    let path = stack.folder().join(name);
    fs::write(&path, content).expect("room for a file");
    path
}

fn transcribe(stack: &Stack, file: &Path) -> Value {
    stack.warren_within(LONG, &["transcribe", "--json", "--model", "tiny.en", path(file)], "").json()
}

fn refused(stack: &Stack, file: &Path, code: &str) -> Value {
    let output = stack.warren(&["transcribe", "--json", "--model", "tiny.en", path(file)]).expect_code(1);
    let refused = output.json();
    assert_eq!(refused["state"], "failed", "{refused}");
    assert_eq!(refused["error"]["code"], code, "{refused}");
    assert!(!refused["error"]["message"].as_str().unwrap_or_default().is_empty(), "{refused}");
    println!("    {}", refused["error"]["message"]);
    refused
}

/// The text up to the break, or a refusal.
fn begins_rightly(heard: &Value, recording: &Recording) {
    if heard["state"] == "failed" {
        assert_eq!(heard["error"]["code"], "InputInvalid", "{heard}");
        return;
    }
    let text = heard["text"].as_str().unwrap_or_default();
    assert!(!text.is_empty() && error_rate::words(&recording.text, text) < 0.75, "{heard}");
}

fn broken_off(stack: &Stack, name: &str, options: &[&str]) -> (PathBuf, Recording) {
    let recording = recordings::long_english(&stack.folder().join("whole.wav"), 1);
    let whole = wave::convert(&recording.path, &stack.folder().join(format!("whole {name}")), options);
    let bytes = fs::read(whole).expect("ffmpeg wrote it");
    (file(stack, name, &bytes[..bytes.len() * 6 / 10]), recording)
}

fn an_mp3_that_breaks_off(stack: &Stack) {
    let (file, recording) = broken_off(stack, "broken.mp3", &["-c:a", "libmp3lame", "-b:a", "128k"]);
    begins_rightly(&transcribe(stack, &file), &recording);
}

fn an_m4a_that_breaks_off(stack: &Stack) {
    // Its index stands at the end, so nothing of it can be read.
    let (file, recording) = broken_off(stack, "broken.m4a", &["-c:a", "aac", "-b:a", "128k"]);
    begins_rightly(&transcribe(stack, &file), &recording);
}

fn a_wav_that_breaks_off(stack: &Stack) {
    let (file, recording) = broken_off(stack, "broken.wav", &["-c:a", "pcm_s16le"]);
    begins_rightly(&transcribe(stack, &file), &recording);
}

fn zeros_without_a_header(stack: &Stack) {
    let path = stack.folder().join("zeros.wav");
    fs::File::create(&path).and_then(|file| file.set_len(3_000_000_000)).expect("a file of no room");
    let output = stack.warren(&["transcribe", "--json", "--model", "tiny.en", self::path(&path)]).expect_code(1);
    assert_eq!(output.json()["error"]["code"], "InputInvalid", "{}", output.stdout);
    println!("    refused after {:.2} s", output.took.as_secs_f64());
    assert!(output.took < Duration::from_secs(2), "{:?}", output.took);
}

fn hours_of_silence(stack: &Stack) {
    let bytes: u32 = if nightly() { 3_000_000_000 } else { 300_000_000 };
    let path = stack.folder().join("silence.wav");
    wave::write_silence(&path, bytes).expect("a file of no room");
    let heard = transcribe(stack, &path);
    assert_eq!((heard["state"].as_str(), heard["text"].as_str()), (Some("succeeded"), Some("")), "{heard}");
    let duration = heard["duration"].as_f64().unwrap_or_default();
    assert!((duration - f64::from(bytes) / 32_000.0).abs() < 1.0, "{heard}");
}

fn all_is_as_before(stack: &Stack, before: &[warren_tests::stack::Service]) {
    assert_eq!(stack.ps(), before, "no service ended");
    assert_eq!(stack.dead_letters(), Vec::<Value>::new());
    until("an empty queue of dead letters", Duration::from_secs(20), || {
        (stack.management().depths().get("warren.dead") == Some(&0)).then_some(())
    });
    let mut stdout = std::io::stdout();
    let states = stack.jobs().iter().filter(|job| job["state"] == "running" || job["state"] == "queued").count();
    let _ = writeln!(stdout, "    {} jobs, {states} still open", stack.jobs().len());
    assert_eq!(states, 0);
}
