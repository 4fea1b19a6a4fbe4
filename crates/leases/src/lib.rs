//! The worker's side of the coordinator's session: what it has in hand, and the leases that let it use a device.
//!
//! - [`Leases`] keeps one stream to whichever coordinator leads: it reports tasks and renews leases, and obeys orders.
//! - [`TaskInHand`] is one task being worked on; the coordinator cancels it or says that it is somebody else's.
//! - [`Slot`] is one of the worker's places for a task; [`Slot::acquire`] gets it a [`Lease`], which it keeps from
//!   task to task until the coordinator wants it back or there is no work.
//! - [`Lease::enter`] and [`Lease::leave`] stand around every forward pass.
//!
//! **Safety.** A lease is good for [`Timing::self_fence`] from the moment that the last successful renewal was *sent*.
//! The coordinator gives the device to somebody else only later than that. A process that finds itself past it in a
//! forward pass aborts: nothing less frees a device in the middle of a kernel. Between passes the lease is only lost, and
//! the next pass is refused; except on CUDA, where the model stays in the card's memory and the process aborts then, too.
//! Time is the machine's monotonic clock, which goes on
//! while a process is stopped.

mod acquire;
mod leases;
mod pass;
mod record;
mod report;
mod roster;
mod session;
mod settings;
mod slots;
mod tasks;
mod timing;
mod watchdog;

pub use acquire::NotGranted;
pub use leases::{Connection, Leases, Takes, WorkerIdentity};
pub use pass::Lease;
pub use settings::LeaseSettings;
pub use slots::Slot;
pub use tasks::{Dropped, TaskInHand};
pub use timing::Timing;
pub use warren_jobs::lease::Interrupted;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
