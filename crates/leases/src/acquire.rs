//! Getting a lease for a slot.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, error::Elapsed, sleep, timeout, timeout_at},
};
use tonic::{Response, Status};
use warren_fault::{Code, Fault};
use warren_jobs::lease::Standing;
use warren_messages::wire::{self, acquire_response::Outcome};
use warren_telemetry::metrics;

use crate::{
    Connection,
    pass::{Grant, Lease},
    slots::{Slot, give_back},
    tasks::{Dropped, TaskInHand},
};

/// How long an answer may be on its way after the coordinator has sent it.
const ON_ITS_WAY: Duration = Duration::from_millis(200);

/// Why a task got no lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotGranted {
    /// The task is no longer wanted: acknowledge its message without a result.
    Dropped(Dropped),
    /// The task cannot run now, or never.
    Fault(Fault),
}

impl fmt::Display for NotGranted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped(Dropped::Cancelled) => f.write_str("the task was cancelled"),
            Self::Dropped(Dropped::Stale) => f.write_str("another release of the task is the current one"),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for NotGranted {}

impl From<Fault> for NotGranted {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Slot {
    /// Gets the right to use the device with `model`, for `task`: the slot's own lease if it fits, else a new one, in
    /// turn with other workers. Waits up to two minutes.
    ///
    /// `memory_bytes` is the estimate for the model and its batch together.
    ///
    /// # Errors
    /// [`NotGranted::Dropped`] when the task is no longer wanted. [`NotGranted::Fault`]: `LeaseNotGranted` or
    /// `CoordinatorUnavailable` (later) after the wait; `LeaseNotGranted` (later) at once, with what to change, when the
    /// coordinator does not know the device; `OutOfMemory` (permanent) when it can never fit.
    pub async fn acquire(&mut self, model: &str, memory_bytes: u64, task: &TaskInHand) -> Result<Lease, NotGranted> {
        if let Some(grant) = &self.grant {
            let fits = grant.model == model && grant.memory_bytes >= memory_bytes;
            if fits && self.shared.held().standing(&grant.lease) == Standing::Good {
                return Ok(Lease::new(self.shared.clone(), grant.clone()));
            }
            self.give_back().await;
        }
        task.step(&format!("waiting for {}", self.shared.device), 0.0);
        let started = Instant::now();
        let waited = self.wait_for_grant(model, memory_bytes, task, started + self.shared.timing.wait).await;
        let labels = [("device", self.shared.device.as_str()), ("model", model)];
        metrics::LEASE_WAIT_SECONDS.record(started.elapsed().as_secs_f64(), &labels);
        let grant = waited?;
        self.grant = Some(grant.clone());
        Ok(Lease::new(self.shared.clone(), grant))
    }

