//! Device leases while this coordinator leads: the pure table, its rows, and the workers that wait for an answer.
//!
//! The table decides under a lock; a grant is written to the store under the term before its holder hears of it, so a
//! coordinator that has lost its term cannot give a device away.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_clock::{Clock, UnixMillis};
use warren_jobs::{
    JobClass,
    lease::{Acquired, DeviceSpec, Holder, Lease, LeaseTable, LeaseTiming, Renewed, Request, Yield},
};
use warren_messages::wire::WorkerReport;
use warren_store::{Store, StoreError, Term, Tx};
use warren_telemetry::metrics;

use crate::{doubt::Doubt, sessions::Sessions, settings::DeviceSettings};

/// How often time is let pass in the table.
const TICK: Duration = Duration::from_millis(200);

/// States of a lease's row.
const GRANTED: &str = "granted";
const DRAINING: &str = "draining";

/// Answer to a worker that asked for a device.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// It may start.
    Granted(Lease),
    /// It should ask again.
    Waiting {
        /// 0 = next.
        position: usize,
        /// Who is in the way.
        held_by: String,
    },
    /// It can never fit.
    TooLarge {
        /// Why, in numbers.
        arithmetic: String,
    },
    /// No device of this name is in `devices` of the settings.
    UnknownDevice,
}

/// The devices of one term.
#[derive(Debug)]
pub(crate) struct Devices {
    term: Term,
    store: Store,
    /// A steady one: a step of the machine's clock must not end leases, whose holders measure them as they are.
    clock: Clock,
    timing: LeaseTiming,
    doubt: Doubt,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug)]
struct Inner {
    table: LeaseTable,
    /// Calls under way; of two of one holder, the later one.
    calls: HashMap<Holder, Waiter>,
    last_call: u64,
    /// Free again, their rows still to be deleted: no later than what takes their place is written, or the next leader
    /// would find both.
    gone: Vec<(Uuid, i64)>,
}

#[derive(Debug)]
struct Waiter {
    call: u64,
    /// Until the grant is sent.
    grant: Option<oneshot::Sender<Lease>>,
}

/// What is given out of one device.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Its name.
    pub device: String,
    /// Live leases.
    pub held: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Memory promised, to leases that drain, too.
    pub bytes: u64,
    /// Memory that can be promised.
    pub budget: u64,
    /// Worker, model and memory of each live lease.
    pub holders: Vec<(String, String, u64)>,
}

/// A call of Acquire. Dropped before it was answered, nobody hears of what it asked for: the worker gave the task up, or
/// is gone. Then its request is withdrawn and what it was granted is free again.
struct Call<'a> {
    devices: &'a Devices,
    holder: Holder,
    number: u64,
    answered: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut inner = self.devices.lock();
        if inner.calls.get(&self.holder).is_none_or(|waiter| waiter.call != self.number) {
            return;
        }
        inner.calls.remove(&self.holder);
        if self.answered {
            return;
        }
        if let Some(lease) = inner.table.abandon(&self.holder, self.devices.now()) {
            inner.gone.push((id(&lease), lease.fence as i64));
        }
        drop(inner);
        self.devices.changed.notify_one();
    }
}

impl Devices {
    /// Takes over what earlier coordinators granted.
    ///
    /// # Errors
    /// When the store is away or the term is lost.
    pub(crate) async fn load(
        term: Term,
        store: Store,
        clock: &Clock,
        settings: &[DeviceSettings],
        doubt: Doubt,
    ) -> Result<Self, StoreError> {
        let timing = LeaseTiming::default();
        let mut table = LeaseTable::new(timing.clone());
        let known: Vec<_> = settings.iter().map(spec).collect();
        for device in &known {
            table.set_device(device.clone());
        }
        let leases = store.read().leases().await?.iter().map(|row| from_row(row, &timing)).collect::<Vec<_>>();
        let tx = store.begin_as_leader(term).await?;
        for device in &known {
            let memory = device.budget_bytes() as i64;
            tx.upsert_device(&device.name, memory, i64::from(device.max_concurrent)).await?;
        }
        doubt.commit(tx).await?;
        let fences =
            store.read().devices().await?.into_iter().map(|row| (row.name, row.last_fence as u64)).collect::<Vec<_>>();
        let clock = clock.steady();
        table.load(fences, leases, millis(clock.now()));
        let inner = Mutex::new(Inner { table, calls: HashMap::new(), last_call: 0, gone: Vec::new() });
        Ok(Self { term, store, clock, timing, doubt, inner, changed: Notify::new() })
    }

