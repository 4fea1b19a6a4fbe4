//! Accepting a job: its row, its request id and the command that has it planned, in one transaction.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;
use warren_blob::Key;
use warren_jobs::{JobClass, JobKind};
use warren_messages::{
    ids::JobId,
    routes::COMMANDS,
    wire::{self, Command, JobSubmitted, command::Command as What, job::Spec},
};
use warren_store::{Job, JobLimits, NewJob, NewOutbox, StoreError, SubmitRequest, Submitted};
use warren_telemetry::{metrics, trace};

use crate::{
    auth::Caller,
    kept::Unkept,
    parts::Parts,
    status::{of_blob, of_store, reused_request_id},
};

/// Texts of so many bytes together stay in the job's row, which spares a way to object storage and back; more would make
/// heavy a row that is read often.
const TEXTS_IN_ROW: usize = 4_096;
/// How often a transaction is tried that another writer kept out.
const TRIES: u32 = 5;
/// Wait before the second try; doubles.
const FIRST_WAIT: Duration = Duration::from_millis(20);
/// A caller is not kept waiting for more than this before the last try.
const PATIENCE: Duration = Duration::from_secs(5);

/// A checked request for a job.
#[derive(Debug)]
pub(crate) struct Asked {
    /// What for.
    pub(crate) kind: JobKind,
    /// Who waits.
    pub(crate) class: JobClass,
    /// The recording.
    pub(crate) media: Option<Uuid>,
    /// For people.
    pub(crate) name: String,
    /// What was asked, with its defaults filled in and all its texts.
    pub(crate) spec: Spec,
    /// What it may take.
    pub(crate) limits: JobLimits,
    /// The job that it does again.
    pub(crate) resubmitted_from: Option<Uuid>,
    /// The caller's own id of the request, with the hash of its body.
    pub(crate) request: Option<(String, String)>,
}

/// Accepts a job once, however often the request is sent.
///
/// # Errors
/// `ALREADY_EXISTS` when the request id was used for something else; `UNAVAILABLE` when a part is away.
pub(crate) async fn accept(parts: &Parts, caller: &Caller, asked: Asked) -> Result<Job, Status> {
    let id = parts.clock.new_id();
    let kind = asked.kind;
    let units = if let Spec::Embed(spec) = &asked.spec { spec.texts.len() } else { 0 };
    let (spec, mut texts) = put_texts(parts, id, asked.spec).await?;
    let (request_id, body_hash) = asked.request.unzip();
    let command = Command {
        actor: caller.name.clone(),
        command: Some(What::Submitted(JobSubmitted { job: JobId(id).to_string() })),
    };
    let new = NewJob {
        id,
        caller: caller.name.clone(),
        kind,
        class: asked.class,
        media_id: asked.media,
        name: asked.name,
        model: model(&spec).to_owned(),
        language: language(&spec),
        spec: json(&spec),
        limits: asked.limits,
        progress_planned: units as f64,
        resubmitted_from: asked.resubmitted_from,
    };
    let request = SubmitRequest {
        request_id: request_id.clone(),
        body_hash: body_hash.unwrap_or_default(),
        outbox: vec![row(parts, &command)],
    };
    let mut patience = Patience::default();
    let submitted = loop {
        let outcome = submit(parts, &new, &request, &mut texts).await;
        let Some(wait) = patience.after(&outcome) else { break outcome };
        tokio::time::sleep(wait).await;
    };
    match submitted {
        Ok(Submitted::New(job)) => {
            metrics::JOBS_SUBMITTED.one(&[("kind", kind.as_str())]);
            tracing::info!(job.id = %JobId(job.id), %kind, "job accepted");
            Ok(job)
        }
        Ok(Submitted::Existing(job)) => Ok(job),
        Ok(Submitted::Conflict) => Err(reused_request_id(&request_id.unwrap_or_default())),
        Err(error) => Err(of_store(&error)),
    }
}

/// Has the coordinator do something: a row in the outbox, published right after.
///
/// # Errors
/// `UNAVAILABLE` when the database is away.
pub(crate) async fn command(parts: &Parts, caller: &Caller, what: What) -> Result<(), Status> {
    let row = row(parts, &Command { actor: caller.name.clone(), command: Some(what) });
    let mut patience = Patience::default();
    let written = loop {
        let outcome = write(parts, &row).await;
        let Some(wait) = patience.after(&outcome) else { break outcome };
        tokio::time::sleep(wait).await;
    };
    written.map_err(|error| of_store(&error))
}

