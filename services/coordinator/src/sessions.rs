//! The live workers: what they run, what they can take, and how to reach them.

use std::collections::{BTreeMap, HashMap};

use tokio::{sync::mpsc, time::Instant};
use warren_jobs::TaskKind;
use warren_messages::{
    ids::TaskId,
    wire::{
        CancelOrder, CoordinatorOrder, KindSlots, StaleOrder, Turn, WorkerReport, YieldOrder, coordinator_order::Order,
    },
};

/// Where orders to one worker go. Orders are few and small; a worker that reads none is cut off.
pub(crate) type Orders = mpsc::Sender<Result<CoordinatorOrder, tonic::Status>>;

/// What a worker last said of a task in its hands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InHand {
    /// Which release of the task it works on.
    pub dispatch: u32,
    /// E.g. `decode`.
    pub step: String,
    /// Units of the job done inside the task.
    pub done_units: f64,
    /// Whether it waits for the worker's slots, or has them to itself.
    pub turn: Turn,
}

/// A kind of task that a worker consumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Takes {
    /// Which.
    pub kind: TaskKind,
    /// Tasks that it runs at once.
    pub slots: u32,
    /// Tasks that it takes in hand at once: more, when they are short.
    pub holds: u32,
}

/// One worker process.
#[derive(Debug)]
pub(crate) struct Worker {
    /// New for each process.
    pub boot: String,
    /// Name of the service.
    pub service: String,
    /// Task kinds it consumes.
    pub takes: Vec<Takes>,
    /// Its version.
    pub version: String,
    /// It takes no new work.
    pub draining: bool,
    /// Why it takes no work, by its own words; empty when it does.
    pub trouble: String,
    /// Why it drains by itself; empty when it was told to, or does not.
    pub leaving: String,
    /// Tasks in its hands.
    pub running: HashMap<TaskId, InHand>,
    last_report: Instant,
    orders: Option<Orders>,
}

/// A worker that was given up, with the tasks that were in its hands.
#[derive(Debug, PartialEq)]
pub(crate) struct Lost {
    /// Its name.
    pub worker: String,
    /// Its process.
    pub boot: String,
    /// The tasks, by id.
    pub running: Vec<(TaskId, InHand)>,
}

/// A process reports under a name that a later one has by now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Superseded;

/// All live workers, by name.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    workers: BTreeMap<String, Worker>,
    /// Given up, and not yet written down.
    lost: Vec<Lost>,
}

impl Sessions {
    /// Takes a report in. A process that replaces an older one of the same name makes that one lost. Boots are ordered as
    /// their texts are.
    ///
    /// # Errors
    /// [`Superseded`] for a report of the older one, which changes nothing.
    pub(crate) fn report(&mut self, report: &WorkerReport, orders: &Orders) -> Result<(), Superseded> {
        if self.workers.get(&report.worker).is_some_and(|now| now.boot > report.boot) {
            return Err(Superseded);
        }
        let running = report
            .running
            .iter()
            .filter_map(|task| {
                let in_hand = InHand {
                    dispatch: task.dispatch,
                    step: task.step.clone(),
                    done_units: task.done_units.max(0.0),
                    turn: task.turn(),
                };
                Some((task.task.parse().ok()?, in_hand))
            })
            .collect();
        let worker = Worker {
            boot: report.boot.clone(),
            service: report.service.clone(),
            takes: report.takes.iter().filter_map(Takes::read).collect(),
            version: report.version.clone(),
            draining: report.draining,
            trouble: report.trouble.clone(),
            leaving: report.leaving.clone(),
            running,
            last_report: Instant::now(),
            orders: Some(orders.clone()),
        };
        if let Some(before) = self.workers.insert(report.worker.clone(), worker)
            && before.boot != report.boot
        {
            self.lost.push(before.lost(&report.worker));
        }
        Ok(())
    }

    /// The stream that these orders go to ended. A worker that was draining has left, and said why if that was its own
    /// wish. `None`: any other may come back within the time that [`Sessions::expire`] allows.
    pub(crate) fn disconnected(&mut self, name: &str, orders: &Orders) -> Option<String> {
        let of_stream = |worker: &&mut Worker| worker.orders.as_ref().is_some_and(|now| now.same_channel(orders));
        let worker = self.workers.get_mut(name).filter(of_stream)?;
        worker.orders = None;
        if worker.draining { self.workers.remove(name).map(|worker| worker.leaving) } else { None }
    }

