//! The ffmpeg child: it ends with the decoder, with this process, and when it is stuck.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod media;

use std::{
    collections::HashSet,
    env, fs,
    fs::File,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use media::{Media, options, voice, wav};
use warren_audio::{AudioError, DecodeOptions, Decoder, Limits};

/// Tells the test below, started anew as a process of its own, what to hold open.
const HELD: &str = "WARREN_AUDIO_TEST_HELD";

fn long_opus(media: &Media) -> std::path::PathBuf {
    let original = media.write("original.wav", &wav(&voice(300.0, 8000), 8000, 1));
    media.convert(&original, "long.opus", &["-b:a", "16k"])
}

/// The running children of process `parent` whose program is called `name`.
fn children(parent: u32, name: &str) -> HashSet<u32> {
    let stat = |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let Some(stat) = stat(*pid) else { return false };
            let Some((before, after)) = stat.rsplit_once(')') else { return false };
            let mut fields = after.split_whitespace();
            let (state, ppid) = (fields.next(), fields.next().and_then(|field| field.parse().ok()));
            before.ends_with(&format!("({name}")) && ppid == Some(parent) && state != Some("Z")
        })
        .collect()
}

fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, after)| !after.trim_start().starts_with('Z'))
}

#[test]
fn the_child_ends_with_the_decoder_and_with_the_process() {
    if let Some(path) = env::var_os(HELD) {
        let mut decoder = media::open(Path::new(&path)).unwrap();
        decoder.next_block().unwrap();
        println!("holding");
        loop {
            std::thread::park();
        }
    }
    let media = Media::new();
    let opus = long_opus(&media);

    let mut decoder = media::open(&opus).unwrap();
    decoder.next_block().unwrap();
    assert_eq!(children(std::process::id(), "ffmpeg").len(), 1);
    drop(decoder);
    assert!(children(std::process::id(), "ffmpeg").is_empty(), "it outlived its decoder");

    let mut parent = Command::new(env::current_exe().unwrap())
        .args(["--exact", "the_child_ends_with_the_decoder_and_with_the_process", "--nocapture"])
        .env(HELD, &opus)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("holding")), "the other process failed");
    let orphans = children(parent.id(), "ffmpeg");
    assert_eq!(orphans.len(), 1);
    parent.kill().unwrap();
    parent.wait().unwrap();
    let patience = Instant::now();
    while orphans.iter().any(|pid| is_running(*pid)) {
        assert!(patience.elapsed() < Duration::from_secs(5), "it outlived its parent");
        std::thread::yield_now();
    }
}

#[test]
fn a_stuck_child_is_killed_and_a_failing_one_quoted() {
    let media = Media::new();
    let opus = media.convert(&media.write("a.wav", &wav(&voice(2.0, 8000), 8000, 1)), "a.opus", &[]);
    let open = |script: &str| {
        let program = media.write("stand-in", format!("#!/bin/sh\n{script}\n").as_bytes());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let limits = Limits { ffmpeg_stall: Duration::from_millis(300), ..Limits::default() };
        let options = DecodeOptions { ffmpeg: program, limits, ..options() };
        Decoder::open(File::open(&opus).unwrap(), &options).expect_err("there is nothing to decode")
    };
    let error = open("exec sleep 1000");
    assert!(matches!(error, AudioError::FfmpegStalled { .. }), "{error}");
    assert!(children(std::process::id(), "sleep").is_empty());
    let error = open("echo first >&2; echo 'the last words' >&2; exit 3");
    assert!(error.to_string().contains("the last words") && !error.to_string().contains("first"), "{error}");
}

#[test]
fn a_child_that_says_nothing_is_ended_when_it_is_not_wanted() {
    let media = Media::new();
    let opus = media.convert(&media.write("a.wav", &wav(&voice(2.0, 8000), 8000, 1)), "a.opus", &[]);
    let program = media.write("silent", b"#!/bin/sh\nexec tail -f /dev/null\n");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let options = DecodeOptions { ffmpeg: program, ..options() };
    let stopped = options.stopped.clone();
    let stopper = std::thread::spawn(move || {
        // The shell has become the program that says nothing.
        while children(std::process::id(), "tail").is_empty() {
            std::thread::sleep(Duration::from_millis(10));
        }
        stopped.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let begun = Instant::now();
    let error = Decoder::open(File::open(&opus).unwrap(), &options).unwrap_err();
    assert!(matches!(error, AudioError::Stopped { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    stopper.join().unwrap();
}

#[test]
fn the_childs_memory_is_bounded() {
    let media = Media::new();
    let opus = media.convert(&media.write("a.wav", &wav(&voice(2.0, 8000), 8000, 1)), "a.opus", &[]);
    // With less than about 320 MB its libraries cannot be loaded.
    let limits = Limits { ffmpeg_memory: 150_000_000, ..Limits::default() };
    let options = DecodeOptions { limits, ..options() };
    let error = Decoder::open(File::open(&opus).unwrap(), &options).unwrap_err();
    assert!(matches!(error, AudioError::FfmpegMemory { limit_bytes: 150_000_000, .. }), "{error}");
    assert!(error.to_string().contains("more than the allowed 150 MB"), "{error}");
}

#[test]
fn a_disk_without_room_is_found_before_anything_is_written() {
    let media = Media::new();
    let opus = media.convert(&media.write("a.wav", &wav(&voice(2.0, 8000), 8000, 1)), "a.opus", &[]);
    let limits = Limits { keep_free: u64::MAX, ..Limits::default() };
    let error = Decoder::open(File::open(&opus).unwrap(), &DecodeOptions { limits, ..options() }).unwrap_err();
    assert_eq!(error.code(), warren_fault::Code::InsufficientDisk, "{error}");
    assert!(matches!(error.fault(), warren_fault::Fault::RetryLater { .. }), "room may be made: {error}");
    let folder = options().scratch.display().to_string();
    assert!(error.to_string().contains(&folder) && error.to_string().contains("have to stay free"), "{error}");
}

#[test]
fn nothing_stays_in_the_scratch_folder() {
    let media = Media::new();
    let opus = media.convert(&media.write("a.wav", &wav(&voice(2.0, 8000), 8000, 1)), "a.opus", &[]);
    let scratch = tempfile::tempdir().unwrap();
    let with = |folder: &Path| DecodeOptions { scratch: folder.to_owned(), ..options() };
    let decoder = Decoder::open(File::open(&opus).unwrap(), &with(scratch.path())).unwrap();
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "the copy has no name");
    assert!(media::drain(decoder).is_ok());
    let gone = scratch.path().join("gone");
    let error = Decoder::open(File::open(&opus).unwrap(), &with(&gone)).unwrap_err();
    assert!(matches!(error, AudioError::Scratch { .. }) && !error.fault().is_input(), "{error}");
}
