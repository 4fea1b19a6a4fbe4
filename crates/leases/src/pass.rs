//! The right to use a device, checked around every forward pass.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use warren_jobs::lease::Interrupted;
use warren_messages::wire::{self, SafeBatch};

use crate::{
    leases::Shared,
    record::{PassLine, monotonic_ns},
};

/// A granted lease on a device for one model. Clones mean the same lease; once its slot has given it back, no clone
/// can be used any more.
#[derive(Clone, Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    grant: Arc<Grant>,
}

#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) lease: String,
    pub(crate) fence: u64,
    pub(crate) model: String,
    pub(crate) memory_bytes: u64,
    batches: Vec<SafeBatch>,
    /// Starts of the passes that are running.
    started: Mutex<Vec<u64>>,
}

impl Grant {
    pub(crate) fn new(granted: wire::Granted, model: &str, memory_bytes: u64) -> Arc<Self> {
        let wire::Granted { lease, fence, batches, ttl_ms: _ } = granted;
        Arc::new(Self { lease, fence, model: model.to_owned(), memory_bytes, batches, started: Mutex::default() })
    }
}

impl Lease {
    pub(crate) fn new(shared: Arc<Shared>, grant: Arc<Grant>) -> Self {
        Self { shared, grant }
    }

    /// Number of the grant: strictly increasing for each device.
    pub fn fence(&self) -> u64 {
        self.grant.fence
    }

    /// How much of this model's work is known to fit on the device at once.
    pub fn batches(&self) -> &[SafeBatch] {
        &self.grant.batches
    }

    /// Asks to start a forward pass.
    ///
    /// # Errors
    /// [`Interrupted`] when the lease is lost or wanted back; the pass must not start.
    pub fn enter(&self) -> Result<(), Interrupted> {
        self.shared.held().enter(&self.grant.lease, Instant::now())?;
        self.grant.started.lock().unwrap_or_else(PoisonError::into_inner).push(monotonic_ns());
        Ok(())
    }

    /// The forward pass that [`Lease::enter`] let in has ended. Aborts the process if it ran past its right.
    pub fn leave(&self) {
        let end_ns = monotonic_ns();
        let start = self.grant.started.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let breach = self.shared.held().leave(&self.grant.lease, Instant::now());
        if let Some(breach) = breach {
            self.shared.breached(&breach);
        }
        if let (Some(record), Some(start_ns)) = (&self.shared.record, start) {
            record.write(&PassLine {
                worker: &self.shared.worker,
                device: &self.shared.device,
                model: &self.grant.model,
                fence: self.grant.fence,
                start_ns,
                end_ns,
            });
        }
    }
}
