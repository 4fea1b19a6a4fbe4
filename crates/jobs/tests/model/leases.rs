//! The leader, the leases and the workers.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use stateright::{Model, Property};
use warren_jobs::{
    JobClass,
    lease::{
        Acquired, DeviceSpec, HeldLeases, Holder, Lease, LeaseTable, LeaseTiming, Renewed, Request, Standing, Tenure,
    },
};

/// One tick of the model's time, in the milliseconds of the table and the instants of the workers.
const TICK_MS: u64 = 1_000;
/// Age of a renewal past which a worker does not use a lease.
const SELF_FENCE: u64 = 1;
const TTL: u64 = 2;
const GRACE: u64 = 1;
const ANSWER: u64 = 1;
/// How late a watchdog may be: what is in a pass goes on until then.
const LATE: u64 = 1;
const DEVICE: &str = "cuda:0";
const COORDINATORS: usize = 2;
const WORKERS: usize = 2;

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// Memory of an expired lease is given away at once.
    NoGrace,
    /// A release frees what the device is leased for now, whatever fence it names.
    AnyFence,
    /// A grant is written without a look at the term.
    AnyTerm,
    /// A leader that has not renewed its term in time still renews leases.
    LateLeader,
    /// A grant is written before the rows of the leases are gone that made room for it.
    GoneLater,
    /// A call that nobody waits for any more takes back a lease that is in use.
    AbandonsUsed,
}

/// Bounds of the search, and what is done wrong in it.
#[derive(Clone, Debug)]
pub(crate) struct Leases {
    pub(crate) mutation: Option<Mutation>,
    /// Last tick.
    pub(crate) horizon: u64,
    pub(crate) terms: u64,
    /// Life of a leader's row, in ticks; a leader that did not renew it in time steps down.
    pub(crate) term_ttl: u64,
    pub(crate) fences: u64,
    pub(crate) waits: u64,
    /// Asks that coordinators hear, all together.
    pub(crate) asks: u64,
    /// Answers get lost.
    pub(crate) lossy: bool,
    /// Workers also report before they hear of a grant.
    pub(crate) early_reports: bool,
    /// The messages of the last worker arrive at once: one that is not careful is enough.
    pub(crate) lucky: bool,
    /// Processes of each worker.
    pub(crate) boots: u32,
    /// Ticks that the clock of a worker may lose.
    pub(crate) skew: u64,
    /// On the workers' clocks.
    pub(crate) epoch: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    now: u64,
    // The store.
    term: u64,
    term_expires: u64,
    last_fence: u64,
    asked: u64,
    rows: BTreeMap<String, Lease>,
    // The processes, and what is on its way to and from them.
    coordinators: [Option<Lead>; COORDINATORS],
    workers: [Worker; WORKERS],
    // What nobody in the world knows.
    /// When the newest renewal of a lease was sent that some coordinator agreed to; not after its holder gave it up.
    renewed: BTreeMap<String, u64>,
    broken: Vec<&'static str>,
}

