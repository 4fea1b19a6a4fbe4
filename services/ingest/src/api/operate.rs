//! What operators decide: the coordinator does it, and its audit row is the answer.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;
use tonic::Status;
use warren_clock::UnixMillis;
use warren_jobs::TaskKind;
use warren_messages::{
    ids::JobId,
    wire::{
        FailStale, FailStaleRequest, FailStaleResponse, Operate, PauseKind, PauseRequest, PauseResponse, PurgeKind,
        PurgeRequest, PurgeResponse, RecoverRequest, RecoverResponse, RecoverStuck, Recovered, ResumeRequest,
        ResumeResponse, StaleJob, command::Command as What, operate::Deed,
    },
};
use warren_store::{AuditEntry, StoreError};

use crate::{
    accept,
    auth::Caller,
    check,
    parts::Parts,
    status::{invalid, of_store},
};

/// Longest wait for the effect.
const EFFECT: Duration = Duration::from_secs(10);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// Most jobs that an answer names.
const NAMED: u64 = 1_000;
/// Most characters of a reason.
const MAX_REASON: usize = 500;
/// Longest silence that can be asked for, seconds: ten years.
const MAX_OLDER_S: u64 = 315_360_000;

/// Stops the release of a kind of work.
///
/// # Errors
/// The field that is wrong; `UNAVAILABLE` when the database is away.
pub(crate) async fn pause(parts: &Parts, caller: &Caller, asked: PauseRequest) -> Result<PauseResponse, Status> {
    let kind = kind(&asked.kind)?;
    let reason = reason(asked.reason)?;
    let (waiting, released, paused) = standing(parts, kind).await.map_err(|error| of_store(&error))?;
    let answer = PauseResponse { changed: !paused, waiting, released, dry_run: asked.dry_run, effective: true };
    if asked.dry_run {
        return Ok(answer);
    }
    let deed = Deed::Pause(PauseKind { kind: asked.kind, paused: true, reason });
    let done = operate(parts, caller, &asked.request_id, deed).await?;
    let changed = done.as_ref().is_some_and(|done| read::<Changed>(done).changed);
    Ok(PauseResponse { changed, effective: done.is_some(), ..answer })
}

/// Ends a pause.
///
/// # Errors
/// As [`pause`].
pub(crate) async fn resume(parts: &Parts, caller: &Caller, asked: ResumeRequest) -> Result<ResumeResponse, Status> {
    let kind = kind(&asked.kind)?;
    let (waiting, _, paused) = standing(parts, kind).await.map_err(|error| of_store(&error))?;
    let answer = ResumeResponse { changed: paused, waiting, dry_run: asked.dry_run, effective: true };
    if asked.dry_run {
        return Ok(answer);
    }
    let deed = Deed::Pause(PauseKind { kind: asked.kind, paused: false, reason: String::new() });
    let done = operate(parts, caller, &asked.request_id, deed).await?;
    let changed = done.as_ref().is_some_and(|done| read::<Changed>(done).changed);
    Ok(ResumeResponse { changed, effective: done.is_some(), ..answer })
}

/// Cancels all jobs with open tasks of a kind and empties its queue.
///
/// # Errors
/// As [`pause`]; `INVALID_ARGUMENT` when there are not as many tasks as were confirmed.
pub(crate) async fn purge(parts: &Parts, caller: &Caller, asked: PurgeRequest) -> Result<PurgeResponse, Status> {
    let kind = kind(&asked.kind)?;
    let reason = reason(asked.reason)?;
    let open = parts.store.read().open_of_kind(kind, parts.clock.now()).await;
    let (tasks, jobs) = open.map_err(|error| of_store(&error))?;
    if asked.dry_run {
        return Ok(PurgeResponse { tasks, jobs, dry_run: true, effective: true });
    }
    let deed = Deed::Purge(PurgeKind { kind: asked.kind, tasks: asked.tasks, reason });
    let Some(done) = operate(parts, caller, &asked.request_id, deed).await? else {
        return Ok(PurgeResponse { tasks, jobs, dry_run: false, effective: false });
    };
    let found: Purged = read(&done);
    if done.verb != "purge" {
        let why = format!(
            "there are {} open tasks of {kind}, not {}; nothing was changed. See what a dry run says",
            found.tasks, asked.tasks
        );
        return Err(invalid("tasks", why));
    }
    // It is decided; the jobs follow in groups.
    let begun = Instant::now();
    let effective = loop {
        let left = parts.store.read().open_of_kind(kind, done.at).await.map_err(|error| of_store(&error))?;
        if left.0 == 0 || begun.elapsed() >= EFFECT {
            break left.0 == 0;
        }
        tokio::time::sleep(LOOK).await;
    };
    Ok(PurgeResponse { tasks: found.tasks, jobs: found.jobs, dry_run: false, effective })
}

