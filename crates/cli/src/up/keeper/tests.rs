use std::{path::PathBuf, process::Command};

use tempfile::TempDir;

use super::*;
use crate::up::{board, probe::Probe};

struct Stage {
    dir: TempDir,
    board: Arc<Board>,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let board = Arc::new(Board::new(dir.path().join("services.json")));
        Self { dir, board }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("part.log")
    }

    fn keep(&self, script: &'static str, grace: Duration) -> Keeper {
        let part = Part {
            name: "part".to_owned(),
            phase: Phase::Workers,
            grace,
            log: self.log(),
            probe: Some(Probe::Open(1)),
            command: Arc::new(move || {
                let mut command = Command::new("sh");
                command.args(["-c", script]);
                Ok(command)
            }),
        };
        Keeper::start(part, self.board.clone(), CancellationToken::new())
    }

    /// Waits until the entry on the board is as wanted.
    async fn until(&self, holds: impl Fn(&board::Entry) -> bool) -> board::Entry {
        let start = Instant::now();
        loop {
            let found = board::read(&self.dir.path().join("services.json")).into_iter().find(|entry| holds(entry));
            if let Some(entry) = found {
                return entry;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "waited in vain");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn what_ends_is_started_again() {
    let stage = Stage::new();
    let keeper = stage.keep("echo once; exit 3", Duration::from_secs(1));
    let entry = stage.until(|entry| entry.restarts >= 2).await;
    assert_eq!((entry.last_end.as_deref(), entry.last_code), (Some("ended with exit status: 3"), Some(3)));
    keeper.stop();
    keeper.ended().await;
    assert!(std::fs::read_to_string(stage.log()).unwrap().starts_with("once\nonce\n"));
    assert!(board::read(&stage.dir.path().join("services.json")).is_empty());
}

#[tokio::test]
async fn what_is_killed_is_started_again_as_another_process() {
    let stage = Stage::new();
    let keeper = stage.keep("exec sleep 1000", Duration::from_secs(10));
    let first = stage.until(|entry| entry.process.is_some()).await.process.unwrap();
    first.kill();
    let second = stage.until(|entry| entry.process.is_some() && entry.restarts == 1).await.process.unwrap();
    assert_ne!(first, second);
    keeper.stop();
    keeper.ended().await;
    assert!(!second.alive());
}

#[tokio::test]
async fn what_does_not_stop_is_killed_with_all_it_started() {
    let stage = Stage::new();
    let keeper =
        stage.keep("trap '' TERM; sleep 1000 & echo up; while :; do sleep 1; done", Duration::from_millis(100));
    let process = stage.until(|entry| entry.process.is_some()).await.process.unwrap();
    while !std::fs::read_to_string(stage.log()).unwrap_or_default().contains("up") {
        tokio::task::yield_now().await;
    }
    keeper.stop();
    // The log's pipe is held by every process of the group; its end is the end of all.
    keeper.ended().await;
    assert!(!process.alive());
}

#[tokio::test]
async fn a_missing_program_is_tried_again() {
    let stage = Stage::new();
    let part = Part {
        name: "part".to_owned(),
        phase: Phase::Workers,
        grace: Duration::ZERO,
        log: stage.log(),
        probe: None,
        command: Arc::new(|| Ok(Command::new("/no/such/program"))),
    };
    let keeper = Keeper::start(part, stage.board.clone(), CancellationToken::new());
    let entry = stage.until(|entry| entry.restarts >= 1).await;
    assert!(entry.hidden && entry.last_end.unwrap().contains("start part"));
    keeper.stop();
    keeper.ended().await;
}
