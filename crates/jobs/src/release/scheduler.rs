//! Counts of waiting and released tasks, and the next decision.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    JobKey, SHORT_SECONDS, Sharing,
    lane::{CHUNK, Lane},
};
use crate::JobClass;

#[derive(Clone, Debug)]
struct Job {
    caller: String,
    class: usize,
    waiting: u64,
    released: u32,
    /// Of those released, how many wait for a later try.
    postponed: u32,
    cost: u32,
    /// Its tasks take no time to speak of.
    short: bool,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// No task waits.
    Nowhere,
    /// At its cap.
    Held,
    /// In the ring of a class, which is above its own while it is promoted.
    Seated { lane: usize, seat: u64 },
}

/// Decides whose task of one kind is released next. See the module for the rules.
#[derive(Clone, Debug)]
pub struct Scheduler<K> {
    sharing: Sharing,
    window: u32,
    jobs: BTreeMap<K, Job>,
    lanes: [Lane<K>; JobClass::ALL.len()],
    /// Jobs at their cap, fewest released tasks first.
    held: BTreeSet<(u32, K)>,
    /// Released tasks that are not postponed: what is in the window.
    released: u64,
    waiting: u64,
    /// Jobs that share the window.
    with_work: usize,
    /// Jobs of which tasks wait that are not short.
    long: usize,
    /// The latest time that anybody told.
    now_ms: u64,
}

impl<K: Clone + Ord> Scheduler<K> {
    /// A scheduler without jobs. `slots`: device slots of the live workers of this kind.
    pub fn new(sharing: Sharing, slots: u32) -> Self {
        let lanes = std::array::from_fn(|_| Lane::default());
        let mut scheduler = Self {
            sharing,
            window: 0,
            jobs: BTreeMap::new(),
            lanes,
            held: BTreeSet::new(),
            released: 0,
            waiting: 0,
            with_work: 0,
            long: 0,
            now_ms: 0,
        };
        scheduler.set_slots(slots);
        scheduler
    }

    /// Workers came or went. The window is twice the slots, and at least 2 so that the first worker finds work.
    pub fn set_slots(&mut self, slots: u32) {
        self.window = slots.saturating_mul(2).max(2);
        self.let_go();
    }

    /// True when only jobs with short tasks wait. Then more of them may be out than the workers run: the way to a worker
    /// takes longer than the work, and nobody waits long behind them.
    pub fn only_short(&self) -> bool {
        self.long == 0
    }

    /// Adds waiting tasks to a job. `cost_seconds`: estimated device seconds of each; the latest estimate counts.
    pub fn add(&mut self, job: &JobKey<K>, tasks: u64, cost_seconds: f64, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        let cost = self.cost(cost_seconds);
        let entry = self.jobs.entry(job.id.clone()).or_insert_with(|| Job::new(job));
        self.long -= usize::from(entry.is_long());
        entry.cost = cost;
        entry.short = cost_seconds <= SHORT_SECONDS;
        if let Place::Seated { lane, seat } = &mut entry.place {
            *seat = self.lanes[*lane].set_cost(&entry.caller, *seat, cost);
        }
        let shared = entry.shares();
        entry.waiting += tasks;
        self.long += usize::from(entry.is_long());
        self.with_work += usize::from(entry.shares() && !shared);
        self.waiting += tasks;
        self.place(&job.id);
        self.forget_idle(&job.id);
    }

    /// Adds tasks that are released already: what a coordinator finds when it takes over.
    pub fn add_released(&mut self, job: &JobKey<K>, tasks: u32, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        let entry = self.jobs.entry(job.id.clone()).or_insert_with(|| Job::new(job));
        if entry.place == Place::Held {
            self.held.remove(&(entry.released, job.id.clone()));
            entry.place = Place::Nowhere;
        }
        entry.released += tasks;
        self.released += u64::from(tasks);
        self.place(&job.id);
        self.forget_idle(&job.id);
    }

