//! What is not a good recording is refused with a documented code, or transcribed rightly; no worker dies of it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use warren_local::http;
use warren_recordings::error_rate;
use warren_tests::{
    cases::Cases,
    memory::Peaks,
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
    // First, while no service has needed memory for anything else.
    cases.case("two dozen bad recordings, told apart in seconds, without a device", || bad_recordings(&stack));
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

/// What may become of a bad recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is refused with this code.
    Refused(&'static str),
    /// There is nothing to hear in it, or it is refused.
    Silent,
}

/// Longest that it takes to say so.
const AT_ONCE: Duration = Duration::from_secs(5);
/// Most memory that a service or a program of it needs for that: no file here has more than 3 MB.
const LITTLE: u64 = 400 << 20;

fn bad_recordings(stack: &Stack) {
    let all = bad_files(stack);
    assert!(all.len() >= 20);
    let mut peaks = Peaks::default();
    for (file, fate) in &all {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a plain name");
        let output = stack.warren(&["transcribe", "--json", "--model", "tiny.en", path(file)]);
        let heard = output.json();
        let (code, message) = (&heard["error"]["code"], heard["error"]["message"].as_str().unwrap_or_default());
        println!("    {name}: {} {message} ({:.1} s)", code.as_str().unwrap_or("heard"), output.took.as_secs_f64());
        let silent = heard["state"] == "succeeded" && heard["text"] == "" && *fate == Fate::Silent;
        let wanted = if let Fate::Refused(code) = fate { code } else { "InputInvalid" };
        assert!(silent || (output.code == 1 && heard["state"] == "failed" && code == wanted), "{name}: {heard}");
        assert!(silent || message.contains(name), "{name}: which file? {message}");
        assert!(output.took < AT_ONCE, "{name}: {:?}", output.took);
        stack.measure(&mut peaks);
    }
    for (name, bytes) in peaks.all() {
        println!("    {name}: at most {} MB", bytes >> 20);
        assert!(bytes < LITTLE, "{name} took {bytes} bytes");
    }
    let worker = stack.service("transcription").http.expect("it serves metrics");
    let worker = worker.trim_start_matches("http://").parse().expect("an address");
    let metrics = http::get(worker, "/metrics", AT_ONCE).expect("it answers").body;
    assert!(metrics.contains("warren_task_duration_seconds"), "{metrics}");
    assert!(!metrics.contains("warren_lease_wait_seconds_count{"), "somebody waited for a device");
    // The callers' errors: no letter, and a code that says so.
    assert_eq!(stack.dead_letters(), Vec::<Value>::new());
    for job in stack.jobs().iter().filter(|job| job["state"] == "failed") {
        assert!(job["error_code"].as_str().unwrap_or_default().starts_with("Input"), "{job}");
    }
}

/// Recordings that are none, or hardly.
fn bad_files(stack: &Stack) -> Vec<(PathBuf, Fate)> {
    let invalid = Fate::Refused("InputInvalid");
    let tone: Vec<i16> = (0..16_000).map(|i| if i / 40 % 2 == 0 { 8 } else { -8 }).collect();
    let whole = stack.folder().join("tone.wav");
    wave::write(&whole, &tone);
    let plain = fs::read(&whole).expect("just written");
    let converted = |name: &str, options: &[&str]| {
        fs::read(wave::convert(&whole, &stack.folder().join(name), options)).expect("ffmpeg wrote it")
    };
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = plain.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let (mp3, m4a) = (converted("whole.mp3", &[]), converted("whole.m4a", &["-c:a", "aac"]));
    let film = ["-f", "lavfi", "-i", "testsrc=s=64x64:r=5:d=1", "-map", "1:v"];
    let film = converted("film.mp4", &film);
    let mut endless = converted("whole.flac", &[]);
    // All 36 bits of the number of samples.
    endless[21] |= 0x0f;
    endless[22..26].fill(0xff);
    let mut ten_hours = wave::header(16_000, 1, 36_000 * 32_000);
    ten_hours.extend(&plain[44..]);
    let numbers: Vec<u8> = [f32::NAN, f32::INFINITY, f32::NAN, f32::NEG_INFINITY]
        .repeat(4_000)
        .into_iter()
        .flat_map(f32::to_le_bytes)
        .collect();
    let mut no_numbers = wave::header(16_000, 1, 64_000);
    no_numbers[20] = 3;
    no_numbers[28..32].copy_from_slice(&64_000_u32.to_le_bytes());
    (no_numbers[32], no_numbers[34]) = (4, 32);
    no_numbers.extend(numbers);
    let junk = |head: &[u8]| [head, &b"\x37\x91\xaa\x05\xf0".repeat(5_000)].concat();
    let files: Vec<(&str, Vec<u8>, Fate)> = vec![
        ("no bytes.wav", Vec::new(), invalid),
        ("one byte.wav", b"R".to_vec(), invalid),
        ("half a header.wav", plain[..20].to_vec(), invalid),
        ("a header alone.wav", wave::header(16_000, 1, 0), Fate::Silent),
        ("0 Hz.wav", with(24, &[0; 4]), invalid),
        ("4 GHz.wav", with(24, &[0xff; 4]), invalid),
        ("no channel.wav", with(22, &[0; 2]), invalid),
        ("no bits.wav", with(34, &[0; 2]), Fate::Silent),
        ("no numbers.wav", no_numbers, Fate::Silent),
        ("ten hours that last a second.wav", ten_hours, Fate::Silent),
        ("years.flac", endless, Fate::Refused("InputTooLong")),
        ("text.mp3", b"This is no recording.\n".repeat(1_000), invalid),
        ("picture.wav", junk(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"), invalid),
        ("packed.wav", bomb(stack), invalid),
        ("zeros.wav", vec![0; 3_000_000], invalid),
        ("film.mp4", film, invalid),
        ("without its index.m4a", m4a[..m4a.len() / 2].to_vec(), invalid),
        ("a moment.mp3", mp3[..60].to_vec(), invalid),
        ("playlist.m3u8", b"#EXTM3U\nfile:///etc/passwd\n".to_vec(), invalid),
        ("script.wav", b"ffconcat version 1.0\nfile /etc/passwd\n".to_vec(), invalid),
        ("junk.ogg", junk(b"OggS\x00\x02"), invalid),
        ("junk.mkv", junk(b"\x1a\x45\xdf\xa3\xa3\x42\x82\x88matroska"), invalid),
        ("junk.flac", junk(b"fLaC\x00\x00\x00\x22"), invalid),
        (
            "a box larger than all.mp4",
            junk(b"\0\0\0\x14ftypisom\0\0\x02\0isom\0\0\0\x01moov\x7f\xff\xff\xff\xff\xff\xff\xff"),
            invalid,
        ),
    ];
    files.into_iter().map(|(name, bytes, fate)| (file(stack, name, &bytes), fate)).collect()
}

/// A hundred megabytes of nothing, packed.
fn bomb(stack: &Stack) -> Vec<u8> {
    let packed = stack.folder().join("bomb.gz");
    let made = fs::File::create(&packed).and_then(|file| {
        Command::new("sh").args(["-c", "head -c 100000000 /dev/zero | gzip -1"]).stdout(file).status()
    });
    assert!(made.expect("gzip is part of every system").success());
    fs::read(packed).expect("just written")
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