    /// Gives up the workers that have been silent since before `earliest`.
    pub(crate) fn expire(&mut self, earliest: Instant) {
        let silent: Vec<_> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.last_report < earliest)
            .map(|(name, _)| name.clone())
            .collect();
        let lost = silent.iter().filter_map(|name| self.workers.remove(name).map(|worker| worker.lost(name)));
        self.lost.extend(lost);
    }

    /// A loss to be written down; [`Self::keep`] it if that fails.
    pub(crate) fn next_lost(&mut self) -> Option<Lost> {
        self.lost.pop()
    }

    /// It could not be written down.
    pub(crate) fn keep(&mut self, lost: Lost) {
        self.lost.push(lost);
    }

    /// Tasks of this kind that the workers run at once.
    pub(crate) fn slots(&self, kind: TaskKind) -> u32 {
        self.takes(kind).fold(0_u32, |sum, takes| sum.saturating_add(takes.slots))
    }

    /// Tasks of this kind that the workers take in hand at once.
    pub(crate) fn holds(&self, kind: TaskKind) -> u32 {
        self.takes(kind).fold(0_u32, |sum, takes| sum.saturating_add(takes.holds))
    }

    fn takes(&self, kind: TaskKind) -> impl Iterator<Item = &Takes> {
        let working = self.workers.values().filter(|worker| !worker.draining);
        working.flat_map(|worker| &worker.takes).filter(move |takes| takes.kind == kind)
    }

    /// All workers, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Worker)> {
        self.workers.iter().map(|(name, worker)| (name.as_str(), worker))
    }

    /// Tells whoever runs the task to stop.
    pub(crate) fn cancel(&self, task: TaskId) {
        for worker in self.workers.values().filter(|worker| worker.running.contains_key(&task)) {
            worker.order(Order::Cancel(CancelOrder { task: task.to_string() }));
        }
    }

    /// Tells a worker that this dispatch of a task is somebody else's.
    pub(crate) fn stale(&self, worker: &str, task: TaskId, dispatch: u32) {
        if let Some(worker) = self.workers.get(worker) {
            worker.order(Order::Stale(StaleOrder { task: task.to_string(), dispatch }));
        }
    }

    /// Asks a worker to give a lease back.
    pub(crate) fn ask_to_yield(&self, worker: &str, lease: String, urgent: bool) {
        if let Some(worker) = self.workers.get(worker) {
            worker.order(Order::Yield(YieldOrder { lease, urgent }));
        }
    }
}

impl Takes {
    fn read(takes: &KindSlots) -> Option<Self> {
        let holds = takes.holds.max(takes.slots);
        Some(Self { kind: takes.kind.parse().ok()?, slots: takes.slots, holds })
    }
}

impl Worker {
    fn lost(self, name: &str) -> Lost {
        let mut running: Vec<_> = self.running.into_iter().collect();
        running.sort_by_key(|(task, _)| *task);
        Lost { worker: name.to_owned(), boot: self.boot, running }
    }

