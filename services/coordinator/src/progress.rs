//! What workers say of themselves, written down: worker rows, heartbeats and progress of jobs, and the gauges.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_clock::UnixMillis;
use warren_jobs::TaskKind;
use warren_messages::ids::{JobId, TaskId};
use warren_store::{Heartbeat, LetterFilter, LetterState, StoreError, Worker};
use warren_telemetry::metrics;

use crate::{
    board::Changes,
    gauges::{Gauges, Value},
    lead::Lead,
    reaper,
    rounds::{Rounds, or_next_round},
};

/// Rows of a job move at most once in this time.
const EVERY: Duration = Duration::from_secs(2);
/// Rounds between two looks at the figures that only the database has.
const COUNTED_EVERY: u32 = 5;

/// Writes until `over`.
///
/// # Errors
/// When the term is lost.
pub(crate) async fn run(lead: &Arc<Lead>, over: &CancellationToken) -> Result<(), StoreError> {
    let allowed = Duration::from_secs(lead.parts.settings.reaper.worker_lost_s);
    let mut rounds = Rounds::every(EVERY, over);
    let (mut live, mut counted, mut round) = (Gauges::default(), Gauges::default(), 0_u32);
    while rounds.next().await {
        if let Some(earliest) = Instant::now().checked_sub(allowed) {
            lead.sessions().expire(earliest);
        }
        or_next_round("losses", reaper::write_losses(lead).await)?;
        lead.count_slots();
        or_next_round("progress", write(lead).await)?;
        live.show(gauges(lead));
        if round.is_multiple_of(COUNTED_EVERY) {
            or_next_round("figures", count(lead).await.map(|values| counted.show(values)))?;
        }
        round = round.wrapping_add(1);
    }
    Ok(())
}

async fn write(lead: &Lead) -> Result<(), StoreError> {
    let now = lead.parts.clock.now();
    let (workers, running) = snapshot(lead, now);
    if workers.is_empty() {
        return Ok(());
    }
    let beats: Vec<Heartbeat> =
        running.iter().map(|(job, (step, _))| Heartbeat { job: *job, step: step.clone(), at: now }).collect();
    let live: Vec<(Uuid, f64)> = running.iter().map(|(job, (_, units))| (*job, *units)).collect();
    let touched: Vec<Uuid> = running.keys().copied().collect();
    let tx = lead.begin().await?;
    tx.upsert_workers(&workers).await?;
    if !beats.is_empty() {
        tx.heartbeats(&beats).await?;
        tx.refresh_progress(&live).await?;
    }
    lead.commit(tx, &Changes { touched, ..Changes::default() }).await
}

/// The workers' rows; and of each job that is worked on, a step and the units done inside running tasks.
fn snapshot(lead: &Lead, now: UnixMillis) -> (Vec<Worker>, BTreeMap<Uuid, (String, f64)>) {
    let sessions = lead.sessions();
    let board = lead.board();
    let mut running: BTreeMap<Uuid, (String, f64)> = BTreeMap::new();
    let mut counted = BTreeSet::new();
    let mut workers = Vec::new();
    for (name, worker) in sessions.iter() {
        let mut tasks = Vec::new();
        for (task, in_hand) in &worker.running {
            let Some(out) = board.out(task.0).filter(|out| out.dispatch == in_hand.dispatch) else { continue };
            let entry = running.entry(out.job).or_default();
            entry.0.clone_from(&in_hand.step);
            // A task that two workers run is still one task.
            if counted.insert(*task) && out.kind != TaskKind::Prepare {
                entry.1 += in_hand.done_units;
            }
            tasks.push(json!({
                "task": TaskId(task.0).to_string(), "job": JobId(out.job).to_string(), "dispatch": in_hand.dispatch,
                "step": in_hand.step, "done_units": in_hand.done_units,
            }));
        }
        workers.push(Worker {
            id: name.to_owned(),
            boot: worker.boot.clone(),
            service: worker.service.clone(),
            takes: worker.takes.iter().map(|takes| (takes.kind, i64::from(takes.slots))).collect(),
            version: worker.version.clone(),
            live: true,
            heartbeat: now,
            running: json!(tasks).to_string(),
            trouble: worker.trouble.clone(),
            last_error: None,
        });
    }
    (workers, running)
}

/// What the leader has in memory.
fn gauges(lead: &Lead) -> Vec<Value> {
    let mut values: Vec<Value> = Vec::new();
    let label = |name: &'static str, value: &str| vec![(name, value.to_owned())];
    for kind in TaskKind::ALL {
        let (waiting, released) = lead.board().open(*kind);
        values.push((&metrics::TASKS_WAITING, label("kind", kind.as_str()), (waiting + released) as f64));
        let slots = lead.sessions().slots(*kind);
        values.push((&metrics::WORKER_SLOTS, label("kind", kind.as_str()), slots.into()));
    }
    let mut workers: BTreeMap<String, u32> = BTreeMap::new();
    for (_, worker) in lead.sessions().iter() {
        *workers.entry(worker.service.clone()).or_default() += 1;
    }
    for (service, workers) in workers {
        values.push((&metrics::WORKERS, label("service", &service), workers.into()));
    }
    for usage in lead.devices.usage() {
        values.push((&metrics::LEASES_HELD, label("device", &usage.device), usage.held as f64));
        values.push((&metrics::LEASES_WAITING, label("device", &usage.device), usage.waiting as f64));
        values.push((&metrics::DEVICE_MEMORY, label("device", &usage.device), usage.bytes as f64));
        values.push((&metrics::DEVICE_BUDGET, label("device", &usage.device), usage.budget as f64));
        // Several slots of one worker are one line.
        let mut holders: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (worker, model, bytes) in usage.holders {
            *holders.entry((worker, model)).or_default() += bytes;
        }
        for ((worker, model), bytes) in holders {
            let labels = vec![("device", usage.device.clone()), ("worker", worker), ("model", model)];
            values.push((&metrics::LEASE_MEMORY, labels, bytes as f64));
        }
    }
    values
}

/// What the database has.
async fn count(lead: &Lead) -> Result<Vec<Value>, StoreError> {
    let read = lead.parts.store.read();
    let now = lead.parts.clock.now();
    let mut values: Vec<Value> = Vec::new();
    for (kind, state, jobs) in read.open_job_counts().await? {
        let labels = vec![("kind", kind.as_str().to_owned()), ("state", state.as_str().to_owned())];
        values.push((&metrics::JOBS, labels, jobs as f64));
    }
    for stats in read.queue_stats(now).await? {
        let age = stats.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
        values.push((&metrics::OLDEST_TASK, vec![("kind", stats.kind.as_str().to_owned())], age.as_secs_f64()));
    }
    let age = read.oldest_unsent().await?.map_or(Duration::ZERO, |oldest| now.since(oldest));
    values.push((&metrics::OUTBOX_AGE, Vec::new(), age.as_secs_f64()));
    values.push((&metrics::OUTBOX_WAITING, Vec::new(), read.unsent_count().await? as f64));
    let dead = LetterFilter { states: LetterState::OPEN.to_vec(), ..LetterFilter::default() };
    values.push((&metrics::DEAD_LETTERS, Vec::new(), read.count_letters(&dead).await? as f64));
    Ok(values)
}
