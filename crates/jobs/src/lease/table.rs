//! The events of the lease table.

use std::collections::BTreeMap;

use super::{
    Acquired, DeviceSpec, Holder, Lease, LeaseTiming, Renewed, Request, Ticked, Yield,
    device::{Device, Usage, Waiting},
};

/// All devices, leases and waiting requests. Times are unix milliseconds of the coordinator's clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseTable {
    timing: LeaseTiming,
    devices: BTreeMap<String, Device>,
    leases: BTreeMap<String, Lease>,
    /// Grants to queued requests that no tick has reported yet.
    granted: Vec<String>,
    /// Expirations that no tick has reported yet.
    expired: Vec<Lease>,
    /// Leases that their holders left, that no tick has reported yet.
    left: Vec<Lease>,
    arrivals: u64,
}

impl LeaseTable {
    /// A table without devices.
    pub const fn new(timing: LeaseTiming) -> Self {
        Self {
            timing,
            devices: BTreeMap::new(),
            leases: BTreeMap::new(),
            granted: Vec::new(),
            expired: Vec::new(),
            left: Vec::new(),
            arrivals: 0,
        }
    }

    /// Adds a device, or changes its limits. Leases that no longer fit run on; nothing new is granted until they do.
    pub fn set_device(&mut self, spec: DeviceSpec) {
        match self.devices.get_mut(&spec.name) {
            Some(device) => device.spec = spec,
            None => {
                self.devices.insert(spec.name.clone(), Device::new(spec));
            }
        }
    }

    /// Takes over from an earlier coordinator: `fences` are the last fence of each device, `leases` its rows.
    ///
    /// A live lease gets a whole life from now on. Its holder may have been renewing it until a moment ago, and either
    /// does so again or has stopped before that life ends.
    pub fn load(
        &mut self,
        fences: impl IntoIterator<Item = (String, u64)>,
        leases: impl IntoIterator<Item = Lease>,
        now_ms: u64,
    ) {
        for (name, fence) in fences {
            let device = self.device(&name);
            device.last_fence = device.last_fence.max(fence);
        }
        for mut lease in leases {
            // The earlier coordinator may have renewed it.
            lease.confirmed = true;
            let device = self.device(&lease.device);
            device.last_fence = device.last_fence.max(lease.fence);
            match &mut lease.draining_until_ms {
                Some(until) => *until = (*until).max(now_ms.saturating_add(self.timing.grace_ms)),
                None => lease.expires_ms = lease.expires_ms.max(now_ms.saturating_add(self.timing.ttl_ms)),
            }
            self.leases.insert(lease.id.clone(), lease);
        }
    }

    /// Asks for a device, or asks again. Each (worker, boot, slot) holds at most one lease: asking again in the same wait
    /// returns the same one, and a later wait frees it.
    pub fn acquire(&mut self, request: Request, now_ms: u64) -> Acquired {
        let Some(device) = self.devices.get(&request.device) else { return Acquired::UnknownDevice };
        if request.memory_bytes > device.spec.budget_bytes() {
            return Acquired::TooLarge { arithmetic: arithmetic(&request, &device.spec) };
        }
        self.expire(now_ms);
        let of_holder = |lease: &Lease| lease.is_live() && lease.holder == request.holder;
        let waits = self.devices.values().flat_map(|device| &device.waiting).map(|waiting| &waiting.request);
        let waits = waits.filter(|waiting| waiting.holder == request.holder).map(|waiting| waiting.wait);
        let held = self.leases.values().filter(|lease| of_holder(lease)).map(|lease| lease.wait);
        if waits.chain(held).any(|wait| wait > request.wait) {
            return Acquired::Late;
        }
        if let Some(held) = self.leases.values_mut().find(|lease| of_holder(lease)) {
            if held.wait == request.wait {
                held.expires_ms = held.expires_ms.max(now_ms.saturating_add(self.timing.ttl_ms));
                let held = held.clone();
                self.granted.retain(|id| *id != held.id);
                return Acquired::Granted(held);
            }
            let left = held.clone();
            self.free(&left.id, now_ms);
            self.left.push(left);
        }
        let (holder, name) = (request.holder.clone(), request.device.clone());
        self.enqueue(request, now_ms);
        self.grant(&name, now_ms);
        if let Some(lease) = self.leases.values().find(|lease| lease.is_live() && lease.holder == holder).cloned() {
            self.granted.retain(|id| *id != lease.id);
            return Acquired::Granted(lease);
        }
        let waiting = &self.devices[&name].waiting;
        let position = waiting.iter().position(|waiting| waiting.request.holder == holder).unwrap_or_default();
        Acquired::Queued { position }
    }

    /// The worker no longer waits: its task was cancelled, or nobody stands behind the request any more.
    pub fn withdraw(&mut self, holder: &Holder) {
        for device in self.devices.values_mut() {
            device.waiting.retain(|waiting| waiting.request.holder != *holder);
        }
    }

