//! What waits, what runs, and who holds which device.

use std::collections::HashMap;

use serde::Deserialize;
use tonic::{Request, Response, Status};
use uuid::Uuid;
use warren_clock::UnixMillis;
use warren_jobs::TaskKind;
use warren_messages::{
    from_millis,
    ids::TaskId,
    routes,
    wire::{
        AuditRequest, AuditResponse, AuditRow, DeviceLease, DiagnoseRequest, DiagnoseResponse, ErrorsRequest,
        ErrorsResponse, FailStaleRequest, FailStaleResponse, PauseRequest, PauseResponse, PausedKind, PurgeRequest,
        PurgeResponse, QueuesRequest, QueuesResponse, RecoverRequest, RecoverResponse, ResumeRequest, ResumeResponse,
        RunningTask, TaskQueue, Worker, WorkersRequest, WorkersResponse, operations_server,
    },
};
use warren_store::{LetterFilter, LetterState, Pause, QueueStats, StoreError};

use super::{diagnose, errors, operate};
use crate::{
    auth::{Caller, caller},
    page::Range,
    parts::Parts,
    shown::number,
    status::of_store,
};

/// `limit` of Audit.
const AUDIT: Range = Range { default: 50, most: 1_000 };

/// Service `warren.v1.Operations`.
pub(crate) struct Operations(pub(crate) Parts);

#[tonic::async_trait]
impl operations_server::Operations for Operations {
    async fn queues(&self, request: Request<QueuesRequest>) -> Result<Response<QueuesResponse>, Status> {
        caller(&request)?.must_operate()?;
        Ok(Response::new(self.read_queues().await.map_err(|error| of_store(&error))?))
    }

    async fn workers(&self, request: Request<WorkersRequest>) -> Result<Response<WorkersResponse>, Status> {
        caller(&request)?.must_operate()?;
        Ok(Response::new(self.read_workers().await.map_err(|error| of_store(&error))?))
    }

    async fn diagnose(&self, request: Request<DiagnoseRequest>) -> Result<Response<DiagnoseResponse>, Status> {
        caller(&request)?.must_operate()?;
        let (queues, workers) = (self.read_queues().await, self.read_workers().await);
        let (queues, workers) = (queues.map_err(|error| of_store(&error))?, workers.map_err(|error| of_store(&error))?);
        Ok(Response::new(diagnose::diagnose(&self.0, queues, workers).await?))
    }

    async fn errors(&self, request: Request<ErrorsRequest>) -> Result<Response<ErrorsResponse>, Status> {
        caller(&request)?.must_operate()?;
        Ok(Response::new(errors::errors(&self.0, request.get_ref()).await?))
    }

    async fn audit(&self, request: Request<AuditRequest>) -> Result<Response<AuditResponse>, Status> {
        caller(&request)?.must_operate()?;
        let limit = AUDIT.of("limit", request.get_ref().limit)?;
        let rows = self.0.store.read().audit(u64::from(limit)).await.map_err(|error| of_store(&error))?;
        let rows = rows.into_iter().map(|row| AuditRow {
            actor: row.actor,
            verb: row.verb,
            subject: row.subject,
            detail: row.detail,
            at: Some(from_millis(row.at.0)),
        });
        Ok(Response::new(AuditResponse { rows: rows.collect() }))
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Result<Response<PauseResponse>, Status> {
        let caller = operator(&request)?;
        Ok(Response::new(operate::pause(&self.0, &caller, request.into_inner()).await?))
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Result<Response<ResumeResponse>, Status> {
        let caller = operator(&request)?;
        Ok(Response::new(operate::resume(&self.0, &caller, request.into_inner()).await?))
    }

    async fn purge(&self, request: Request<PurgeRequest>) -> Result<Response<PurgeResponse>, Status> {
        let caller = operator(&request)?;
        Ok(Response::new(operate::purge(&self.0, &caller, request.into_inner()).await?))
    }

    async fn recover(&self, request: Request<RecoverRequest>) -> Result<Response<RecoverResponse>, Status> {
        let caller = operator(&request)?;
        Ok(Response::new(operate::recover(&self.0, &caller, request.into_inner()).await?))
    }

    async fn fail_stale(&self, request: Request<FailStaleRequest>) -> Result<Response<FailStaleResponse>, Status> {
        let caller = operator(&request)?;
        Ok(Response::new(operate::fail_stale(&self.0, &caller, request.into_inner()).await?))
    }
}

fn operator<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = caller(request)?;
    caller.must_operate()?;
    Ok(caller)
}

/// A task in a worker's hands, as the coordinator writes it into the worker's row.
#[derive(Debug, Deserialize)]
pub(super) struct InHand {
    task: String,
    /// E.g. `job_…`.
    pub(super) job: String,
    dispatch: u32,
    /// What is being done.
    pub(super) step: String,
    done_units: f64,
}

impl Operations {
    async fn read_queues(&self) -> Result<QueuesResponse, StoreError> {
        let read = self.0.store.read();
        let now = self.0.clock.now();
        let workers: Vec<_> = read.workers().await?.into_iter().filter(|worker| worker.live).collect();
        let ids: Vec<Uuid> =
            workers.iter().flat_map(|worker| in_hand(&worker.running)).filter_map(|(id, _)| id).collect();
        let mut running: HashMap<TaskKind, u64> = HashMap::new();
        for task in read.tasks_by_id(&ids).await? {
            *running.entry(task.kind).or_default() += 1;
        }
        let stats = read.queue_stats(now).await?;
        let pauses = read.pauses().await?;
        let queues = stats.iter().map(|stats| {
            let takes = workers.iter().flat_map(|worker| &worker.takes).filter(|(kind, _)| *kind == stats.kind);
            let slots: i64 = takes.map(|(_, slots)| slots).sum();
            let shown = queue(stats, running.get(&stats.kind).copied().unwrap_or(0), number(slots), now);
            TaskQueue { paused: pauses.iter().find(|pause| pause.kind == stats.kind).map(paused), ..shown }
        });
        let dead = LetterFilter { states: LetterState::OPEN.to_vec(), ..LetterFilter::default() };
        Ok(QueuesResponse { queues: queues.collect(), dead_letters: read.count_letters(&dead).await? })
    }