async fn write(parts: &Parts, row: &NewOutbox) -> Result<(), StoreError> {
    let tx = parts.store.begin().await?;
    tx.outbox(row).await?;
    parts.relay.committed(tx.commit_in_order().await?.outbox);
    Ok(())
}

/// The hash that tells one request from another under the same id.
pub(crate) fn hash(request: &wire::SubmitJobRequest) -> String {
    let unnamed = wire::SubmitJobRequest { request_id: String::new(), ..request.clone() };
    let bytes = serde_json::to_vec(&unnamed).expect("generated messages always serialise");
    hex::encode(Sha256::digest(bytes))
}

fn row(parts: &Parts, command: &Command) -> NewOutbox {
    let mut row = parts.relay.row(COMMANDS, parts.clock.new_id(), command);
    trace::inject(&mut row.headers);
    row
}

/// Takes texts that are not few out of what was asked, and stores them.
async fn put_texts(parts: &Parts, job: Uuid, mut spec: Spec) -> Result<(Spec, Option<Unkept>), Status> {
    let texts = match &mut spec {
        Spec::Embed(spec) if spec.texts.iter().map(String::len).sum::<usize>() > TEXTS_IN_ROW => &mut spec.texts,
        _ => return Ok((spec, None)),
    };
    let mut lines = Vec::new();
    for text in std::mem::take(texts) {
        serde_json::to_writer(&mut lines, &text).expect("a Vec takes any write");
        lines.push(b'\n');
    }
    let key = Key::texts(job);
    let unkept = Unkept::new(&parts.blobs, &key);
    parts.blobs.put_bytes(&key, Bytes::from(lines)).await.map_err(|error| of_blob(&error))?;
    warren_drills::passing("ingest.texts-stored");
    Ok((spec, Some(unkept)))
}

fn json(spec: &Spec) -> String {
    let written = match spec {
        Spec::Transcribe(spec) => serde_json::to_string(spec),
        Spec::Embed(spec) => serde_json::to_string(spec),
    };
    written.expect("generated messages always serialise")
}

/// The model that does the main work.
fn model(spec: &Spec) -> &str {
    match spec {
        Spec::Transcribe(spec) => &spec.model,
        Spec::Embed(spec) => &spec.model,
    }
}

/// The language of a recording, if it was given; the coordinator waits for the first task to find another.
fn language(spec: &Spec) -> Option<String> {
    let Spec::Transcribe(spec) = spec else { return None };
    (!spec.language.is_empty()).then(|| spec.language.clone())
}

async fn submit(
    parts: &Parts,
    new: &NewJob,
    request: &SubmitRequest,
    texts: &mut Option<Unkept>,
) -> Result<Submitted, StoreError> {
    let tx = parts.store.begin().await?;
    let submitted = tx.submit(new, request).await?;
    if matches!(submitted, Submitted::New(_)) {
        // A commit that fails, or that the caller no longer waits for, may have taken place all the same: the job then
        // needs its texts. If it has not, the coordinator sweeps them up.
        if let Some(texts) = texts.take() {
            texts.keep();
        }
        let committed = tx.commit_in_order().await?;
        warren_drills::passing("ingest.job-committed");
        parts.relay.committed(committed.outbox);
    }
    Ok(submitted)
}

/// How long to go on while other writers are in the way.
#[derive(Debug)]
pub(crate) struct Patience {
    left: u32,
    wait: Duration,
    since: Instant,
}

impl Default for Patience {
    fn default() -> Self {
        Self { left: TRIES - 1, wait: FIRST_WAIT, since: Instant::now() }
    }
}

impl Patience {
    /// How long to wait before the next try; `None` when there is to be none.
    pub(crate) fn after<T>(&mut self, outcome: &Result<T, StoreError>) -> Option<Duration> {
        let busy = matches!(outcome, Err(StoreError::Busy { .. })) && self.since.elapsed() < PATIENCE;
        self.left = self.left.checked_sub(1).filter(|_| busy)?;
        let wait = self.wait;
        self.wait *= 2;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_leaves_the_request_id_out_and_nothing_else() {
        let request = |id: &str, timeout_s| wire::SubmitJobRequest {
            request_id: id.to_owned(),
            limits: Some(wire::JobLimits { timeout_s, ..Default::default() }),
            ..Default::default()
        };
        assert_eq!(hash(&request("a", 1)), hash(&request("b", 1)));
        assert_ne!(hash(&request("a", 1)), hash(&request("a", 2)));
    }
}
