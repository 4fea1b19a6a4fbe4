//! The handle that a worker keeps, and what its parts share.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;
use warren_clock::Clock;
use warren_jobs::{
    TaskKind,
    lease::{Breach, HeldLeases},
};
use warren_messages::wire::{self, leases_client::LeasesClient};

use crate::{
    LeaseSettings, Timing,
    record::Record,
    session,
    slots::{Slot, Slots},
    tasks::{TaskInHand, Tasks},
    watchdog::{self, OnBreach},
};

/// How long a worker that leaves by itself waits until the coordinator has heard why.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Who this worker is.
#[derive(Clone, Debug)]
pub struct WorkerIdentity {
    /// E.g. `transcription`.
    pub service: &'static str,
    /// Task kinds it consumes.
    pub kinds: Vec<Takes>,
    /// Tasks with a device that it runs at once.
    pub slots: u32,
    /// Version of the program.
    pub version: &'static str,
}

/// A kind of task that a worker consumes.
#[derive(Clone, Debug)]
pub struct Takes {
    /// Which.
    pub kind: TaskKind,
    /// Tasks of this kind that it runs at once.
    pub slots: u16,
    /// Tasks of this kind that it takes in hand at once: those that it runs, and short ones that wait their turn.
    pub holds: watch::Receiver<u16>,
}

impl Takes {
    /// As many in hand as it runs.
    pub fn fixed(kind: TaskKind, slots: u16) -> Self {
        Self { kind, slots, holds: watch::channel(slots).1 }
    }
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
    /// Waits for a lease so far, all slots together.
    pub(crate) waits: AtomicU64,
    held: Mutex<HeldLeases>,
    /// Why no work is taken; empty when it is.
    trouble: Mutex<String>,
    /// Why the worker drains by itself; empty when it does not.
    leaving: Mutex<String>,
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

    pub(crate) fn trouble(&self) -> String {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn leaving(&self) -> String {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        let timing = Timing { wait: Duration::from_secs(settings.wait_s), ..Timing::default() };
        Self::start_with(settings, identity, clock, stopping, timing, Box::new(watchdog::abort))
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
        let longest_pass = Duration::from_secs(settings.longest_pass_s);
        let held = HeldLeases::new(timing.self_fence, settings.keeps_memory()).with_longest_pass(longest_pass);
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
            waits: AtomicU64::new(0),
            held: Mutex::new(held),
            trouble: Mutex::default(),
            leaving: Mutex::default(),
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

    /// Name of the device, as the coordinator has it.
    pub fn device(&self) -> &str {
        &self.shared.device
    }

    /// Says why this worker takes no work, e.g. `rabbitmq: …`; empty: it does. The coordinator is told with the next report.
    pub fn set_trouble(&self, why: String) {
        *self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Says why this worker is about to drain by itself, e.g. for its memory. The coordinator hears of it before
    /// [`Leases::close`] returns, if it answers.
    pub fn leaving(&self, why: String) {
        *self.shared.leaving.lock().unwrap_or_else(PoisonError::into_inner) = why;
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
        self.answered_since(task.taken(), task).await;
    }

    /// Tells that no other task is in the worker's slots, and waits until the leading coordinator knows it, or the task is
    /// dropped. If the task takes the worker with it then, it is the one to blame.
    pub async fn alone(&self, task: &TaskInHand) {
        task.set_turn(wire::Turn::Alone);
        self.answered_since(Instant::now(), task).await;
    }

    /// Waits until a report made after `since` is answered, or the task is dropped.
    async fn answered_since(&self, since: Instant, task: &TaskInHand) {
        tokio::select! {
            () = self.heard(since) => {}
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
        if !self.shared.leaving().is_empty() {
            let _ = timeout(LAST_WORD, self.heard(Instant::now())).await;
        }
    }

    /// Waits until a report made after `since` is answered; asks for one if none was.
    async fn heard(&self, since: Instant) {
        let mut answered = self.shared.tasks.answered.subscribe();
        let names = |report: &Option<Instant>| report.is_some_and(|made| made > since);
        if !names(&answered.borrow()) {
            self.shared.report_now.notify_one();
        }
        // An error would mean that the session is over, and `self` keeps it.
        let _ = answered.wait_for(names).await;
    }
}