/// A coordinator that leads, or believes so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Lead {
    term: u64,
    tenure: Tenure,
    table: LeaseTable,
    /// Freed in the table; their rows are still there.
    gone: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Worker {
    boot: u32,
    alive: bool,
    /// Ticks that its clock is behind.
    lag: u64,
    held: HeldLeases,
    /// What its slot has.
    lease: Option<(String, u64)>,
    /// Waits for a lease so far.
    wait: u64,
    /// Its slot is in the last one.
    waits: bool,
    /// A forward pass is running.
    passing: bool,
    /// The moment, on its own clock, until which it has a right to the device.
    right: Option<u64>,
    // On the way. What is overwritten was lost; what was delivered may come again.
    /// Of which process and wait; the newest last.
    asks: Vec<(u32, u64)>,
    granted: Option<(String, u64)>,
    report: Option<Report>,
    release: Option<(String, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Report {
    boot: u32,
    /// On the worker's clock.
    sent: u64,
    /// The same moment, in ticks of the model.
    at: u64,
    renewals: Vec<(String, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Time passes; the clock of one worker may miss it.
    Tick {
        lags: Option<usize>,
    },
    // Of coordinators. One that does none of it is stopped, or slow.
    Lead(usize),
    RenewTerm(usize),
    /// The loop of the devices: time passes in the table, and what changed is written.
    Run(usize),
    HearAsk(usize, usize, usize),
    /// Hears a report, and answers; the answer is heard or lost.
    HearReport(usize, usize, bool),
    HearRelease(usize, usize),
    // Of workers.
    Ask(usize),
    HearGrant(usize),
    SendReport(usize),
    /// No renewal came in time after a grant: it is forgotten, and nobody is told.
    Forget(usize),
    Enter(usize),
    Leave(usize),
    GiveBack(usize),
    /// The process dies, and perhaps another one takes its place.
    Die(usize),
    // Of the last worker, when it is the lucky one whose messages arrive at once.
    /// Asks for a lease, and has it confirmed; or renews the one it has.
    Use(usize),
    /// Gives it back.
    Return(usize),
}

fn name(worker: usize) -> String {
    format!("w{worker}")
}

fn holder(worker: usize, boot: u32) -> Holder {
    Holder { worker: name(worker), boot: boot.to_string(), slot: 0 }
}

/// The clocks of the coordinators do not agree.
const fn clock_of(coordinator: usize, now: u64) -> u64 {
    (now + coordinator as u64) * TICK_MS
}

impl Leases {
    fn timing(&self) -> LeaseTiming {
        LeaseTiming {
            ttl_ms: TTL * TICK_MS,
            grace_ms: if self.mutation == Some(Mutation::NoGrace) { 0 } else { GRACE * TICK_MS },
            answer_ms: ANSWER * TICK_MS,
            slice_ms: TICK_MS,
            patience_ms: 100 * TICK_MS,
            max_bypasses: 8,
        }
    }

    fn instant(&self, own: u64) -> Instant {
        // Room before the first tick, for clocks that are behind.
        self.epoch + Duration::from_millis((own + 10) * TICK_MS)
    }

    fn fresh(&self, boot: u32, lag: u64) -> Worker {
        Worker {
            boot,
            alive: true,
            lag,
            held: HeldLeases::new(Duration::from_millis(SELF_FENCE * TICK_MS), false),
            lease: None,
            wait: 0,
            waits: false,
            passing: false,
            right: None,
            asks: Vec::new(),
            granted: None,
            report: None,
            release: None,
        }
    }

    /// True while the worker computes, or would if it went on now. One that is in a pass for longer than its watchdog
    /// lets it is stopped, and computes nothing.
    fn may_compute(&self, world: &World, worker: &Worker) -> bool {
        let Some((lease, _)) = worker.lease.as_ref().filter(|_| worker.alive) else { return false };
        let (mut held, own) = (worker.held.clone(), self.instant(world.now - worker.lag));
        match worker.passing {
            true => held.overdue(own - Duration::from_millis(LATE * TICK_MS)).is_ok(),
            false => held.enter(lease, own).is_ok(),
        }
    }

    /// A write in a term's name. False: it is refused.
    fn begin_as_leader(&self, world: &World, term: u64) -> bool {
        self.mutation == Some(Mutation::AnyTerm) || (term == world.term && world.now < world.term_expires)
    }

    /// Writes a grant, before anybody hears of it. False: the term is over.
    fn write(&self, world: &mut World, term: u64, gone: &mut Vec<String>, lease: &Lease) -> bool {
        if !self.begin_as_leader(world, term) {
            return false;
        }
        if self.mutation != Some(Mutation::GoneLater) {
            world.rows.retain(|id, _| !gone.contains(id));
            gone.clear();
        }
        if world.rows.contains_key(&lease.id) {
            return true;
        }
        if term != world.term {
            world.breaks("I4: a grant of a stale term commits");
        }
        if lease.fence <= world.last_fence {
            world.breaks("I2: a fence does not increase");
        }
        if world.renewed.iter().any(|(id, at)| *id != lease.id && world.now < at + TTL + GRACE) {
            world.breaks("I6: granted again before expiry and grace");
        }
        world.last_fence = world.last_fence.max(lease.fence);
        world.rows.insert(lease.id.clone(), lease.clone());
        true
    }

    /// What becomes of the device when a coordinator takes the lead.
    fn load(&self, world: &World, coordinator: usize) -> LeaseTable {
        let mut table = LeaseTable::new(self.timing());
        table.set_device(DeviceSpec { name: DEVICE.into(), max_concurrent: 1, memory_bytes: 1, reserve_bytes: 0 });
        // As `devices.rs` reads them: confirmed, and draining ones to their end.
        let rows = world.rows.values().map(|row| Lease { confirmed: true, ..row.clone() });
        table.load([(DEVICE.to_owned(), world.last_fence)], rows, clock_of(coordinator, world.now));
        table
    }

    fn coordinate(&self, world: &mut World, action: Action) -> Option<()> {
        let now = world.now;
        match action {
            Action::Lead(c) => {
                world.term += 1;
                // Nobody follows the last one.
                let last = world.term == self.terms;
                world.term_expires = if last { u64::MAX } else { now + self.term_ttl };
                let tenure = Tenure::new(Duration::from_millis(self.term_ttl * TICK_MS), self.instant(now));
                let (term, table) = (world.term, self.load(world, c));
                world.coordinators[c] = Some(Lead { term, tenure, table, gone: Vec::new() });
            }
            Action::RenewTerm(c) => {
                let lead = world.coordinators[c].as_mut()?;
                if lead.term == self.terms {
                    lead.tenure.renewed(self.instant(now));
                } else if lead.term == world.term && now < world.term_expires {
                    world.term_expires = now + self.term_ttl;
                    lead.tenure.renewed(self.instant(now));
                } else {
                    world.coordinators[c] = None;
                }
            }
            Action::Run(c) => {
                let mut lead = world.coordinators[c].take()?;
                let ticked = lead.table.tick(clock_of(c, now));
                let mut gone = std::mem::take(&mut lead.gone);
                gone.extend(ticked.freed.iter().map(|lease| lease.id.clone()));
                let changes = !(ticked.expired.is_empty() && gone.is_empty() && ticked.granted.is_empty());
                if changes && !self.begin_as_leader(world, lead.term) {
                    // The term ends by it.
                    return Some(());
                }
                for lease in ticked.expired {
                    if let Some(row) = world.rows.get_mut(&lease.id) {
                        *row = lease;
                    }
                }
                world.rows.retain(|id, _| !gone.contains(id));
                for lease in &ticked.granted {
                    self.write(world, lead.term, &mut gone, lease);
                    world.tell(lease);
                }
                world.coordinators[c] = Some(lead);
            }
            Action::HearAsk(c, w, nth) => {
                let (boot, wait) = *world.workers[w].asks.get(nth)?;
                let heard = !self.unheard(world, action);
                let mut lead = world.coordinators[c].take()?;
                world.asked += 1;
                let holder = holder(w, boot);
                let request = Request {
                    // Fresh: a table grants at most one lease for each of its fences.
                    lease: format!("w{w}.{boot}.{wait} in term {} after {}", lead.term, fence_of(&lead.table)),
                    device: DEVICE.into(),
                    holder: holder.clone(),
                    wait,
                    model: "m".into(),
                    memory_bytes: 1,
                    class: JobClass::Default,
                    task: String::new(),
                };
                let answer = lead.table.acquire(request, clock_of(c, now));
                if let Acquired::Granted(lease) = &answer {
                    if !self.write(world, lead.term, &mut lead.gone, lease) {
                        lead.table.release(&lease.id, lease.fence, clock_of(c, now));
                    } else if heard {
                        world.tell(lease);
                    }
                }
                if !heard {
                    // Nobody listens to the call any more.
                    if self.mutation == Some(Mutation::AbandonsUsed) {
                        lead.table.withdraw(&holder);
                        let lease =
                            lead.table.leases().find(|lease| lease.is_live() && lease.holder == holder).cloned();
                        if let Some(lease) = lease {
                            lead.table.release(&lease.id, lease.fence, clock_of(c, now));
                            lead.gone.push(lease.id);
                        }
                    } else if let Some(lease) = lead.table.abandon(&holder, clock_of(c, now)) {
                        lead.gone.push(lease.id);
                    }
                }
                world.coordinators[c] = Some(lead);
            }
            Action::HearReport(c, w, answered) => {
                let report = world.workers[w].report.clone()?;
                let mut lead = world.coordinators[c].take()?;
                if self.mutation == Some(Mutation::LateLeader) || lead.tenure.holds(self.instant(now)) {
                    let (mut leases, mut lost) = (Vec::new(), Vec::new());
                    for (id, fence) in &report.renewals {
                        if lead.table.renew(id, *fence, clock_of(c, now)) == Renewed::Lost {
                            lost.push(id.clone());
                        } else {
                            leases.push(id.clone());
                            if world.workers[w].boot == report.boot
                                && world.workers[w].held.standing(id) != Standing::Lost
                            {
                                let renewed = world.renewed.entry(id.clone()).or_insert(report.at);
                                *renewed = report.at.max(*renewed);
                            }
                        }
                    }
                    // While its grant is not written, a call is under way.
                    let known = |lease: &Lease| {
                        !world.rows.contains_key(&lease.id) || report.renewals.iter().any(|(id, _)| *id == lease.id)
                    };
                    let back = lead.table.take_back(&name(w), &report.boot.to_string(), known, clock_of(c, now));
                    lead.gone.extend(back.into_iter().map(|lease| lease.id));
                    if answered {
                        self.hear_answer(world, w, &report, &leases, &lost);
                    }
                }
                world.coordinators[c] = Some(lead);
            }
            Action::HearRelease(c, w) => {
                let (id, fence) = world.workers[w].release.clone()?;
                let lead = world.coordinators[c].as_mut()?;
                let (id, fence) = match self.mutation {
                    Some(Mutation::AnyFence) => {
                        let now = lead.table.leases().find(|lease| lease.is_live())?;
                        (now.id.clone(), now.fence)
                    }
                    _ => (id, fence),
                };
                if lead.table.release(&id, fence, clock_of(c, now)) {
                    lead.gone.push(id);
                }
            }
            _ => unreachable!("the workers' actions are elsewhere"),
        }
        Some(())
    }

    /// True for a call that its worker has given up.
    fn unheard(&self, world: &World, action: Action) -> bool {
        let Action::HearAsk(_, w, nth) = action else { return false };
        let worker = &world.workers[w];
        !worker.waits || worker.asks[nth] != (worker.boot, worker.wait)
    }

    fn hear_answer(&self, world: &mut World, w: usize, report: &Report, leases: &[String], lost: &[String]) {
        let sent = self.instant(report.sent);
        let worker = &mut world.workers[w];
        if !worker.alive || report.boot != worker.boot {
            return;
        }
        worker.held.renewed(leases, sent);
        if worker.lease.as_ref().is_some_and(|(id, _)| leases.contains(id)) {
            worker.right = worker.right.max(Some(report.sent + SELF_FENCE));
        }
        if worker.held.lost(lost).is_some() {
            self.die(world, w);
        } else {
            world.renewed.retain(|id, _| !lost.contains(id));
        }
    }

    fn work(&self, world: &mut World, action: Action) -> Option<()> {
        let now = world.now;
        let of = |w: usize, world: &World| self.instant(now - world.workers[w].lag);
        match action {
            Action::Ask(w) => {
                let worker = &mut world.workers[w];
                // A new wait, unless the last one goes on.
                if !worker.waits {
                    worker.waits = true;
                    worker.wait += 1;
                    worker.asks.push((worker.boot, worker.wait));
                    if worker.asks.len() > 2 {
                        worker.asks.remove(0);
                    }
                }
                // An answer to an earlier call is for nobody.
                worker.granted = None;
            }
            Action::HearGrant(w) => {
                let worker = &mut world.workers[w];
                let (id, fence) = worker.granted.take()?;
                worker.waits = false;
                worker.held.granted(&id, fence);
                worker.lease = Some((id, fence));
            }
            Action::SendReport(w) => {
                let worker = &mut world.workers[w];
                let renewals = worker.held.to_renew().map(|(id, fence)| (id.to_owned(), fence)).collect();
                worker.report = Some(Report { boot: worker.boot, sent: now - worker.lag, at: now, renewals });
            }
            Action::Forget(w) => {
                let worker = &mut world.workers[w];
                let (id, _) = worker.lease.take()?;
                worker.held.given_back(&id);
                worker.waits = true;
                worker.right = None;
                world.renewed.remove(&id);
            }
            Action::Enter(w) => {
                let own = of(w, world);
                let worker = &mut world.workers[w];
                let (id, _) = worker.lease.clone()?;
                worker.held.enter(&id, own).ok()?;
                worker.passing = true;
                if worker.right.is_none_or(|right| now - worker.lag >= right) {
                    world.breaks("I5: a pass starts past the self-fence");
                }
            }
            Action::Leave(w) => {
                let own = of(w, world);
                let worker = &mut world.workers[w];
                let (id, _) = worker.lease.clone()?;
                worker.passing = false;
                if worker.held.leave(&id, own).is_some() {
                    self.die(world, w);
                }
            }
            Action::GiveBack(w) => {
                let worker = &mut world.workers[w];
                let (id, fence) = worker.lease.take()?;
                if worker.held.given_back(&id) {
                    worker.release = Some((id.clone(), fence));
                }
                worker.right = None;
                world.renewed.remove(&id);
            }
            Action::Die(w) => self.die(world, w),
            _ => unreachable!("the coordinators' actions are elsewhere"),
        }
        Some(())
    }

    /// What the lucky worker does with a coordinator, message for message.
    fn lucky(&self, world: &mut World, action: Action) -> Option<()> {
        let w = WORKERS - 1;
        let steps = match action {
            Action::Use(c) if world.workers[w].lease.is_some() => {
                vec![Action::SendReport(w), Action::HearReport(c, w, true)]
            }
            Action::Use(c) => vec![
                Action::Ask(w),
                Action::HearAsk(c, w, 0),
                Action::HearGrant(w),
                Action::SendReport(w),
                Action::HearReport(c, w, true),
            ],
            Action::Return(c) => vec![Action::GiveBack(w), Action::HearRelease(c, w)],
            _ => unreachable!("it does no more"),
        };
        for step in steps {
            match step {
                Action::HearAsk(..) | Action::HearReport(..) | Action::HearRelease(..) => self.coordinate(world, step),
                _ => self.work(world, step),
            };
        }
        // Nothing of it stays on the way.
        let worker = &mut world.workers[w];
        (worker.report, worker.release, worker.granted) = (None, None, None);
        worker.asks.clear();
        Some(())
    }

    fn die(&self, world: &mut World, w: usize) {
        let worker = &mut world.workers[w];
        if let Some((id, _)) = &worker.lease {
            world.renewed.remove(id);
        }
        let next = self.fresh(worker.boot + 1, worker.lag);
        let alive = next.boot < self.boots;
        // What it sent is still on its way.
        let (asks, report, release) = (std::mem::take(&mut worker.asks), worker.report.take(), worker.release.take());
        *worker = Worker { alive, boot: if alive { next.boot } else { worker.boot }, asks, report, release, ..next };
    }
}

/// Who has, and who waits for, what this coordinator gives.
fn given(world: &World, coordinator: usize) -> Option<(Vec<&Lease>, Vec<&Holder>)> {
    let table = &world.coordinators[coordinator].as_ref()?.table;
    Some((table.leases().collect(), table.waiting().map(|(request, _)| &request.holder).collect()))
}

fn fence_of(table: &LeaseTable) -> u64 {
    table.devices().map(|(_, fence)| fence).next().unwrap_or_default()
}

impl World {
    fn breaks(&mut self, what: &'static str) {
        if !self.broken.contains(&what) {
            self.broken.push(what);
        }
    }

    /// The answer to whoever waits for it.
    fn tell(&mut self, lease: &Lease) {
        let waiter = self.workers.iter_mut().enumerate().find(|(w, worker)| holder(*w, worker.boot) == lease.holder);
        if let Some((_, worker)) = waiter.filter(|(_, worker)| worker.waits) {
            worker.granted = Some((lease.id.clone(), lease.fence));
        }
    }

    fn holds(&self, what: &'static str) -> bool {
        self.broken.iter().all(|broken| !broken.starts_with(what))
    }
}

impl Model for Leases {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let worker = self.fresh(0, 0);
        vec![World {
            now: 0,
            term: 0,
            term_expires: 0,
            last_fence: 0,
            asked: 0,
            rows: BTreeMap::new(),
            coordinators: [None, None],
            workers: [worker.clone(), worker],
            renewed: BTreeMap::new(),
            broken: Vec::new(),
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.now < self.horizon {
            actions.push(Action::Tick { lags: None });
            let may_lag = |w: &usize| {
                world.workers[*w].lag < self.skew
                    && world.workers[*w].lease.is_some()
                    && !(self.lucky && *w == WORKERS - 1)
            };
            actions.extend((0..WORKERS).filter(may_lag).map(|w| Action::Tick { lags: Some(w) }));
        }
        for c in 0..COORDINATORS {
            match &world.coordinators[c] {
                None if world.now >= world.term_expires && world.term < self.terms && world.term % 2 == c as u64 => {
                    actions.push(Action::Lead(c))
                }
                None => {}
                Some(_) => {
                    actions.extend([Action::RenewTerm(c), Action::Run(c)]);
                    for (w, worker) in world.workers.iter().enumerate() {
                        if w == WORKERS - 1 && self.lucky {
                            actions.push(Action::Use(c));
                            actions.extend(worker.lease.as_ref().map(|_| Action::Return(c)));
                            continue;
                        }
                        actions.extend((0..worker.asks.len()).map(|nth| Action::HearAsk(c, w, nth)));
                        if worker.report.is_some() {
                            actions.push(Action::HearReport(c, w, true));
                            actions.extend(self.lossy.then_some(Action::HearReport(c, w, false)));
                        }
                        actions.extend(worker.release.as_ref().map(|_| Action::HearRelease(c, w)));
                    }
                }
            }
        }
        let faulty = if self.lucky { WORKERS - 1 } else { WORKERS };
        for (w, worker) in world.workers[..faulty].iter().enumerate().filter(|(_, worker)| worker.alive) {
            if worker.lease.is_some() || (worker.waits && self.early_reports) {
                actions.push(Action::SendReport(w));
            }
            match (&worker.lease, worker.passing) {
                (None, _) => {
                    if (w == 0 || !world.workers[0].asks.is_empty()) && (worker.waits || worker.wait < self.waits) {
                        actions.push(Action::Ask(w));
                    }
                    actions.extend(worker.granted.as_ref().map(|_| Action::HearGrant(w)));
                }
                (Some((id, _)), false) => {
                    let unconfirmed = worker.held.standing(id) == Standing::Unconfirmed;
                    actions.push(if unconfirmed { Action::Forget(w) } else { Action::Enter(w) });
                    actions.extend([Action::GiveBack(w), Action::Die(w)]);
                }
                (Some(_), true) => actions.extend([Action::Leave(w), Action::Die(w)]),
            }
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Tick { lags } => {
                world.now += 1;
                if let Some(w) = lags {
                    world.workers[w].lag += 1;
                }
            }
            Action::HearAsk(..) | Action::HearReport(..) | Action::HearRelease(..) => {
                self.coordinate(&mut world, action)?;
                let mut twice = world.clone();
                self.coordinate(&mut twice, action);
                // What nobody listens to any more may be granted again and again, to be free at once; and what was
                // granted in vain, in a term that is over.
                let (Action::HearAsk(c, ..) | Action::HearReport(c, ..) | Action::HearRelease(c, _)) = action else {
                    return None;
                };
                let leads = last.coordinators[c].as_ref().is_some_and(|lead| self.begin_as_leader(last, lead.term));
                let differs =
                    twice.rows != world.rows || twice.workers != world.workers || given(&twice, c) != given(&world, c);
                if differs && self.mutation.is_none() && leads && !self.unheard(last, action) {
                    world.breaks("I9: heard twice, it does something else");
                }
            }
            Action::Lead(_) | Action::RenewTerm(_) | Action::Run(_) => {
                self.coordinate(&mut world, action)?;
            }
            Action::Use(_) | Action::Return(_) => self.lucky(&mut world, action)?,
            _ => self.work(&mut world, action)?,
        }
        (world != *last).then_some(world)
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.last_fence <= self.fences && world.asked <= self.asks
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I1: a device is used by one", |model: &Self, world: &World| {
                world.workers.iter().filter(|worker| model.may_compute(world, worker)).count() <= 1
            }),
            Property::always("I2: fences increase", |_, world: &World| world.holds("I2")),
            Property::always("I4: no grant of a stale term commits", |_, world: &World| world.holds("I4")),
            Property::always("I5: nobody computes past the self-fence", |model: &Self, world: &World| {
                world.holds("I5")
                    && world
                        .workers
                        .iter()
                        .filter(|worker| model.may_compute(world, worker))
                        .all(|worker| worker.right.is_some_and(|right| world.now - worker.lag < right + LATE))
            }),
            Property::always("I6: no grant before expiry and grace", |_, world: &World| world.holds("I6")),
            Property::always("I7: a free device is granted", |_, world: &World| {
                world.coordinators.iter().enumerate().filter_map(|(c, lead)| Some((c, lead.as_ref()?))).all(
                    |(c, lead)| {
                        let mut table = lead.table.clone();
                        table.tick(clock_of(c, world.now));
                        table.waiting().next().is_none() || table.leases().next().is_some()
                    },
                )
            }),
            Property::always("I9: what is heard twice counts once", |_, world: &World| world.holds("I9")),
            // Or nothing was shown.
            Property::sometimes("a worker computes under the second term", |model: &Self, world: &World| {
                world.term == 2 && world.workers.iter().any(|worker| worker.passing && model.may_compute(world, worker))
            }),
            Property::sometimes("a device goes from a lost worker to another", |model: &Self, world: &World| {
                world.last_fence >= 2
                    && world.workers[0].passing
                    && !model.may_compute(world, &world.workers[0])
                    && model.may_compute(world, &world.workers[1])
            }),
        ]
    }
}