    /// Forgets a job that ended, with its waiting and its released tasks.
    pub fn remove_job(&mut self, id: &K) {
        let Some(job) = self.jobs.remove(id) else { return };
        self.waiting -= job.waiting;
        self.released -= u64::from(job.released - job.postponed);
        self.with_work -= usize::from(job.shares());
        self.long -= usize::from(job.is_long());
        if job.place == Place::Held {
            self.held.remove(&(job.released, id.clone()));
        }
        // Before its seat goes: a caller keeps its turn for jobs that may go on now.
        self.let_go();
        if let Place::Seated { lane, seat } = job.place {
            self.lanes[lane].remove(&job.caller, seat);
        }
    }

    /// A released task ended, or went back to the rows. Unknown jobs are ignored: they were removed before.
    pub fn released_ended(&mut self, id: &K) {
        if self.jobs.get(id).is_some_and(|job| job.released > job.postponed) {
            self.released -= 1;
            self.out_ends(id);
        }
    }

    /// A released task waits for a later try. It takes no room in the window, or a job whose tasks cannot run now would
    /// keep all others from running; it still counts for its job's cap, so that no more of them follow it.
    pub fn postponed(&mut self, id: &K) {
        let Some(job) = self.jobs.get_mut(id).filter(|job| job.postponed < job.released) else { return };
        self.with_work -= usize::from(job.shares());
        job.postponed += 1;
        self.released -= 1;
        self.let_go();
    }

    /// A postponed task ended.
    pub fn postponed_ended(&mut self, id: &K) {
        let Some(job) = self.jobs.get_mut(id).filter(|job| job.postponed > 0) else { return };
        job.postponed -= 1;
        self.with_work += usize::from(job.shares());
        self.out_ends(id);
    }

