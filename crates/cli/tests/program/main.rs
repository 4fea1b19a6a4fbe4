//! The program as a shell runs it: what it prints where, its exit codes, pipes and Ctrl-C.

mod fake;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use fake::{DOOMED, Fake, LONG, QUICK, SAID};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

/// Without what the environment says of a server.
fn warren(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["WARREN_SERVER", "WARREN_API_KEY", "WARREN_MODELS__CACHE"] {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    warren(arguments).output().expect("it runs")
}

fn at(fake: &Fake, arguments: &[&str]) -> Output {
    run(&[&["--server", fake.address()], arguments].concat())
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

fn interrupt(child: Child) -> Output {
    kill(Pid::from_raw(child.id().try_into().expect("a pid")), Signal::SIGINT).expect("it runs");
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_reader_that_has_enough_ends_it_quietly() {
    let fake = Fake::start();
    for arguments in [
        &["completions", "bash"][..],
        &["models", "list"],
        &["models", "list", "--json"],
        &["--server", fake.address(), "dlq", "list"],
        &["--server", fake.address(), "dlq", "list", "--json"],
        &["--server", fake.address(), "watch", LONG],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = warren(arguments).stdout(writer).output().expect("it runs");
        assert_eq!((output.status.code(), stderr(&output)), (Some(141), String::new()), "{arguments:?}");
    }
    let full = fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let output = warren(&["models", "list", "--json"]).stdout(full).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = json_lines(&stderr(&output));
    assert!(said[0]["error"]["message"].as_str().is_some_and(|why| why.contains("standard output")), "{said:?}");
}

#[test]
fn ctrl_c_ends_what_waits_for_standard_input() {
    for command in ["embed", "transcribe"] {
        let mut child =
            warren(&["--server", "http://127.0.0.1:9", command, "-"]).stdin(Stdio::piped()).spawn().expect("it runs");
        let mut stdin = child.stdin.take().expect("piped");
        // More than a pipe holds: it is accepted only when the program reads.
        stdin.write_all(&b"a text\n".repeat(20_000)).expect("it reads");
        let output = interrupt(child);
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(130), "warren: interrupted\n"), "{command}");
        drop(stdin);
    }
}

#[test]
fn ctrl_c_names_the_jobs_that_go_on() {
    let fake = Fake::start();
    let started = |arguments: &[&str]| {
        let mut child = warren(&[&["--server", fake.address()], arguments].concat()).spawn().expect("it runs");
        // The first event is printed when the job is known.
        let mut first = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut first).expect("a line");
        child
    };
    let output = interrupt(started(&["watch", LONG]));
    assert_eq!(output.status.code(), Some(130));
    let hint = format!("warren --server {} watch {LONG}\n", fake.address());
    assert!(stderr(&output).contains(&hint), "{}", stderr(&output));

    let output = interrupt(started(&["watch", "--json", LONG]));
    assert_eq!(output.status.code(), Some(130));
    let said = json_lines(&stderr(&output));
    assert_eq!((said.len(), &said[0]["error"]["code"]), (1, &json!("Interrupted")));
    assert_eq!(said[0]["error"]["jobs"], json!([LONG]));

    // A recording that is done already is not among them.
    let folder = tempfile::tempdir().expect("a folder");
    let (short, long) = (folder.path().join("short.wav"), folder.path().join("long.wav"));
    for file in [&short, &long] {
        fs::write(file, "RIFF").expect("written");
    }
    let fake = Fake::start();
    let mut child =
        warren(&["--server", fake.address(), "transcribe", text(&short), text(&long)]).spawn().expect("it runs");
    let mut first = vec![0; SAID.len()];
    child.stdout.as_mut().expect("piped").read_exact(&mut first).expect("a text");
    assert_eq!(first, SAID.as_bytes());
    fake.until_watched(LONG);
    let output = interrupt(child);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains(&format!("watch {LONG}\n")) && !said.contains(QUICK), "{said}");
}

#[test]
fn the_last_line_of_watch_is_the_job_as_it_ended() {
    let fake = Fake::start();
    for (job, state, code, exit) in [(QUICK, "succeeded", "", 0), (DOOMED, "failed", "WorkerLost", 1)] {
        let output = at(&fake, &["watch", "--json", job]);
        let lines = json_lines(&stdout(&output));
        assert_eq!((output.status.code(), stderr(&output)), (Some(exit), String::new()));
        let (first, last) = (&lines[0], &lines[1]);
        assert_eq!((lines.len(), &first["event"]), (2, &json!("job.submitted")));
        assert_eq!((&last["id"], &last["state"], &last["error_code"]), (&json!(job), &json!(state), &json!(code)));
    }
}

