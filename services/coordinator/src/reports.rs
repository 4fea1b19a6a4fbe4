//! What workers report, recorded exactly once: queue `warren.result`.
//!
//! A report counts if its task is released under the dispatch that it names. The first one wins; everything that comes
//! later, twice, or from a worker that was given up, changes nothing.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use futures::future::join_all;
use serde_json::json;
use uuid::Uuid;
use warren_blob::Key;
use warren_broker::{GroupHandler, Received};
use warren_clock::UnixMillis;
use warren_fault::{Cause, Code, Fault};
use warren_jobs::{JobKind, TaskKind, TaskState, plan::SAMPLE_RATE, state};
use warren_messages::{
    ids::{JobId, TaskId},
    routes::REPORTS,
    to_millis,
    wire::{self, TaskReport, embedded::Vectors, task_report::Report},
};
use warren_store::{
    EmbeddingRow, EventLevel, Finish, Job, NewEvent, NewPassage, SafeBatch, Segment, StoreError, Task, Tx,
};
use warren_telemetry::metrics;

use crate::{
    aside::{put_aside, soon, waits_alone},
    board::Changes,
    lead::{self, Lead, Parts},
    planner::{self, Payload},
    settle,
};

/// Largest result object: 256 vectors of 4096 dimensions, and room.
const MAX_VECTORS_BYTES: u64 = 8 << 20;

/// Handles queue `warren.result`.
#[derive(Debug)]
pub(crate) struct Reports(pub Arc<Lead>);

/// A report with what it points to, fetched before the transaction.
struct Item<'a> {
    message_id: String,
    task: Uuid,
    job: Uuid,
    report: &'a TaskReport,
    /// Embedded only: one vector a text, or why there are none.
    vectors: Result<Vec<Vec<f32>>, Cause>,
}

impl GroupHandler<Received<TaskReport>> for Reports {
    async fn handle(&self, group: &[Received<TaskReport>]) -> Result<(), Fault> {
        let lead = &self.0;
        // From before the first look: what is told meanwhile counts.
        let retry = lead.parts.retry.notified();
        let (mut items, mut waiting) = (Vec::with_capacity(group.len()), Vec::new());
        let fetched = join_all(group.iter().map(|received| self.item(received))).await;
        for (received, item) in group.iter().zip(fetched) {
            match item {
                Ok(item) if self.lacks_parts(&item, &items).await? => {
                    tracing::warn!(job.id = received.message.job, "the end of a recording waits for its parts");
                    waiting.push(received);
                }
                Err(fault) if waits_alone(&fault) => {
                    tracing::warn!(job.id = received.message.job, task.id = received.message.task, %fault, "a report waits");
                    waiting.push(received);
                }
                item => items.push(item?),
            }
        }
        if !items.is_empty() {
            let tx = lead.begin().await?;
            let changes = record(&lead.parts, &tx, &items).await?;
            lead.commit(tx, &changes).await?;
            warren_drills::passing("coordinator.reports-recorded");
        }
        put_aside(&lead.parts.broker, REPORTS, &waiting, group.len(), retry).await
    }
}

