//! What callers and operators ask of the leader: plan a job, cancel or delete one, replay, discard or put back dead letters.

use std::sync::Arc;

use futures::future::join_all;
use serde_json::json;
use uuid::Uuid;
use warren_blob::Key;
use warren_broker::{GroupHandler, Received};
use warren_fault::{Cause, Code, Fault};
use warren_jobs::{JobKind, JobState, TaskKind, plan::MAX_TEXTS_OBJECT_BYTES};
use warren_messages::{
    ids::{JobId, MediaId},
    routes::COMMANDS,
    wire::{Command, command::Command as What},
};
use warren_store::{EventLevel, Job, NewEvent, NewTask, Reads, StoreError, Tx};

use crate::{
    aside::{put_aside, soon, waits_alone},
    board::Changes,
    lead::{self, Lead, Parts},
    operate,
    planner::{self, Line},
    put_away, replay, settle,
};

/// Handles queue `warren.job`.
#[derive(Debug)]
pub(crate) struct Commands(pub Arc<Lead>);

impl GroupHandler<Received<Command>> for Commands {
    async fn handle(&self, group: &[Received<Command>]) -> Result<(), Fault> {
        // From before the first look: what is told meanwhile counts.
        let retry = self.0.parts.retry.notified();
        // Who cancels waits for an answer, and needs no storage. The others that do ask it side by side.
        let (cancels, others): (Vec<_>, Vec<_>) =
            group.iter().partition(|received| matches!(received.message.command, Some(What::Cancel(_))));
        let (stored, others): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|received| matches!(received.message.command, Some(What::Submitted(_) | What::Delete(_))));
        let mut outcomes = Vec::with_capacity(group.len());
        for received in cancels {
            outcomes.push((received, self.one(received).await));
        }
        outcomes.extend(join_all(stored.into_iter().map(async |received| (received, self.one(received).await))).await);
        for received in others {
            outcomes.push((received, self.one(received).await));
        }
        let mut waiting = Vec::new();
        for (received, outcome) in outcomes {
            match outcome {
                Err(fault) if waits_alone(&fault) => {
                    tracing::warn!(%fault, "a command waits");
                    waiting.push(received);
                }
                outcome => outcome?,
            }
        }
        put_aside(&self.0.parts.broker, COMMANDS, &waiting, group.len(), retry).await
    }
}

/// A job's first tasks.
struct Plan {
    kind: TaskKind,
    tasks: Vec<NewTask>,
    /// No more will follow.
    is_final: bool,
}

impl Commands {
    async fn one(&self, received: &Received<Command>) -> Result<(), Fault> {
        let command = &received.message;
        match &command.command {
            Some(What::Submitted(command)) => submitted(&self.0, job_id(&command.job)?).await,
            Some(What::Cancel(cancel)) => self.cancel(job_id(&cancel.job)?, &command.actor, &cancel.reason).await,
            Some(What::Delete(delete)) => self.delete(job_id(&delete.job)?, &command.actor, &delete.media).await,
            Some(What::Replay(replay)) => replay::accept(&self.0, &command.actor, replay, &received.delivery).await,
            Some(What::Discard(discard)) => put_away::discard(&self.0, &command.actor, discard).await,
            Some(What::PutBack(letter)) => put_away::put_back(&self.0, &command.actor, letter).await,
            Some(What::Operate(asked)) => operate::operate(&self.0, &command.actor, asked).await,
            None => Err(Fault::permanent(Code::Malformed, "a command without content")),
        }
    }

    async fn cancel(&self, id: Uuid, actor: &str, reason: &str) -> Result<(), Fault> {
        let by = if reason.is_empty() { actor.to_owned() } else { format!("{actor}: {reason}") };
        let outcome = async {
            let tx = self.0.begin().await?;
            let mut changes = Changes::default();
            let Some(job) = tx.read().job(id).await?.filter(|job| !job.state.is_ended()) else { return Ok(()) };
            let event = NewEvent::new(EventLevel::Info, "job.cancelled", format!("cancelled by {by}"));
            let cancelled = settle::stop(&tx, &job, JobState::Cancelled, &event, &mut changes).await?;
            tx.set_job_error(id, Code::Cancelled.as_str(), &format!("cancelled by {by}")).await?;
            let detail = json!({ "tasks": cancelled, "reason": reason }).to_string();
            tx.audit(actor, "cancel", &JobId(id).to_string(), &detail).await?;
            self.0.commit(tx, &changes).await
        };
        outcome.await.map_err(|error: StoreError| error.fault())
    }

    /// Rows first: an object without a row is deleted when this command is heard again, a row without its object is never
    /// made. What workers stored for the job, the sweeper finds.
    async fn delete(&self, id: Uuid, actor: &str, media: &str) -> Result<(), Fault> {
        let outcome = async {
            let tx = self.0.begin().await?;
            let name = tx.read().job(id).await?.map(|job| job.name);
            if tx.delete_job(id).await? {
                tx.audit(actor, "delete", &JobId(id).to_string(), &name.unwrap_or_default()).await?;
                tracing::info!(job.id = %JobId(id), "job deleted");
            }
            self.0.commit(tx, &Changes { touched: vec![id], ..Changes::default() }).await?;
            Ok(self.0.parts.store.read().job(id).await?.is_none())
        };
        if !outcome.await.map_err(|error: StoreError| error.fault())? {
            return Ok(());
        }
        let blobs = &self.0.parts.blobs;
        let texts = Key::texts(id);
        soon(&texts, blobs.delete(&texts)).await?;
        let Ok(MediaId(media)) = media.parse() else { return Ok(()) };
        let kept = self.0.parts.store.read().media(media).await.map_err(|error| error.fault())?;
        match kept {
            Some(_) => Ok(()),
            None => {
                let media = Key::media(media);
                soon(&media, blobs.delete(&media)).await
            }
        }
    }
}

