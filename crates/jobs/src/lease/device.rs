//! One device: its queue and what fits.

use std::collections::BTreeMap;

use super::{DeviceSpec, Lease, LeaseTiming, Request};
use crate::JobClass;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiting {
    pub(super) request: Request,
    pub(super) arrival: u64,
    pub(super) asked_ms: u64,
    pub(super) bypasses: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Device {
    pub(super) spec: DeviceSpec,
    pub(super) last_fence: u64,
    pub(super) waiting: Vec<Waiting>,
}

/// What a set of leases fills.
#[derive(Clone, Debug, Default)]
pub(super) struct Usage<'a> {
    leases: u32,
    /// A model is resident once in a process, as large as its largest user needs.
    resident: BTreeMap<(&'a str, &'a str, &'a str), u64>,
}

impl<'a> Usage<'a> {
    pub(super) fn of(leases: impl IntoIterator<Item = &'a Lease>) -> Self {
        let mut usage = Self::default();
        for lease in leases {
            usage.add(&lease.holder.worker, &lease.holder.boot, &lease.model, lease.memory_bytes);
        }
        usage
    }

    pub(super) fn add_request(&mut self, request: &'a Request) {
        self.add(&request.holder.worker, &request.holder.boot, &request.model, request.memory_bytes);
    }

    fn add(&mut self, worker: &'a str, boot: &'a str, model: &'a str, bytes: u64) {
        self.leases += 1;
        let resident = self.resident.entry((worker, boot, model)).or_default();
        *resident = bytes.max(*resident);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.resident.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    pub(super) fn fits(&self, request: &Request, spec: &DeviceSpec) -> bool {
        let holder = &request.holder;
        let key = (holder.worker.as_str(), holder.boot.as_str(), request.model.as_str());
        let resident = self.resident.get(&key).copied().unwrap_or_default();
        let more = request.memory_bytes.saturating_sub(resident);
        self.leases < spec.max_concurrent && self.bytes().saturating_add(more) <= spec.budget_bytes()
    }
}

impl Device {
    pub(super) const fn new(spec: DeviceSpec) -> Self {
        Self { spec, last_fence: 0, waiting: Vec::new() }
    }

    pub(super) const fn next_fence(&mut self) -> u64 {
        self.last_fence += 1;
        self.last_fence
    }

    /// Sorts the queue: whoever was passed by too often, then by class, then by arrival.
    pub(super) fn sort(&mut self, timing: &LeaseTiming) {
        self.waiting.sort_by_key(|waiting| {
            let patient = waiting.bypasses < timing.max_bypasses;
            let class = if patient { waiting.request.class } else { JobClass::Interactive };
            (patient, class, waiting.arrival)
        });
    }

    /// Index of the request that is granted next, if any fits. Nothing passes a request that reserves the device.
    pub(super) fn grantable(&self, usage: &Usage<'_>, timing: &LeaseTiming) -> Option<usize> {
        for (index, waiting) in self.waiting.iter().enumerate() {
            if usage.fits(&waiting.request, &self.spec) {
                return Some(index);
            }
            if waiting.bypasses >= timing.max_bypasses {
                return None;
            }
        }
        None
    }

    /// Takes a request out to grant it; whoever came earlier has been passed by once more.
    pub(super) fn take(&mut self, index: usize) -> Waiting {
        let granted = self.waiting.remove(index);
        for earlier in self.waiting.iter_mut().filter(|waiting| waiting.arrival < granted.arrival) {
            earlier.bypasses += 1;
        }
        granted
    }
}
