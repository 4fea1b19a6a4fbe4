use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
};

use super::*;
use crate::{Limits, spawn, spawn_async};

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// True once no process holds the other end of `pipe` any more: each inherits it and is gone.
fn all_gone(mut pipe: impl io::Read) -> bool {
    pipe.read_to_end(&mut Vec::new()).is_ok()
}

#[test]
fn killing_takes_the_grandchildren_along() {
    let mut child = spawn(shell("sleep 1000 & echo started; wait"), Limits::NONE).unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    assert!(!child.kill().unwrap().success());
    assert!(all_gone(output));
}

#[test]
fn a_grandchild_left_behind_is_killed_when_the_child_ends() {
    let mut child = spawn(shell("sleep 1000 & exit 3"), Limits::NONE).unwrap();
    let output = child.stdout.take().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert!(all_gone(output));
}

#[test]
fn dropping_kills() {
    let mut child = spawn(shell("sleep 1000"), Limits::NONE).unwrap();
    let output = child.stdout.take().unwrap();
    drop(child);
    assert!(all_gone(output));
}

#[test]
fn a_child_outlives_the_thread_that_asked_for_it() {
    let mut command = shell("read line; exit 7");
    command.stdin(Stdio::piped());
    let mut child = thread::spawn(|| spawn(command, Limits::NONE)).join().unwrap().unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    // Ending its input lets it end by itself.
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn terminate_kills_what_does_not_listen() {
    let mut child = spawn(shell("trap '' TERM; echo deaf; while :; do sleep 1; done"), Limits::NONE).unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    let status = child.terminate(Duration::from_millis(100)).unwrap();
    assert_eq!(status.code(), None);
    assert!(all_gone(output));
}

#[test]
fn limits_reach_the_child() {
    let limits = Limits { address_space_bytes: Some(512 << 20), cpu_seconds: Some(60), file_bytes: Some(4096) };
    let mut child = spawn(shell("ulimit -v; ulimit -t; ulimit -f; ulimit -c"), limits).unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    // Kilobytes, seconds, blocks of 512 bytes, blocks (1 byte is less than one block).
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["524288", "60", "8", "0"]);
}

#[test]
fn a_file_may_not_grow_beyond_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = shell("head -c 100000 /dev/zero > \"$0\"");
    command.arg(dir.path().join("zeros"));
    let mut child = spawn(command, Limits { file_bytes: Some(4096), ..Limits::NONE }).unwrap();
    assert!(!child.wait().unwrap().success());
    assert_eq!(std::fs::metadata(dir.path().join("zeros")).unwrap().len(), 4096);
}

/// Run by [`children_die_with_a_killed_parent`] as a process of its own; alone it does nothing.
#[test]
fn as_parent_that_is_killed() {
    if std::env::var_os("WARREN_CHILD_TEST_PARENT").is_some() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ started; sleep 1000"]);
        let mut child = spawn(command, Limits::NONE).unwrap();
        let _ = child.wait();
    }
}

#[test]
fn children_die_with_a_killed_parent() {
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child::tests::as_parent_that_is_killed", "--nocapture"])
        .env("WARREN_CHILD_TEST_PARENT", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(parent.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("started") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the parent ended early");
    }
    parent.kill().unwrap();
    parent.wait().unwrap();
    let shell: i32 = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    // The shell is gone; its own child (which has no death signal) ends with the group when a supervisor sweeps.
    let start = Instant::now();
    while std::fs::read_to_string(format!("/proc/{shell}/stat")).is_ok_and(|stat| !stat.contains(") Z")) {
        assert!(start.elapsed() < Duration::from_secs(10), "the child outlived its parent");
        thread::yield_now();
    }
    let _ = signal_group(Pid::from_raw(shell), Signal::SIGKILL);
}

#[tokio::test]
async fn a_runtime_waits_and_kills_too() {
    let mut command = tokio::process::Command::from(shell("sleep 1000 & exit 5"));
    command.stdout(Stdio::null());
    let mut child = spawn_async(command, Limits::NONE).unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(5));

    let mut child = spawn_async(tokio::process::Command::from(shell("sleep 1000")), Limits::NONE).unwrap();
    let mut output = child.stdout.take().unwrap();
    assert_eq!(child.terminate(Duration::from_secs(10)).await.unwrap().code(), None);
    tokio::io::AsyncReadExt::read_to_end(&mut output, &mut Vec::new()).await.unwrap();
}

#[test]
fn a_missing_program_is_not_found() {
    let error = spawn(Command::new("no-such-program-of-warren"), Limits::NONE).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}