#[test]
fn transcripts_never_overwrite_what_they_should_not() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir(path("b")).expect("a folder");
    for name in ["talk.1.mp3", "talk.2.mp3", "b/talk.1.mp3", "notes.txt"] {
        fs::write(path(name), "RIFF").expect("written");
    }
    let (first, second, third, notes) =
        (path("talk.1.mp3"), path("talk.2.mp3"), path("b/talk.1.mp3"), path("notes.txt"));
    let output = at(&fake, &["transcribe", "-o", &path("out"), &first, &second, &third]);
    assert_eq!(output.status.code(), Some(2));
    for part in [&first, &third, &path("out/talk.1.txt")] {
        assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
    assert!(!Path::new(&path("out")).exists());
    let output = at(&fake, &["transcribe", "-o", text(folder.path()), &notes]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains(&notes), "{}", stderr(&output));
    assert_eq!((fs::read_to_string(&notes).expect("there"), fake.asked().uploads.len()), ("RIFF".to_owned(), 0));
    let output = at(&fake, &["transcribe", "-o", &notes, &first]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("--output"), "{}", stderr(&output));

    let output = at(&fake, &["transcribe", "--json", "--format", "srt", "-o", &path("out"), &first, &second]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for (line, number) in json_lines(&stdout(&output)).iter().zip(1..) {
        let written = path(&format!("out/talk.{number}.srt"));
        assert_eq!((&line["output"], &line["text"]), (&json!(written), &json!(SAID)));
        assert_eq!(fs::read_to_string(written).expect("written"), format!("{SAID}\n"));
    }
    assert_eq!(fake.asked().uploads.len(), 2);
}

#[test]
fn a_transcript_that_cannot_be_written_is_told_and_the_others_are_done() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    for name in ["one.wav", "two.wav"] {
        fs::write(path(name), "RIFF").expect("written");
    }
    fs::create_dir_all(path("out/one.txt")).expect("in the way");
    let output = at(&fake, &["transcribe", "--json", "-o", &path("out"), &path("one.wav"), &path("two.wav")]);
    let lines = json_lines(&stdout(&output));
    assert_eq!((output.status.code(), lines.len()), (Some(1), 2), "{}", stderr(&output));
    assert!(lines[0]["error"]["message"].as_str().is_some_and(|why| why.contains("one.txt")), "{}", lines[0]);
    assert_eq!(lines[1]["output"], json!(path("out/two.txt")));
}

#[test]
fn a_recording_may_come_by_standard_input() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = b"RIFF".repeat(300_000);
    let mut child = warren(&["--server", fake.address(), "transcribe", "-", "-o", text(folder.path())])
        .stdin(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(&bytes).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(folder.path().join("stdin.txt")).expect("written"), format!("{SAID}\n"));
    let uploads = fake.asked().uploads;
    assert!(uploads.len() == 1 && uploads[0] == ("stdin".to_owned(), bytes), "other bytes arrived");
    let twice = at(&fake, &["transcribe", "-", "-"]);
    assert!(twice.status.code() == Some(2) && stderr(&twice).contains("only once"), "{}", stderr(&twice));
}

#[test]
fn a_blank_line_is_named_before_anything_is_asked_for() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().expect("a folder");
    let notes = folder.path().join("notes.txt");
    fs::write(&notes, "one\ntwo\nthree\n\nfive\n").expect("written");
    let output = at(&fake, &["embed", text(&notes)]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with(&format!("warren: {}:4: ", notes.display())), "{}", stderr(&output));
    assert_eq!(fake.asked().submitted, 0);
}

#[test]
fn letters_are_shown_with_the_fingerprint_that_replays_them() {
    let fake = Fake::start();
    let output = at(&fake, &["dlq", "list"]);
    assert!(stdout(&output).contains("0123456789ab"), "{}", stdout(&output));
    let folder = tempfile::tempdir().expect("a folder");
    let empty = folder.path().join("task.json");
    fs::write(&empty, "").expect("written");
    let output = at(&fake, &["dlq", "replay", "0192f0c1", "--edit", text(&empty)]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("task.json: is empty"), "{}", stderr(&output));
    assert_eq!(fake.asked().replays, 0, "not as it was, either");
}

#[test]
fn letters_are_discarded_only_with_their_number() {
    let fake = Fake::start();
    let discard = |rest: &[&str]| at(&fake, &[&["dlq", "discard", "--all"], rest].concat());
    assert_eq!(discard(&[]).status.code(), Some(2), "a reason is required");
    assert_eq!(stdout(&discard(&["--dry-run"])), "2 would be discarded\n");
    let output = discard(&["--reason", "old"]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("--yes 2"), "{}", stderr(&output));
    assert_eq!(fake.asked().discarded, None);
    let output = discard(&["--reason", "old", "--yes", "2"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "2 discarded\n"), "{}", stderr(&output));
    assert_eq!(fake.asked().discarded, Some(2));
    let output = at(&fake, &["dlq", "replay"]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("--fingerprint"), "{}", stderr(&output));
}

#[test]
fn programs_get_errors_as_json() {
    let fake = Fake::start();
    for (arguments, exit) in [
        (&["--json", "--server", "not a url", "jobs"][..], 2),
        (&["--server", fake.address(), "jobs", "--json"], 1),
        (&["jobs", "--json", "--state", "asleep"], 2),
    ] {
        let output = run(arguments);
        let said = json_lines(&stderr(&output));
        assert_eq!((output.status.code(), said.len()), (Some(exit), 1), "{arguments:?}");
        let error = &said[0]["error"];
        assert!(error["code"].is_string() && error["message"].is_string(), "{said:?}");
    }
    let output = run(&["jobs", "--json", "--help"]);
    assert!(output.status.success() && stdout(&output).contains("--state"), "help is for people");
}
