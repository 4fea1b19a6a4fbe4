//! What this worker is working on.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use warren_messages::wire;

/// Why a task is dropped without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Its job was cancelled or ended.
    Cancelled,
    /// Another release of the task is the current one.
    Stale,
}

/// A task being worked on, reported to the coordinator until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct TaskInHand(Arc<Registered>);

#[derive(Debug)]
struct Registered {
    number: u64,
    running: Arc<Running>,
    tasks: Arc<Tasks>,
}

#[derive(Debug)]
struct Running {
    task: String,
    job: String,
    dispatch: u32,
    progress: Mutex<Progress>,
    dropped: CancellationToken,
    stale: AtomicBool,
    taken: Instant,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    step: String,
    done_units: f64,
    turn: wire::Turn,
}

impl TaskInHand {
    /// The task's id.
    pub fn task(&self) -> &str {
        &self.0.running.task
    }

    /// The job's id.
    pub fn job(&self) -> &str {
        &self.0.running.job
    }

    /// Which release of the task this is.
    pub fn dispatch(&self) -> u32 {
        self.0.running.dispatch
    }

    /// Tells what is being done and how many units of the job (audio seconds, texts) are done inside this task. Cheap.
    pub fn step(&self, step: &str, done_units: f64) {
        let mut progress = self.0.running.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.done_units = done_units;
        if progress.step != step {
            step.clone_into(&mut progress.step);
            drop(progress);
            self.0.tasks.changed.notify_one();
        }
    }

    /// Tells whether it waits for the worker's slots, or has them to itself; see [`crate::Leases::alone`].
    pub fn set_turn(&self, turn: wire::Turn) {
        self.0.running.progress.lock().unwrap_or_else(PoisonError::into_inner).turn = turn;
        self.0.tasks.changed.notify_one();
    }

    /// Tells how many units are done, in the same step. Cheap.
    pub fn done(&self, done_units: f64) {
        self.0.running.progress.lock().unwrap_or_else(PoisonError::into_inner).done_units = done_units;
    }

    /// Tells what is being done now, with the same units. Cheap.
    pub fn now(&self, step: &str) {
        let done_units = self.0.running.progress.lock().unwrap_or_else(PoisonError::into_inner).done_units;
        self.step(step, done_units);
    }

    /// The last step told.
    pub fn last_step(&self) -> String {
        self.0.running.progress.lock().unwrap_or_else(PoisonError::into_inner).step.clone()
    }

    /// True when the work should stop, whatever the reason.
    pub fn is_cancelled(&self) -> bool {
        self.0.running.dropped.is_cancelled()
    }

    /// True when another release of the task is the current one.
    pub fn is_stale(&self) -> bool {
        self.0.running.stale.load(Ordering::SeqCst)
    }

    /// Why the work should stop; `None` while it should go on.
    pub fn dropped(&self) -> Option<Dropped> {
        self.is_cancelled().then(|| if self.is_stale() { Dropped::Stale } else { Dropped::Cancelled })
    }

    /// Waits until the work should stop.
    pub async fn cancelled(&self) {
        self.0.running.dropped.cancelled().await;
    }

    pub(crate) fn drop_as(&self, dropped: Dropped) {
        self.0.running.drop_as(dropped);
    }

    pub(crate) fn taken(&self) -> Instant {
        self.0.running.taken
    }
}

impl Running {
    fn drop_as(&self, dropped: Dropped) {
        if dropped == Dropped::Stale {
            self.stale.store(true, Ordering::SeqCst);
        }
        self.dropped.cancel();
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.tasks.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        self.tasks.changed.notify_one();
    }
}

/// All tasks in hand.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    running: Mutex<Numbered>,
    /// Notified when a report would read differently.
    pub(crate) changed: Notify,
    /// When the last report that was answered was made: it named what had been taken before.
    pub(crate) answered: watch::Sender<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Numbered {
    next: u64,
    tasks: BTreeMap<u64, Arc<Running>>,
}

impl Numbered {
    fn remove(&mut self, number: &u64) {
        self.tasks.remove(number);
    }
}

impl Tasks {
    pub(crate) fn take(self: &Arc<Self>, task: &str, dispatch: u32, job: &str) -> TaskInHand {
        let mut all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = Arc::new(Running {
            task: task.to_owned(),
            job: job.to_owned(),
            dispatch,
            progress: Mutex::new(Progress { step: "start".to_owned(), ..Progress::default() }),
            dropped: CancellationToken::new(),
            stale: AtomicBool::new(false),
            // While the lock is held: a report made later names it.
            taken: Instant::now(),
        });
        let number = all.next;
        all.next += 1;
        all.tasks.insert(number, running.clone());
        drop(all);
        self.changed.notify_one();
        TaskInHand(Arc::new(Registered { number, running, tasks: self.clone() }))
    }

    pub(crate) fn report(&self) -> Vec<wire::TaskInHand> {
        let all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        all.tasks
            .values()
            .map(|running| {
                let progress = running.progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
                wire::TaskInHand {
                    task: running.task.clone(),
                    dispatch: running.dispatch,
                    step: progress.step,
                    done_units: progress.done_units,
                    turn: progress.turn.into(),
                }
            })
            .collect()
    }

    /// The job ended: every release of the task stops.
    pub(crate) fn cancel(&self, task: &str) {
        self.each(|running| running.task == task, Dropped::Cancelled);
    }

    /// This release is no longer the current one.
    pub(crate) fn stale(&self, task: &str, dispatch: u32) {
        self.each(|running| running.task == task && running.dispatch == dispatch, Dropped::Stale);
    }

    fn each(&self, wanted: impl Fn(&Running) -> bool, dropped: Dropped) {
        let all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for running in all.tasks.values().filter(|running| wanted(running)) {
            // Said again with every report until the pass in hand ends; told once.
            if !running.dropped.is_cancelled() {
                tracing::info!(task.id = running.task, job.id = running.job, ?dropped, "work stops");
            }
            running.drop_as(dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_reported_until_its_last_clone_is_gone() {
        let tasks = Arc::new(Tasks::default());
        let task = tasks.take("task_1", 3, "job_1");
        let clone = task.clone();
        task.step("decode", 12.5);
        drop(task);
        let report = tasks.report();
        assert_eq!(report.len(), 1);
        assert_eq!((report[0].step.as_str(), report[0].done_units, report[0].dispatch), ("decode", 12.5, 3));
        drop(clone);
        assert!(tasks.report().is_empty());
    }

    #[test]
    fn stale_means_one_release_and_cancelled_means_all() {
        let tasks = Arc::new(Tasks::default());
        let old = tasks.take("task_1", 1, "job_1");
        let new = tasks.take("task_1", 2, "job_1");
        tasks.stale("task_1", 1);
        assert_eq!((old.dropped(), new.dropped()), (Some(Dropped::Stale), None));
        tasks.cancel("task_1");
        assert_eq!((old.is_stale(), new.dropped()), (true, Some(Dropped::Cancelled)));
    }
}
