//! The door for workers: gRPC `warren.v1.Leases`.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataValue};
use warren_jobs::{JobClass, TaskState, lease, state};
use warren_messages::{
    ids::TaskId,
    wire::{
        AcquireRequest, AcquireResponse, Cancelled, CoordinatorOrder, Granted, ReleaseRequest, ReleaseResponse,
        RenewedOrder, SafeBatch, Stale, TooLarge, Waiting, WorkerReport, acquire_response::Outcome,
        coordinator_order::Order, leases_server::Leases,
    },
};
use warren_store::{Store, StoreError, Term};

use crate::{
    devices::Answer,
    lead::Lead,
    leadership::Current,
    reaper,
    sessions::{Orders, Superseded},
};

/// Orders to one worker that have not been read yet.
const UNREAD_ORDERS: usize = 256;
/// Longest that the answer to a report waits for the rows of its tasks.
const ROWS: Duration = Duration::from_millis(500);
/// Longest that a call waits for a device.
const MAX_WAIT: Duration = Duration::from_secs(20);

/// Answers workers while this coordinator leads.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    /// The lead, if it is here.
    pub current: Current,
    /// To say who leads instead.
    pub store: Store,
    /// Where this coordinator is reached itself.
    pub address: String,
}

type OrderStream = Pin<Box<dyn Stream<Item = Result<CoordinatorOrder, Status>> + Send>>;

#[tonic::async_trait]
impl Leases for Door {
    type SessionStream = OrderStream;

    async fn session(&self, request: Request<Streaming<WorkerReport>>) -> Result<Response<OrderStream>, Status> {
        let lead = self.lead().await?;
        let (orders, receiver) = mpsc::channel(UNREAD_ORDERS);
        let reports = request.into_inner();
        let mut current = self.current.clone();
        let door = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = session(&lead, reports, &orders) => if lead.leads() { return },
                () = over(&mut current, lead.term) => {}
            }
            // The term is over: the worker looks for the next leader.
            let _ = orders.send(Err(door.not_leader().await)).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn acquire(&self, request: Request<AcquireRequest>) -> Result<Response<AcquireResponse>, Status> {
        let lead = self.lead().await?;
        let asked = request.into_inner();
        let outcome = self.acquire(&lead, &asked).await?;
        Ok(Response::new(AcquireResponse { outcome: Some(outcome) }))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        let lead = self.lead().await?;
        let given = request.into_inner();
        lead.devices.release(&given.lease, given.fence).await.map_err(|error| unavailable(&error))?;
        Ok(Response::new(ReleaseResponse {}))
    }
}

impl Door {
    async fn lead(&self) -> Result<Arc<Lead>, Status> {
        let here = self.current.borrow().clone();
        match here {
            Some(lead) => Ok(lead),
            None => Err(self.not_leader().await),
        }
    }

    async fn not_leader(&self) -> Status {
        let mut status = Status::failed_precondition("NOT_LEADER");
        let leader = self.store.read().leader().await.ok().flatten();
        // A term that was lost or is being given up names this coordinator for a moment longer.
        let live = leader.filter(|leader| leader.expires > self.store.clock().now() && leader.address != self.address);
        if let Some(address) = live.and_then(|leader| MetadataValue::try_from(leader.address).ok()) {
            status.metadata_mut().insert("leader", address);
        }
        status
    }

    async fn acquire(&self, lead: &Lead, asked: &AcquireRequest) -> Result<Outcome, Status> {
        let task: TaskId = asked.task.parse().map_err(|error| Status::invalid_argument(format!("task: {error}")))?;
        // A task that is out is current; of any other the row decides.
        let out = lead.board().out(task.0).filter(|out| out.dispatch == asked.dispatch).map(|out| out.job);
        let job = match out {
            Some(job) => job,
            None => match self.store.read().task(task.0).await.map_err(|error| unavailable(&error))? {
                Some(task) if state::accepts(task.state, task.wire_dispatch(), asked.dispatch) => task.job_id,
                Some(task) if task.state == TaskState::Cancelled => return Ok(Outcome::Cancelled(Cancelled {})),
                _ => return Ok(Outcome::Stale(Stale {})),
            },
        };
        let job = self.store.read().job(job).await.map_err(|error| unavailable(&error))?;
        let request = lease::Request {
            lease: lead.parts.clock.new_id().to_string(),
            device: asked.device.clone(),
            holder: lease::Holder { worker: asked.worker.clone(), boot: asked.boot.clone(), slot: asked.slot },
            wait: asked.wait,
            model: asked.model.clone(),
            memory_bytes: asked.memory_bytes,
            class: job.map_or(JobClass::Default, |job| job.class),
            task: asked.task.clone(),
        };
        let patience = Duration::from_millis(u64::from(asked.wait_ms)).min(MAX_WAIT);
        let answer = lead.devices.acquire(request, patience).await.map_err(|error| unavailable(&error))?;
        Ok(match answer {
            Answer::Granted(lease) => {
                let batches = self.batches(&asked.device, &asked.model).await;
                Outcome::Granted(Granted {
                    lease: lease.id,
                    fence: lease.fence,
                    ttl_ms: lead.devices.ttl_ms(),
                    batches,
                })
            }
            Answer::Waiting { position, held_by } => {
                Outcome::Waiting(Waiting { position: u32::try_from(position).unwrap_or(u32::MAX), held_by })
            }
            Answer::TooLarge { arithmetic } => Outcome::TooLarge(TooLarge { arithmetic }),
            Answer::UnknownDevice => return Err(unknown_device(&asked.device)),
        })
    }
}

