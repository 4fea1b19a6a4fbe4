//! One letter goes back to work: its row, its task, its job, and the message in the outbox, in one transaction.

use serde_json::json;
use uuid::Uuid;
use warren_jobs::{JobState, TaskState};
use warren_messages::{
    edits,
    envelope::headers,
    from_millis,
    ids::JobId,
    replay::{Content, Original},
    routes::{COMMANDS, REPORTS, tasks},
    wire::{Command, command::Command as What},
};
use warren_store::{DeadLetter, EventLevel, Job, NewEvent, NewLetter, NewOutbox, NewReplay, StoreError, Task, Tx};

use crate::{
    board::{Changes, Out},
    lead::{self, Parts},
    planner::{self, Payload},
    releaser,
};

/// Writes the rows of one replay, its message among them. One that would come to nothing is refused with the reason,
/// and its letter stays where it is.
///
/// # Errors
/// When the store is away.
pub(super) async fn send(
    parts: &Parts,
    tx: &Tx,
    asked: &NewReplay,
    letter: &DeadLetter,
) -> Result<Result<Changes, String>, StoreError> {
    let (row, mut changes) = (&letter.letter, Changes::default());
    if let Some(why) = letter.stays(asked.from_index) {
        return Ok(Err(why));
    }
    let edited = asked.edited_body.as_deref().filter(|body| *body != row.body);
    let content = match Content::read(&row.queue, edited.unwrap_or(&row.body)) {
        Ok(content) => content,
        Err(cause) => return Ok(Err(format!("{}; replay it with a corrected body", cause.message))),
    };
    let found = match content.task() {
        Some(task) => found(tx, task).await?,
        None => None,
    };
    if edited.is_some()
        && let Some(why) = misplaced(tx, row, &content).await?
    {
        return Ok(Err(why));
    }
    let standing = found.as_ref().map(|(task, job)| task.standing(job));
    let idle = content.refused(standing);
    if let (Some(why), false) = (idle, asked.forced) {
        return Ok(Err(why.to_owned()));
    }
    // Whatever is refused is refused before anything is changed.
    let Some(generation) = tx.begin_replay(&row.id).await? else { return Ok(Err("it is being replayed".to_owned())) };
    let mut message = match found {
        // Forced, although nobody will take it: what is over does not change.
        _ if idle.is_some() => outgoing(parts, &content),
        Some((task, job)) => {
            revived(parts, tx, &asked.actor, content, edited.is_some(), task, &job, &mut changes).await?
        }
        None => {
            if let Content::Command(command) = &content {
                planned_again(parts, tx, &asked.actor, command, &mut changes).await?;
            }
            outgoing(parts, &content)
        }
    };
    let mut detail = json!({ "queue": row.queue, "generation": generation, "request": asked.id });
    if !asked.reason.is_empty() {
        detail["reason"] = asked.reason.clone().into();
    }
    if idle.is_some() {
        detail["forced"] = idle.into();
    }
    if let Some(edited) = edited {
        detail["changes"] = edits::changes(&row.body, edited);
    }
    tx.audit(&asked.actor, "replay", &row.id, &detail.to_string()).await?;
    message.headers.insert(headers::REPLAY_OF.to_owned(), row.id.clone());
    message.headers.insert(headers::REPLAY_GEN.to_owned(), generation.to_string());
    tx.outbox(&message).await?;
    Ok(Ok(changes))
}

/// Why an edited body cannot stand for its letter.
async fn misplaced(tx: &Tx, row: &NewLetter, edited: &Content) -> Result<Option<String>, StoreError> {
    let task = match row.task_id {
        Some(task) => tx.read().task(task).await?,
        None => None,
    };
    let original = Original {
        queue: &row.queue,
        body: &row.body,
        task: row.task_id,
        job: row.job_id,
        dispatch: row.dispatch,
        payload: task.as_ref().map(|task| task.payload.as_str()),
    };
    Ok(original.misplaced(edited))
}

/// A task and its job.
pub(super) async fn found(tx: &Tx, task: Uuid) -> Result<Option<(Task, Job)>, StoreError> {
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

/// The message as it was, or as it was edited.
pub(super) fn outgoing(parts: &Parts, content: &Content) -> NewOutbox {
    let id = parts.clock.new_id();
    match content {
        Content::Task(kind, message) => parts.relay.row(tasks(*kind), id, message),
        Content::Report(message) => parts.relay.row(REPORTS, id, message),
        Content::Command(message) => parts.relay.row(COMMANDS, id, &**message),
    }
}
