//! Joins a lease and a task to the gate that the models ask.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use warren_inference::{Gate, Interrupted};
use warren_leases::{Lease, TaskInHand};

use crate::hand::Spent;

/// Open while the lease stands and the task is wanted.
pub(crate) struct LeaseGate {
    pub(crate) lease: Lease,
    pub(crate) task: TaskInHand,
    pub(crate) spent: Spent,
    rows: usize,
    entered: Mutex<Option<Instant>>,
}

impl LeaseGate {
    pub(crate) fn new(lease: Lease, task: TaskInHand, spent: Spent, rows: usize) -> Self {
        Self { lease, task, spent, rows, entered: Mutex::default() }
    }
}

impl Gate for LeaseGate {
    fn enter(&self, step: &'static str) -> Result<(), Interrupted> {
        if self.task.is_cancelled() {
            return Err(Interrupted::Cancelled);
        }
        self.task.now(step);
        self.lease.enter().map_err(|refused| match refused {
            warren_leases::Interrupted::LeaseLost => Interrupted::LeaseLost,
            warren_leases::Interrupted::Yield => Interrupted::Yield,
        })?;
        *self.entered.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Ok(())
    }

    fn wanted(&self) -> Result<(), Interrupted> {
        if self.task.is_cancelled() { Err(Interrupted::Cancelled) } else { Ok(()) }
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn leave(&self, _step: &'static str) {
        self.lease.leave();
        if let Some(entered) = self.entered.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.spent.add(entered.elapsed());
        }
    }
}
