//! The ring of callers and jobs of one class.

use std::collections::BTreeMap;

/// Parts of a chunk in which cost and credit are counted.
pub(super) const CHUNK: u32 = 1000;

/// Credit of one caller or job in a deficit round robin.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    credit: u32,
    /// Releases that remain in the visit under way; `None` between visits.
    visit: Option<u32>,
}

impl Turn {
    fn begin(&mut self) {
        if self.visit.is_none() {
            self.credit += CHUNK;
            // Costs of half a chunk and more never need a third; this holds it even when the cost has just changed.
            self.visit = Some(2);
        }
    }

    const fn affords(&self, cost: u32) -> bool {
        self.credit >= cost && matches!(self.visit, Some(1..))
    }

    fn spend(&mut self, cost: u32) {
        self.credit -= cost;
        self.visit = self.visit.map(|left| left.saturating_sub(1));
    }

    fn end(&mut self) {
        self.visit = None;
        self.credit = self.credit.min(CHUNK - 1);
    }
}

#[derive(Clone, Debug)]
struct Seat<K> {
    id: K,
    cost: u32,
    turn: Turn,
}

#[derive(Clone, Debug)]
struct Caller<K> {
    seat: u64,
    turn: Turn,
    jobs: BTreeMap<u64, Seat<K>>,
}

/// One class. Seats are numbered; the lowest number is the head, the back of the ring is a new number.
#[derive(Clone, Debug)]
pub(super) struct Lane<K> {
    order: BTreeMap<u64, String>,
    callers: BTreeMap<String, Caller<K>>,
    jobs: usize,
    next_seat: u64,
    /// When the lane last released something, or stopped being empty.
    pub(super) passed_over_since_ms: u64,
}

impl<K> Default for Lane<K> {
    fn default() -> Self {
        Self { order: BTreeMap::new(), callers: BTreeMap::new(), jobs: 0, next_seat: 0, passed_over_since_ms: 0 }
    }
}

impl<K: Clone> Lane<K> {
    pub(super) const fn len(&self) -> usize {
        self.jobs
    }

    /// Seats a job at the back. Returns its seat.
    pub(super) fn push(&mut self, caller: &str, id: K, cost: u32, now_ms: u64) -> u64 {
        if self.jobs == 0 {
            self.passed_over_since_ms = now_ms;
        }
        self.jobs += 1;
        let seat = self.seat();
        if !self.callers.contains_key(caller) {
            self.order.insert(seat, caller.to_owned());
            let fresh = Caller { seat, turn: Turn::default(), jobs: BTreeMap::new() };
            self.callers.insert(caller.to_owned(), fresh);
        }
        let of = self.callers.get_mut(caller).expect("inserted above");
        of.jobs.insert(seat, Seat { id, cost, turn: Turn::default() });
        seat
    }

    pub(super) fn remove(&mut self, caller: &str, seat: u64) {
        let Some(of) = self.callers.get_mut(caller) else { return };
        if of.jobs.remove(&seat).is_some() {
            self.jobs -= 1;
        }
        if of.jobs.is_empty() {
            self.order.remove(&of.seat);
            self.callers.remove(caller);
        }
    }

    /// Changes what a release of this job costs. Returns its seat, which is at the back if that ended its visit.
    pub(super) fn set_cost(&mut self, caller: &str, seat: u64, cost: u32) -> u64 {
        let Some(job) = self.callers.get_mut(caller).and_then(|of| of.jobs.get_mut(&seat)) else { return seat };
        job.cost = cost;
        if job.turn.visit.is_some() && !job.turn.affords(cost) { self.rotate_job(caller, seat) } else { seat }
    }

    /// The job whose turn it is. It stays the head until [`Lane::spend`] or [`Lane::remove`].
    pub(super) fn head(&mut self) -> Option<K> {
        loop {
            let name = self.order.first_key_value()?.1.clone();
            let of = self.callers.get_mut(&name).expect("every seat names a caller");
            of.turn.begin();
            let mut jobs = of.jobs.values_mut();
            let job = jobs.next().expect("a caller without jobs has no seat");
            // A fresh visit affords any cost, and one under way ends as soon as it affords no more.
            job.turn.begin();
            if of.turn.affords(job.cost) {
                return Some(job.id.clone());
            }
            self.rotate_caller(&name);
        }
    }

    /// Charges the head for one release. Returns its seat, which changes when its visit is over.
    pub(super) fn spend(&mut self, now_ms: u64) -> Option<u64> {
        self.passed_over_since_ms = now_ms;
        let name = self.order.first_key_value()?.1.clone();
        let of = self.callers.get_mut(&name)?;
        let (&seat, job) = of.jobs.iter_mut().next()?;
        job.turn.spend(job.cost);
        of.turn.spend(job.cost);
        let job_over = !job.turn.affords(job.cost);
        let next_seat = if job_over { self.rotate_job(&name, seat) } else { seat };
        let of = self.callers.get(&name)?;
        let next_cost = of.jobs.first_key_value()?.1.cost;
        if !of.turn.affords(next_cost) {
            self.rotate_caller(&name);
        }
        Some(next_seat)
    }

    fn rotate_job(&mut self, caller: &str, seat: u64) -> u64 {
        let back = self.seat();
        let of = self.callers.get_mut(caller).expect("rotated from the head");
        let mut job = of.jobs.remove(&seat).expect("rotated from the head");
        job.turn.end();
        of.jobs.insert(back, job);
        back
    }

    fn rotate_caller(&mut self, caller: &str) {
        let back = self.seat();
        let of = self.callers.get_mut(caller).expect("rotated from the head");
        of.turn.end();
        self.order.remove(&of.seat);
        of.seat = back;
        self.order.insert(back, caller.to_owned());
    }

    fn seat(&mut self) -> u64 {
        self.next_seat += 1;
        self.next_seat
    }
}
