//! Runs a model on the device, under a lease.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::{
    sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock},
    task::spawn_blocking,
};
use tokio_util::sync::CancellationToken;
use warren_fault::{Cause, Code, Fault};
use warren_inference::{Gate, InferenceError, Interrupted};
use warren_leases::{Leases, Slot};
use warren_messages::wire;
use warren_models::Model;
use warren_telemetry::metrics;

use crate::{
    Hand, Loadable, Pace, Shelf, Stopped,
    gate::LeaseGate,
    ladder::{Known, Ladder, bucket},
    memory,
    threads::Threads,
};

/// What a task has for its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Its inputs: texts, or windows of speech.
    pub rows: usize,
    /// Characters of the longest; 0 where all are of one length.
    pub length: u32,
}

/// What a run ended with.
struct Failed {
    error: InferenceError,
    /// The weights were there.
    loaded: bool,
}

/// The same, once the device was looked at.
enum Trouble {
    /// There was no room.
    Full {
        reason: String,
        /// Bytes, before and after what could be freed was freed.
        free: (u64, u64),
        loaded: bool,
        /// Somebody else has the memory.
        occupied: Option<InferenceError>,
    },
    Other(InferenceError),
}

impl<M: Loadable> Shelf<M> {
    /// Frees what can be freed if that was missing.
    fn looked_at(&self, model: &Model, failed: Failed) -> Trouble {
        let Failed { error: InferenceError::OutOfMemory(reason), loaded } = failed else {
            return Trouble::Other(failed.error);
        };
        let free = || self.memory().map_or(0, |memory| memory.free);
        let before = free();
        self.unload_idle(&model.name);
        let occupied = if loaded { None } else { self.room(model).err() };
        Trouble::Full { reason, free: (before, free()), loaded, occupied }
    }
}

/// Brings a task, a model and a lease together. Cheap to clone.
#[derive(Debug)]
pub struct Engine<M> {
    leases: Leases,
    shelf: Shelf<M>,
    stopping: CancellationToken,
    threads: Arc<Threads>,
    pace: Arc<Pace>,
    turns: Arc<RwLock<()>>,
    known: Arc<Known>,
}