    /// How long a lease lives without renewal.
    pub(crate) fn ttl_ms(&self) -> u32 {
        u32::try_from(self.timing.ttl_ms).unwrap_or(u32::MAX)
    }

    /// True when the settings name the device.
    pub(crate) fn knows(&self, device: &str) -> bool {
        self.lock().table.devices().any(|(spec, _)| spec.name == device && spec.max_concurrent > 0)
    }

    /// Asks for a device, and waits up to `patience` for it. Dropped before it returns, it takes the request back;
    /// after a wait for nothing the request stays, because its worker asks again.
    ///
    /// # Errors
    /// When a grant cannot be written: the term is lost or the store is away.
    pub(crate) async fn acquire(&self, request: Request, patience: Duration) -> Result<Answer, StoreError> {
        let device = request.device.clone();
        let (acquired, mut call, granted) = self.ask(request);
        let answer = match acquired {
            Acquired::Granted(lease) => {
                self.write(&lease).await?;
                Answer::Granted(lease)
            }
            Acquired::TooLarge { arithmetic } => Answer::TooLarge { arithmetic },
            Acquired::UnknownDevice => Answer::UnknownDevice,
            Acquired::Late => self.waiting(&call.holder, &device),
            Acquired::Queued { .. } => {
                self.changed.notify_one();
                match tokio::time::timeout(patience, granted).await {
                    Ok(Ok(lease)) => Answer::Granted(lease),
                    // A grant may come right now: it is the holder's, and asking again returns it. An error means
                    // that a later call of the same slot took this one's place.
                    Ok(Err(_)) | Err(_) => self.waiting(&call.holder, &device),
                }
            }
        };
        call.answered = true;
        Ok(answer)
    }

    /// Asks the table. Whoever is queued is told of the grant by the receiver.
    fn ask(&self, request: Request) -> (Acquired, Call<'_>, oneshot::Receiver<Lease>) {
        let (sender, receiver) = oneshot::channel();
        let holder = request.holder.clone();
        let mut inner = self.lock();
        inner.last_call += 1;
        let number = inner.last_call;
        inner.calls.insert(holder.clone(), Waiter { call: number, grant: Some(sender) });
        let acquired = inner.table.acquire(request, self.now());
        (acquired, Call { devices: self, holder, number, answered: false }, receiver)
    }

    fn waiting(&self, holder: &Holder, device: &str) -> Answer {
        let inner = self.lock();
        let mut waiting = inner.table.waiting().filter(|(request, _)| request.device == device);
        let position = waiting.position(|(request, _)| request.holder == *holder).unwrap_or(0);
        let held_by =
            inner.table.leases().find(|lease| lease.device == device).map(|lease| lease.holder.worker.clone());
        Answer::Waiting { position, held_by: held_by.unwrap_or_default() }
    }

    /// Renews a lease. False: its holder must stop at once.
    pub(crate) fn renew(&self, lease: &str, fence: u64) -> bool {
        self.lock().table.renew(lease, fence, self.now()) != Renewed::Lost
    }

    /// Takes a lease back.
    ///
    /// # Errors
    /// When its row cannot be deleted; the table has freed it all the same.
    pub(crate) async fn release(&self, lease: &str, fence: u64) -> Result<(), StoreError> {
        {
            let mut inner = self.lock();
            if !inner.table.release(lease, fence, self.now()) {
                return Ok(());
            }
            // The table knew it, so it is an id of ours.
            inner.gone.push((lease.parse().unwrap_or_default(), fence as i64));
        }
        self.changed.notify_one();
        self.forget_gone().await
    }

