//! What a new leader finds.

use std::collections::HashMap;

use warren_clock::UnixMillis;
use warren_jobs::{
    TaskKind,
    release::{JobKey, Sharing},
};
use warren_store::{Store, StoreError};

use crate::{
    board::{Board, Changes, Out},
    lead,
};

/// The board as the rows have it.
///
/// # Errors
/// When the store is away.
pub(crate) async fn board(store: &Store, now: UnixMillis) -> Result<Board, StoreError> {
    let mut board = Board::new(&Sharing::default());
    let mut changes = Changes::default();
    let counts = store.read().open_counts_by_job_kind().await?;
    let ids: Vec<_> = counts.iter().map(|open| open.job).collect();
    let jobs: HashMap<_, _> = store.read().jobs_by_id(&ids).await?.into_iter().map(|job| (job.id, job)).collect();
    for open in counts.iter().filter(|open| open.unreleased > 0) {
        let job = JobKey { id: open.job, caller: open.caller.clone(), class: open.class };
        let cost = open.cost / (open.unreleased + open.released) as f64;
        let language_known = jobs.get(&open.job).is_none_or(|job| job.language.is_some());
        if open.kind == TaskKind::Transcribe && !language_known {
            changes.keep_going.push((job, open.kind, cost));
        } else {
            changes.waiting.push((job, open.kind, open.unreleased, cost));
        }
    }
    for task in store.read().released_tasks(None).await? {
        if let Some(job) = jobs.get(&task.job_id) {
            if task.retry_until.is_some_and(|until| until > now) {
                changes.postponed.push(task.id);
            }
            let out = Out { job: task.job_id, kind: task.kind, dispatch: task.wire_dispatch() };
            changes.released.push((task.id, lead::key(job), out));
        }
    }
    board.apply(&changes, now);
    for pause in store.read().pauses().await? {
        board.set_paused(pause.kind, true);
    }
    Ok(board)
}
