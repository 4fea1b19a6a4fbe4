//! Released tasks whose messages are gone, for instance because somebody purged a queue: they go out again.
//!
//! A task is missing when nothing has its message: not the outbox, not its queue, not the retry ladder, no worker, and no
//! report of it waits to be read. What is looked at one after the other may move meanwhile, so it must be missing at two
//! looks. A mistake does no harm: the earlier message is stale.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_clock::UnixMillis;
use warren_jobs::TaskKind;
use warren_messages::{
    ids::TaskId,
    routes::{REPORTS, tasks},
};
use warren_store::{EventLevel, NewEvent, StoreError, Task};

use crate::{
    board::{Changes, Out},
    lead::{self, Lead},
    releaser,
};

/// Between two looks.
const BETWEEN: Duration = Duration::from_secs(30);
/// A task that went out, or came back from the retry ladder, a shorter while ago is still on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(30);
/// A queue that is never empty says nothing. A window of tasks does not take this long to be worked off.
const LONG: Duration = Duration::from_secs(15 * 60);

/// Looks until `over`.
///
/// # Errors
/// When the term is lost.
pub(crate) async fn run(lead: &Arc<Lead>, over: &CancellationToken) -> Result<(), StoreError> {
    let mut every = tokio::time::interval_at(Instant::now() + BETWEEN, BETWEEN);
    let mut suspects = Suspects::default();
    loop {
        tokio::select! {
            () = over.cancelled() => return Ok(()),
            _ = every.tick() => {}
        }
        match look(lead, &mut suspects).await {
            Err(StoreError::TermLost) => return Err(StoreError::TermLost),
            Err(error) => tracing::warn!(%error, "missing tasks not looked for; again in the next round"),
            Ok(()) => {}
        }
    }
}

/// Tasks that were missing at the last look, with the dispatch that was.
#[derive(Debug, Default)]
pub(crate) struct Suspects(BTreeMap<Uuid, i64>);

impl Suspects {
    /// Takes note of what is missing now; returns what was at the last look, too.
    fn confirm(&mut self, missing: Vec<Task>) -> Vec<Task> {
        let now = missing.iter().map(|task| (task.id, task.dispatch)).collect();
        let before = std::mem::replace(&mut self.0, now);
        missing.into_iter().filter(|task| before.get(&task.id) == Some(&task.dispatch)).collect()
    }
}

/// Looks once, and releases again what is missing for the second time.
///
/// # Errors
/// When the store is away.
pub(crate) async fn look(lead: &Lead, suspects: &mut Suspects) -> Result<(), StoreError> {
    let read = lead.parts.store.read();
    let missing = if read.unsent_count().await? > 0 {
        Vec::new()
    } else {
        let unseen = unseen(lead, read.released_tasks(None).await?, lead.parts.clock.now());
        not_queued(lead, unseen).await
    };
    for task in suspects.confirm(missing) {
        release_again(lead, &task).await?;
    }
    Ok(())
}

/// How long a task has been out, or back from the retry ladder.
fn out_for(task: &Task, now: UnixMillis) -> Duration {
    task.retry_until.max(task.released).map_or(Duration::ZERO, |since| now.since(since))
}

/// Those of the released tasks that no worker reports and that should have reached one, or a queue.
fn unseen(lead: &Lead, released: Vec<Task>, now: UnixMillis) -> Vec<Task> {
    let in_hand: HashSet<(Uuid, i64)> = lead
        .sessions()
        .iter()
        .flat_map(|(_, worker)| worker.running.iter().map(|(task, in_hand)| (task.0, i64::from(in_hand.dispatch))))
        .collect();
    released
        .into_iter()
        .filter(|task| out_for(task, now) >= ON_ITS_WAY && !in_hand.contains(&(task.id, task.dispatch)))
        .collect()
}

/// Those whose queue has no message, and of which no report waits; and those that have been out for long.
async fn not_queued(lead: &Lead, mut unseen: Vec<Task>) -> Vec<Task> {
    if unseen.is_empty() {
        return unseen;
    }
    let broker = &lead.parts.broker;
    let kinds: BTreeSet<TaskKind> = unseen.iter().map(|task| task.kind).collect();
    let mut empty = BTreeSet::new();
    if broker.ready_messages(REPORTS.queue).await == Some(0) {
        for kind in kinds {
            if broker.ready_messages(tasks(kind).queue).await == Some(0) {
                empty.insert(kind);
            }
        }
    }
    let now = lead.parts.clock.now();
    unseen.retain(|task| empty.contains(&task.kind) || out_for(task, now) >= LONG);
    unseen
}

async fn release_again(lead: &Lead, task: &Task) -> Result<(), StoreError> {
    let tx = lead.begin().await?;
    let Some(job) = tx.read().job(task.job_id).await? else { return Ok(()) };
    let Some(task) = tx.redispatch(task.id, task.dispatch).await? else { return Ok(()) };
    tx.outbox(&releaser::message(&lead.parts, &task, Some(&job), job.deadline)?).await?;
    let message = format!("the message of {} {} is gone; it goes out again", task.kind, task.ordinal);
    tracing::warn!(task = %TaskId(task.id), "{message}");
    let event = NewEvent::new(EventLevel::Warning, "task.redispatched", message)
        .with(json!({ "task": TaskId(task.id).to_string(), "dispatch": task.dispatch }));
    tx.event(job.id, &event).await?;
    let out = Out { job: job.id, kind: task.kind, dispatch: task.wire_dispatch() };
    let changes = Changes {
        ended: vec![task.id],
        released: vec![(task.id, lead::key(&job), out)],
        touched: vec![job.id],
        ..Changes::default()
    };
    lead.commit(tx, &changes).await
}
