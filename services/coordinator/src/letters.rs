//! The index of the dead letters: what died, why, and what that means for its job.

use std::sync::Arc;

use serde_json::json;
use warren_broker::{Death, GroupHandler, Letter};
use warren_fault::Fault;
use warren_jobs::{JobState, fingerprint::fingerprint};
use warren_messages::{
    envelope::{decode, headers},
    ids::{JobId, TaskId},
    replay,
    routes::COMMANDS,
    wire::{self, Command, command::Command as What},
};
use warren_store::{EventLevel, NewEvent, NewLetter, StoreError, Tx};
use warren_telemetry::metrics;

use crate::{board::Changes, lead::Lead, planner, settle};

/// Most characters of a cause that are kept.
const MAX_CAUSE: usize = 2_000;

/// Handles queue `warren.dead.index`.
#[derive(Debug)]
pub(crate) struct Index(pub Arc<Lead>);

impl GroupHandler<Letter> for Index {
    async fn handle(&self, group: &[Letter]) -> Result<(), Fault> {
        Ok(index(&self.0, group).await?)
    }
}

/// Notes letters; one that is noted already is only seen again.
///
/// # Errors
/// When the store is away.
pub(crate) async fn index(lead: &Lead, letters: &[Letter]) -> Result<(), StoreError> {
    let tx = lead.begin().await?;
    let (mut changes, mut new) = (Changes::default(), Vec::new());
    for row in letters.iter().map(row) {
        if tx.insert_letter(&row).await? {
            changes.merge(if row.queue == COMMANDS.queue {
                command_died(&tx, &row).await?
            } else {
                task_died(lead, &tx, &row).await?
            });
            new.push(row);
        }
    }
    lead.commit(tx, &changes).await?;
    warren_drills::passing("coordinator.letter-indexed");
    lead.parts.retry.notify_waiters();
    lead.leaving.notify_one();
    // One that came back may stop the replay that sent it.
    lead.fates.notify_one();
    for row in new {
        metrics::DEAD_LETTERS_MADE.one(&[("queue", &row.queue), ("class", &row.class)]);
    }
    Ok(())
}

/// A letter as a row. What names its task or job is read from headers, then from the body.
pub(crate) fn row(letter: &Letter) -> NewLetter {
    let header = |name: &str| letter.headers.get(name).map(String::as_str);
    let body: Option<wire::Task> = serde_json::from_slice(&letter.body).ok();
    let text = |name: &str, field: fn(&wire::Task) -> &str| {
        header(name).map(str::to_owned).or_else(|| body.as_ref().map(|task| field(task).to_owned()))
    };
    let task_id = text(headers::TASK, |task| &task.id).and_then(|id| id.parse::<TaskId>().ok()).map(|id| id.0);
    let job =
        if letter.queue == COMMANDS.queue { job_of_command(letter) } else { text(headers::JOB, |task| &task.job) };
    let job_id = job.and_then(|id| id.parse::<JobId>().ok()).map(|id| id.0);
    let dispatch = header(headers::DISPATCH)
        .and_then(|text| text.parse().ok())
        .or_else(|| body.as_ref().filter(|_| task_id.is_some()).map(|task| i64::from(task.dispatch)));
    let cause = if letter.cause.is_empty() { by_broker(&letter.deaths) } else { letter.cause.clone() };
    let class = if letter.class.is_empty() { "unknown".to_owned() } else { letter.class.clone() };
    let fingerprint = header(headers::ERR_FP).map_or_else(|| fingerprint(&class, &letter.key, &cause), str::to_owned);
    NewLetter {
        id: letter.id.to_string(),
        queue: letter.queue.clone(),
        kind: letter.kind.clone(),
        class,
        cause: cause.chars().take(MAX_CAUSE).collect(),
        fingerprint,
        job_id,
        task_id,
        dispatch,
        replay_of: header(headers::REPLAY_OF).map(str::to_owned),
        body: letter.body.clone(),
        content_type: letter.content_type.clone(),
        headers: letter.headers.clone(),
    }
}

fn job_of_command(letter: &Letter) -> Option<String> {
    let command: Option<Command> = serde_json::from_slice(&letter.body).ok();
    letter.headers.get(headers::JOB).cloned().or_else(|| command?.job().map(str::to_owned))
}

fn by_broker(deaths: &[Death]) -> String {
    deaths.first().map_or_else(
        || "published to the dead letters by hand".to_owned(),
        |death| match death.reason.as_str() {
            "delivery_limit" => "delivered too often: whoever takes it dies of it".to_owned(),
            reason => format!("the broker gave it up: {reason}"),
        },
    )
}

/// The task of a new letter is dead, and its job may be over. A letter that did not end its task is void.
async fn task_died(lead: &Lead, tx: &Tx, letter: &NewLetter) -> Result<Changes, StoreError> {
    let mut changes = Changes::default();
    let Some(task) = letter.task_id else { return Ok(changes) };
    let Some(dead) = tx.mark_dead(task, letter.dispatch, &letter.class, &letter.cause).await? else {
        if let Some(task) = tx.read().task(task).await? {
            void(tx, letter, replay::needless(task.state)).await?;
        }
        return Ok(changes);
    };
    changes.ended.push(task);
    let message = format!("{} {} is dead: {}", dead.kind, dead.ordinal, letter.cause);
    let event = NewEvent::new(EventLevel::Error, "child.failed", message.chars().take(MAX_CAUSE).collect::<String>())
        .with(json!({
            "task": TaskId(task).to_string(), "operation": dead.kind.as_str(), "batch": dead.ordinal,
            "error_code": letter.class, "dead_letter": letter.id,
        }));
    tx.event(dead.job_id, &event).await?;
    changes.merge(settle::after_tasks(&lead.parts, tx, &[dead.job_id]).await?);
    Ok(changes)
}

/// Without a plan, a job would wait for ever: it fails until the command to plan it is replayed.
async fn command_died(tx: &Tx, letter: &NewLetter) -> Result<Changes, StoreError> {
    let mut changes = Changes::default();
    let Some(id) = letter.job_id else { return Ok(changes) };
    let Some(job) = tx.read().job(id).await? else { return Ok(changes) };
    let command = decode::<Command>(None, &letter.body);
    let plans = matches!(&command, Ok(Command { command: Some(What::Submitted(_)), .. }));
    if job.state.is_ended() || planner::is_planned(&tx.read(), &job).await? {
        if plans {
            void(tx, letter, "its job is planned or has ended").await?;
        }
        return Ok(changes);
    }
    // One that cannot be read may have been the one that plans.
    if !plans && command.is_ok() {
        return Ok(changes);
    }
    let message = format!("the job is not planned: {}", letter.cause);
    let message = message.chars().take(MAX_CAUSE).collect::<String>();
    let event = NewEvent::new(EventLevel::Error, "child.failed", message.clone())
        .with(json!({ "operation": "plan", "error_code": letter.class, "dead_letter": letter.id }));
    tx.event(id, &event).await?;
    tx.set_job_error(id, &letter.class, &letter.cause).await?;
    let event = NewEvent::new(EventLevel::Error, "job.failed", message).with(json!({ "error_code": letter.class }));
    settle::stop(tx, &job, JobState::Failed, &event, &mut changes).await?;
    Ok(changes)
}

/// Nobody needs the letter: it leaves `warren.dead`, and its row says why.
async fn void(tx: &Tx, letter: &NewLetter, reason: &str) -> Result<(), StoreError> {
    tracing::info!(letter = letter.id, queue = letter.queue, cause = letter.cause, reason, "a dead letter is void");
    tx.void_letter(&letter.id, reason).await?;
    Ok(())
}