    /// Takes back what this worker was granted and, as its report shows, does not know of: the answer was lost, or was
    /// given to a process that has ended.
    pub(crate) fn take_back(&self, report: &WorkerReport) {
        let mut inner = self.lock();
        let Inner { table, calls, gone, .. } = &mut *inner;
        // While a call is under way, its answer is still to come.
        let known = |lease: &Lease| {
            calls.contains_key(&lease.holder) || report.renewals.iter().any(|renewal| renewal.lease == lease.id)
        };
        let lost = table.take_back(&report.worker, &report.boot, known, self.now());
        gone.extend(lost.iter().map(|lease| (id(lease), lease.fence as i64)));
        drop(inner);
        for lease in lost {
            let why = if lease.holder.boot == report.boot { "its grant was lost" } else { "its process has ended" };
            tracing::info!(
                lease = lease.id,
                device = lease.device,
                worker = lease.holder.worker,
                why,
                "lease taken back"
            );
            self.changed.notify_one();
        }
    }

    /// What is given out of each device.
    pub(crate) fn usage(&self) -> Vec<Usage> {
        let inner = self.lock();
        let table = &inner.table;
        let of = |(spec, _): (&DeviceSpec, u64)| Usage {
            device: spec.name.clone(),
            held: table.leases().filter(|lease| lease.is_live() && lease.device == spec.name).count(),
            waiting: table.waiting().filter(|(request, _)| request.device == spec.name).count(),
            bytes: table.used_bytes(&spec.name),
            budget: spec.budget_bytes(),
            holders: table
                .leases()
                .filter(|lease| lease.is_live() && lease.device == spec.name)
                .map(|lease| (lease.holder.worker.clone(), lease.model.clone(), lease.memory_bytes))
                .collect(),
        };
        table.devices().map(of).collect()
    }

    /// Lets time pass until `stopping`: expires, drains, grants, and asks holders to yield.
    ///
    /// # Errors
    /// When a change cannot be written, for whatever reason. The term ends by it, so that table and rows agree again.
    pub(crate) async fn run(&self, sessions: &Mutex<Sessions>, stopping: &CancellationToken) -> Result<(), StoreError> {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                () = self.changed.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
            let (ticked, yields) = {
                let mut inner = self.lock();
                let now = self.now();
                let ticked = inner.table.tick(now);
                inner.gone.extend(ticked.freed.iter().map(|lease| (id(lease), lease.fence as i64)));
                (ticked, inner.table.wants_yield(now))
            };
            for lease in &ticked.expired {
                metrics::LEASES_EXPIRED.one(&[("device", &lease.device)]);
                tracing::warn!(
                    lease = lease.id,
                    device = lease.device,
                    worker = lease.holder.worker,
                    "lease expired; it drains"
                );
                self.mark_draining(lease).await?;
            }
            self.forget_gone().await?;
            for lease in ticked.granted {
                self.write(&lease).await?;
                let waiter = self.lock().calls.get_mut(&lease.holder).and_then(|waiter| waiter.grant.take());
                if let Some(waiter) = waiter {
                    // A waiter that just gave up asks again and gets the same lease.
                    let _ = waiter.send(lease);
                }
            }
            ask_to_yield(sessions, yields);
        }
    }

    /// Writes a grant; one that cannot be written is taken back.
    async fn write(&self, lease: &Lease) -> Result<(), StoreError> {
        let written = self.write_row(lease).await;
        if written.is_err() {
            self.lock().table.release(&lease.id, lease.fence, self.now());
        }
        written
    }

    async fn write_row(&self, lease: &Lease) -> Result<(), StoreError> {
        // Both in one look: whoever gives it up after that is forgotten next time, with the row.
        let (gone, given_up) = {
            let inner = self.lock();
            (inner.gone.clone(), inner.table.get(&lease.id).is_none())
        };
        let tx = self.store.begin_as_leader(self.term).await?;
        delete(&tx, &gone).await?;
        if !given_up {
            tx.grant_lease(&to_row(id(lease), lease)).await?;
        }
        self.doubt.commit(tx).await?;
        self.forgotten(&gone);
        Ok(())
    }

    async fn mark_draining(&self, lease: &Lease) -> Result<(), StoreError> {
        let tx = self.store.begin_as_leader(self.term).await?;
        tx.set_lease_state(id(lease), lease.fence as i64, DRAINING).await?;
        self.doubt.commit(tx).await.map(drop)
    }

    async fn forget_gone(&self) -> Result<(), StoreError> {
        let gone = self.lock().gone.clone();
        if gone.is_empty() {
            return Ok(());
        }
        let tx = self.store.begin_as_leader(self.term).await?;
        delete(&tx, &gone).await?;
        self.doubt.commit(tx).await?;
        self.forgotten(&gone);
        Ok(())
    }

    fn forgotten(&self, gone: &[(Uuid, i64)]) {
        self.lock().gone.retain(|lease| !gone.contains(lease));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while leases are locked")
    }

    fn now(&self) -> u64 {
        millis(self.clock.now())
    }
}

