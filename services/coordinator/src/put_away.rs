//! Letters that an operator wants no more of, and letters that come back from an export.

use serde_json::json;
use warren_fault::{Code, Fault};
use warren_jobs::{JobState, TaskKind};
use warren_messages::{
    envelope::headers,
    ids::{JobId, TaskId},
    routes::{COMMANDS, DEAD_EXCHANGE, DEAD_QUEUE, REPORTS, tasks},
    wire::{self, DiscardLetters, ImportLetter},
};
use warren_store::{EventLevel, NewEvent, NewLetter, NewOutbox, PutBack, StoreError, Tx};

use crate::{board::Changes, lead::Lead};

/// Letters in one transaction.
const GROUP: usize = 64;

/// Discards letters; one that is not dead any more stays what it is. Their tasks stay dead, and what their jobs were.
///
/// # Errors
/// When the store is away.
pub(crate) async fn discard(lead: &Lead, actor: &str, command: &DiscardLetters) -> Result<(), Fault> {
    for group in command.letters.chunks(GROUP) {
        let tx = lead.begin().await?;
        let mut changes = Changes::default();
        for id in group {
            changes.merge(discard_one(&tx, actor, id, &command.reason).await?);
        }
        lead.commit(tx, &changes).await?;
        lead.leaving.notify_one();
    }
    Ok(())
}

async fn discard_one(tx: &Tx, actor: &str, id: &str, reason: &str) -> Result<Changes, StoreError> {
    let mut changes = Changes::default();
    if !tx.discard_letter(id, reason).await? {
        return Ok(changes);
    }
    tx.audit(actor, "discard", id, &json!({ "reason": reason }).to_string()).await?;
    let Some(job) = tx.read().letter(id).await?.and_then(|letter| letter.letter.job_id) else { return Ok(changes) };
    let job = tx.read().job(job).await?;
    // What has succeeded or was cancelled does not change.
    let Some(job) = job.filter(|job| !matches!(job.state, JobState::Succeeded | JobState::Cancelled)) else {
        return Ok(changes);
    };
    let event = NewEvent::new(EventLevel::Warning, "dead_letter.discarded", format!("discarded by {actor}: {reason}"))
        .with(json!({ "dead_letter": id, "actor": actor }));
    tx.event(job.id, &event).await?;
    changes.touched.push(job.id);
    Ok(changes)
}

/// Puts an exported letter back where it lay, unless it is there.
///
/// # Errors
/// When the store is away, or the letter has yet to leave `warren.dead`; `Malformed` when it is no letter.
pub(crate) async fn put_back(lead: &Lead, actor: &str, command: &ImportLetter) -> Result<(), Fault> {
    let letter = command.letter.as_ref();
    let letter = letter.ok_or_else(|| Fault::permanent(Code::Malformed, "an import without a letter"))?;
    let row = row(letter)?;
    let tx = lead.begin().await?;
    match tx.put_letter_back(&row, i64::from(letter.replays)).await? {
        PutBack::Refused(state) => {
            tracing::info!(letter = row.id, state = state.as_str(), "a letter is there already");
            return Ok(());
        }
        PutBack::Publish => tx.outbox(&message(lead, &row)).await?,
        PutBack::Leaving => {
            let why = format!("letter {} is still being taken out of {DEAD_QUEUE}", row.id);
            return Err(Fault::retryable(Code::BrokerUnavailable, why));
        }
    }
    tx.audit(actor, "import", &row.id, &json!({ "queue": row.queue, "class": row.class }).to_string()).await?;
    lead.commit(tx, &Changes::default()).await?;
    Ok(())
}

fn row(letter: &wire::DeadLetter) -> Result<NewLetter, Fault> {
    let malformed = |what: String| Fault::permanent(Code::Malformed, what);
    let job = (!letter.job.is_empty()).then(|| letter.job.parse::<JobId>()).transpose();
    let task = (!letter.task.is_empty()).then(|| letter.task.parse::<TaskId>()).transpose();
    Ok(NewLetter {
        id: letter.id.clone(),
        queue: letter.queue.clone(),
        kind: letter.kind.clone(),
        class: letter.class.clone(),
        cause: letter.cause.clone(),
        fingerprint: letter.fingerprint.clone(),
        job_id: job.map_err(|error| malformed(format!("letter.job: {error}")))?.map(|id| id.0),
        task_id: task.map_err(|error| malformed(format!("letter.task: {error}")))?.map(|id| id.0),
        dispatch: (letter.dispatch > 0).then_some(i64::from(letter.dispatch)),
        replay_of: (!letter.replay_of.is_empty()).then(|| letter.replay_of.clone()),
        body: letter.body.clone(),
        content_type: letter.content_type.clone(),
        headers: letter.headers.clone().into_iter().collect(),
    })
}

/// The message as it lay in `warren.dead`, under the same id.
fn message(lead: &Lead, row: &NewLetter) -> NewOutbox {
    let key = TaskKind::ALL.iter().find(|kind| tasks(**kind).queue == row.queue).map(|kind| kind.as_str());
    let key = key.unwrap_or(if row.queue == REPORTS.queue { REPORTS.key } else { COMMANDS.key });
    let mut texts = row.headers.clone();
    texts.extend([
        (headers::LETTER.to_owned(), row.id.clone()),
        (headers::SOURCE.to_owned(), row.queue.clone()),
        (headers::ERR_CLASS.to_owned(), row.class.clone()),
        (headers::ERR_CAUSE.to_owned(), row.cause.clone()),
        (headers::ERR_FP.to_owned(), row.fingerprint.clone()),
    ]);
    NewOutbox {
        exchange: DEAD_EXCHANGE.to_owned(),
        routing_key: key.to_owned(),
        kind: row.kind.clone(),
        message_id: lead.parts.clock.new_id().to_string(),
        body: row.body.clone(),
        headers: texts,
        relay: lead.parts.relay.name().to_owned(),
    }
}
