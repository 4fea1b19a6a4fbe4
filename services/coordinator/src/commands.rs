//! What callers and operators ask of the leader: plan a job, cancel one, replay dead letters.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;
use warren_blob::{BlobError, Key};
use warren_broker::{GroupHandler, Received};
use warren_fault::{Cause, Code, Fault};
use warren_jobs::{JobKind, JobState, TaskKind, plan::MAX_TEXTS_OBJECT_BYTES};
use warren_messages::{
    ids::JobId,
    routes::COMMANDS,
    wire::{Command, command::Command as What},
};
use warren_store::{EventLevel, Job, NewEvent, NewTask, StoreError, Tx};

use crate::{
    aside::{put_aside, waits_alone},
    board::Changes,
    lead::{self, Lead},
    planner, replay, settle,
};

/// Handles queue `warren.job`.
#[derive(Debug)]
pub(crate) struct Commands(pub Arc<Lead>);

impl GroupHandler<Received<Command>> for Commands {
    async fn handle(&self, group: &[Received<Command>]) -> Result<(), Fault> {
        // From before the first look: what is told meanwhile counts.
        let retry = self.0.parts.retry.notified();
        let mut waiting = Vec::new();
        for received in group {
            match self.one(received).await {
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
            Some(What::Submitted(submitted)) => self.submitted(job_id(&submitted.job)?).await,
            Some(What::Cancel(cancel)) => self.cancel(job_id(&cancel.job)?, &command.actor, &cancel.reason).await,
            Some(What::Replay(replay)) => {
                replay::replay(&self.0, &command.actor, replay, received.delivery.first_seen).await
            }
            None => Err(Fault::permanent(Code::Malformed, "a command without content")),
        }
    }

    /// Plans a job. Planned twice, it has the same tasks.
    async fn submitted(&self, id: Uuid) -> Result<(), Fault> {
        let lead = &self.0;
        let store = &lead.parts.store;
        let Some(job) = store.read().job(id).await.map_err(|error| error.fault())? else {
            return Err(Fault::permanent(Code::Internal, format!("there is no job {}", JobId(id))));
        };
        let unplanned = match job.state {
            JobState::Queued => true,
            // It had failed for want of this command, which is replayed.
            JobState::Running => !planner::is_planned(&store.read(), &job).await.map_err(|error| error.fault())?,
            _ => false,
        };
        if !unplanned {
            return Ok(());
        }
        let planned = match self.first_tasks(&job).await {
            Err(fault) if !matches!(fault, Fault::Permanent(_)) => return Err(fault),
            planned => planned,
        };
        self.write_plan(&job, &planned).await.map_err(|error| error.fault())
    }

    async fn write_plan(&self, job: &Job, planned: &Result<Plan, Fault>) -> Result<(), StoreError> {
        let tx = self.0.begin().await?;
        let changes = match planned {
            Ok(planned) => plan(&tx, job, planned).await?,
            Err(fault) => refuse(&tx, job, fault.cause()).await?,
        };
        self.0.commit(tx, &changes).await
    }

    async fn first_tasks(&self, job: &Job) -> Result<Plan, Fault> {
        let parts = &self.0.parts;
        if job.kind == JobKind::Transcribe {
            let media = job.media_id.unwrap_or_default();
            let media = parts.store.read().media(media).await.map_err(|error| error.fault())?;
            let media = media.ok_or_else(|| Fault::permanent(Code::BlobMissing, "the recording was deleted"))?;
            let tasks = vec![planner::prepare(parts, job, &media)];
            return Ok(Plan { kind: TaskKind::Prepare, tasks, is_final: false });
        }
        let object = parts
            .blobs
            .get_bytes(&Key::texts(job.id), MAX_TEXTS_OBJECT_BYTES)
            .await
            .map_err(|e: BlobError| e.fault())?;
        let lines = planner::lines(&object).map_err(Fault::Permanent)?;
        let tasks = planner::embed(parts, &parts.settings.release, job, &job.model, &lines);
        Ok(Plan { kind: TaskKind::Embed, tasks, is_final: true })
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
}

async fn plan(tx: &Tx, job: &Job, Plan { kind, tasks, is_final }: &Plan) -> Result<Changes, StoreError> {
    let inserted = tx.insert_tasks(tasks).await?;
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
