//! The handle that a worker keeps, and what its parts share.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;
use warren_clock::Clock;
use warren_jobs::TaskKind;
use warren_messages::wire::{self, leases_client::LeasesClient};

use crate::{
    LeaseSettings, Timing,
    held::{Breach, HeldLeases},
    record::Record,
    session,
    slots::{Slot, Slots},
    tasks::{TaskInHand, Tasks},
    watchdog::{self, OnBreach},
};

/// Who this worker is.
#[derive(Clone, Debug)]
pub struct WorkerIdentity {
    /// E.g. `transcription`.
    pub service: &'static str,
    /// Task kinds it consumes, and how many tasks of each it runs at once.
    pub kinds: Vec<(TaskKind, u32)>,
    /// Tasks with a device that it runs at once.
    pub slots: u32,
    /// Version of the program.
    pub version: &'static str,
}

/// How the session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// No coordinator leads or can be reached, with the reason.
    Searching(String),
    /// The leading coordinator refuses this worker as it is configured, with what to change.
    Refused(String),
    /// A leading coordinator answers, at this address.
    Connected(String),
}

/// The worker's session with the leading coordinator. Cheap to clone; the session ends with the last clone.
#[derive(Clone, Debug)]
pub struct Leases {
    shared: Arc<Shared>,
    _alive: Arc<DropGuard>,
}

pub(crate) struct Shared {
    pub(crate) timing: Timing,
    pub(crate) worker: String,
    pub(crate) boot: String,
    pub(crate) device: String,
    pub(crate) identity: WorkerIdentity,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) slots: Slots,
    pub(crate) record: Option<Record>,
    /// Cancelled when the worker drains.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when nobody needs the session any more.
    pub(crate) closed: CancellationToken,
    /// A report is wanted at once.
    pub(crate) report_now: Notify,
    /// A lease was confirmed or lost.
    pub(crate) leases_changed: Notify,
    pub(crate) connection: watch::Sender<Connection>,
    /// The leader, while the session stands.
    pub(crate) leader: watch::Sender<Option<LeasesClient<Channel>>>,
    held: Mutex<HeldLeases>,
    on_breach: OnBreach,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leases").field("worker", &self.worker).field("device", &self.device).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn held(&self) -> MutexGuard<'_, HeldLeases> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn breached(&self, breach: &Breach) {
        (self.on_breach)(breach);
    }

    /// Does what the coordinator says. `sent` is when the report with that number was sent, if it is known.
    pub(crate) fn obey(&self, order: wire::coordinator_order::Order, sent: Option<Instant>) {
        use wire::coordinator_order::Order;
        match order {
            Order::Renewed(renewed) => {
                let mut held = self.held();
                if let Some(sent) = sent {
                    held.renewed(&renewed.leases, sent);
                    self.tasks.answered.send_replace(Some(sent));
                }
                let breach = held.lost(&renewed.lost);
                drop(held);
                if let Some(breach) = breach {
                    self.breached(&breach);
                }
                if !renewed.lost.is_empty() {
                    tracing::warn!(leases = ?renewed.lost, "leases lost");
                }
                self.leases_changed.notify_waiters();
            }
            Order::Cancel(cancel) => self.tasks.cancel(&cancel.task),
            Order::Stale(stale) => self.tasks.stale(&stale.task, stale.dispatch),
            Order::Yield(wanted) => {
                self.held().wanted(&wanted.lease, wanted.urgent);
                self.leases_changed.notify_waiters();
            }
        }
    }
}

impl Leases {
    /// Starts the session and the watchdog; returns at once, whether or not a coordinator is there. Call it inside a
    /// tokio runtime.
    ///
    /// `stopping` tells the coordinator that the worker drains; the session goes on for what is in hand.
    ///
    /// # Errors
    /// When the record file cannot be opened or the watchdog thread cannot start.
    pub fn start(
        settings: &LeaseSettings,
        identity: WorkerIdentity,
        clock: &Clock,
        stopping: CancellationToken,
    ) -> std::io::Result<Self> {
        Self::start_with(settings, identity, clock, stopping, Timing::default(), Box::new(watchdog::abort))
    }

    pub(crate) fn start_with(
        settings: &LeaseSettings,
        identity: WorkerIdentity,
        clock: &Clock,
        stopping: CancellationToken,
        timing: Timing,
        on_breach: OnBreach,
    ) -> std::io::Result<Self> {
        let record = settings
            .record
            .as_deref()
            .map(Record::open)
            .transpose()
            .map_err(|error| std::io::Error::new(error.kind(), format!("leases.record: {error}")))?;
        let closed = CancellationToken::new();
        let shared = Arc::new(Shared {
            timing,
            worker: settings.worker_name(identity.service),
            boot: clock.new_id().to_string(),
            device: settings.device.clone(),
            tasks: Arc::new(Tasks::default()),
            slots: Slots::new(identity.slots),
            identity,
            record,
            stopping,
            closed: closed.clone(),
            report_now: Notify::new(),
            leases_changed: Notify::new(),
            connection: watch::Sender::new(Connection::Searching("not connected yet".to_owned())),
            leader: watch::Sender::new(None),
            held: Mutex::new(HeldLeases::new(timing.self_fence, settings.keeps_memory())),
            on_breach,
        });
        watchdog::start(&shared)?;
        tokio::spawn(session::keep(shared.clone(), settings.coordinators.clone()));
        Ok(Self { shared, _alive: Arc::new(closed.drop_guard()) })
    }

    /// Name of this worker, for reports.
    pub fn worker(&self) -> &str {
        &self.shared.worker
    }

    /// How the session stands, now and whenever it changes.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.shared.connection.subscribe()
    }

    /// Registers a task that this worker begins to work on.
    pub fn in_hand(&self, task: &str, dispatch: u32, job: &str) -> TaskInHand {
        self.shared.tasks.take(task, dispatch, job)
    }

    /// Waits until the leading coordinator has answered a report that names the task, or the task is dropped. From then
    /// on, [`TaskInHand::dropped`] tells of everything that had ended the task before it was taken in hand.
    pub async fn answered(&self, task: &TaskInHand) {
        let mut answered = self.shared.tasks.answered.subscribe();
        let names = |report: &Option<Instant>| report.is_some_and(|made| made > task.taken());
        if names(&answered.borrow()) {
            return;
        }
        self.shared.report_now.notify_one();
        tokio::select! {
            // An error would mean that the session is over, and `self` keeps it.
            _ = answered.wait_for(names) => {}
            () = task.cancelled() => {}
        }
    }

    /// Waits for a free slot; prefers one that already holds a lease for `model`.
    pub async fn slot(&self, model: &str) -> Slot {
        Slot::take(self.shared.clone(), model).await
    }

    /// Gives back every lease that no task uses. Call it when the worker has drained.
    pub async fn close(self) {
        crate::slots::give_back_all(&self.shared).await;
    }
}
