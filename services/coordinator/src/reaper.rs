//! Ending what would never end by itself: jobs past their deadline, workers that went silent, tasks that kill workers.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_broker::Outgoing;
use warren_clock::UnixMillis;
use warren_fault::Code;
use warren_jobs::{JobState, fingerprint::fingerprint, plan::SAMPLE_RATE, retry::RetryPolicy};
use warren_messages::{
    envelope::{Envelope, headers},
    ids::{JobId, TaskId},
    routes::{DEAD_EXCHANGE, tasks},
    wire::{Turn, task::Work},
};
use warren_store::{EventLevel, NewEvent, StoreError, Task};

use crate::{
    board::{Changes, Out},
    lead::Lead,
    planner::Payload,
    releaser,
    rounds::{Rounds, or_next_round},
    sessions::{InHand, Lost},
    settle,
};

/// Inbox rows are kept for a week: longer than any message waits anywhere but in the dead letters.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Lost workers are shown for a day. Names hold a process id unless they are set, so few of them come back.
const LOST_KEPT: Duration = Duration::from_secs(24 * 3_600);
/// Overdue jobs looked at together.
const PAGE: u64 = 100;

/// Reaps until `over`.
///
/// # Errors
/// When the term is lost.
pub(crate) async fn run(lead: &Arc<Lead>, over: &CancellationToken) -> Result<(), StoreError> {
    let mut rounds = Rounds::every(Duration::from_secs(lead.parts.settings.reaper.interval_s), over);
    let since = Instant::now();
    while rounds.next().await {
        or_next_round("jobs past their soft deadline", softly_overdue(lead).await)?;
        or_next_round("jobs past their deadline", overdue(lead).await)?;
        or_next_round("lost workers", workers(lead, since).await)?;
        or_next_round("old rows", purge(lead).await)?;
    }
    Ok(())
}

/// Ends the jobs that should have ended by now.
///
/// # Errors
/// When the store is away.
pub(crate) async fn overdue(lead: &Lead) -> Result<(), StoreError> {
    loop {
        let page = lead.parts.store.read().overdue_jobs(lead.parts.clock.now(), PAGE).await?;
        let mut ended = 0;
        for job in &page {
            match time_out(lead, job.id).await {
                Ok(()) => ended += 1,
                Err(StoreError::TermLost) => return Err(StoreError::TermLost),
                // One that cannot be ended keeps no other from ending.
                Err(error) => {
                    tracing::warn!(%error, job.id = %JobId(job.id), "overdue, and not ended; again in the next round")
                }
            }
        }
        if (page.len() as u64) < PAGE || ended == 0 {
            return Ok(());
        }
    }
}

/// Ends a job that is over its limit; one that is not is left alone.
///
/// # Errors
/// When the store is away.
pub(crate) async fn time_out(lead: &Lead, id: Uuid) -> Result<(), StoreError> {
    let tx = lead.begin().await?;
    let mut changes = Changes::default();
    let now = tx.now();
    let overdue = |deadline: Option<UnixMillis>| deadline.is_some_and(|deadline| deadline <= now);
    let job = tx.read().job(id).await?;
    let Some(job) = job.filter(|job| !job.state.is_ended() && overdue(job.deadline)) else { return Ok(()) };
    let limit = releaser::limit(&lead.parts, &job);
    // A replay gives a job all its time again.
    let replayed = job.started.is_some_and(|started| job.deadline > Some(started.plus(limit)));
    let since = if replayed { " since a dead letter of it was replayed" } else { "" };
    let seconds = limit.as_secs();
    let step = job.last_step.clone().unwrap_or_else(|| "waiting for a worker".to_owned());
    let message = format!("ran longer than its limit of {seconds} s{since}; last step: {step}");
    tx.set_job_error(id, Code::JobTimeout.as_str(), &message).await?;
    let event = NewEvent::new(EventLevel::Error, "job.timeout", message).with(json!({ "timeout_seconds": seconds }));
    settle::stop(&tx, &job, JobState::Failed, &event, &mut changes).await?;
    lead.commit(tx, &changes).await
}

/// Begins no more of the jobs whose soft limit is over.
///
/// # Errors
/// When the store is away.
pub(crate) async fn softly_overdue(lead: &Lead) -> Result<(), StoreError> {
    loop {
        let page = lead.parts.store.read().softly_overdue_jobs(lead.parts.clock.now(), PAGE).await?;
        for job in &page {
            begin_no_more(lead, job.id).await?;
        }
        if (page.len() as u64) < PAGE {
            return Ok(());
        }
    }
}

