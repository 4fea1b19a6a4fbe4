//! Released tasks whose messages are gone, for instance because somebody purged a queue: they go out again. And jobs whose
//! command to plan them is gone: they are planned.
//!
//! A task is missing when nothing has its message: not the outbox, not its queue, not the retry ladder, no worker, and no
//! report of it waits to be read. A queue that is never empty cannot have what went in before the tasks that workers
//! have by now. What is looked at one after the other may move meanwhile, so it must be missing at two
//! looks. A mistake does no harm: the earlier message is stale.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_clock::UnixMillis;
use warren_jobs::TaskKind;
use warren_messages::{
    ids::{JobId, TaskId},
    routes::{COMMANDS, DEAD_EXCHANGE, REPORTS, tasks},
};
use warren_store::{Destination, EventLevel, Job, NewEvent, StoreError, Task};

use crate::{
    board::{Changes, Out},
    commands,
    lead::{self, Lead},
    releaser,
    rounds::{Rounds, or_next_round},
};

/// Between two looks.
const BETWEEN: Duration = Duration::from_secs(30);
/// A task that went out, or came back from the retry ladder, a shorter while ago is still on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(30);
/// Jobs planned in one round.
const PAGE: u64 = 100;
/// Messages leave a queue in their order, but tasks released together may go in in another one.
const ORDERED: Duration = Duration::from_secs(15);
/// A queue that is never empty, and of which nobody has anything, says little. A window of tasks does not take this long to be
/// worked off, unless nobody is there to do it: then the queue has all of them.
const LONG: Duration = Duration::from_secs(15 * 60);

/// Looks until `over`.
///
/// # Errors
/// When the term is lost.
pub(crate) async fn run(lead: &Arc<Lead>, over: &CancellationToken) -> Result<(), StoreError> {
    let mut rounds = Rounds::after(BETWEEN, over);
    let mut suspects = Suspects::default();
    while rounds.next().await {
        or_next_round("missing tasks", look(lead, &mut suspects).await)?;
    }
    Ok(())
}

/// Tasks that were missing at the last look, with the dispatch that was.
#[derive(Debug, Default)]
pub(crate) struct Suspects(BTreeMap<Uuid, i64>);

