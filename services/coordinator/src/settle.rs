//! How a job goes on when one of its tasks has ended: to its next stage, or to its own end.

use serde_json::json;
use uuid::Uuid;
use warren_jobs::{JobKind, JobState, TaskKind, state};
use warren_messages::ids::JobId;
use warren_store::{EventLevel, Job, NewEvent, StoreError, Tx};
use warren_telemetry::metrics;

use crate::{
    board::Changes,
    lead::{self, Parts},
    planner::{self, Line},
};

/// Looks at jobs after tasks of theirs have changed, in the same transaction.
///
/// # Errors
/// When the store is away, or a row makes no sense.
pub(crate) async fn after_tasks(parts: &Parts, tx: &Tx, jobs: &[Uuid]) -> Result<Changes, StoreError> {
    let mut changes = Changes { touched: jobs.to_vec(), ..Changes::default() };
    // One question for all: most of the time, none of them has come to a turn.
    for job in tx.read().at_a_turn(jobs).await? {
        changes.merge(take_turn(parts, tx, job).await?);
    }
    Ok(changes)
}

async fn take_turn(parts: &Parts, tx: &Tx, job_id: Uuid) -> Result<Changes, StoreError> {
    let mut changes = Changes::default();
    let Some(mut job) = tx.read().job(job_id).await? else { return Ok(changes) };
    // Until its language is known, the tasks of a recording go out one by one: the others follow what the first finds.
    if job.kind == JobKind::Transcribe && job.language.is_none() {
        let next = tx.read().next_unreleased(job_id, TaskKind::Transcribe, 1).await?;
        changes.keep_going.extend(next.first().map(|task| (lead::key(&job), TaskKind::Transcribe, task.cost)));
    }
    let counts = tx.read().counts(job_id).await?;
    if counts.open() > 0 {
        return Ok(changes);
    }
    if counts.ended_badly() == 0 && !job.planned_final && counts.total() > 0 {
        let planned = plan_index(parts, tx, &job).await?;
        let waits = !planned.waiting.is_empty();
        changes.merge(planned);
        if waits {
            return Ok(changes);
        }
        job.planned_final = true;
    }
    let Some(outcome) = state::settle(&counts, job.planned_final) else { return Ok(changes) };
    let (to, event) = match outcome {
        state::JobOutcome::Succeeded => {
            (JobState::Succeeded, NewEvent::new(EventLevel::Info, "job.succeeded", "all tasks are done"))
        }
        state::JobOutcome::Failed => {
            let cause = failure(tx, &job).await?;
            let message = format!("{} of {} tasks ended without a result", counts.ended_badly(), counts.total());
            let event = NewEvent::new(EventLevel::Error, "job.failed", message).with(json!({ "error_code": cause }));
            (JobState::Failed, event)
        }
    };
    end(tx, &job, to, &event, &mut changes).await?;
    Ok(changes)
}

/// Ends a job that still has open tasks: they are cancelled. Returns how many there were.
///
/// # Errors
/// When the store is away.
pub(crate) async fn stop(
    tx: &Tx,
    job: &Job,
    to: JobState,
    event: &NewEvent,
    changes: &mut Changes,
) -> Result<usize, StoreError> {
    let cancelled = tx.cancel_open(job.id).await?;
    end(tx, job, to, event, changes).await?;
    Ok(cancelled.len())
}

async fn end(tx: &Tx, job: &Job, to: JobState, event: &NewEvent, changes: &mut Changes) -> Result<(), StoreError> {
    if to != JobState::Succeeded {
        // What its last tasks did counts, too.
        tx.refresh_progress(&[(job.id, 0.0)]).await?;
    }
    if tx.set_job_state(job.id, job.state, to, event).await?.is_some() {
        changes.finished.push(job.id);
        tracing::info!(job.id = %JobId(job.id), state = to.as_str(), event = event.event, "job ended");
        // Counted after the commit would be exact; before it, a transaction that is run again counts twice at worst.
        let labels = [("kind", job.kind.as_str()), ("outcome", to.as_str())];
        metrics::JOBS_ENDED.one(&labels);
        metrics::JOB_SECONDS.record(tx.now().since(job.created).as_secs_f64(), &labels);
    }
    Ok(())
}

/// The job shows the last real cause of the tasks that ended badly.
async fn failure(tx: &Tx, job: &Job) -> Result<String, StoreError> {
    if let Some(code) = &job.error_code {
        return Ok(code.clone());
    }
    let tasks = tx.read().tasks_of(job.id).await?;
    let worst = tasks.iter().filter(|task| task.error_code.is_some()).max_by_key(|task| task.finished);
    let Some(task) = worst else { return Ok("Internal".to_owned()) };
    let code = task.error_code.clone().unwrap_or_default();
    let message = task.error_message.clone().unwrap_or_default();
    tx.set_job_error(job.id, &code, &message).await?;
    Ok(code)
}

/// The last stage of a transcribe job that asked for it: its passages become embed tasks.
async fn plan_index(parts: &Parts, tx: &Tx, job: &Job) -> Result<Changes, StoreError> {
    let mut changes = Changes::default();
    let spec = (job.kind == JobKind::Transcribe)
        .then(|| planner::transcribe_spec(job))
        .transpose()
        .map_err(StoreError::corrupt)?;
    if let Some(spec) = spec.filter(|spec| spec.index) {
        let passages = planner::passages(&tx.read().segments(job.id).await?);
        let lines: Vec<_> = passages.into_iter().map(|passage| Line::inline(passage.text)).collect();
        let tasks = planner::embed(parts, &parts.settings.release, job, &spec.embedding_model, &lines);
        let inserted = tx.insert_tasks(&tasks).await?;
        if let (Some(first), false) = (tasks.first(), inserted.is_empty()) {
            changes.waiting.push((lead::key(job), TaskKind::Embed, inserted.len() as u64, first.cost));
        }
    }
    tx.add_planned(job.id, 0.0, true).await?;
    Ok(changes)
}
