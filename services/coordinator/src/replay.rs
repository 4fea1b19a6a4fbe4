//! Putting dead letters back to work.
//!
//! A replay is one transaction: the letter, its task, its job, and the message in the outbox. From then on it will happen,
//! whatever breaks. What is left is to take the letter out of `warren.dead`; that is a duty of its own ([`run`]), because
//! the queue may be long and the broker away, and jobs must not wait for either.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_broker::dead;
use warren_clock::{Reconnect, UnixMillis};
use warren_fault::{Code, Fault};
use warren_jobs::{JobState, TaskState};
use warren_messages::{
    envelope::headers,
    from_millis,
    ids::JobId,
    replay::{self, CONSUMER, Content},
    routes::{COMMANDS, REPORTS, tasks},
    wire::{Command, ReplayLetters, command::Command as What},
};
use warren_store::{DeadLetter, EventLevel, Job, LetterState, NewEvent, NewOutbox, StoreError, Task, Tx};

use crate::{
    board::{Changes, Out},
    lead::{self, Lead, Parts},
    planner::{self, Payload},
    releaser,
};

/// Letters in one transaction.
const GROUP: usize = 64;
/// A letter that somebody moves by hand may be known here a little later than there.
const INDEXED_WITHIN: Duration = Duration::from_secs(60);
/// The index may know a letter a little before `warren.dead` has it.
const SETTLING: Duration = Duration::from_millis(500);
/// Looked at without being woken.
const IDLE: Duration = Duration::from_secs(60);

/// Sends letters again. Run twice, or broken off and run again, it sends each once. `asked` is when it was asked for.
///
/// # Errors
/// When the store is away, or a letter is not indexed yet.
pub(crate) async fn replay(lead: &Lead, actor: &str, command: &ReplayLetters, asked: UnixMillis) -> Result<(), Fault> {
    let request = (!command.request_id.is_empty()).then(|| replay::request(actor, &command.request_id));
    if let Some(request) = &request
        && lead.parts.store.read().has_met(request, CONSUMER).await?
    {
        return Ok(());
    }
    let edited = (!command.edited_body.is_empty()).then_some(command.edited_body.as_slice());
    let mut groups = command.letters.chunks(GROUP).peekable();
    while let Some(group) = groups.next() {
        let tx = lead.begin().await?;
        let mut changes = Changes::default();
        for id in group {
            let Some(letter) = tx.read().letter(id).await? else {
                if lead.parts.clock.now().since(asked) < INDEXED_WITHIN {
                    return Err(Fault::retry_later(Code::BrokerUnavailable, format!("letter {id} is not indexed yet")));
                }
                tracing::error!(letter = id, actor, "there is no such letter to replay");
                continue;
            };
            changes.merge(send(&lead.parts, &tx, actor, request.as_deref(), &letter, edited).await?);
        }
        if let (Some(request), None) = (&request, groups.peek()) {
            tx.first_time(request, CONSUMER).await?;
        }
        lead.commit(tx, &changes).await?;
        lead.leaving.notify_one();
    }
    Ok(())
}