/// Plans a job. Planned twice, it has the same tasks.
///
/// # Errors
/// When the store or object storage is away.
pub(crate) async fn submitted(lead: &Lead, id: Uuid) -> Result<(), Fault> {
    let store = &lead.parts.store;
    let Some(job) = store.read().job(id).await.map_err(|error| error.fault())? else {
        return Err(Fault::permanent(Code::Internal, format!("there is no job {}", JobId(id))));
    };
    if !wants_plan(&store.read(), &job).await.map_err(|error| error.fault())? {
        return Ok(());
    }
    let planned = match first_tasks(&lead.parts, &job).await {
        Err(fault) if !matches!(fault, Fault::Permanent(_)) => return Err(fault),
        planned => planned,
    };
    write_plan(lead, &job, &planned).await.map_err(|error| error.fault())
}

/// It has no plan yet, and needs one.
async fn wants_plan(read: &Reads<'_>, job: &Job) -> Result<bool, StoreError> {
    Ok(match job.state {
        JobState::Queued => true,
        // It had failed for want of the command to plan it, which is replayed.
        JobState::Running => !planner::is_planned(read, job).await?,
        _ => false,
    })
}

async fn write_plan(lead: &Lead, job: &Job, planned: &Result<Plan, Fault>) -> Result<(), StoreError> {
    let tx = lead.begin().await?;
    // Much may have happened while storage was asked.
    let Some(job) = &tx.read().job(job.id).await? else { return Ok(()) };
    if !wants_plan(&tx.read(), job).await? {
        return Ok(());
    }
    let changes = match planned {
        Ok(planned) => plan(&tx, job, planned).await?,
        Err(fault) => refuse(&tx, job, fault.cause()).await?,
    };
    lead.commit(tx, &changes).await?;
    warren_drills::passing("coordinator.job-planned");
    Ok(())
}

async fn first_tasks(parts: &Parts, job: &Job) -> Result<Plan, Fault> {
    if job.kind == JobKind::Transcribe {
        let media = job.media_id.unwrap_or_default();
        let media = parts.store.read().media(media).await.map_err(|error| error.fault())?;
        let media = media.ok_or_else(|| Fault::permanent(Code::BlobMissing, "the recording was deleted"))?;
        let tasks = vec![planner::prepare(parts, job, &media)];
        return Ok(Plan { kind: TaskKind::Prepare, tasks, is_final: false });
    }
    let spec = planner::embed_spec(job).map_err(|error| StoreError::corrupt(error).fault())?;
    let lines = if spec.texts.is_empty() {
        let texts = Key::texts(job.id);
        let object = soon(&texts, parts.blobs.get_bytes(&texts, MAX_TEXTS_OBJECT_BYTES)).await?;
        planner::lines(&object).map_err(Fault::Permanent)?
    } else {
        spec.texts.into_iter().map(Line::inline).collect()
    };
    if lines.is_empty() {
        // Ingest refuses such a job; one that came about in another way would have no task to end it.
        return Err(Fault::permanent(Code::InputInvalid, "texts: there are none"));
    }
    let tasks = planner::embed(parts, &parts.settings.release, job, &job.model, &lines);
    Ok(Plan { kind: TaskKind::Embed, tasks, is_final: true })
}

async fn plan(tx: &Tx, job: &Job, Plan { kind, tasks, is_final }: &Plan) -> Result<Changes, StoreError> {
    let inserted = tx.insert_tasks(tasks).await?;
    tracing::info!(job.id = %JobId(job.id), %kind, tasks = inserted.len(), "job planned");
    tx.add_planned(job.id, 0.0, *is_final).await?;
    let mut changes = Changes { touched: vec![job.id], ..Changes::default() };
    if let (Some(first), false) = (tasks.first(), inserted.is_empty()) {
        changes.waiting.push((lead::key(job), *kind, inserted.len() as u64, first.cost));
    }
    Ok(changes)
}

/// A job that cannot be planned fails with the reason.
async fn refuse(tx: &Tx, job: &Job, cause: &Cause) -> Result<Changes, StoreError> {
    let mut changes = Changes { touched: vec![job.id], ..Changes::default() };
    let event = NewEvent::new(EventLevel::Error, "job.failed", cause.message.clone())
        .with(json!({ "error_code": cause.code.as_str() }));
    tx.set_job_error(job.id, cause.code.as_str(), &cause.message).await?;
    settle::stop(tx, job, JobState::Failed, &event, &mut changes).await?;
    Ok(changes)
}

fn job_id(text: &str) -> Result<Uuid, Fault> {
    text.parse::<JobId>().map(|id| id.0).map_err(|error| Fault::permanent(Code::Malformed, error.to_string()))
}