impl Suspects {
    /// Takes note of what is missing now; returns what was at the last look, too.
    pub(crate) fn confirm(&mut self, missing: Vec<Task>) -> Vec<Task> {
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
    for task in suspects.confirm(find(lead, ON_ITS_WAY).await?) {
        release_again(lead, &task).await?;
    }
    for job in unplanned(lead, ON_ITS_WAY).await? {
        plan(lead, &job).await;
    }
    let tx = lead.begin().await?;
    tx.tick("missing", BETWEEN).await?;
    tx.commit().await
}

/// The released tasks that are missing at this look and have been out for at least `out`.
///
/// # Errors
/// When the store is away.
pub(crate) async fn find(lead: &Lead, out: Duration) -> Result<Vec<Task>, StoreError> {
    if in_outbox(lead, out).await? {
        return Ok(Vec::new());
    }
    let released = lead.parts.store.read().released_tasks(None).await?;
    let in_hand = in_hand(lead);
    let newest = newest(&released, &in_hand);
    Ok(not_queued(lead, unseen(lead, released, &in_hand, out), &newest).await)
}

/// The tasks that workers report, each with its dispatch.
fn in_hand(lead: &Lead) -> HashSet<(Uuid, i64)> {
    let sessions = lead.sessions();
    let reported = sessions.iter().flat_map(|(_, worker)| &worker.running);
    reported.map(|(task, in_hand)| (task.0, i64::from(in_hand.dispatch))).collect()
}

/// When the youngest task in somebody's hands was released, of each kind.
fn newest(released: &[Task], in_hand: &HashSet<(Uuid, i64)>) -> BTreeMap<TaskKind, UnixMillis> {
    let mut newest = BTreeMap::new();
    for task in released.iter().filter(|task| in_hand.contains(&(task.id, task.dispatch))) {
        let newest = newest.entry(task.kind).or_insert(UnixMillis(i64::MIN));
        *newest = (*newest).max(task.released.unwrap_or(*newest));
    }
    newest
}

/// True when something is still to be published that was written at least `age` ago: it may be what seems to be missing.
/// Letters on their way back to `warren.dead` are nobody's work.
async fn in_outbox(lead: &Lead, age: Duration) -> Result<bool, StoreError> {
    let keys = TaskKind::ALL.iter().map(|kind| kind.as_str()).chain([REPORTS.key, COMMANDS.key]);
    let letters: Vec<Destination> =
        keys.map(|key| Destination { exchange: DEAD_EXCHANGE.to_owned(), routing_key: key.to_owned() }).collect();
    Ok(!lead.parts.store.read().unsent_older_than(age, &letters, 1).await?.is_empty())
}

/// Jobs that were accepted at least `age` ago, and that nobody has planned or is about to plan.
///
/// # Errors
/// When the store is away.
pub(crate) async fn unplanned(lead: &Lead, age: Duration) -> Result<Vec<Job>, StoreError> {
    let read = lead.parts.store.read();
    let jobs = read.unplanned_jobs(lead.parts.clock.now().minus(age), PAGE).await?;
    let on_its_way = async || -> Result<bool, StoreError> {
        let queued = lead.parts.broker.ready_messages(COMMANDS.queue).await != Some(0);
        Ok(queued || in_outbox(lead, age).await?)
    };
    if jobs.is_empty() || on_its_way().await? { Ok(Vec::new()) } else { Ok(jobs) }
}

/// Plans a job whose command is gone. One that cannot be planned now is looked at again in the next round.
pub(crate) async fn plan(lead: &Lead, job: &Job) {
    tracing::warn!(job.id = %JobId(job.id), "the command to plan this job is gone; it is planned all the same");
    if let Err(fault) = commands::submitted(lead, job.id).await {
        tracing::warn!(job.id = %JobId(job.id), %fault, "not planned; again in the next round");
    }
}

/// How long a task has been out, or back from the retry ladder.
fn out_for(task: &Task, now: UnixMillis) -> Duration {
    task.retry_until.max(task.released).map_or(Duration::ZERO, |since| now.since(since))
}

/// Those of the released tasks that no worker reports and that should have reached one, or a queue.
fn unseen(lead: &Lead, released: Vec<Task>, in_hand: &HashSet<(Uuid, i64)>, out: Duration) -> Vec<Task> {
    let now = lead.parts.clock.now();
    released
        .into_iter()
        .filter(|task| out_for(task, now) >= out && !in_hand.contains(&(task.id, task.dispatch)))
        .collect()
}

/// Those whose queue has no message, and of which no report waits; those that younger ones have overtaken; and those that
/// have been out for long, if their queue has fewer messages than there are of them.
async fn not_queued(lead: &Lead, mut unseen: Vec<Task>, newest: &BTreeMap<TaskKind, UnixMillis>) -> Vec<Task> {
    if unseen.is_empty() {
        return unseen;
    }
    let mut waiting = BTreeMap::new();
    for task in &unseen {
        *waiting.entry(task.kind).or_insert(0_u32) += 1;
    }
    let broker = &lead.parts.broker;
    let (mut empty, mut short) = (BTreeSet::new(), BTreeSet::new());
    let all_read = broker.ready_messages(REPORTS.queue).await == Some(0);
    for (kind, tasks_waiting) in waiting {
        let Some(messages) = broker.ready_messages(tasks(kind).queue).await else { continue };
        if messages == 0 && all_read {
            empty.insert(kind);
        }
        if messages < tasks_waiting {
            short.insert(kind);
        }
    }
    let now = lead.parts.clock.now();
    unseen.retain(|task| {
        let overtaken = newest.get(&task.kind).is_some_and(|newest| out_for(task, *newest) >= ORDERED);
        let out_for_long = out_for(task, now) >= LONG;
        empty.contains(&task.kind) || overtaken || (out_for_long && short.contains(&task.kind))
    });
    unseen
}

/// Releases a task again whose message is gone.
///
/// # Errors
/// When the store is away.
pub(crate) async fn release_again(lead: &Lead, task: &Task) -> Result<(), StoreError> {
    let tx = lead.begin().await?;
    let Some(job) = tx.read().job(task.job_id).await? else { return Ok(()) };
    let Some(task) = tx.redispatch(task.id, task.dispatch).await? else { return Ok(()) };
    tx.outbox(&releaser::message(&lead.parts, &task, Some(&job), job.deadline)?).await?;
    let message = format!("the message of {} {} is gone; it goes out again", task.kind, task.ordinal);
    tracing::warn!(job.id = %JobId(job.id), task.id = %TaskId(task.id), "{message}");
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