/// The rows of one replay, its message among them. One that would come to nothing is refused, and its letter stays dead.
async fn send(
    parts: &Parts,
    tx: &Tx,
    actor: &str,
    request: Option<&str>,
    letter: &DeadLetter,
    edited: Option<&[u8]>,
) -> Result<Changes, StoreError> {
    let (row, mut changes) = (&letter.letter, Changes::default());
    if letter.state != LetterState::Dead {
        return Ok(changes);
    }
    let edited = edited.filter(|body| *body != row.body);
    let content = Content::read(&row.queue, edited.unwrap_or(&row.body)).map_err(|cause| cause.message);
    let found = match content.as_ref().ok().and_then(Content::task) {
        Some(task) => found(tx, task).await?,
        None => None,
    };
    let standing = found.as_ref().map(|(task, job)| task.standing(job));
    let refused = content.as_ref().map_or_else(|cause| Some(cause.as_str()), |content| content.refused(standing));
    let content = match (&content, refused) {
        (Ok(content), None) => content.clone(),
        (_, why) => {
            let why = why.unwrap_or_default();
            tracing::warn!(letter = row.id, actor, why, "a letter is not replayed");
            tx.audit(actor, "replay refused", &row.id, &json!({ "queue": row.queue, "reason": why }).to_string())
                .await?;
            return Ok(changes);
        }
    };
    let mut message = match found {
        Some((task, job)) => revived(parts, tx, actor, content, edited.is_some(), task, &job, &mut changes).await?,
        None => {
            if let Content::Command(command) = &content {
                planned_again(parts, tx, actor, command, &mut changes).await?;
            }
            outgoing(parts, &content)
        }
    };
    let Some(generation) = tx.begin_replay(&row.id, request).await? else { return Ok(Changes::default()) };
    let mut detail = json!({ "queue": row.queue, "generation": generation, "edited": edited.is_some() });
    if edited.is_some() {
        detail["original"] = String::from_utf8_lossy(&row.body).into();
    }
    tx.audit(actor, "replay", &row.id, &detail.to_string()).await?;
    message.headers.insert(headers::REPLAY_OF.to_owned(), row.id.clone());
    message.headers.insert(headers::REPLAY_GEN.to_owned(), generation.to_string());
    tx.outbox(&message).await?;
    Ok(changes)
}

async fn found(tx: &Tx, task: Uuid) -> Result<Option<(Task, Job)>, StoreError> {
    let Some(task) = tx.read().task(task).await? else { return Ok(None) };
    let job = tx.read().job(task.job_id).await?;
    Ok(job.map(|job| (task, job)))
}

/// Brings a task back whose message or report is sent again, and its job with it. Returns that message.
#[allow(clippy::too_many_arguments, reason = "the rows of one replay")]
async fn revived(
    parts: &Parts,
    tx: &Tx,
    actor: &str,
    mut content: Content,
    edited: bool,
    mut task: Task,
    job: &Job,
    changes: &mut Changes,
) -> Result<NewOutbox, StoreError> {
    let (mut deadline, mut anew) = (job.deadline, false);
    if task.state == TaskState::Dead {
        match &content {
            Content::Task(_, message) => {
                if let (true, Some(work)) = (edited, &message.work) {
                    tx.set_payload(task.id, &Payload::write(work.clone())).await?;
                }
                task = tx.redrive(&[task.id]).await?.pop().unwrap_or(task);
            }
            // The dispatch that it names is the one that counts.
            content if content.ends_its_task() => {
                tx.revive(task.id, task.dispatch).await?;
            }
            // Its worker's other reports came to nothing, too: the whole is done again.
            _ => {
                task = tx.redrive(&[task.id]).await?.pop().unwrap_or(task);
                anew = true;
            }
        }
        // The limit of its first run may be over: it is given another.
        let fresh = tx.now().plus(releaser::limit(parts, job));
        tx.set_deadline(job.id, fresh).await?;
        deadline = Some(fresh);
        resumed(tx, actor, &task, job).await?;
        let out = Out { job: job.id, kind: task.kind, dispatch: task.wire_dispatch() };
        changes.released.push((task.id, lead::key(job), out));
        changes.touched.push(job.id);
    }
    if anew {
        return releaser::message(parts, &task, Some(job), deadline);
    }
    if let Content::Task(_, message) = &mut content {
        message.dispatch = task.wire_dispatch();
        message.deadline = deadline.map(|deadline| from_millis(deadline.0));
    }
    Ok(outgoing(parts, &content))
}

/// Says in the job's events that a task is back, and lets a failed job go on.
async fn resumed(tx: &Tx, actor: &str, task: &Task, job: &Job) -> Result<(), StoreError> {
    let message = format!("a dead letter of {} {} is replayed: {actor}", task.kind, task.ordinal);
    let fields = json!({ "operation": task.kind.as_str(), "batch": task.ordinal, "actor": actor });
    if job.state == JobState::Failed {
        let event = NewEvent::new(EventLevel::Info, "job.redriven", message).with(fields);
        tx.set_job_state(job.id, JobState::Failed, JobState::Running, &event).await?;
    } else {
        tx.event(job.id, &NewEvent::new(EventLevel::Info, "task.redriven", message).with(fields)).await?;
    }
    Ok(())
}