async fn begin_no_more(lead: &Lead, id: Uuid) -> Result<(), StoreError> {
    let tx = lead.begin().await?;
    let job = tx.read().job(id).await?.filter(|job| job.state == JobState::Running);
    let Some(job) = job.filter(|job| job.soft_deadline.is_some_and(|deadline| deadline <= tx.now())) else {
        return Ok(());
    };
    let stopped = tx.begin_no_more(id).await?;
    if stopped.is_empty() {
        return Ok(());
    }
    let running = tx.read().counts(id).await?.open();
    let seconds = job.limits.soft_timeout_s;
    let message = format!(
        "its soft limit of {seconds} s is over: {} tasks are not begun, {running} are finished and kept",
        stopped.len()
    );
    tx.set_job_error(id, Code::JobTimeout.as_str(), &message).await?;
    let fields = json!({ "timeout_seconds": seconds, "tasks_cancelled": stopped.len(), "tasks_running": running });
    let event = NewEvent::new(EventLevel::Warning, "job.timeout_soft", message).with(fields);
    tx.event(id, &event).await?;
    let mut changes = settle::after_tasks(&lead.parts, &tx, &[id]).await?;
    changes.ended.extend(stopped);
    lead.commit(tx, &changes).await
}

/// Workers that went away while nobody led: no session of this term knows them, only their rows do.
///
/// # Errors
/// When the store is away.
pub(crate) async fn workers(lead: &Lead, leading_since: Instant) -> Result<(), StoreError> {
    let allowed = Duration::from_secs(lead.parts.settings.reaper.worker_lost_s);
    // A worker that lives has had a session, and a fresh row, by then.
    if leading_since.elapsed() < allowed {
        return Ok(());
    }
    let tx = lead.begin().await?;
    for worker in tx.mark_silent_workers_lost(allowed).await? {
        tracing::warn!(worker = worker.id, boot = worker.boot, "worker did not come back after a change of leader");
    }
    tx.purge_workers(LOST_KEPT).await?;
    tx.commit().await
}

async fn purge(lead: &Lead) -> Result<(), StoreError> {
    let tx = lead.begin().await?;
    tx.purge_inbox(KEPT).await?;
    tx.purge_requests(KEPT).await?;
    tx.purge_replays(KEPT).await?;
    tx.tick("reaper", Duration::from_secs(lead.parts.settings.reaper.interval_s)).await?;
    tx.commit().await
}

/// Writes down what was lost with workers that were given up.
///
/// # Errors
/// When the store is away; what is not written down yet is kept.
pub(crate) async fn write_losses(lead: &Lead) -> Result<(), StoreError> {
    loop {
        let Some(next) = lead.sessions().next_lost() else { return Ok(()) };
        if let Err(error) = lost(lead, &next).await {
            lead.sessions().keep(next);
            return Err(error);
        }
    }
}

/// A worker is gone. What it may have died of counts a loss: what ran alone, or else all that did not only wait. Its
/// messages are delivered again by the broker.
///
/// # Errors
/// When the store is away.
pub(crate) async fn lost(lead: &Lead, lost: &Lost) -> Result<(), StoreError> {
    tracing::warn!(worker = lost.worker, boot = lost.boot, tasks = lost.running.len(), "worker lost");
    let current = current(lead, lost);
    // One that had the worker to itself is what it died of; of several, it may have been any that did not wait.
    let one_was_alone = current.iter().any(|(_, in_hand, _)| in_hand.turn == Turn::Alone);
    let blamed = |in_hand: &InHand| match in_hand.turn {
        Turn::Alone => true,
        Turn::Unspecified => !one_was_alone,
        Turn::Waiting => false,
    };
    let tx = lead.begin().await?;
    tx.mark_worker_lost(&lost.worker, &lost.boot).await?;
    if let Some((task, in_hand)) = lost.running.first() {
        tx.worker_error(&lost.worker, &format!("WorkerLost: it was running {task}, at `{}`", in_hand.step)).await?;
    }
    let mut changes = Changes::default();
    for (task, in_hand, out) in current.iter().filter(|(_, in_hand, _)| blamed(in_hand)) {
        let Some(losses) = tx.add_loss(task.0, i64::from(in_hand.dispatch)).await? else { continue };
        let at = tx.read().task(task.0).await?.map(|row| stretch(&row)).unwrap_or_default();
        let message = format!("worker {} was lost during `{}`{at}; the task runs again", lost.worker, in_hand.step);
        let event = NewEvent::new(EventLevel::Warning, "task.worker_lost", message).with(json!({
            "task": task.to_string(), "losses": losses, "step": in_hand.step, "done_units": in_hand.done_units,
        }));
        tx.event(out.job, &event).await?;
        changes.touched.push(out.job);
    }
    lead.commit(tx, &changes).await?;
    // The losses are counted, and must not be again: the next one of a task that is not buried now buries it.
    if let Err(error) = bury_lost(lead, &current, &blamed).await {
        tracing::warn!(%error, "tasks that were lost too often are not buried yet");
    }
    Ok(())
}

