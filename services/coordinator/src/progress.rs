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
use warren_store::{Heartbeat, StoreError, Worker};
use warren_telemetry::metrics;

use crate::{board::Changes, lead::Lead, reaper};

/// Rows of a job move at most once in this time.
const EVERY: Duration = Duration::from_secs(2);

/// Writes until `stopping`.
///
/// # Errors
/// When the term is lost.
pub(crate) async fn run(lead: &Arc<Lead>, stopping: &CancellationToken) -> Result<(), StoreError> {
    let allowed = Duration::from_secs(lead.parts.settings.reaper.worker_lost_s);
    let mut every = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            _ = every.tick() => {}
        }
        let lost = Instant::now().checked_sub(allowed).map(|earliest| lead.sessions().expire(earliest));
        for lost in lost.iter().flatten() {
            settle_outcome(reaper::lost(lead, lost).await)?;
        }
        lead.count_slots();
        settle_outcome(write(lead).await)?;
        settle_outcome(gauges(lead).await)?;
    }
}

fn settle_outcome(outcome: Result<(), StoreError>) -> Result<(), StoreError> {
    match outcome {
        Err(StoreError::TermLost) => Err(StoreError::TermLost),
        Err(error) => {
            tracing::warn!(%error, "progress not written; again in a moment");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
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
            kinds: worker.kinds.clone(),
            slots: i64::from(worker.slots),
            version: worker.version.clone(),
            live: true,
            heartbeat: now,
            running: json!(tasks).to_string(),
        });
    }
    (workers, running)
}

async fn gauges(lead: &Lead) -> Result<(), StoreError> {
    for kind in TaskKind::ALL {
        let labels = [("kind", kind.as_str())];
        let (waiting, released) = lead.board().open(*kind);
        metrics::TASKS_WAITING.set((waiting + released) as f64, &labels);
        metrics::WORKER_SLOTS.set(f64::from(lead.sessions().slots(*kind)), &labels);
    }
    let (leases, waiting) = lead.devices.snapshot();
    let mut held: BTreeMap<&str, f64> = BTreeMap::new();
    for lease in leases.iter().filter(|lease| lease.is_live()) {
        *held.entry(&lease.device).or_default() += 1.0;
    }
    for (device, leases) in held {
        metrics::LEASES_HELD.set(leases, &[("device", device)]);
    }
    metrics::LEASES_WAITING.set(waiting as f64, &[]);
    metrics::OUTBOX_WAITING.set(lead.parts.store.read().unsent_count().await? as f64, &[]);
    Ok(())
}
