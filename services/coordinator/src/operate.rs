//! What operators decide: pausing a kind of work, purging it, recovering what is stuck, failing what is silent.
//!
//! Each request is carried out once. The audit row that carries its id is its answer: whoever asked waits for that row.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use uuid::Uuid;
use warren_broker::Letter;
use warren_clock::UnixMillis;
use warren_fault::{Code, Fault};
use warren_jobs::{JobState, TaskKind, fingerprint::fingerprint};
use warren_messages::{
    ids::{JobId, TaskId},
    routes::tasks,
    wire::{FailStale, Operate, PauseKind, PurgeKind, RecoverStuck, operate::Deed},
};
use warren_store::{EventLevel, Job, NewEvent, NewLetter, StoreError};

use crate::{
    board::Changes,
    lead::Lead,
    letters,
    missing::{self, Suspects},
    reaper, settle,
};

/// Jobs ended in one transaction.
const GROUP: u64 = 64;
/// Most jobs that an answer names.
const NAMED: usize = 1_000;
/// A task that went out a shorter while ago is on its way: an operator who asks does not wait for long.
const ON_ITS_WAY: Duration = Duration::from_secs(5);
/// Between the two looks at what is missing.
const BETWEEN: Duration = Duration::from_secs(1);
/// Messages that one look at a queue takes in hand.
const IN_HAND: usize = 2_000;
/// Class of the letters that a purge keeps.
const PURGED: &str = "Purged";

/// Who asked, and the request to answer.
#[derive(Clone, Copy)]
struct Asked<'a> {
    actor: &'a str,
    request: &'a str,
}

impl Asked<'_> {
    /// In events: who, and why.
    fn by(&self, reason: &str) -> String {
        if reason.is_empty() { self.actor.to_owned() } else { format!("{}: {reason}", self.actor) }
    }

    async fn is_answered(&self, lead: &Lead) -> Result<bool, StoreError> {
        Ok(lead.parts.store.read().audit_answer(self.request).await?.is_some())
    }

    async fn answer(&self, lead: &Lead, verb: &str, subject: &str, detail: &Value) -> Result<(), StoreError> {
        let tx = lead.begin().await?;
        tx.audit_answer(self.request, self.actor, verb, subject, &detail.to_string()).await?;
        lead.commit(tx, &Changes::default()).await
    }
}

/// Does what an operator asks for.
///
/// # Errors
/// When the store or the broker is away; done again, it goes on where it was.
pub(crate) async fn operate(lead: &Lead, actor: &str, command: &Operate) -> Result<(), Fault> {
    let asked = Asked { actor, request: &command.request };
    match &command.deed {
        Some(Deed::Pause(pause)) => self::pause(lead, asked, pause).await,
        Some(Deed::Purge(purge)) => self::purge(lead, asked, purge).await,
        Some(Deed::Recover(recover)) => self::recover(lead, asked, recover).await,
        Some(Deed::FailStale(stale)) => fail_stale(lead, asked, stale).await.map_err(|error| error.fault()),
        None => Err(Fault::permanent(Code::Malformed, "an operator's command without content")),
    }
}

fn kind(word: &str) -> Result<TaskKind, Fault> {
    word.parse().map_err(|error: warren_jobs::UnknownName| Fault::permanent(Code::Malformed, format!("kind: {error}")))
}

async fn pause(lead: &Lead, asked: Asked<'_>, command: &PauseKind) -> Result<(), Fault> {
    let kind = kind(&command.kind)?;
    let written = async {
        if asked.is_answered(lead).await? {
            return Ok(());
        }
        let tx = lead.begin().await?;
        let changed = match command.paused {
            true => tx.pause(kind, asked.actor, &command.reason).await?,
            false => tx.resume(kind).await?,
        };
        let detail = json!({ "changed": changed, "reason": command.reason }).to_string();
        let verb = if command.paused { "pause" } else { "resume" };
        tx.audit_answer(asked.request, asked.actor, verb, kind.as_str(), &detail).await?;
        lead.commit(tx, &Changes::default()).await?;
        lead.board().set_paused(kind, command.paused);
        lead.release.notify_one();
        Ok::<_, StoreError>(())
    };
    written.await.map_err(|error| error.fault())
}

