//! Runs a model on the device, under a lease.

use std::{fmt, sync::Arc};

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use warren_fault::{Cause, Code, Fault};
use warren_inference::{Gate, InferenceError, Interrupted};
use warren_leases::{Leases, Slot};
use warren_models::Model;
use warren_telemetry::metrics;

use crate::{Hand, Loadable, Shelf, Stopped, gate::LeaseGate, threads::Threads};

/// Brings a task, a model and a lease together. Cheap to clone.
#[derive(Debug)]
pub struct Engine<M> {
    leases: Leases,
    shelf: Shelf<M>,
    stopping: CancellationToken,
    threads: Arc<Threads>,
}

impl<M> Clone for Engine<M> {
    fn clone(&self) -> Self {
        Self {
            leases: self.leases.clone(),
            shelf: self.shelf.clone(),
            stopping: self.stopping.clone(),
            threads: self.threads.clone(),
        }
    }
}

impl<M: Loadable> Engine<M> {
    /// An engine for `slots` tasks at once. When `stopping`, tasks that still wait for a lease are put off.
    pub fn new(leases: Leases, shelf: Shelf<M>, slots: u16, stopping: CancellationToken) -> Self {
        Self { leases, shelf, stopping, threads: Arc::new(Threads::new(slots)) }
    }

    /// The catalogue's entry of a model.
    ///
    /// # Errors
    /// As [`Shelf::model`].
    pub fn model(&self, name: &str) -> Result<Model, Fault> {
        self.shelf.model(name)
    }

    /// Runs `work` with the model, once it is there and the device is ours. `work` runs on a thread of its own and must
    /// ask the gate before every forward pass; it is run again from the start after an urgent yield.
    ///
    /// # Errors
    /// [`Stopped`]: dropped, no lease, no model, or what `work` failed with.
    pub async fn run<T, F>(&self, model: &Model, hand: &Hand, work: F) -> Result<T, Stopped>
    where
        T: Send + 'static,
        F: Fn(&M, &dyn Gate) -> Result<T, InferenceError> + Send + Sync + 'static,
    {
        // Fetching can take minutes, and a lease must not wait for it.
        let files = hand.unless_dropped(self.shelf.files(model, hand.task())).await?;
        let work = Arc::new(work);
        let mut slot = hand.unless_dropped(self.slot(model)).await?;
        loop {
            let lease = tokio::select! {
                lease = slot.acquire(&model.name, model.memory_bytes, hand.task()) => lease?,
                () = self.stopping.cancelled() => return Err(stopping()),
            };
            let gate = LeaseGate::new(lease, hand.task().clone(), hand.inference.clone());
            let before = hand.inference_seconds();
            let (shelf, threads, work) = (self.shelf.clone(), self.threads.clone(), work.clone());
            let (model_now, files) = (model.clone(), files.clone());
            hand.task().now("load");
            // The slot goes with the work: were this future dropped, the lease would still last as long as the pass.
            let ran = spawn_blocking(move || {
                let slot: Slot = slot;
                let result = shelf
                    .open(&model_now, &files)
                    .and_then(|loaded| threads.run(slot.index(), || work(&loaded, &gate)));
                (slot, result)
            });
            let (returned, result) = ran
                .await
                .map_err(|panic| Fault::retryable(Code::Internal, format!("model {}: {panic}", model.name)))?;
            slot = returned;
            let device = self.shelf.device().to_string();
            let seconds = hand.inference_seconds() - before;
            metrics::INFERENCE_SECONDS.add(seconds, &[("model", &model.name), ("device", &device)]);
            match result {
                Ok(done) => return Ok(done),
                Err(InferenceError::Interrupted(Interrupted::Yield)) => {
                    tracing::info!(model = model.name, "the device was wanted back; the task starts again");
                    slot.give_back().await;
                }
                Err(error) => return Err(hand.stopped_by(&error)),
            }
        }
    }

    async fn slot(&self, model: &Model) -> Result<Slot, Stopped> {
        tokio::select! {
            slot = self.leases.slot(&model.name) => Ok(slot),
            () = self.stopping.cancelled() => Err(stopping()),
        }
    }
}

/// The worker stops before the task had the device; another worker takes it.
fn stopping() -> Stopped {
    let cause = Cause::new(Code::LeaseNotGranted, "the worker stopped while the task waited for the device");
    Stopped::Fault(Fault::RetryLater { cause, wait: Some(std::time::Duration::ZERO) })
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped(dropped) => write!(f, "dropped: {dropped:?}"),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}