impl Reports {
    async fn item<'a>(&self, received: &'a Received<TaskReport>) -> Result<Item<'a>, Fault> {
        let report = &received.message;
        let malformed = |what: String| Fault::permanent(Code::Malformed, what);
        let mut item = Item {
            message_id: received.delivery.message_id.to_string(),
            task: report.task.parse::<TaskId>().map_err(|error| malformed(error.to_string()))?.0,
            job: report.job.parse::<JobId>().map_err(|error| malformed(error.to_string()))?.0,
            report,
            vectors: Err(Cause::new(Code::Internal, "no vectors were asked for")),
        };
        if let Some(Report::Embedded(embedded)) = &report.report {
            item.vectors = match self.vectors(embedded).await {
                Ok(vectors) => Ok(vectors),
                // Whether they are needed, the rows say.
                Err(Fault::Permanent(cause)) => Err(cause),
                // Nobody wants them any more, so nobody waits for them.
                Err(fault) if !self.is_current(&item).await? => Err(fault.cause().clone()),
                Err(fault) => return Err(fault),
            };
        }
        Ok(item)
    }

    /// The recording is said to be complete, and a part of it is neither recorded nor about to be, before this: its report
    /// could not be taken, or comes later. Until its dead letter is known, which ends the task, or the part comes, this
    /// waits; else the job would succeed without it.
    async fn lacks_parts(&self, item: &Item<'_>, before: &[Item<'_>]) -> Result<bool, StoreError> {
        let Some(Report::PreparedAll(all)) = &item.report.report else { return Ok(false) };
        let mut known: BTreeSet<u32> = before
            .iter()
            .map(|item| item.report)
            .filter(|report| report.task == item.report.task && report.dispatch == item.report.dispatch)
            .filter_map(|report| match &report.report {
                Some(Report::PreparedPart(part)) => Some(part.ordinal),
                _ => None,
            })
            .collect();
        if known.len() < all.parts as usize {
            let planned = self.0.parts.store.read().planned_ordinals(item.job, TaskKind::Transcribe).await?;
            known.extend(planned.into_iter().filter_map(planner::part));
        }
        Ok(known.len() < all.parts as usize && self.is_current(item).await?)
    }

    async fn is_current(&self, item: &Item<'_>) -> Result<bool, StoreError> {
        let task = self.0.parts.store.read().task(item.task).await?;
        Ok(task.is_some_and(|task| accepts(&task, item)))
    }

    async fn vectors(&self, embedded: &wire::Embedded) -> Result<Vec<Vec<f32>>, Fault> {
        let malformed = |what: String| Fault::permanent(Code::Malformed, what);
        let bytes = match &embedded.vectors {
            Some(Vectors::Inline(bytes)) => bytes.clone(),
            Some(Vectors::Object(object)) => {
                let key = Key::parse(&object.key).map_err(|error| malformed(error.to_string()))?;
                let fetching = self.0.parts.blobs.get_checked(&key, &object.sha256, MAX_VECTORS_BYTES);
                soon(&key, fetching).await?.to_vec()
            }
            None => return Err(malformed("embedded: one of `inline`, `object` is required".to_owned())),
        };
        let row = embedded.dimensions as usize * 4;
        if row == 0 || bytes.len() != row * embedded.count as usize {
            let message = format!(
                "embedded: {} bytes are not {} vectors of {} dimensions",
                bytes.len(),
                embedded.count,
                embedded.dimensions
            );
            return Err(malformed(message));
        }
        let (values, _) = bytes.as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
        Ok(values.chunks(embedded.dimensions as usize).map(<[f32]>::to_vec).collect())
    }
}

/// The rows that a group of reports is about, and what is to be written for all of them at once.
struct Rows {
    tasks: HashMap<Uuid, Task>,
    jobs: HashMap<Uuid, Job>,
    ended: Vec<Finish>,
    vectors: Vec<EmbeddingRow>,
    now: UnixMillis,
}

/// The report is of the task's current dispatch, and the first one of it.
fn accepts(task: &Task, item: &Item<'_>) -> bool {
    task.job_id == item.job && state::accepts(task.state, task.wire_dispatch(), item.report.dispatch)
}