/// The answer comes first: from then on it will happen, to all jobs that had been accepted by then.
async fn purge(lead: &Lead, asked: Asked<'_>, command: &PurgeKind) -> Result<(), Fault> {
    let kind = kind(&command.kind)?;
    if let Some(decided) = decide(lead, asked, kind, command).await.map_err(|error| error.fault())? {
        let why = format!("{} was purged by {}", tasks(kind).queue, asked.by(&command.reason));
        cancel_all(lead, asked, kind, decided, &why).await.map_err(|error| error.fault())?;
        let queue = tasks(kind).queue;
        while lead.parts.broker.take_out(queue, IN_HAND, |letters| keep(lead, asked, queue, &why, letters)).await? > 0 {
        }
    }
    Ok(())
}

/// Since when it is decided; `None`: it was refused, for the number is another one.
async fn decide(
    lead: &Lead,
    asked: Asked<'_>,
    kind: TaskKind,
    command: &PurgeKind,
) -> Result<Option<UnixMillis>, StoreError> {
    if let Some(before) = lead.parts.store.read().audit_answer(asked.request).await? {
        return Ok((before.verb == "purge").then_some(before.at));
    }
    let tx = lead.begin().await?;
    let now = tx.now();
    let (open, jobs) = tx.read().open_of_kind(kind, now).await?;
    let confirmed = open == command.tasks;
    let verb = if confirmed { "purge" } else { "purge refused" };
    let detail = json!({ "tasks": open, "jobs": jobs, "confirmed": command.tasks, "reason": command.reason });
    tx.audit_answer(asked.request, asked.actor, verb, kind.as_str(), &detail.to_string()).await?;
    lead.commit(tx, &Changes::default()).await?;
    Ok(confirmed.then_some(now))
}

async fn cancel_all(
    lead: &Lead,
    asked: Asked<'_>,
    kind: TaskKind,
    until: UnixMillis,
    why: &str,
) -> Result<(), StoreError> {
    loop {
        let tx = lead.begin().await?;
        let mut changes = Changes::default();
        let jobs = tx.read().jobs_with_open_tasks(kind, until, GROUP).await?;
        for job in &jobs {
            let event = NewEvent::new(EventLevel::Info, "job.cancelled", format!("cancelled: {why}"));
            let tasks = settle::stop(&tx, job, JobState::Cancelled, &event, &mut changes).await?;
            tx.set_job_error(job.id, Code::Cancelled.as_str(), &format!("cancelled: {why}")).await?;
            let detail = json!({ "tasks": tasks, "because": why }).to_string();
            tx.audit(asked.actor, "cancel", &JobId(job.id).to_string(), &detail).await?;
        }
        lead.commit(tx, &changes).await?;
        if jobs.is_empty() {
            return Ok(());
        }
    }
}

/// Keeps what lies on a purged queue among the letters, but for the messages of tasks that are open: those are of jobs
/// that came later. Returns what is kept.
async fn keep(
    lead: &Lead,
    asked: Asked<'_>,
    queue: &str,
    why: &str,
    found: Vec<Letter>,
) -> Result<BTreeSet<Uuid>, Fault> {
    let rows: Vec<(Uuid, NewLetter)> = found
        .iter()
        .map(|letter| {
            let row = letters::row(letter);
            let fingerprint = fingerprint(PURGED, &letter.key, why);
            let (class, cause) = (PURGED.to_owned(), why.to_owned());
            (letter.id, NewLetter { queue: queue.to_owned(), class, cause, fingerprint, ..row })
        })
        .collect();
    let kept = async {
        let tx = lead.begin().await?;
        let ids: Vec<Uuid> = rows.iter().filter_map(|(_, row)| row.task_id).collect();
        let known = tx.read().tasks_by_id(&ids).await?;
        let open = |row: &NewLetter| known.iter().any(|task| Some(task.id) == row.task_id && task.state.is_open());
        let mut kept = BTreeSet::new();
        for (id, row) in rows.iter().filter(|(_, row)| !open(row)) {
            tx.insert_letter(row).await?;
            tx.void_letter(&row.id, why).await?;
            kept.insert(*id);
        }
        if !kept.is_empty() {
            let detail = json!({ "letters": kept, "because": why }).to_string();
            tx.audit(asked.actor, "keep", queue, &detail).await?;
        }
        lead.commit(tx, &Changes::default()).await?;
        Ok::<_, StoreError>(kept)
    };
    let kept = kept.await.map_err(|error| error.fault())?;
    // They are not in `warren.dead`, and whoever looks for them there finds that out.
    lead.leaving.notify_one();
    Ok(kept)
}