    /// Extends a lease by its time to live.
    pub fn renew(&mut self, id: &str, fence: u64, now_ms: u64) -> Renewed {
        match self.leases.get_mut(id) {
            Some(lease) if lease.fence == fence && lease.is_live() && now_ms < lease.expires_ms => {
                lease.expires_ms = lease.expires_ms.max(now_ms.saturating_add(self.timing.ttl_ms));
                lease.confirmed = true;
                Renewed::Ok { expires_ms: lease.expires_ms }
            }
            _ => Renewed::Lost,
        }
    }

    /// Gives a lease back. True when it was freed by this call; false when it was given back before, has expired
    /// (then it drains to its end) or the fence is another one's. The next [`LeaseTable::tick`] reports who got it.
    pub fn release(&mut self, id: &str, fence: u64, now_ms: u64) -> bool {
        let releasable =
            self.leases.get(id).is_some_and(|held| held.fence == fence && held.is_live() && now_ms < held.expires_ms);
        if releasable {
            self.free(id, now_ms);
        }
        releasable
    }

    /// Takes back what a worker's process was granted without ever hearing of it: not renewed once, answered long enough
    /// ago, and not `known`, by its report, to the worker. A grant must not be used before its first renewal, so the
    /// device is free at once; should the answer come after all, that renewal fails and the worker asks again.
    ///
    /// Takes back as well whatever earlier processes of that name held, live or draining: a worker is begun anew when its
    /// process has ended, and with that its memory is free. Boots are ordered as their texts are, so that a report that
    /// comes late frees nothing of a later process.
    pub fn take_back(&mut self, worker: &str, boot: &str, known: impl Fn(&Lease) -> bool, now_ms: u64) -> Vec<Lease> {
        let timing = &self.timing;
        let unheard = |lease: &Lease| {
            // Its life has been counted from the last answer as long as nothing renewed it.
            let answered_ms = lease.expires_ms.saturating_sub(timing.ttl_ms);
            !lease.confirmed
                && lease.is_live()
                && now_ms >= answered_ms.saturating_add(timing.answer_ms)
                && lease.holder.boot == boot
                && !known(lease)
        };
        let of_nobody =
            |lease: &&Lease| lease.holder.worker == worker && (lease.holder.boot.as_str() < boot || unheard(lease));
        let back: Vec<Lease> = self.leases.values().filter(of_nobody).cloned().collect();
        for lease in &back {
            self.free(&lease.id, now_ms);
        }
        back
    }

    /// Nobody listens to a call of `holder` any more: it waits no longer, and what it was granted is free again, unless
    /// that was renewed. Then an earlier call was heard, and the lease is in use.
    pub fn abandon(&mut self, holder: &Holder, now_ms: u64) -> Option<Lease> {
        self.withdraw(holder);
        let unused = |lease: &&Lease| lease.is_live() && !lease.confirmed && lease.holder == *holder;
        let lease = self.leases.values().find(unused).cloned()?;
        self.free(&lease.id, now_ms);
        Some(lease)
    }

    /// Lets time pass: expires leases, frees drained ones, drops requests nobody stands behind, grants what fits.
    pub fn tick(&mut self, now_ms: u64) -> Ticked {
        self.expire(now_ms);
        let expired = std::mem::take(&mut self.expired);
        let drained = |lease: &Lease| lease.draining_until_ms.is_some_and(|until| until <= now_ms);
        let mut freed = std::mem::take(&mut self.left);
        freed.extend(self.leases.extract_if(.., |_, lease| drained(lease)).map(|(_, lease)| lease));

        for device in self.devices.values_mut() {
            device.waiting.retain(|waiting| now_ms.saturating_sub(waiting.asked_ms) <= self.timing.patience_ms);
        }
        let names: Vec<String> = self.devices.keys().cloned().collect();
        for name in names {
            self.grant(&name, now_ms);
        }
        let granted = std::mem::take(&mut self.granted);
        let granted = granted.iter().filter_map(|id| self.leases.get(id)).filter(|lease| lease.is_live());
        Ticked { expired, freed, granted: granted.cloned().collect() }
    }

