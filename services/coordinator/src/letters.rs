//! Dead letters: the index of `warren.dead`, and putting letters back to work.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use uuid::Uuid;
use warren_broker::{Death, GroupHandler, Letter, dead};
use warren_fault::{Code, Fault};
use warren_jobs::{JobState, TaskKind, TaskState, fingerprint::fingerprint};
use warren_messages::{
    envelope::{self, Envelope, Message, headers},
    ids::{JobId, TaskId},
    routes::{self, COMMANDS, REPORTS, TASK_EXCHANGE},
    wire::{self, ReplayLetters},
};
use warren_store::{DeadLetter, EventLevel, LetterState, NewEvent, NewLetter, StoreError, Tx};
use warren_telemetry::metrics;

use crate::{
    board::{Changes, Out},
    lead::{self, Lead},
    planner::Payload,
    settle,
};

/// Time between an indexed letter and its place in `warren.dead`, at most.
const SETTLING: Duration = Duration::from_millis(500);
/// Most characters of a cause that are kept.
const MAX_CAUSE: usize = 2_000;

/// Handles queue `warren.dead.index`.
#[derive(Debug)]
pub(crate) struct Index(pub Arc<Lead>);

impl GroupHandler<Letter> for Index {
    async fn handle(&self, group: &[Letter]) -> Result<(), Fault> {
        let rows: Vec<NewLetter> = group.iter().map(row).collect();
        let lead = &self.0;
        let outcome = async {
            let tx = lead.begin().await?;
            let mut changes = Changes::default();
            for row in &rows {
                if tx.insert_letter(row).await? {
                    changes.merge(died(lead, &tx, row).await?);
                }
            }
            lead.commit(tx, &changes).await
        };
        outcome.await.map_err(|error: StoreError| error.fault())?;
        for row in &rows {
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

/// What is sent in place of a letter.
struct Replacement {
    exchange: String,
    key: String,
    body: Vec<u8>,
    headers: BTreeMap<String, String>,
    message_id: Uuid,
}

/// Puts letters back to work: first the rows, then the messages. Broken off anywhere, the same command finishes it.
///
/// # Errors
/// When the store or the broker is away.
pub(crate) async fn replay(lead: &Lead, actor: &str, command: &ReplayLetters) -> Result<(), Fault> {
    let store = &lead.parts.store;
    let mut ready: BTreeMap<Uuid, Replacement> = BTreeMap::new();
    for id in &command.letters {
        let Some(letter) = store.read().letter(id).await.map_err(|error| error.fault())? else { continue };
        if !matches!(letter.state, LetterState::Dead | LetterState::Replaying) {
            continue;
        }
        let edited = (!command.edited_body.is_empty()).then_some(command.edited_body.as_slice());
        match prepare(lead, actor, &letter, edited, command.force).await {
            Ok(Some(replacement)) => {
                if let Ok(id) = letter.letter.id.parse() {
                    ready.insert(id, replacement);
                }
            }
            Ok(None) => {}
            Err(error) => return Err(error.fault()),
        }
    }
    if ready.is_empty() {
        return Ok(());
    }
    // The index may know a letter some milliseconds before `warren.dead` has it.
    for last in [false, true] {
        send(lead, &mut ready, last).await?;
        if ready.is_empty() {
            break;
        }
        if !last {
            tokio::time::sleep(SETTLING).await;
        }
    }
    Ok(())
}

/// Moves the letters that lie in `warren.dead`, and forgets them here. `from_index`: one that lies there no longer,
/// because somebody moved or purged it by hand, is sent from its indexed copy.
async fn send(lead: &Lead, ready: &mut BTreeMap<Uuid, Replacement>, from_index: bool) -> Result<(), Fault> {
    let broker = &lead.parts.broker;
    let scanned = dead::scan(broker, Duration::ZERO, |letter| match ready.get(&letter.id) {
        None => dead::Decision::Leave,
        Some(with) => dead::Decision::Replay {
            exchange: with.exchange.clone(),
            key: with.key.clone(),
            body: with.body.clone(),
            headers: with.headers.clone(),
            message_id: with.message_id,
        },
    });
    let report = scanned.await.map_err(|error| Fault::retry_later(Code::BrokerUnavailable, error.to_string()))?;
    let mut sent = report.replayed;
    let refused: BTreeSet<Uuid> = report.refused.iter().map(|(id, _)| *id).collect();
    if from_index {
        let gone = |id: &Uuid| !sent.contains(id) && !refused.contains(id);
        let gone: Vec<Uuid> = ready.keys().copied().filter(gone).collect();
        for (id, with) in gone.into_iter().filter_map(|id| ready.get(&id).map(|with| (id, with))) {
            let envelope = Envelope {
                message_id: with.message_id,
                kind: String::new(),
                body: with.body.clone(),
                headers: with.headers.clone(),
            };
            broker.publish(&with.exchange, &with.key, &envelope).await.map_err(|error| error.fault())?;
            sent.push(id);
        }
    }
    let finished = async {
        let tx = lead.begin().await?;
        for id in &sent {
            tx.set_letter_state(&id.to_string(), LetterState::Replaying, LetterState::Replayed).await?;
        }
        tx.commit().await
    };
    finished.await.map_err(|error: StoreError| error.fault())?;
    ready.retain(|id, _| !sent.contains(id));
    report.refused.first().map_or(Ok(()), |(_, error)| Err(error.fault()))
}

/// The rows of one replay. `None`: refused, because its task needs no replay.
async fn prepare(
    lead: &Lead,
    actor: &str,
    letter: &DeadLetter,
    edited: Option<&[u8]>,
    force: bool,
) -> Result<Option<Replacement>, StoreError> {
    let row = &letter.letter;
    let body = edited.unwrap_or(&row.body);
    let Some((exchange, key)) = home(&row.queue) else { return Ok(None) };
    let mut task: Option<wire::Task> =
        if exchange == TASK_EXCHANGE { envelope::decode::<wire::Task>(None, body).ok() } else { None };
    let tx = lead.begin().await?;
    let mut changes = Changes::default();
    if let Some(message) = &mut task {
        match redrive(&tx, message, edited.is_some(), force, &mut changes).await? {
            Some(dispatch) => message.dispatch = dispatch,
            None => return Ok(None),
        }
    }
    // A replay that was broken off goes on under its number.
    let begun = tx.begin_replay(std::slice::from_ref(&row.id), &[LetterState::Dead]).await?;
    let generation = begun.first().map_or(letter.generation, |begun| begun.generation);
    let detail = json!({ "queue": row.queue, "generation": generation, "edited": edited.is_some() });
    tx.audit(actor, "replay", &row.id, &detail.to_string()).await?;
    lead.commit(tx, &changes).await?;

    let mut sent = task.as_ref().map(Message::headers).unwrap_or_default();
    sent.insert(headers::REPLAY_OF.to_owned(), row.id.clone());
    sent.insert(headers::REPLAY_GEN.to_owned(), generation.to_string());
    let body = match &task {
        Some(task) => serde_json::to_vec(task).expect("generated messages always serialise"),
        None => body.to_vec(),
    };
    let message_id = lead.parts.clock.new_id();
    Ok(Some(Replacement { exchange: exchange.to_owned(), key: key.to_owned(), body, headers: sent, message_id }))
}

/// Brings the task of a letter back. Returns the dispatch that its message has to carry, or `None` when the task is
/// not waiting for this message.
async fn redrive(
    tx: &Tx,
    message: &wire::Task,
    edited: bool,
    force: bool,
    changes: &mut Changes,
) -> Result<Option<u32>, StoreError> {
    let Ok(TaskId(id)) = message.id.parse() else { return Ok(None) };
    let Some(task) = tx.read().task(id).await? else { return Ok(None) };
    let dispatch = |dispatch: i64| u32::try_from(dispatch).unwrap_or(0);
    match task.state {
        // Its message was damaged on the way; the task never knew.
        TaskState::Released => return Ok(Some(dispatch(task.dispatch))),
        TaskState::Dead => {}
        TaskState::Unreleased => return Ok(None),
        TaskState::Done | TaskState::Failed | TaskState::Cancelled => return Ok(force.then_some(message.dispatch)),
    }
    let Some(job) = tx.read().job(task.job_id).await? else { return Ok(None) };
    if let (true, Some(work)) = (edited, &message.work) {
        tx.set_payload(id, &Payload::write(work.clone())).await?;
    }
    let Some(task) = tx.redrive(&[id]).await?.pop() else { return Ok(None) };
    if job.state == JobState::Failed {
        let event = NewEvent::new(EventLevel::Info, "job.redriven", "a dead letter of it is replayed");
        tx.set_job_state(job.id, JobState::Failed, JobState::Running, &event).await?;
    }
    let out = Out { job: job.id, kind: task.kind, dispatch: dispatch(task.dispatch) };
    changes.released.push((id, lead::key(&job), out));
    changes.touched.push(job.id);
    Ok(Some(dispatch(task.dispatch)))
}

/// Exchange and routing key that lead to a queue.
fn home(queue: &str) -> Option<(&'static str, &'static str)> {
    let task =
        TaskKind::ALL.iter().map(|kind| routes::tasks(*kind)).map(|route| (route.queue, route.exchange, route.key));
    let control = [(COMMANDS.queue, COMMANDS.exchange, COMMANDS.key), (REPORTS.queue, REPORTS.exchange, REPORTS.key)];
    task.chain(control).find(|(name, _, _)| *name == queue).map(|(_, exchange, key)| (exchange, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_work_queue_has_a_way_back() {
        assert_eq!(home("warren.task.embed"), Some((TASK_EXCHANGE, "embed")));
        assert_eq!(home("warren.result"), Some((REPORTS.exchange, "warren.result")));
        assert_eq!(home("warren.dead"), None);
    }
}