async fn recover(lead: &Lead, asked: Asked<'_>, command: &RecoverStuck) -> Result<(), Fault> {
    let only = match command.job.as_str() {
        "" => None,
        job => {
            let id = job.parse::<JobId>();
            Some(id.map_err(|error| Fault::permanent(Code::Malformed, format!("job: {error}")))?.0)
        }
    };
    let done = async {
        if asked.is_answered(lead).await? {
            return Ok(());
        }
        let recovered = recovered(lead, only, command.dry_run).await?;
        let verb = if command.dry_run { "recover (dry run)" } else { "recover" };
        let subject = only.map(|id| JobId(id).to_string()).unwrap_or_default();
        asked.answer(lead, verb, &subject, &json!({ "recovered": recovered })).await
    };
    done.await.map_err(|error: StoreError| error.fault())
}

/// What was, or would be, mended: job, task if it is about one, and how.
async fn recovered(lead: &Lead, only: Option<Uuid>, dry_run: bool) -> Result<Vec<Value>, StoreError> {
    let wanted = |job: Uuid| only.is_none_or(|only| only == job);
    let mut recovered = Vec::new();
    let now = lead.parts.clock.now();
    for job in lead.parts.store.read().overdue_jobs(now, NAMED as u64).await?.iter().filter(|job| wanted(job.id)) {
        if !dry_run {
            reaper::time_out(lead, job.id).await?;
        }
        recovered.push(json!({
            "job": JobId(job.id).to_string(), "task": "", "what": "over its limit: failed as JobTimeout",
        }));
    }
    for job in missing::unplanned(lead, ON_ITS_WAY).await?.iter().filter(|job| wanted(job.id)) {
        if !dry_run {
            missing::plan(lead, job).await;
        }
        recovered.push(json!({
            "job": JobId(job.id).to_string(), "task": "", "what": "the command to plan it was gone: planned",
        }));
    }
    let mut suspects = Suspects::default();
    let mut found = missing::find(lead, ON_ITS_WAY).await?;
    if !found.is_empty() {
        suspects.confirm(found);
        tokio::time::sleep(BETWEEN).await;
        found = suspects.confirm(missing::find(lead, ON_ITS_WAY).await?);
    }
    for task in found.iter().filter(|task| wanted(task.job_id)) {
        if !dry_run {
            missing::release_again(lead, task).await?;
        }
        recovered.push(json!({
            "job": JobId(task.job_id).to_string(), "task": TaskId(task.id).to_string(),
            "what": format!("the message of {} {} was gone: sent again", task.kind, task.ordinal),
        }));
    }
    Ok(recovered)
}

/// Fails the jobs one by one: each with its own reason and audit row.
async fn fail_stale(lead: &Lead, asked: Asked<'_>, command: &FailStale) -> Result<(), StoreError> {
    if asked.is_answered(lead).await? {
        return Ok(());
    }
    let before = lead.parts.clock.now().minus(Duration::from_millis(command.older_ms));
    let (mut failed, mut named) = (0_u64, Vec::new());
    loop {
        let tx = lead.begin().await?;
        let mut changes = Changes::default();
        let jobs = tx.read().silent_jobs(before, GROUP).await?;
        for job in &jobs {
            let now = tx.now();
            let silent = now.since(last_sign(job)).as_secs();
            let step = job.last_step.clone().unwrap_or_else(|| "waiting for a worker".to_owned());
            let by = asked.by(&command.reason);
            let why = format!("no sign of life for {silent} s; last step: {step}; failed by {by}");
            tx.set_job_error(job.id, Code::JobTimeout.as_str(), &why).await?;
            let event = NewEvent::new(EventLevel::Error, "job.failed", why.clone())
                .with(json!({ "error_code": Code::JobTimeout.as_str(), "actor": asked.actor, "silent_s": silent }));
            let tasks = settle::stop(&tx, job, JobState::Failed, &event, &mut changes).await?;
            let id = JobId(job.id).to_string();
            let detail = json!({ "tasks": tasks, "silent_s": silent, "reason": command.reason }).to_string();
            tx.audit(asked.actor, "fail", &id, &detail).await?;
            failed += 1;
            if named.len() < NAMED {
                named.push(json!({ "job": id, "name": job.name, "silent_s": silent, "last_step": step }));
            }
        }
        lead.commit(tx, &changes).await?;
        if jobs.is_empty() {
            break;
        }
    }
    let older = command.older_ms / 1_000;
    let detail = json!({ "failed": failed, "jobs": named, "older_s": older, "reason": command.reason });
    asked.answer(lead, "fail-stale", "", &detail).await
}

/// When a job was last heard of.
fn last_sign(job: &Job) -> UnixMillis {
    job.heartbeat.or(job.started).unwrap_or(job.created)
}