async fn record(parts: &Parts, tx: &Tx, items: &[Item<'_>]) -> Result<Changes, Fault> {
    // A report that ends its task is stale when it comes again. The others are told apart by their message ids.
    let noted: Vec<&str> =
        items.iter().filter(|item| !item.report.ends_its_task()).map(|item| item.message_id.as_str()).collect();
    let mut fresh = tx.first_time_many(&noted, "reports").await?;
    let ids = |id: fn(&Item<'_>) -> Uuid| items.iter().map(id).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
    let tasks = tx.read().tasks_by_id(&ids(|item| item.task)).await?;
    let jobs = tx.read().jobs_by_id(&ids(|item| item.job)).await?;
    let mut rows = Rows {
        tasks: tasks.into_iter().map(|task| (task.id, task)).collect(),
        jobs: jobs.into_iter().map(|job| (job.id, job)).collect(),
        ended: Vec::new(),
        vectors: Vec::new(),
        now: tx.now(),
    };
    let mut changes = Changes::default();
    let mut touched = BTreeSet::new();
    for item in items {
        // `remove`: the same message twice in one group counts once.
        if !item.report.ends_its_task() && !fresh.remove(&item.message_id) {
            continue;
        }
        if !rows.tasks.get(&item.task).is_some_and(|task| accepts(task, item)) {
            metrics::STALE_RESULTS.one(&[]);
            continue;
        }
        changes.merge(one(parts, tx, item, &mut rows).await?);
        if let Some(job) = rows.jobs.get_mut(&item.job) {
            let peak = i64::try_from(item.report.peak_memory_bytes).unwrap_or(i64::MAX);
            if peak > job.peak_memory_bytes {
                tx.raise_peak_memory(item.job, peak).await?;
                job.peak_memory_bytes = peak;
            }
        }
        touched.insert(item.job);
    }
    if tx.finish_many(&rows.ended).await?.len() < rows.ended.len() {
        // Only the leader writes to tasks, and it holds its term.
        return Err(StoreError::corrupt("a task changed while its report was recorded").into());
    }
    tx.upsert_embeddings(&rows.vectors).await?;
    let touched: Vec<Uuid> = touched.into_iter().collect();
    changes.merge(settle::after_tasks(parts, tx, &touched).await?);
    Ok(changes)
}

async fn one(parts: &Parts, tx: &Tx, item: &Item<'_>, rows: &mut Rows) -> Result<Changes, Fault> {
    let Some(job) = rows.jobs.get_mut(&item.job) else { return Ok(Changes::default()) };
    match &item.report.report {
        Some(Report::PreparedPart(part)) => Ok(prepared_part(parts, tx, job, part).await?),
        Some(Report::PreparedAll(all)) => {
            let changes = finish(item, rows);
            let seconds = all.samples.max(0) as f64 / SAMPLE_RATE as f64;
            tx.set_duration(item.job, seconds).await?;
            let wants_index = rows.jobs.get(&item.job).is_some_and(|job| {
                job.kind == JobKind::Transcribe && planner::transcribe_spec(job).is_ok_and(|spec| spec.index)
            });
            tx.add_planned(item.job, 0.0, !wants_index).await?;
            let message = format!("{seconds:.1} s of audio ({}) in {} parts", all.format, all.parts);
            tx.event(item.job, &NewEvent::new(EventLevel::Info, "job.prepared", message)).await?;
            if let Some(event) = all.damaged_at.map(damaged) {
                tx.event(item.job, &event).await?;
            }
            Ok(changes)
        }
        Some(Report::Transcribed(transcribed)) => Ok(transcribed_windows(tx, item, transcribed, rows).await?),
        Some(Report::Embedded(_)) => embedded(tx, item, rows).await,
        Some(Report::Failed(fault)) => {
            let error = Some((fault.code.clone(), fault.message.clone()));
            let changes = finish_as(item, rows, TaskState::Failed, error);
            let event = NewEvent::new(EventLevel::Error, "task.failed", fault.message.clone())
                .with(json!({ "task": item.report.task, "error_code": fault.code }));
            tx.event(item.job, &event).await?;
            tx.worker_error(&item.report.worker, &trouble(&fault.code, item, &fault.message)).await?;
            Ok(changes)
        }
        Some(Report::Retry(retry)) => Ok(retry_later(tx, item, retry, rows).await?),
        Some(Report::DeviceFull(full)) => Ok(device_full(tx, item, full).await?),
        None => Ok(Changes::default()),
    }
}

/// The transcript may lack something, and the caller should know.
fn damaged(at: f64) -> NewEvent {
    let message = format!("recording damaged at {at:.1} s; what could be decoded is transcribed");
    NewEvent::new(EventLevel::Warning, "recording.damaged", message).with(json!({ "at_s": at }))
}

/// A part of the recording can be transcribed. Planned twice, it has the same tasks.
async fn prepared_part(parts: &Parts, tx: &Tx, job: &Job, part: &wire::PreparedPart) -> Result<Changes, StoreError> {
    let spec = planner::transcribe_spec(job).map_err(StoreError::corrupt)?;
    let tasks = planner::transcribe(parts, &parts.settings.release, job, &spec, part);
    let inserted: BTreeSet<Uuid> = tx.insert_tasks(&tasks).await?.into_iter().collect();
    let new: Vec<_> = tasks.iter().filter(|task| inserted.contains(&task.id)).collect();
    tx.add_planned(job.id, new.iter().map(|task| task.units).sum(), false).await?;
    let mut changes = Changes::default();
    let Some(first) = new.first() else { return Ok(changes) };
    // Until the language is known, tasks go out one by one; see `settle::after_tasks`.
    if job.language.is_some() {
        changes.waiting.push((lead::key(job), TaskKind::Transcribe, new.len() as u64, first.cost));
    }
    Ok(changes)
}

async fn transcribed_windows(
    tx: &Tx,
    item: &Item<'_>,
    transcribed: &wire::Transcribed,
    rows: &mut Rows,
) -> Result<Changes, StoreError> {
    let mut changes = finish(item, rows);
    let Some(task) = rows.tasks.get(&item.task) else { return Ok(changes) };
    let segments: Vec<_> = transcribed
        .segments
        .iter()
        .zip(0_i64..)
        .map(|(segment, idx)| Segment {
            task_ordinal: task.ordinal,
            idx,
            start_s: segment.start,
            end_s: segment.end,
            text: segment.text.clone(),
            avg_logprob: f64::from(segment.avg_logprob),
            no_speech_prob: f64::from(segment.no_speech_prob),
        })
        .collect();
    tx.replace_segments(item.job, task.ordinal, &segments).await?;
    let cost = task.cost;
    let Some(job) = rows.jobs.get_mut(&item.job).filter(|job| job.language.is_none()) else { return Ok(changes) };
    // Only speech tells a language; after a window without any, the next task asks again.
    if !segments.is_empty() && !transcribed.language.is_empty() {
        tx.set_language(item.job, &transcribed.language).await?;
        job.language = Some(transcribed.language.clone());
        let waiting = tx.read().counts(item.job).await?.unreleased;
        changes.waiting.push((lead::key(job), TaskKind::Transcribe, waiting, cost));
    }
    Ok(changes)
}

async fn embedded(tx: &Tx, item: &Item<'_>, rows: &mut Rows) -> Result<Changes, Fault> {
    let Some(task) = rows.tasks.get(&item.task) else { return Ok(Changes::default()) };
    let Ok(wire::task::Work::Embed(work)) = Payload::read(&task.payload) else {
        return Err(StoreError::corrupt(format!("task {}: not an embed task", item.report.task)).into());
    };
    let vectors = item.vectors.as_ref().map_err(|cause| Fault::Permanent(cause.clone()))?;
    let texts = texts(&work);
    if vectors.len() != texts {
        let message = format!("embedded: {} vectors for the {texts} texts of {}", vectors.len(), item.report.task);
        return Err(Fault::permanent(Code::Malformed, message));
    }
    let changes = finish(item, rows);
    let Some(job) = rows.jobs.get(&item.job) else { return Ok(changes) };
    let ordinals = i64::from(work.first)..;
    let index = match job.kind {
        JobKind::Transcribe => true,
        JobKind::Embed => planner::embed_spec(job).is_ok_and(|spec| spec.index),
        JobKind::Query => false,
    };
    if job.kind != JobKind::Transcribe {
        let new = vectors.iter().zip(ordinals.clone()).map(|(vector, ordinal)| EmbeddingRow {
            job: item.job,
            ordinal,
            model: work.model.clone(),
            vector: vector.clone(),
        });
        rows.vectors.extend(new);
    }
    if index {
        let passages = passages(tx, job, &work).await?;
        let rows: Vec<_> = passages
            .into_iter()
            .zip(vectors)
            .zip(ordinals)
            .map(|((passage, vector), ordinal)| NewPassage {
                job_id: item.job,
                ordinal,
                name: job.name.clone(),
                start_s: passage.start,
                end_s: passage.end,
                text: passage.text,
                vector: Some((work.model.clone(), vector.clone())),
            })
            .collect();
        let generation = tx.read().active_generation().await?;
        tx.upsert_passages(generation, &rows).await?;
    }
    Ok(changes)
}

/// How many texts a task has.
fn texts(work: &wire::EmbedTask) -> usize {
    match &work.input {
        Some(wire::embed_task::Input::Texts(texts)) => texts.texts.len(),
        Some(wire::embed_task::Input::Lines(lines)) => lines.count as usize,
        None => 0,
    }
}

/// What the vectors of one task stand for. A transcript's passages are cut again from its segments: the same ones.
async fn passages(tx: &Tx, job: &Job, work: &wire::EmbedTask) -> Result<Vec<warren_jobs::plan::Passage>, StoreError> {
    let texts = match &work.input {
        Some(wire::embed_task::Input::Texts(texts)) => texts.texts.clone(),
        // A text too long for a message is too long to be a passage; it is found by its vector's job alone.
        _ => return Ok(Vec::new()),
    };
    if job.kind == JobKind::Transcribe {
        let all = planner::passages(&tx.read().segments(job.id).await?);
        return Ok(all.into_iter().skip(work.first as usize).take(texts.len()).collect());
    }
    Ok(texts.into_iter().map(|text| warren_jobs::plan::Passage { start: 0.0, end: 0.0, text }).collect())
}

async fn retry_later(
    tx: &Tx,
    item: &Item<'_>,
    retry: &wire::RetryAnnounced,
    rows: &Rows,
) -> Result<Changes, StoreError> {
    let Some(task) = rows.tasks.get(&item.task) else { return Ok(Changes::default()) };
    let now = tx.now();
    let until = retry.until.as_ref().map_or(now, |until| UnixMillis(to_millis(until)));
    if !tx.retry_announced(item.task, task.dispatch, until).await? {
        return Ok(Changes::default());
    }
    let seconds = until.since(now).as_millis().div_ceil(1_000);
    let message = format!("{} waits {seconds} s: {}", task.kind, retry.reason);
    let event = NewEvent::new(EventLevel::Warning, "job.retry_later", message).with(json!({
        "task": item.report.task, "delay_s": seconds, "error_code": retry.code, "attempt": retry.attempt,
        "spends_attempt": retry.spends_attempt,
    }));
    tx.event(item.job, &event).await?;
    tx.worker_error(&item.report.worker, &trouble(&retry.code, item, &retry.reason)).await?;
    Ok(Changes { postponed: vec![item.task], ..Changes::default() })
}

/// The way down is told step by step, and where it ended is remembered.
async fn device_full(tx: &Tx, item: &Item<'_>, full: &wire::DeviceFull) -> Result<Changes, StoreError> {
    for shortage in &full.shortages {
        tx.event(item.job, &out_of_memory(&item.report.task, full, shortage)).await?;
    }
    let lower = full.shortages.iter().any(|shortage| full.safe_rows < shortage.rows);
    if full.safe_rows > 0 && lower {
        let batch = SafeBatch { length: full.length.into(), most: full.safe_rows.into() };
        tx.learn_batch(&full.device, &full.model, batch).await?;
    }
    let last = full.shortages.last().map(|shortage| shortage.reason.as_str()).unwrap_or_default();
    tx.worker_error(&item.report.worker, &trouble(Code::OutOfMemory.as_str(), item, last)).await?;
    Ok(Changes::default())
}

fn out_of_memory(task: &str, full: &wire::DeviceFull, shortage: &wire::Shortage) -> NewEvent {
    let next = match shortage.next_rows {
        0 => "that was the last try".to_owned(),
        next if next == shortage.rows => "caches are freed and it is tried again".to_owned(),
        next => format!("{next} are tried"),
    };
    let message = format!(
        "{} has no room for {} inputs of `{}` at once ({}); {next}",
        full.device, shortage.rows, full.model, shortage.reason
    );
    NewEvent::new(EventLevel::Warning, "gpu.oom", message).with(json!({
        "task": task, "device": full.device, "model": full.model, "length": full.length, "batch": shortage.rows,
        "next_batch": shortage.next_rows, "memory_free_before_bytes": shortage.free_before,
        "memory_free_after_bytes": shortage.free_after,
    }))
}

/// What is shown of a worker's last error.
fn trouble(code: &str, item: &Item<'_>, message: &str) -> String {
    format!("{code}: {message} ({})", item.report.task)
}

fn finish(item: &Item<'_>, rows: &mut Rows) -> Changes {
    finish_as(item, rows, TaskState::Done, None)
}

/// Ends the task of a report; written with the group.
fn finish_as(item: &Item<'_>, rows: &mut Rows, to: TaskState, error: Option<(String, String)>) -> Changes {
    if let Some(task) = rows.tasks.get_mut(&item.task) {
        // What else the group says of the task is late.
        task.state = to;
        let labels = [("kind", task.kind.as_str()), ("outcome", to.as_str())];
        metrics::TASK_WAIT_SECONDS.record(rows.now.since(task.created).as_secs_f64(), &labels);
    }
    rows.ended.push(Finish {
        task: item.task,
        dispatch: i64::from(item.report.dispatch),
        to,
        worker: item.report.worker.clone(),
        error,
    });
    Changes { ended: vec![item.task], ..Changes::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_to_whoever_watches() {
        let event = damaged(62.24);
        assert_eq!((event.level, event.event.as_str()), (EventLevel::Warning, "recording.damaged"));
        assert!(event.message.starts_with("recording damaged at 62.2 s"), "{}", event.message);
        assert_eq!(event.fields["at_s"], 62.24);
    }

    #[test]
    fn each_step_down_is_told() {
        let told = |rows, next_rows| {
            let full = wire::DeviceFull { device: "cuda:0".to_owned(), model: "m".to_owned(), ..Default::default() };
            let shortage = wire::Shortage { rows, next_rows, reason: "full".to_owned(), ..Default::default() };
            out_of_memory("task_1", &full, &shortage).message
        };
        assert_eq!(told(32, 16), "cuda:0 has no room for 32 inputs of `m` at once (full); 16 are tried");
        assert!(told(32, 32).ends_with("caches are freed and it is tried again"));
        assert!(told(1, 0).ends_with("that was the last try"));
    }
}
