//! A task being worked on, and why work on it stops.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use uuid::Uuid;
use warren_blob::BlobError;
use warren_fault::{Cause, Fault};
use warren_inference::{InferenceError, Interrupted};
use warren_leases::{Dropped, NotGranted, TaskInHand};
use warren_messages::wire;

/// Why work on a task ended without its report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Nobody wants the result: the message is acknowledged and nothing is reported.
    Dropped(Dropped),
    /// It failed.
    Fault(Fault),
    /// The job's own limits forbid it: its caller's matter, whatever the code.
    OverLimit(Cause),
}

impl From<Fault> for Stopped {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<NotGranted> for Stopped {
    fn from(refused: NotGranted) -> Self {
        match refused {
            NotGranted::Dropped(dropped) => Self::Dropped(dropped),
            NotGranted::Fault(fault) => Self::Fault(fault),
        }
    }
}

impl From<BlobError> for Stopped {
    fn from(error: BlobError) -> Self {
        Self::Fault(error.fault())
    }
}

/// A task in hand: the coordinator sees it, and its time is taken.
#[derive(Debug)]
pub struct Hand {
    pub(crate) task: TaskInHand,
    pub(crate) kind: &'static str,
    pub(crate) started: Instant,
    pub(crate) inference: Spent,
    /// It was with a worker before that did not finish it: it may be what that worker died of.
    pub(crate) returned: bool,
    /// What became of a forward pass for which there was no room.
    pub(crate) full: Mutex<Option<wire::DeviceFull>>,
    /// See [`wire::TaskReport::peak_memory_bytes`].
    pub(crate) peak: AtomicU64,
    /// The task's id.
    pub task_id: Uuid,
    /// The job's id.
    pub job_id: Uuid,
}

/// Time in forward passes, added up across threads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spent(Arc<AtomicU64>);

impl Spent {
    pub(crate) fn add(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn seconds(&self) -> f64 {
        Duration::from_nanos(self.0.load(Ordering::Relaxed)).as_secs_f64()
    }
}

impl Hand {
    pub(crate) fn new(task: TaskInHand, kind: &'static str, task_id: Uuid, job_id: Uuid, returned: bool) -> Self {
        Self {
            task,
            kind,
            started: Instant::now(),
            inference: Spent::default(),
            returned,
            full: Mutex::default(),
            peak: AtomicU64::new(0),
            task_id,
            job_id,
        }
    }

    /// The task as the coordinator's session knows it, for steps and progress.
    pub fn task(&self) -> &TaskInHand {
        &self.task
    }

    /// Which release of the task this is.
    pub fn dispatch(&self) -> u32 {
        self.task.dispatch()
    }

    /// Seconds since the task was taken in hand.
    pub fn busy_seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Seconds in forward passes so far.
    pub fn inference_seconds(&self) -> f64 {
        self.inference.seconds()
    }

    /// Waits for `work` unless the task is dropped first.
    ///
    /// Only for work that may be abandoned at any point: never for a forward pass.
    ///
    /// # Errors
    /// [`Stopped::Dropped`], or what `work` fails with.
    pub async fn unless_dropped<T, E: Into<Stopped>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Stopped> {
        tokio::select! {
            biased;
            () = self.task.cancelled() => Err(self.dropped()),
            done = work => done.map_err(Into::into),
        }
    }

    /// Why the task is dropped.
    pub fn dropped(&self) -> Stopped {
        Stopped::Dropped(self.task.dropped().unwrap_or(Dropped::Cancelled))
    }

    /// What an error of a model means for the task.
    pub fn stopped_by(&self, error: &InferenceError) -> Stopped {
        match error {
            InferenceError::Interrupted(Interrupted::Cancelled) => self.dropped(),
            other => Stopped::Fault(other.fault()),
        }
    }

    /// Notes that there was no room for a forward pass.
    pub(crate) fn found_full(&self, full: Option<wire::DeviceFull>) {
        if full.is_some() {
            *self.full.lock().unwrap_or_else(PoisonError::into_inner) = full;
        }
    }

    pub(crate) fn report(&self, worker: &str, report: wire::task_report::Report) -> wire::TaskReport {
        wire::TaskReport {
            task: self.task.task().to_owned(),
            job: self.task.job().to_owned(),
            dispatch: self.task.dispatch(),
            worker: worker.to_owned(),
            report: Some(report),
            busy_seconds: self.busy_seconds(),
            inference_seconds: self.inference_seconds(),
            peak_memory_bytes: self.peak.load(Ordering::Relaxed),
        }
    }
}