impl Door {
    /// What is known to fit. Not knowing it costs the worker a few passes, so trouble with the database is not passed on.
    async fn batches(&self, device: &str, model: &str) -> Vec<SafeBatch> {
        let known = self.store.read().safe_batches(device, model, self.store.clock().now()).await;
        let wire = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
        let known = known.unwrap_or_default().into_iter();
        known.map(|batch| SafeBatch { length: wire(batch.length), rows: wire(batch.most) }).collect()
    }
}

/// Waits for the end of a term.
async fn over(current: &mut Current, term: Term) {
    // An error means that the whole process ends.
    let _ = current.wait_for(|now| now.as_ref().is_none_or(|now| now.term != term)).await;
}

/// Listens to one worker until its stream ends.
async fn session(lead: &Arc<Lead>, mut reports: Streaming<WorkerReport>, orders: &Orders) {
    let mut known: Option<(String, String)> = None;
    while let Some(Ok(report)) = reports.next().await {
        // A worker that could never get its device would take tasks only to put them off.
        if !report.device.is_empty() && !lead.devices.knows(&report.device) {
            let _ = orders.send(Err(unknown_device(&report.device))).await;
            break;
        }
        if lead.sessions().report(&report, orders) == Err(Superseded) {
            let _ = orders.send(Err(superseded(&report.worker))).await;
            break;
        }
        known = Some((report.worker.clone(), report.boot.clone()));
        lead.count_slots();
        lead.release.notify_one();
        if let Err(error) = reaper::write_losses(lead).await {
            tracing::warn!(%error, "losses of a replaced worker not recorded; again in a moment");
        }
        // Before the answer: whoever has that knows whether its tasks are wanted. But leases depend on the answer, and a
        // slow database must not cost them.
        let _ = timeout(ROWS, void(lead, &report)).await;
        // Renewals are not written, so nothing else would refuse those of a leader that was stopped for a while: the next
        // one has given every lease its last life by now.
        if !lead.leads() || orders.send(Ok(renewed(lead, &report))).await.is_err() {
            break;
        }
    }
    let Some((worker, boot)) = known else { return };
    let left = lead.sessions().disconnected(&worker, orders);
    if let Some(why) = left
        && let Err(error) = reaper::left(lead, &worker, &boot, &why).await
    {
        tracing::warn!(%error, worker, "a worker that drained is still among the rows");
    }
}

/// Renews what a worker reports to hold, and takes back what it does not know of.
pub(crate) fn renewed(lead: &Lead, report: &WorkerReport) -> CoordinatorOrder {
    let (mut leases, mut lost) = (Vec::new(), Vec::new());
    for renewal in &report.renewals {
        let kept = lead.devices.renew(&renewal.lease, renewal.fence);
        if kept { &mut leases } else { &mut lost }.push(renewal.lease.clone());
    }
    lead.devices.take_back(report);
    let order = RenewedOrder { report: report.report, leases, lost, ttl_ms: lead.devices.ttl_ms() };
    CoordinatorOrder { order: Some(Order::Renewed(order)) }
}

/// Tells the worker which of its tasks are no longer wanted: those that are not out, by the board and by the rows. A task
/// may reach its worker before the board knows that it went out.
async fn void(lead: &Lead, report: &WorkerReport) {
    let out = |task: TaskId, dispatch: u32| lead.board().out(task.0).is_some_and(|out| out.dispatch == dispatch);
    let running = report.running.iter().filter_map(|task| Some((task.task.parse::<TaskId>().ok()?, task.dispatch)));
    let doubtful: Vec<_> = running.filter(|(task, dispatch)| !out(*task, *dispatch)).collect();
    if doubtful.is_empty() {
        return;
    }
    let ids: Vec<_> = doubtful.iter().map(|(task, _)| task.0).collect();
    // Without the rows nothing is known; the next report asks again.
    let Ok(rows) = lead.parts.store.read().tasks_by_id(&ids).await else { return };
    for (task, reported) in doubtful {
        let row = rows.iter().find(|row| row.id == task.0);
        if row.is_none_or(|row| !state::accepts(row.state, row.wire_dispatch(), reported)) {
            lead.sessions().stale(&report.worker, task, reported);
        }
    }
}

fn superseded(worker: &str) -> Status {
    let what = "is the name of a process that was started later; give each worker its own, `leases.worker`";
    Status::already_exists(format!("worker: `{worker}` {what}"))
}

fn unknown_device(device: &str) -> Status {
    Status::invalid_argument(format!("device: the coordinator has no `{device}`; add it to its `devices`"))
}

fn unavailable(error: &StoreError) -> Status {
    Status::unavailable(error.to_string())
}