/// The right to use a slot.
#[derive(Debug)]
enum Turn {
    Beside(#[expect(dead_code, reason = "held")] OwnedRwLockReadGuard<()>),
    Alone(#[expect(dead_code, reason = "held")] OwnedRwLockWriteGuard<()>),
}

impl<M> Clone for Engine<M> {
    fn clone(&self) -> Self {
        Self {
            leases: self.leases.clone(),
            shelf: self.shelf.clone(),
            stopping: self.stopping.clone(),
            threads: self.threads.clone(),
            pace: self.pace.clone(),
            turns: self.turns.clone(),
            known: self.known.clone(),
        }
    }
}

impl<M: Loadable> Engine<M> {
    /// An engine for as many tasks at once as `pace` has slots. When `stopping`, tasks that still wait for a lease are put
    /// off.
    pub fn new(leases: Leases, shelf: Shelf<M>, pace: Pace, stopping: CancellationToken) -> Self {
        let threads = Arc::new(Threads::new(pace.slots()));
        Self { leases, shelf, stopping, threads, pace: Arc::new(pace), turns: Arc::default(), known: Arc::default() }
    }

    /// The catalogue's entry of a model.
    ///
    /// # Errors
    /// As [`Shelf::model`].
    pub fn model(&self, name: &str) -> Result<Model, Fault> {
        self.shelf.model(name)
    }

    /// Runs `work` with the model, once it is there and the device is ours. `work` runs on a thread of its own and must
    /// ask the gate before every forward pass, and how much one may hold; it is run again from the start after an urgent
    /// yield, and with less at once when the device had no room.
    ///
    /// A task that was with a worker before has all slots to itself: if it takes this worker with it, too, it takes no
    /// other task along, and the coordinator knows which one it was.
    ///
    /// # Errors
    /// [`Stopped`]: dropped, no lease, no model, no room, or what `work` failed with.
    pub async fn run<T, F>(&self, model: &Model, hand: &Hand, load: Load, work: F) -> Result<T, Stopped>
    where
        T: Send + 'static,
        F: Fn(&M, &dyn Gate) -> Result<T, InferenceError> + Send + Sync + 'static,
    {
        // Fetching can take minutes, and a lease must not wait for it.
        let files = hand.unless_dropped(self.shelf.files(model, hand.task())).await?;
        let work = Arc::new(work);
        let length = bucket(load.length);
        let mut ladder: Option<Ladder> = None;
        // The turn comes first: a slot may come with a lease, and who waits for a turn would keep it from the task whose
        // turn it is.
        let mut turn = hand.unless_dropped(self.turn(hand)).await?;
        let mut slot = hand.unless_dropped(self.slot(model)).await?;
        loop {
            let lease = tokio::select! {
                lease = slot.acquire(&model.name, model.memory_bytes, hand.task()) => lease?,
                () = self.stopping.cancelled() => return Err(stopping()),
            };
            hand.task().now("load");
            if matches!(turn, Turn::Alone(_)) {
                tokio::select! {
                    () = self.leases.alone(hand.task()) => {}
                    () = self.stopping.cancelled() => return Err(stopping()),
                }
            }
            self.known.hear(&model.name, lease.batches(), Instant::now());
            let rows = ladder.get_or_insert_with(|| Ladder::new(self.rows(model, load.rows, length))).rows();
            let gate = LeaseGate::new(lease, hand.task().clone(), hand.inference.clone(), rows);
            let before = hand.inference_seconds();
            let (shelf, threads, work) = (self.shelf.clone(), self.threads.clone(), work.clone());
            let pace = self.pace.clone();
            let (model_now, files) = (model.clone(), files.clone());
            // Slot and turn go with the work: were this future dropped, they would still last as long as the pass.
            let ran = spawn_blocking(move || {
                let (slot, turn): (Slot, Turn) = (slot, turn);
                let result = match shelf.open(&model_now, files.as_ref()) {
                    Ok(loaded) => {
                        let began = Instant::now();
                        let result = threads.run(slot.index(), || work(&loaded, &gate));
                        pace.took(began.elapsed());
                        result.map_err(|error| Failed { error, loaded: true })
                    }
                    Err(error) => Err(Failed { error, loaded: false }),
                };
                let result = result.map_err(|failed| shelf.looked_at(&model_now, failed));
                (slot, turn, result, shelf.peak())
            });
            let (same_slot, same_turn, result, peak) = ran
                .await
                .map_err(|panic| Fault::retryable(Code::Internal, format!("model {}: {panic}", model.name)))?;
            (slot, turn) = (same_slot, same_turn);
            if matches!(turn, Turn::Alone(_)) {
                hand.task().set_turn(wire::Turn::Unspecified);
            }
            hand.peak.fetch_max(peak, Ordering::Relaxed);
            let device = self.leases.device();
            let seconds = hand.inference_seconds() - before;
            metrics::INFERENCE_SECONDS.add(seconds, &[("model", &model.name), ("device", device)]);
            match result {
                Ok(done) => {
                    if let Some(ladder) = ladder {
                        if ladder.is_lower() {
                            self.known.learn(&model.name, length, ladder.rows(), Instant::now());
                        }
                        hand.found_full(ladder.told(device, &model.name, length, true));
                    }
                    return Ok(done);
                }
                Err(Trouble::Full { reason, free, loaded, occupied }) => {
                    tracing::warn!(model = model.name, device, rows, reason, "no room on the device");
                    if !ladder.as_mut().is_some_and(|ladder| ladder.down(reason.clone(), free, loaded)) {
                        let tried = ladder.as_ref().map(Ladder::tried).unwrap_or_default();
                        hand.found_full(ladder.and_then(|ladder| ladder.told(device, &model.name, length, false)));
                        let fault = occupied.map_or_else(
                            || {
                                let free = memory::told(free.1);
                                Fault::permanent(
                                    Code::OutOfMemory,
                                    format!(
                                        "{device} has no room for `{}` with even one input at once: tried {tried} at \
                                         once; {free} are free, {} are reckoned for the model; {reason}",
                                        model.name,
                                        memory::told(model.memory_bytes),
                                    ),
                                )
                            },
                            |error| error.fault(),
                        );
                        return Err(fault.into());
                    }
                }
                Err(Trouble::Other(InferenceError::Interrupted(Interrupted::Yield))) => {
                    tracing::info!(model = model.name, "the device was wanted back; the task starts again");
                    slot.give_back().await;
                }
                Err(Trouble::Other(error)) => {
                    if matches!(error, InferenceError::Interrupted(Interrupted::Cancelled)) {
                        // Whoever cancels wants the device free; the next task asks for it anew.
                        slot.give_back().await;
                    }
                    return Err(hand.stopped_by(&error));
                }
            }
        }
    }

    async fn turn(&self, hand: &Hand) -> Result<Turn, Stopped> {
        let turns = self.turns.clone();
        let turn = async {
            if !hand.returned {
                return Turn::Beside(turns.read_owned().await);
            }
            hand.task().set_turn(wire::Turn::Waiting);
            Turn::Alone(turns.write_owned().await)
        };
        tokio::select! {
            turn = turn => Ok(turn),
            () = self.stopping.cancelled() => Err(stopping()),
        }
    }

    /// Inputs in the first pass of a task.
    fn rows(&self, model: &Model, inputs: usize, length: u32) -> usize {
        let known = self.known.rows(&model.name, length).unwrap_or(usize::MAX);
        self.shelf.rows().min(known).min(inputs)
    }

    async fn slot(&self, model: &Model) -> Result<Slot, Stopped> {
        tokio::select! {
            slot = self.leases.slot(&model.name) => Ok(slot),
            () = self.stopping.cancelled() => Err(stopping()),
        }
    }
}

/// The worker stops before the task had the device; another worker takes it.
fn stopping() -> Stopped {
    let cause = Cause::new(Code::LeaseNotGranted, "the worker stopped while the task waited for the device");
    Stopped::Fault(Fault::RetryLater { cause, wait: Some(std::time::Duration::ZERO) })
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped(dropped) => write!(f, "dropped: {dropped:?}"),
            Self::Fault(fault) => fault.fmt(f),
            Self::OverLimit(cause) => cause.fmt(f),
        }
    }
}