/// Buries the tasks that workers were lost to too often.
async fn bury_lost(
    lead: &Lead,
    current: &[(TaskId, &InHand, Out)],
    blamed: &impl Fn(&InHand) -> bool,
) -> Result<(), StoreError> {
    let policy = RetryPolicy { max_losses: lead.parts.settings.reaper.max_losses, ..RetryPolicy::default() };
    for (task, in_hand, _) in current.iter().filter(|(_, in_hand, _)| blamed(in_hand)) {
        if let Some(row) = lead.parts.store.read().task(task.0).await? {
            let losses = u32::try_from(row.losses).unwrap_or(u32::MAX);
            if row.state.is_open() && policy.lost_too_often(losses) {
                bury(lead, &row, &in_hand.step).await?;
            }
        }
    }
    Ok(())
}

/// A worker has drained and is gone, as it said it would be: nothing is lost. What it could not finish, the broker
/// delivers to another one. One that left by its own wish stays among the rows with its reason, `why`, until another
/// process has its name.
///
/// # Errors
/// When the store is away.
pub(crate) async fn left(lead: &Lead, worker: &str, boot: &str, why: &str) -> Result<(), StoreError> {
    tracing::info!(worker, boot, why, "worker left");
    lead.count_slots();
    let tx = lead.begin().await?;
    if why.is_empty() {
        tx.forget_worker(worker, boot).await?;
    } else {
        tx.mark_worker_lost(worker, boot).await?;
        tx.worker_error(worker, &format!("left: {why}")).await?;
    }
    tx.commit().await
}

/// The tasks that were really its to run.
fn current<'a>(lead: &Lead, lost: &'a Lost) -> Vec<(TaskId, &'a InHand, Out)> {
    let board = lead.board();
    let out = |(task, in_hand): &'a (TaskId, InHand)| {
        let out = board.out(task.0).filter(|out| out.dispatch == in_hand.dispatch)?;
        Some((*task, in_hand, out.clone()))
    };
    lost.running.iter().filter_map(out).collect()
}

/// Which part of the job a task is, for people: ` of 60–118 s`. Empty for the one that is all of it.
fn stretch(task: &Task) -> String {
    let seconds = |samples: i64| samples as f64 / SAMPLE_RATE as f64;
    match Payload::read(&task.payload) {
        Ok(Work::Transcribe(work)) => {
            let first = work.windows.first().map_or(0, |window| window.first_sample);
            let end = work.windows.last().map_or(0, |window| window.first_sample + window.samples);
            format!(" of {:.0}–{:.0} s", seconds(first), seconds(end))
        }
        Ok(Work::Embed(work)) => format!(" of texts from {} on", work.first),
        Ok(Work::Prepare(_)) | Err(_) => String::new(),
    }
}

/// Makes the dead letter of a task that took too many workers with it. Its own message, delivered once more, is stale.
async fn bury(lead: &Lead, task: &Task, step: &str) -> Result<(), StoreError> {
    let job = lead.parts.store.read().job(task.job_id).await?;
    let row = releaser::message(&lead.parts, task, job.as_ref(), job.as_ref().and_then(|job| job.deadline))?;
    let at = stretch(task);
    let cause = format!("{} workers were lost while they ran it; the last step was `{step}`{at}", task.losses);
    let class = Code::WorkerLost.as_str();
    let mut envelope = Envelope {
        message_id: row.message_id.parse().unwrap_or_default(),
        kind: row.kind,
        body: row.body,
        headers: row.headers,
    };
    envelope.headers.extend([
        (headers::LETTER.to_owned(), lead.parts.clock.new_id().to_string()),
        (headers::SOURCE.to_owned(), tasks(task.kind).queue.to_owned()),
        (headers::ERR_CLASS.to_owned(), class.to_owned()),
        (headers::ERR_FP.to_owned(), fingerprint(class, task.kind.as_str(), &cause)),
        (headers::ERR_CAUSE.to_owned(), cause),
    ]);
    let letter = Outgoing { exchange: DEAD_EXCHANGE.to_owned(), key: task.kind.as_str().to_owned(), envelope };
    for outcome in lead.parts.broker.publish_many(std::slice::from_ref(&letter)).await {
        if let Err(error) = outcome {
            // The next loss tries again.
            tracing::warn!(%error, task.id = %TaskId(task.id), job.id = %JobId(task.job_id), "dead letter not published");
        }
    }
    Ok(())
}