    /// One task of this job less is out.
    fn out_ends(&mut self, id: &K) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let before = job.released;
        job.released -= 1;
        if job.place == Place::Held {
            self.held.remove(&(before, id.clone()));
            self.held.insert((before - 1, id.clone()));
            self.let_go();
        }
        self.forget_idle(id);
    }

    /// Takes a decision of [`Scheduler::next`] back, because the release could not be written.
    pub fn put_back(&mut self, id: &K, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        let Some(job) = self.jobs.get_mut(id) else { return };
        let shared = job.shares();
        self.long -= usize::from(job.is_long());
        job.waiting += 1;
        self.long += usize::from(job.is_long());
        self.with_work += usize::from(job.shares() && !shared);
        self.waiting += 1;
        self.released_ended(id);
        self.place(id);
    }

    /// The job whose next waiting task should be released now; counts it as released. `None` when the window is full
    /// or nothing waits.
    pub fn next(&mut self, now_ms: u64) -> Option<K> {
        self.now_ms = self.now_ms.max(now_ms);
        if self.released >= u64::from(self.window) || self.waiting == 0 {
            return None;
        }
        self.promote();
        for lane in 0..self.lanes.len() {
            while let Some(id) = self.lanes[lane].head() {
                if self.jobs[&id].released >= self.cap() {
                    // The cap shrank since it took its seat.
                    self.unplace(&id);
                    self.hold(&id);
                    continue;
                }
                self.take(lane, &id);
                return Some(id);
            }
        }
        None
    }

    /// Most tasks that may be released at once.
    #[cfg(test)]
    pub(super) const fn window(&self) -> u32 {
        self.window
    }

    /// Jobs with long tasks that wait, counted anew.
    #[cfg(test)]
    pub(super) fn long_jobs(&self) -> usize {
        self.jobs.values().filter(|job| job.is_long()).count()
    }

    /// Tasks that wait.
    pub const fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Tasks that are released, have not ended and are not postponed.
    pub const fn released(&self) -> u64 {
        self.released
    }

    /// Waiting and released tasks of one job, the postponed ones among the latter.
    pub fn of_job(&self, id: &K) -> (u64, u32) {
        self.jobs.get(id).map_or((0, 0), |job| (job.waiting, job.released))
    }

    /// Most released tasks of one job at this moment: its share of the window, and never below the setting.
    pub fn cap(&self) -> u32 {
        let jobs = u32::try_from(self.with_work.max(1)).unwrap_or(u32::MAX);
        self.sharing.job_cap.max(self.window.div_ceil(jobs)).max(1)
    }

    fn cost(&self, seconds: f64) -> u32 {
        let chunks = seconds / self.sharing.chunk_seconds;
        // An estimate that is no number counts as a chunk.
        if chunks.is_nan() { CHUNK } else { (chunks.clamp(0.5, 1.0) * f64::from(CHUNK)) as u32 }
    }

    fn take(&mut self, lane: usize, id: &K) {
        let seat = self.lanes[lane].spend(self.now_ms);
        self.waiting -= 1;
        self.released += 1;
        let job = self.jobs.get_mut(id).expect("every seat belongs to a job");
        self.long -= usize::from(job.is_long());
        job.released += 1;
        job.waiting -= 1;
        self.long += usize::from(job.is_long());
        if let Some(seat) = seat {
            job.place = Place::Seated { lane, seat };
        }
        // A promotion lasts for one release.
        let (done, promoted) = (job.waiting == 0, lane != job.class);
        self.with_work -= usize::from(done && job.postponed == 0);
        if done || promoted {
            self.unplace(id);
            self.place(id);
        }
        self.let_go();
    }

    /// Gives a job that has work a seat at the back of its class, or holds it at its cap.
    fn place(&mut self, id: &K) {
        let cap = self.cap();
        let Some(job) = self.jobs.get_mut(id) else { return };
        if job.place != Place::Nowhere || job.waiting == 0 {
            return;
        }
        if job.released >= cap {
            self.hold(id);
            return;
        }
        let lane = job.class;
        let seat = self.lanes[lane].push(&job.caller, id.clone(), job.cost, self.now_ms);
        job.place = Place::Seated { lane, seat };
    }

    fn hold(&mut self, id: &K) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.place = Place::Held;
            self.held.insert((job.released, id.clone()));
        }
    }

    fn unplace(&mut self, id: &K) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        match std::mem::replace(&mut job.place, Place::Nowhere) {
            Place::Nowhere => {}
            Place::Held => {
                self.held.remove(&(job.released, id.clone()));
            }
            Place::Seated { lane, seat } => self.lanes[lane].remove(&job.caller, seat),
        }
    }

    /// Seats the held jobs that are below the cap again, at once: a turn is taken in the order of becoming able.
    fn let_go(&mut self) {
        let cap = self.cap();
        while let Some((released, id)) = self.held.first().cloned() {
            if released >= cap {
                break;
            }
            self.unplace(&id);
            self.place(&id);
        }
    }

    /// Promotes the next job of each class that was passed over for too long.
    fn promote(&mut self) {
        for lane in 1..self.lanes.len() {
            let waited = self.now_ms.saturating_sub(self.lanes[lane].passed_over_since_ms);
            if self.lanes[lane].len() == 0 || waited < self.sharing.promote_after_ms {
                continue;
            }
            let Some(id) = self.lanes[lane].head() else { continue };
            self.unplace(&id);
            self.lanes[lane].passed_over_since_ms = self.now_ms;
            let job = self.jobs.get_mut(&id).expect("every seat belongs to a job");
            let seat = self.lanes[lane - 1].push(&job.caller, id, job.cost, self.now_ms);
            job.place = Place::Seated { lane: lane - 1, seat };
        }
    }

    fn forget_idle(&mut self, id: &K) {
        if self.jobs.get(id).is_some_and(|job| job.waiting == 0 && job.released == 0) {
            self.jobs.remove(id);
        }
    }
}

impl Job {
    /// It has work, and nothing says that the work cannot run now.
    const fn shares(&self) -> bool {
        self.waiting > 0 && self.postponed == 0
    }

    /// Tasks of it wait, and they take their time.
    const fn is_long(&self) -> bool {
        self.waiting > 0 && !self.short
    }

    fn new<K>(key: &JobKey<K>) -> Self {
        Self {
            caller: key.caller.clone(),
            class: JobClass::ALL.iter().position(|class| *class == key.class).unwrap_or_default(),
            waiting: 0,
            released: 0,
            postponed: 0,
            cost: CHUNK,
            short: false,
            place: Place::Nowhere,
        }
    }
}