/// Looks at once for what is stuck, and mends it.
///
/// # Errors
/// As [`pause`]; `NOT_FOUND` for a job that is nobody's.
pub(crate) async fn recover(parts: &Parts, caller: &Caller, asked: RecoverRequest) -> Result<RecoverResponse, Status> {
    if !asked.job.is_empty() {
        let id: JobId =
            asked.job.parse().map_err(|error: warren_messages::ids::InvalidId| invalid("job", error.to_string()))?;
        let found = parts.store.read().job(id.0).await.map_err(|error| of_store(&error))?;
        if found.is_none() {
            return Err(crate::status::not_found("job", &asked.job));
        }
    }
    let deed = Deed::Recover(RecoverStuck { job: asked.job, dry_run: asked.dry_run });
    let done = operate(parts, caller, &asked.request_id, deed).await?;
    let found = done.as_ref().map(read::<Mended>).unwrap_or_default();
    let recovered = found.recovered.into_iter().map(|one| Recovered { job: one.job, task: one.task, what: one.what });
    Ok(RecoverResponse { recovered: recovered.collect(), dry_run: asked.dry_run, effective: done.is_some() })
}

/// Fails the running jobs that gave no sign of life for a while.
///
/// # Errors
/// As [`pause`].
pub(crate) async fn fail_stale(
    parts: &Parts,
    caller: &Caller,
    asked: FailStaleRequest,
) -> Result<FailStaleResponse, Status> {
    if asked.older_s > MAX_OLDER_S {
        return Err(invalid("older_s", format!("must be at most {MAX_OLDER_S}")));
    }
    let reason = reason(asked.reason)?;
    if asked.dry_run {
        let now = parts.clock.now();
        let before = now.minus(Duration::from_secs(asked.older_s));
        let jobs = parts.store.read().silent_jobs(before, NAMED).await.map_err(|error| of_store(&error))?;
        let jobs = jobs.iter().map(|job| StaleJob {
            id: JobId(job.id).to_string(),
            name: job.name.clone(),
            silent_s: now.since(last_sign(job)).as_secs(),
            last_step: job.last_step.clone().unwrap_or_default(),
        });
        return Ok(FailStaleResponse { jobs: jobs.collect(), dry_run: true, effective: true });
    }
    let deed = Deed::FailStale(FailStale { older_ms: asked.older_s * 1_000, reason });
    let done = operate(parts, caller, &asked.request_id, deed).await?;
    let found = done.as_ref().map(read::<Failed>).unwrap_or_default();
    let jobs = found.jobs.into_iter().map(|job| StaleJob {
        id: job.job,
        name: job.name,
        silent_s: job.silent_s,
        last_step: job.last_step,
    });
    Ok(FailStaleResponse { jobs: jobs.collect(), dry_run: false, effective: done.is_some() })
}

/// When a job was last heard of.
pub(crate) fn last_sign(job: &warren_store::Job) -> UnixMillis {
    job.heartbeat.or(job.started).unwrap_or(job.created)
}

/// Tasks of a kind that wait, those that are out, and whether it is paused.
async fn standing(parts: &Parts, kind: TaskKind) -> Result<(u64, u64, bool), StoreError> {
    let read = parts.store.read();
    let stats = read.queue_stats(parts.clock.now()).await?;
    let (waiting, released) =
        stats.iter().find(|stats| stats.kind == kind).map_or((0, 0), |stats| (stats.unreleased, stats.released));
    Ok((waiting, released, read.pauses().await?.iter().any(|pause| pause.kind == kind)))
}

/// Has the coordinator do it, and waits for its answer. `None`: it was recorded and not done in time.
async fn operate(parts: &Parts, caller: &Caller, request_id: &str, deed: Deed) -> Result<Option<AuditEntry>, Status> {
    let request = match check::request_id(request_id)? {
        Some(id) => format!("{}/{id}", caller.name),
        None => parts.clock.new_id().to_string(),
    };
    let answer = async || parts.store.read().audit_answer(&request).await.map_err(|error| of_store(&error));
    if let Some(done) = answer().await? {
        return Ok(Some(done));
    }
    let command = Operate { request: request.clone(), deed: Some(deed) };
    accept::command(parts, caller, What::Operate(command)).await?;
    let begun = Instant::now();
    while begun.elapsed() < EFFECT {
        if let Some(done) = answer().await? {
            return Ok(Some(done));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(None)
}

fn kind(word: &str) -> Result<TaskKind, Status> {
    word.parse().map_err(|error: warren_jobs::UnknownName| invalid("kind", error.to_string()))
}

fn reason(reason: String) -> Result<String, Status> {
    match reason.chars().count() <= MAX_REASON {
        true => Ok(reason),
        false => Err(invalid("reason", format!("must have at most {MAX_REASON} characters"))),
    }
}

/// The detail of an answer, as the coordinator wrote it.
fn read<T: Default + for<'a> Deserialize<'a>>(done: &AuditEntry) -> T {
    serde_json::from_str(&done.detail)
        .inspect_err(|error| tracing::error!(%error, verb = done.verb, "audit.detail cannot be read"))
        .unwrap_or_default()
}

#[derive(Debug, Default, Deserialize)]
struct Changed {
    changed: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Purged {
    tasks: u64,
    jobs: u64,
}

#[derive(Debug, Default, Deserialize)]
struct Mended {
    recovered: Vec<One>,
}

#[derive(Debug, Default, Deserialize)]
struct One {
    job: String,
    task: String,
    what: String,
}

#[derive(Debug, Default, Deserialize)]
struct Failed {
    jobs: Vec<FailedJob>,
}

#[derive(Debug, Default, Deserialize)]
struct FailedJob {
    job: String,
    name: String,
    silent_s: u64,
    last_step: String,
}