async fn delete(tx: &Tx, leases: &[(Uuid, i64)]) -> Result<(), StoreError> {
    for (id, fence) in leases {
        tx.delete_lease(*id, *fence).await?;
    }
    Ok(())
}

fn ask_to_yield(sessions: &Mutex<Sessions>, yields: Vec<Yield>) {
    let sessions = sessions.lock().expect("no panic while sessions are locked");
    for wanted in yields {
        sessions.ask_to_yield(&wanted.holder.worker, wanted.lease, wanted.urgent);
    }
}

fn id(lease: &Lease) -> Uuid {
    lease.id.parse().expect("lease ids are made of UUIDs")
}

fn millis(moment: UnixMillis) -> u64 {
    u64::try_from(moment.0).unwrap_or(0)
}

/// The machine's own memory counts half for the models of the CPU: the other half is for everybody else.
fn spec(settings: &DeviceSettings) -> DeviceSpec {
    let memory_bytes = match settings.memory_mib {
        0 => machine_memory() / 2,
        mib => mib << 20,
    };
    // Kept free for what the estimates miss: 8 %, but at least 512 MiB, and of a small budget no more than a quarter.
    let reserve_bytes = (memory_bytes / 100 * 8).max(512 << 20).min(memory_bytes / 4);
    DeviceSpec { name: settings.name.clone(), max_concurrent: settings.max_concurrent, memory_bytes, reserve_bytes }
}

fn machine_memory() -> u64 {
    std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("MemTotal:").map(str::to_owned)))
        .and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .map_or(4 << 30, |kib| kib << 10)
}

fn to_row(id: Uuid, lease: &Lease) -> warren_store::Lease {
    warren_store::Lease {
        id,
        device: lease.device.clone(),
        model: lease.model.clone(),
        worker: lease.holder.worker.clone(),
        boot: lease.holder.boot.clone(),
        slot: i64::from(lease.holder.slot),
        wait: lease.wait as i64,
        fence: lease.fence as i64,
        state: GRANTED.to_owned(),
        memory_bytes: lease.memory_bytes as i64,
        granted: UnixMillis(lease.granted_ms as i64),
        expires: UnixMillis(lease.expires_ms as i64),
    }
}

fn from_row(row: &warren_store::Lease, timing: &LeaseTiming) -> Lease {
    let expires_ms = millis(row.expires);
    Lease {
        id: row.id.to_string(),
        device: row.device.clone(),
        holder: Holder {
            worker: row.worker.clone(),
            boot: row.boot.clone(),
            slot: u32::try_from(row.slot).unwrap_or(0),
        },
        wait: row.wait as u64,
        model: row.model.clone(),
        memory_bytes: row.memory_bytes as u64,
        // Not kept: after a hand-over a lease is nobody's favourite.
        class: JobClass::Default,
        fence: row.fence as u64,
        granted_ms: millis(row.granted),
        expires_ms,
        confirmed: true,
        draining_until_ms: (row.state == DRAINING).then_some(expires_ms + timing.grace_ms),
    }
}
