//! Who may use which device: the table that one leading coordinator keeps.
//!
//! A lease is for a (device, model) and a slice of time. `GRANTED → RELEASED`, or `GRANTED → DRAINING (grace) → freed`
//! when it was not renewed: memory is not given away before the old holder has certainly stopped. The table is pure;
//! the coordinator writes what it returns to the store before it answers.

mod device;
mod held;
mod table;
mod tenure;
#[cfg(test)]
mod tests;

pub use held::{Breach, HeldLeases, Interrupted, Standing, Why};
pub use table::LeaseTable;
pub use tenure::Tenure;

use serde::{Deserialize, Serialize};

use crate::JobClass;

/// A device that work may be done on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceSpec {
    /// `cpu`, `cuda:0`, … , unique among all hosts.
    pub name: String,
    /// Most leases at once. 1 for CUDA, cores for the CPU.
    pub max_concurrent: u32,
    /// All its memory.
    pub memory_bytes: u64,
    /// Memory that is never given out.
    pub reserve_bytes: u64,
}

impl DeviceSpec {
    /// Memory that leases may fill.
    pub const fn budget_bytes(&self) -> u64 {
        self.memory_bytes.saturating_sub(self.reserve_bytes)
    }
}

/// The clocks of leases. Workers stop by themselves at 12 s, before `ttl_ms`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseTiming {
    /// Life of a lease since its last renewal. Default 15 000.
    pub ttl_ms: u64,
    /// Wait after that before the memory is given out again. Default 5 000.
    pub grace_ms: u64,
    /// How long the answer with a grant may be on its way. Default 2 000.
    pub answer_ms: u64,
    /// A holder is not asked to yield earlier, so that loading a model pays. Default 2 000.
    pub slice_ms: u64,
    /// A request whose worker has not asked again for so long is dropped. Default 25 000.
    pub patience_ms: u64,
    /// Grants that may pass a waiting request by before the device is kept free for it. Default 8.
    pub max_bypasses: u32,
}

impl Default for LeaseTiming {
    fn default() -> Self {
        Self {
            ttl_ms: 15_000,
            grace_ms: 5_000,
            answer_ms: 2_000,
            slice_ms: 2_000,
            patience_ms: 25_000,
            max_bypasses: 8,
        }
    }
}

/// Who holds or wants a lease: one slot of one worker process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// Stable name of the worker.
    pub worker: String,
    /// New for each process.
    pub boot: String,
    /// 0-based.
    pub slot: u32,
}

/// A wish for a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Id of the lease if it is granted; a fresh one each time.
    pub lease: String,
    /// Name of the device.
    pub device: String,
    /// Who asks.
    pub holder: Holder,
    /// Which of its waits for a lease this is, ever greater: whoever begins a new one uses nothing of an earlier one any
    /// more, whether or not its release was heard.
    pub wait: u64,
    /// The model that will be resident. Slots of one process share it, so it is counted once.
    pub model: String,
    /// Estimated peak of model and batch.
    pub memory_bytes: u64,
    /// Class of the job.
    pub class: JobClass,
    /// What it is for.
    pub task: String,
}

/// A lease that blocks its part of the device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// As in the request that won it.
    pub id: String,
    /// Name of the device.
    pub device: String,
    /// Who holds it.
    pub holder: Holder,
    /// The wait of the holder that it ended.
    pub wait: u64,
    /// The resident model.
    pub model: String,
    /// Estimated peak.
    pub memory_bytes: u64,
    /// Class of the job that it was granted for.
    pub class: JobClass,
    /// Strictly increasing for each device, across coordinators.
    pub fence: u64,
    /// Start of the slice.
    pub granted_ms: u64,
    /// End of life unless it is renewed.
    pub expires_ms: u64,
    /// True once it was renewed, or may have been. Before that, nobody uses it.
    pub confirmed: bool,
    /// `Some(until)` once it has expired: nobody may use it, and its memory stays blocked until then.
    pub draining_until_ms: Option<u64>,
}

impl Lease {
    /// True while its holder may use the device.
    pub const fn is_live(&self) -> bool {
        self.draining_until_ms.is_none()
    }
}

/// Answer to [`LeaseTable::acquire`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Acquired {
    /// The device is yours.
    Granted(Lease),
    /// Ask again; requests before this one: 0 = next.
    Queued {
        /// In the queue of the device.
        position: usize,
    },
    /// Can never fit.
    TooLarge {
        /// Why, in numbers.
        arithmetic: String,
    },
    /// The holder is in a later wait: nobody listens to this one any more.
    Late,
    /// No device of this name is known.
    UnknownDevice,
}

/// Answer to [`LeaseTable::renew`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// Good until `expires_ms`.
    Ok {
        /// On the coordinator's clock.
        expires_ms: u64,
    },
    /// Stop using the device at once.
    Lost,
}

/// What a tick changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ticked {
    /// Leases that have just expired; they drain now.
    pub expired: Vec<Lease>,
    /// Leases whose memory is free again: drained, or left by a holder that asked anew.
    pub freed: Vec<Lease>,
    /// Leases granted to queued requests since the last tick.
    pub granted: Vec<Lease>,
}

/// A lease whose holder should give it back because others wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Yield {
    /// The lease.
    pub lease: String,
    /// Who holds it.
    pub holder: Holder,
    /// True when somebody of a higher class waits: at the next decoder step instead of the next task.
    pub urgent: bool,
}