    fn order(&self, order: Order) {
        // A full channel means that the worker reads nothing; its session ends by the missing reports.
        if let Some(orders) = &self.orders {
            let _ = orders.try_send(Ok(CoordinatorOrder { order: Some(order) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;
    use warren_messages::wire::TaskInHand;

    use super::*;

    fn report(boot: &str, tasks: &[u128]) -> WorkerReport {
        WorkerReport {
            worker: "transcription".to_owned(),
            boot: boot.to_owned(),
            takes: [("prepare", 2), ("transcribe", 16)]
                .map(|(kind, slots)| KindSlots { kind: kind.to_owned(), slots, holds: 0 })
                .to_vec(),
            running: tasks
                .iter()
                .map(|&id| TaskInHand {
                    task: TaskId(Uuid::from_u128(id)).to_string(),
                    dispatch: 1,
                    step: "decode".to_owned(),
                    done_units: 3.0,
                    turn: 0,
                })
                .collect(),
            ..WorkerReport::default()
        }
    }

    #[tokio::test]
    async fn a_worker_is_lost_when_silent_or_replaced() {
        let (orders, _receiver) = mpsc::channel(4);
        let mut sessions = Sessions::default();
        assert_eq!(sessions.report(&report("a", &[1]), &orders), Ok(()));
        assert_eq!(sessions.report(&report("a", &[1, 2]), &orders), Ok(()));
        assert_eq!(sessions.next_lost(), None);
        assert_eq!(sessions.report(&report("b", &[3]), &orders), Ok(()));
        let lost = sessions.next_lost().expect("process a is gone");
        assert_eq!((lost.boot.as_str(), lost.running.len()), ("a", 2));
        sessions.keep(lost);
        assert!(sessions.next_lost().is_some(), "until it is written down");
        let now = Instant::now();
        sessions.expire(now - Duration::from_secs(20));
        assert_eq!(sessions.next_lost(), None);
        sessions.expire(now + Duration::from_secs(1));
        assert_eq!(sessions.next_lost().map(|lost| lost.boot).as_deref(), Some("b"));
        assert_eq!(sessions.slots(TaskKind::Transcribe), 0);
    }

    #[tokio::test]
    async fn a_late_report_of_an_older_process_changes_nothing() {
        let (orders, _receiver) = mpsc::channel(4);
        let mut sessions = Sessions::default();
        let _ = sessions.report(&report("b", &[3]), &orders);
        assert_eq!(sessions.report(&report("a", &[1]), &orders), Err(Superseded));
        assert_eq!(sessions.next_lost(), None, "nobody is lost twice, or to an older one");
        assert!(sessions.iter().all(|(_, worker)| worker.boot == "b"));
        // The later one is gone: the clock of the machine that it ran on was ahead.
        sessions.expire(Instant::now() + Duration::from_secs(1));
        assert_eq!(sessions.report(&report("a", &[1]), &orders), Ok(()));
    }

    #[tokio::test]
    async fn slots_count_by_kind_and_not_while_draining() {
        let (orders, _receiver) = mpsc::channel(4);
        let mut sessions = Sessions::default();
        sessions.report(&report("a", &[]), &orders).expect("the only process");
        let slots = [TaskKind::Prepare, TaskKind::Transcribe, TaskKind::Embed].map(|kind| sessions.slots(kind));
        assert_eq!(slots, [2, 16, 0], "each kind has its own");
        sessions.report(&WorkerReport { draining: true, ..report("a", &[]) }, &orders).expect("the only process");
        assert_eq!(sessions.slots(TaskKind::Transcribe), 0);
    }

    #[tokio::test]
    async fn a_worker_that_drained_has_left_and_any_other_may_come_back() {
        let ((first, _first), (second, mut heard)) = (mpsc::channel(4), mpsc::channel(4));
        let mut sessions = Sessions::default();
        sessions.report(&report("a", &[1]), &first).expect("the only process");
        sessions.report(&report("a", &[1]), &second).expect("the only process");
        assert_eq!(sessions.disconnected("transcription", &first), None, "it has another stream by now");
        sessions.cancel(TaskId(Uuid::from_u128(1)));
        assert!(heard.try_recv().is_ok(), "orders still reach it");
        assert_eq!(sessions.disconnected("transcription", &second), None);
        assert_eq!(sessions.iter().count(), 1);
        let full = WorkerReport { draining: true, leaving: "memory".to_owned(), ..report("a", &[1]) };
        sessions.report(&full, &first).expect("the only process");
        assert_eq!(sessions.disconnected("transcription", &first).as_deref(), Some("memory"));
        assert_eq!(sessions.iter().count(), 0);
    }

    #[tokio::test]
    async fn a_cancel_reaches_only_the_worker_that_runs_the_task() {
        let (orders, mut receiver) = mpsc::channel(4);
        let mut sessions = Sessions::default();
        sessions.report(&report("a", &[7]), &orders).expect("the only process");
        sessions.cancel(TaskId(Uuid::from_u128(8)));
        sessions.cancel(TaskId(Uuid::from_u128(7)));
        let order = receiver.try_recv().expect("one order").expect("an order").order;
        assert!(matches!(order, Some(Order::Cancel(cancel)) if cancel.task.ends_with('7')));
        assert!(receiver.try_recv().is_err());
    }
}