    async fn read_workers(&self) -> Result<WorkersResponse, StoreError> {
        let read = self.0.store.read();
        let now = self.0.clock.now();
        let leader = read.leader().await?.filter(|leader| leader.expires > now);
        let leases = read.leases().await?.into_iter().map(|lease| DeviceLease {
            device: lease.device,
            model: lease.model,
            worker: lease.worker,
            fence: u64::try_from(lease.fence).unwrap_or(0),
            granted_at: Some(from_millis(lease.granted.0)),
            state: lease.state,
        });
        Ok(WorkersResponse {
            workers: read.workers().await?.iter().map(worker).collect(),
            leases: leases.collect(),
            term: leader.as_ref().map_or(0, |leader| u64::try_from(leader.term.0).unwrap_or(0)),
            leader: leader.map(|leader| leader.holder).unwrap_or_default(),
        })
    }
}

fn queue(stats: &QueueStats, running: u64, slots: u32, now: UnixMillis) -> TaskQueue {
    TaskQueue {
        kind: stats.kind.as_str().to_owned(),
        queue: routes::tasks(stats.kind).queue.to_owned(),
        unreleased: stats.unreleased,
        released: stats.released,
        // A report may be a little older than the row of its task.
        running: running.min(stats.released),
        retry_later: stats.retry_later,
        dead: stats.dead,
        oldest_wait_seconds: stats.oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64()),
        slots,
        paused: None,
    }
}

fn paused(pause: &Pause) -> PausedKind {
    PausedKind { actor: pause.actor.clone(), reason: pause.reason.clone(), since: Some(from_millis(pause.since.0)) }
}

fn worker(row: &warren_store::Worker) -> Worker {
    let running = if row.live { in_hand(&row.running) } else { Vec::new() };
    Worker {
        id: row.id.clone(),
        boot: row.boot.clone(),
        service: row.service.clone(),
        kinds: row.takes.iter().map(|(kind, _)| kind.as_str().to_owned()).collect(),
        slots: number(row.takes.iter().map(|(_, slots)| slots).sum::<i64>()),
        version: row.version.clone(),
        heartbeat_at: Some(from_millis(row.heartbeat.0)),
        state: state(row).to_owned(),
        trouble: row.trouble.clone(),
        last_error: row.last_error.as_ref().map(|error| error.message.clone()).unwrap_or_default(),
        last_error_at: row.last_error.as_ref().map(|error| from_millis(error.at.0)),
        running: running
            .into_iter()
            .map(|(_, task)| RunningTask {
                task: task.task,
                job: task.job,
                dispatch: task.dispatch,
                step: task.step,
                done_units: task.done_units,
            })
            .collect(),
    }
}

/// One word: what keeps it from work.
fn state(row: &warren_store::Worker) -> &'static str {
    match row.trouble.as_str() {
        _ if !row.live => "lost",
        "" => "live",
        // What RabbitMQ and S3 say of a login that is not right.
        trouble
            if ["ACCESS_REFUSED", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"]
                .iter()
                .any(|word| trouble.contains(word)) =>
        {
            "auth_failed"
        }
        _ => "not_ready",
    }
}

/// What a worker said that it runs. Each task with its id, when it has one.
pub(super) fn in_hand(json: &str) -> Vec<(Option<Uuid>, InHand)> {
    let tasks: Vec<InHand> = serde_json::from_str(json).unwrap_or_default();
    tasks.into_iter().map(|task| (task.task.parse::<TaskId>().ok().map(|id| id.0), task)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_never_runs_more_than_it_released() {
        let stats = QueueStats {
            kind: TaskKind::Embed,
            unreleased: 5,
            released: 2,
            retry_later: 0,
            dead: 0,
            oldest: Some(UnixMillis(1_000)),
        };
        let shown = queue(&stats, 3, 4, UnixMillis(3_500));
        assert_eq!((shown.running, shown.oldest_wait_seconds, shown.queue.as_str()), (2, 2.5, "warren.task.embed"));
    }

    #[test]
    fn a_worker_that_wrote_nonsense_runs_nothing() {
        assert!(in_hand("?").is_empty());
        let task = "task_00000000-0000-0000-0000-000000000001";
        let json = format!(r#"[{{"task":"{task}","job":"j","dispatch":1,"step":"decode","done_units":0.5}}]"#);
        assert_eq!(in_hand(&json)[0].0, Some(Uuid::from_u128(1)));
    }
}