    /// Polls whoever leads until `deadline`.
    async fn wait_for_grant(
        &self,
        model: &str,
        memory_bytes: u64,
        task: &TaskInHand,
        deadline: Instant,
    ) -> Result<Arc<Grant>, NotGranted> {
        let shared = &self.shared;
        let mut leader = shared.leader.subscribe();
        let mut connection = shared.connection.subscribe();
        let wait = shared.waits.fetch_add(1, Ordering::Relaxed) + 1;
        loop {
            let found = tokio::select! {
                found = timeout_at(deadline, leader.wait_for(Option::is_some)) => found,
                reason = refusal(&mut connection) => {
                    return Err(Fault::retry_later(Code::LeaseNotGranted, reason).into());
                }
                () = task.cancelled() => return Err(dropped(task)),
            };
            let Ok(Ok(Some(mut client))) = found.map(|found| found.map(|client| client.clone())) else {
                return Err(self.gave_up());
            };
            leader.mark_unchanged();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.gave_up());
            }
            let poll = shared.timing.poll;
            let request = wire::AcquireRequest {
                worker: shared.worker.clone(),
                boot: shared.boot.clone(),
                slot: self.index,
                device: shared.device.clone(),
                model: model.to_owned(),
                memory_bytes,
                task: task.task().to_owned(),
                dispatch: task.dispatch(),
                wait_ms: u32::try_from(poll.as_millis()).unwrap_or(u32::MAX),
                wait,
            };
            // The coordinator bounds the poll; the limit here is for one that hangs. A call that is dropped, like the
            // last one before the deadline, takes its request with it.
            let asked = timeout(left.min(poll + shared.timing.answer), client.acquire(request));
            tokio::pin!(asked);
            let answer = tokio::select! {
                answer = &mut asked => answer,
                // Another leader: the poll is for nothing.
                _ = leader.changed() => continue,
                () = task.cancelled() => {
                    // A grant may be on its way; unheard, it would block the device until it expires.
                    if let Ok(answer) = timeout(ON_ITS_WAY, &mut asked).await
                        && let Some(Outcome::Granted(granted)) = outcome(answer)
                    {
                        shared.held().granted(&granted.lease, granted.fence);
                        give_back(shared, &Grant::new(granted, model, memory_bytes)).await;
                    }
                    return Err(dropped(task));
                }
            };
            if let Ok(Err(status)) = &answer
                && status.code() == tonic::Code::InvalidArgument
            {
                return Err(Fault::retry_later(Code::LeaseNotGranted, status.message()).into());
            }
            match outcome(answer) {
                Some(Outcome::Granted(granted)) => {
                    let grant = Grant::new(granted, model, memory_bytes);
                    if self.confirmed(&grant).await {
                        return Ok(grant);
                    }
                }
                Some(Outcome::Waiting(waiting)) => {
                    tracing::debug!(position = waiting.position, held_by = waiting.held_by, "waiting for a lease");
                }
                Some(Outcome::Stale(wire::Stale {})) => {
                    task.drop_as(Dropped::Stale);
                    return Err(dropped(task));
                }
                Some(Outcome::Cancelled(wire::Cancelled {})) => {
                    task.drop_as(Dropped::Cancelled);
                    return Err(dropped(task));
                }
                Some(Outcome::TooLarge(too_large)) => {
                    return Err(Fault::permanent(Code::OutOfMemory, too_large.arithmetic).into());
                }
                None => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// Waits for the first renewal. A grant may be old when it arrives, for instance when this process was stopped in
    /// between; only an answered report shows that the lease still stands.
    async fn confirmed(&self, grant: &Grant) -> bool {
        let shared = &self.shared;
        shared.held().granted(&grant.lease, grant.fence);
        shared.report_now.notify_one();
        let limit = Instant::now() + shared.timing.answer;
        loop {
            let changed = shared.leases_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let standing = shared.held().standing(&grant.lease);
            let confirmed = match standing {
                Standing::Unconfirmed => timeout_at(limit, changed).await.is_err().then_some(false),
                Standing::Lost => Some(false),
                Standing::Good | Standing::Wanted | Standing::WantedNow => Some(true),
            };
            match confirmed {
                Some(true) => return true,
                Some(false) => {
                    shared.held().given_back(&grant.lease);
                    return false;
                }
                None => {}
            }
        }
    }

    fn gave_up(&self) -> NotGranted {
        let seconds = self.shared.timing.wait.as_secs();
        let device = &self.shared.device;
        NotGranted::Fault(if self.shared.leader.borrow().is_some() {
            Fault::retry_later(Code::LeaseNotGranted, format!("{device} was busy for {seconds} s"))
        } else {
            Fault::retry_later(Code::CoordinatorUnavailable, format!("no coordinator granted {device} for {seconds} s"))
        })
    }
}

/// Waits until the leading coordinator refuses this worker, and says why it does.
async fn refusal(connection: &mut watch::Receiver<Connection>) -> String {
    let refused = match connection.wait_for(|now| matches!(now, Connection::Refused(_))).await.as_deref() {
        Ok(Connection::Refused(reason)) => Some(reason.clone()),
        _ => None,
    };
    match refused {
        Some(reason) => reason,
        None => std::future::pending().await,
    }
}

type Answer = Result<Result<Response<wire::AcquireResponse>, Status>, Elapsed>;

fn outcome(answer: Answer) -> Option<Outcome> {
    match answer {
        Ok(Ok(answer)) => answer.into_inner().outcome,
        Ok(Err(status)) => {
            tracing::debug!(%status, "lease not granted yet");
            None
        }
        Err(_) => None,
    }
}

fn dropped(task: &TaskInHand) -> NotGranted {
    NotGranted::Dropped(task.dropped().unwrap_or(Dropped::Cancelled))
}
