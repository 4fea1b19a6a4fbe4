//! Giving tasks to the broker: the scheduler decides, a transaction writes, the outbox publishes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_clock::{Reconnect, UnixMillis};
use warren_fault::Code;
use warren_jobs::{JobState, TaskKind, TaskState};
use warren_messages::{
    from_millis,
    ids::{JobId, TaskId},
    routes::tasks,
    wire,
};
use warren_store::{EventLevel, Finish, Job, NewEvent, NewOutbox, StoreError, Task, Tx, Want};
use warren_telemetry::metrics;

use crate::{
    board::{Changes, Out},
    lead::{Lead, Parts},
    planner::Payload,
    settle,
};

/// Tasks released in one transaction.
const GROUP: usize = 64;
/// Looked at without being woken: classes age, workers come.
const IDLE: Duration = Duration::from_secs(1);

/// Releases until `stopping`.
///
/// # Errors
/// When the term is lost.
pub(crate) async fn run(lead: &Arc<Lead>, stopping: &CancellationToken) -> Result<(), StoreError> {
    let mut trouble = Reconnect::new();
    loop {
        let mut released = 0;
        for kind in TaskKind::ALL {
            match release(lead, *kind).await {
                Ok(tasks) => released += tasks,
                Err(StoreError::TermLost) => return Err(StoreError::TermLost),
                Err(error) => {
                    tracing::warn!(%error, "tasks not released; again later");
                    tokio::select! {
                        () = stopping.cancelled() => return Ok(()),
                        () = tokio::time::sleep(trouble.next_delay()) => {}
                    }
                }
            }
        }
        if released > 0 {
            trouble.reset();
            continue;
        }
        tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            () = lead.release.notified() => {}
            () = tokio::time::sleep(IDLE) => {}
        }
    }
}

/// Releases one group of one kind. Returns how many tasks were decided on.
///
/// # Errors
/// When the store is away; then nothing was decided.
pub(crate) async fn release(lead: &Lead, kind: TaskKind) -> Result<u64, StoreError> {
    let parts = &lead.parts;
    let (now, began) = (parts.clock.now(), Instant::now());
    let picked = lead.board().decide(kind, GROUP, now);
    if picked.is_empty() {
        return Ok(0);
    }
    let wants: Vec<Want> = picked.iter().map(|(job, count)| Want { job: *job, kind, count: *count }).collect();
    let written = async {
        let tx = lead.begin().await?;
        let written = write(parts, &tx, &wants).await?;
        let committed = lead.doubt.commit(tx).await?;
        warren_drills::passing("coordinator.tasks-released");
        Ok::<_, StoreError>((committed, written))
    };
    let (committed, (tasks, changes)) = match written.await {
        Ok(written) => written,
        Err(error) => {
            let mut board = lead.board();
            for (job, count) in picked {
                board.put_back(job, kind, count, now);
            }
            return Err(error);
        }
    };
    note(lead, kind, &picked, &tasks);
    metrics::RELEASE_SECONDS.record(began.elapsed().as_secs_f64(), &[("kind", kind.as_str())]);
    lead.follow(committed, &changes).await;
    Ok(picked.iter().map(|(_, count)| count).sum())
}

fn note(lead: &Lead, kind: TaskKind, picked: &[(Uuid, u64)], tasks: &[Task]) {
    let mut board = lead.board();
    for (job, count) in picked {
        let missing = count - tasks.iter().filter(|task| task.job_id == *job).count() as u64;
        board.came_to_nothing(*job, kind, missing);
    }
    for task in tasks {
        board.went_out(task.id, Out { job: task.job_id, kind, dispatch: task.wire_dispatch() });
    }
}

/// Writes what was decided. Returns the tasks that go out.
async fn write(parts: &Parts, tx: &Tx, wants: &[Want]) -> Result<(Vec<Task>, Changes), StoreError> {
    let released = tx.release_next(wants).await?;
    let ids: Vec<Uuid> = wants.iter().map(|want| want.job).collect();
    let jobs = tx.read().jobs_by_id(&ids).await?;
    let mut changes = Changes::default();
    let mut deadlines = std::collections::HashMap::new();
    for job in &jobs {
        let deadline = match job.deadline {
            Some(deadline) => deadline,
            None => start(parts, tx, job).await?,
        };
        deadlines.insert(job.id, deadline);
        if job.state == JobState::Queued {
            changes.touched.push(job.id);
        }
    }
    let (mut out, mut rows) = (Vec::with_capacity(released.len()), Vec::with_capacity(released.len()));
    for task in released {
        let job = jobs.iter().find(|job| job.id == task.job_id);
        match message(parts, &task, job, deadlines.get(&task.job_id).copied()) {
            Ok(row) => {
                rows.push(row);
                out.push(task);
            }
            Err(error) => changes.merge(unreadable(parts, tx, &task, &error).await?),
        }
    }
    tx.outbox_many(rows).await?;
    Ok((out, changes))
}

/// Fails a task whose own row makes no sense: it would be chosen again and again, and nobody's after it.
async fn unreadable(parts: &Parts, tx: &Tx, task: &Task, error: &StoreError) -> Result<Changes, StoreError> {
    let cause = error.to_string();
    tracing::error!(job.id = %JobId(task.job_id), task.id = %TaskId(task.id), cause, "a task cannot be released");
    let event = NewEvent::new(EventLevel::Error, "task.failed", cause.clone())
        .with(json!({ "task": TaskId(task.id).to_string(), "error_code": Code::Internal.as_str() }));
    tx.event(task.job_id, &event).await?;
    let finish = Finish {
        task: task.id,
        dispatch: task.dispatch,
        to: TaskState::Failed,
        worker: String::new(),
        error: Some((Code::Internal.as_str().to_owned(), cause)),
    };
    tx.finish(&finish).await?;
    settle::after_tasks(parts, tx, &[task.job_id]).await
}

/// The job's clock starts with its first task.
async fn start(parts: &Parts, tx: &Tx, job: &Job) -> Result<UnixMillis, StoreError> {
    let deadline = tx.now().plus(limit(parts, job));
    let event = NewEvent::new(EventLevel::Info, "job.started", "the first task was released");
    tx.set_job_state(job.id, JobState::Queued, JobState::Running, &event).await?;
    tx.set_deadline(job.id, deadline).await?;
    tracing::info!(job.id = %JobId(job.id), limit_s = limit(parts, job).as_secs(), "job started");
    Ok(deadline)
}

/// How long a job may run.
pub(crate) fn limit(parts: &Parts, job: &Job) -> Duration {
    Duration::from_secs(match u64::try_from(job.limits.timeout_s).unwrap_or(0) {
        0 => parts.settings.reaper.timeout_s,
        asked => asked,
    })
}

/// The message of a released task.
///
/// # Errors
/// When its payload is no work.
pub(crate) fn message(
    parts: &Parts,
    task: &Task,
    job: Option<&Job>,
    deadline: Option<UnixMillis>,
) -> Result<NewOutbox, StoreError> {
    let mut work =
        Payload::read(&task.payload).map_err(|error| StoreError::corrupt(format!("task.payload: {error}")))?;
    if let (wire::task::Work::Transcribe(work), Some(language)) = (&mut work, job.and_then(|job| job.language.clone()))
    {
        work.language = language;
    }
    let message = wire::Task {
        id: TaskId(task.id).to_string(),
        job: JobId(task.job_id).to_string(),
        dispatch: task.wire_dispatch(),
        deadline: deadline.map(|deadline| from_millis(deadline.0)),
        work: Some(work),
    };
    Ok(parts.relay.row(tasks(task.kind), parts.clock.new_id(), &message))
}
