//! The index of the dead letters: what died, why, and what that means for its job.

use std::sync::Arc;

use serde_json::json;
use warren_broker::{Death, GroupHandler, Letter};
use warren_fault::Fault;
use warren_jobs::fingerprint::fingerprint;
use warren_messages::{
    envelope::headers,
    ids::{JobId, TaskId},
    wire,
};
use warren_store::{EventLevel, NewEvent, NewLetter, StoreError, Tx};
use warren_telemetry::metrics;

use crate::{board::Changes, lead::Lead, settle};

/// Most characters of a cause that are kept.
const MAX_CAUSE: usize = 2_000;

/// Handles queue `warren.dead.index`.
#[derive(Debug)]
pub(crate) struct Index(pub Arc<Lead>);

impl GroupHandler<Letter> for Index {
    async fn handle(&self, group: &[Letter]) -> Result<(), Fault> {
        let rows: Vec<NewLetter> = group.iter().map(row).collect();
        let lead = &self.0;
        let tx = lead.begin().await?;
        let (mut changes, mut new) = (Changes::default(), Vec::new());
        for row in &rows {
            if tx.insert_letter(row).await? {
                changes.merge(died(lead, &tx, row).await?);
                new.push(row);
            }
        }
        lead.commit(tx, &changes).await?;
        lead.parts.retry.notify_waiters();
        for row in new {
            metrics::DEAD_LETTERS_MADE.one(&[("queue", &row.queue), ("class", &row.class)]);
        }
        Ok(())
    }
}

/// A letter as a row. What names its task is read from headers, then from the body.
fn row(letter: &Letter) -> NewLetter {
    let header = |name: &str| letter.headers.get(name).map(String::as_str);
    let body: Option<wire::Task> = serde_json::from_slice(&letter.body).ok();
    let text = |name: &str, field: fn(&wire::Task) -> &str| {
        header(name).map(str::to_owned).or_else(|| body.as_ref().map(|task| field(task).to_owned()))
    };
    let task_id = text(headers::TASK, |task| &task.id).and_then(|id| id.parse::<TaskId>().ok()).map(|id| id.0);
    let job_id = text(headers::JOB, |task| &task.job).and_then(|id| id.parse::<JobId>().ok()).map(|id| id.0);
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
        body: letter.body.clone(),
        content_type: letter.content_type.clone(),
        headers: letter.headers.clone(),
    }
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

/// The task of a new letter is dead, and its job may be over.
async fn died(lead: &Lead, tx: &Tx, letter: &NewLetter) -> Result<Changes, StoreError> {
    let mut changes = Changes::default();
    let Some(task) = letter.task_id else { return Ok(changes) };
    let Some(dead) = tx.mark_dead(task, letter.dispatch, &letter.class, &letter.cause).await? else {
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
    changes.merge(settle::after_tasks(&lead.parts, tx, dead.job_id).await?);
    Ok(changes)
}