    /// Leases that should be given back because requests wait that do not fit beside them: the oldest slices first,
    /// none younger than a slice, and no more than the waiting need. Says the same again until they are released.
    pub fn wants_yield(&self, now_ms: u64) -> Vec<Yield> {
        let mut asked = Vec::new();
        for device in self.devices.values().filter(|device| !device.waiting.is_empty()) {
            let mut kept: Vec<&Lease> = self.of_device(&device.spec.name).collect();
            kept.sort_by_key(|lease| (lease.granted_ms, lease.fence));
            let mut coming: Vec<&Request> = Vec::new();
            for Waiting { request, .. } in &device.waiting {
                let fits = |kept: &[&Lease]| {
                    let mut usage = Usage::of(kept.iter().copied());
                    coming.iter().for_each(|request| usage.add_request(request));
                    usage.fits(request, &device.spec)
                };
                let mut rest = kept.clone();
                let mut given_up = Vec::new();
                while !fits(&rest) {
                    let old = |lease: &&Lease| {
                        lease.is_live() && now_ms.saturating_sub(lease.granted_ms) >= self.timing.slice_ms
                    };
                    let Some(oldest) = rest.iter().position(old) else { break };
                    given_up.push(rest.remove(oldest));
                }
                // Slices that would not make room yet are left alone.
                if fits(&rest) {
                    asked.extend(given_up.iter().map(|lease| Yield {
                        lease: lease.id.clone(),
                        holder: lease.holder.clone(),
                        urgent: request.class < lease.class,
                    }));
                    kept = rest;
                    coming.push(request);
                } else {
                    break;
                }
            }
        }
        asked
    }

    /// A lease, live or draining.
    pub fn get(&self, id: &str) -> Option<&Lease> {
        self.leases.get(id)
    }

    /// All leases, live and draining.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// Waiting requests with the time each was last asked, in the order of service, device by device.
    pub fn waiting(&self) -> impl Iterator<Item = (&Request, u64)> {
        self.devices
            .values()
            .flat_map(|device| device.waiting.iter().map(|waiting| (&waiting.request, waiting.asked_ms)))
    }

    /// All devices with the last fence of each.
    pub fn devices(&self) -> impl Iterator<Item = (&DeviceSpec, u64)> {
        self.devices.values().map(|device| (&device.spec, device.last_fence))
    }

    /// Memory that the leases of a device fill, draining ones included.
    pub fn used_bytes(&self, device: &str) -> u64 {
        Usage::of(self.of_device(device)).bytes()
    }

    fn of_device<'a>(&'a self, device: &'a str) -> impl Iterator<Item = &'a Lease> {
        self.leases.values().filter(move |lease| lease.device == device)
    }

    /// A device that rows name and the settings do not: it grants nothing until they do.
    fn device(&mut self, name: &str) -> &mut Device {
        self.devices.entry(name.to_owned()).or_insert_with(|| {
            let name = name.to_owned();
            Device::new(DeviceSpec { name, max_concurrent: 0, memory_bytes: 0, reserve_bytes: 0 })
        })
    }

    fn expire(&mut self, now_ms: u64) {
        for lease in self.leases.values_mut().filter(|lease| lease.is_live() && lease.expires_ms <= now_ms) {
            lease.draining_until_ms = Some(lease.expires_ms.saturating_add(self.timing.grace_ms));
            self.expired.push(lease.clone());
        }
    }

    fn free(&mut self, id: &str, now_ms: u64) {
        if let Some(lease) = self.leases.remove(id) {
            self.grant(&lease.device, now_ms);
        }
    }

    fn enqueue(&mut self, request: Request, now_ms: u64) {
        for (name, device) in &mut self.devices {
            device.waiting.retain(|waiting| waiting.request.holder != request.holder || *name == request.device);
        }
        let arrivals = &mut self.arrivals;
        let device = self.devices.get_mut(&request.device).expect("acquire looked it up");
        match device.waiting.iter_mut().find(|waiting| waiting.request.holder == request.holder) {
            Some(waiting) => {
                waiting.request = request;
                waiting.asked_ms = now_ms;
            }
            None => {
                *arrivals += 1;
                device.waiting.push(Waiting { request, arrival: *arrivals, asked_ms: now_ms, bypasses: 0 });
            }
        }
        device.sort(&self.timing);
    }

    /// Grants all that fits, in the order of the queue.
    fn grant(&mut self, name: &str, now_ms: u64) {
        loop {
            let usage = Usage::of(self.of_device(name));
            let Some(index) = self.devices.get(name).and_then(|device| device.grantable(&usage, &self.timing)) else {
                return;
            };
            let Some(device) = self.devices.get_mut(name) else { return };
            let Waiting { request, .. } = device.take(index);
            let fence = device.next_fence();
            device.sort(&self.timing);
            self.granted.push(request.lease.clone());
            let lease = Lease {
                id: request.lease.clone(),
                device: request.device,
                holder: request.holder,
                wait: request.wait,
                model: request.model,
                memory_bytes: request.memory_bytes,
                class: request.class,
                fence,
                granted_ms: now_ms,
                expires_ms: now_ms.saturating_add(self.timing.ttl_ms),
                confirmed: false,
                draining_until_ms: None,
            };
            self.leases.insert(request.lease, lease);
        }
    }
}

fn arithmetic(request: &Request, spec: &DeviceSpec) -> String {
    format!(
        "`{}` needs {} MiB, but {} has {} MiB less {} MiB in reserve",
        request.model,
        request.memory_bytes.div_ceil(1 << 20),
        spec.name,
        spec.memory_bytes >> 20,
        spec.reserve_bytes.div_ceil(1 << 20)
    )
}