/// Lets a job go on that failed because the command to plan it, which is sent again, had died.
async fn planned_again(
    parts: &Parts,
    tx: &Tx,
    actor: &str,
    command: &Command,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    let Some(What::Submitted(submitted)) = &command.command else { return Ok(()) };
    let Ok(JobId(id)) = submitted.job.parse() else { return Ok(()) };
    let Some(job) = tx.read().job(id).await?.filter(|job| job.state == JobState::Failed) else { return Ok(()) };
    if planner::is_planned(&tx.read(), &job).await? {
        return Ok(());
    }
    let event = NewEvent::new(EventLevel::Info, "job.redriven", format!("its planning is replayed: {actor}"))
        .with(json!({ "operation": "plan", "actor": actor }));
    tx.set_job_state(id, JobState::Failed, JobState::Running, &event).await?;
    tx.set_deadline(id, tx.now().plus(releaser::limit(parts, &job))).await?;
    changes.touched.push(id);
    Ok(())
}

fn outgoing(parts: &Parts, content: &Content) -> NewOutbox {
    let id = parts.clock.new_id();
    match content {
        Content::Task(kind, message) => parts.relay.row(tasks(*kind), id, message),
        Content::Report(message) => parts.relay.row(REPORTS, id, message),
        Content::Command(message) => parts.relay.row(COMMANDS, id, message),
    }
}

/// Takes letters that were sent again, and those that nobody needs, out of `warren.dead`, until `over`.
///
/// # Errors
/// When the term is lost.
pub(crate) async fn run(lead: &Lead, over: &CancellationToken) -> Result<(), StoreError> {
    // Not there at the last look, and since when.
    let mut missed = BTreeMap::new();
    let mut trouble = Reconnect::new();
    loop {
        let wait = match clear(lead, &mut missed).await {
            Ok(()) => {
                trouble.reset();
                if missed.is_empty() { IDLE } else { SETTLING }
            }
            Err(Trouble::Store(StoreError::TermLost)) => return Err(StoreError::TermLost),
            Err(error) => {
                tracing::warn!(%error, "letters not removed from warren.dead; again later");
                trouble.next_delay()
            }
        };
        tokio::select! {
            () = over.cancelled() => return Ok(()),
            () = lead.leaving.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Scan(#[from] dead::ScanError),
}

async fn clear(lead: &Lead, missed: &mut BTreeMap<Uuid, Instant>) -> Result<(), Trouble> {
    let ids = lead.parts.store.read().leaving_letters().await?;
    let leaving: BTreeSet<Uuid> = ids.iter().filter_map(|id| id.parse().ok()).collect();
    missed.retain(|id, _| leaving.contains(id));
    if leaving.is_empty() {
        return Ok(());
    }
    let (removed, interrupted) = match dead::remove(&lead.parts.broker, &leaving).await {
        Ok(removed) => (removed, None),
        Err(error) => (error.removed.clone(), Some(error)),
    };
    let mut done: Vec<String> = removed.iter().map(Uuid::to_string).collect();
    if interrupted.is_none() {
        for id in leaving.difference(&removed) {
            // Somebody moved or purged it by hand, unless it is yet to come.
            if missed.entry(*id).or_insert_with(Instant::now).elapsed() >= SETTLING {
                done.push(id.to_string());
            }
        }
    }
    if !done.is_empty() {
        let tx = lead.begin().await?;
        tx.letters_left(&done).await?;
        tx.commit().await?;
        missed.retain(|id, _| !done.contains(&id.to_string()));
    }
    interrupted.map_or(Ok(()), |error| Err(error.into()))
}
