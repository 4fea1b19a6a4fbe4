//! Callers side by side, each with one job after another, and what became of them all.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::task::JoinHandle;
use warren_messages::wire::{Job, JobState};

use super::world::World;

/// What became of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded, each task once, with the right results.
    Right,
    /// It never ended, or not well.
    Lost(String),
    /// It has more than it should, or something else.
    Wrong(String),
}

/// The outcomes of all.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Jobs that were accepted.
    pub jobs: usize,
    /// Jobs without their end.
    pub lost: Vec<String>,
    /// Jobs with something double or different.
    pub wrong: Vec<String>,
}

impl FromIterator<Outcome> for Tally {
    fn from_iter<T: IntoIterator<Item = Outcome>>(outcomes: T) -> Self {
        let mut tally = Self::default();
        for outcome in outcomes {
            tally.jobs += 1;
            match outcome {
                Outcome::Right => {}
                Outcome::Lost(why) => tally.lost.push(why),
                Outcome::Wrong(why) => tally.wrong.push(why),
            }
        }
        tally
    }
}

/// Callers at work.
#[derive(Debug)]
pub struct Callers {
    each: Vec<JoinHandle<Vec<Outcome>>>,
    stop: Arc<AtomicBool>,
}

impl Callers {
    /// So many begin. `call` has the next job of a caller, by its number and the job's, done; without one, the caller is
    /// through.
    pub fn start<F>(world: &World, count: usize, call: impl Fn(usize, usize) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = Option<Outcome>> + Send,
    {
        let stop = Arc::<AtomicBool>::default();
        let caller = |number| {
            let (call, stop) = (call.clone(), stop.clone());
            world.runtime.spawn(async move {
                let mut outcomes = Vec::new();
                while !stop.load(Ordering::Relaxed)
                    && let Some(outcome) = call(number, outcomes.len()).await
                {
                    outcomes.push(outcome);
                }
                outcomes
            })
        };
        let each = (0..count).map(caller).collect();
        Self { each, stop }
    }

    /// True when all are through.
    pub fn are_through(&self) -> bool {
        self.each.iter().all(JoinHandle::is_finished)
    }

    /// Begins no more jobs and waits for those that were begun.
    pub fn stop(self, world: &World) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.wait(world)
    }

    /// Waits until all are through.
    ///
    /// # Panics
    /// When a caller did.
    pub fn wait(mut self, world: &World) -> Tally {
        let each = std::mem::take(&mut self.each).into_iter();
        each.flat_map(|caller| world.runtime.block_on(caller).expect("callers do not panic")).collect()
    }
}

/// A row that fails leaves nobody at work.
impl Drop for Callers {
    fn drop(&mut self) {
        self.each.iter().for_each(JoinHandle::abort);
    }
}

/// A job that is over must have succeeded with so many tasks, each done once.
///
/// # Errors
/// What became of it otherwise. `request` tells it from others.
pub fn succeeded(request: &str, job: &Job, tasks: usize) -> Result<(), Outcome> {
    if job.state() != JobState::Succeeded {
        return Err(Outcome::Lost(format!("{request}: {job:?}")));
    }
    let counts = job.tasks.unwrap_or_default();
    let others = counts.unreleased + counts.released + counts.failed + counts.dead + counts.cancelled;
    if counts.done as usize != tasks || others != 0 {
        return Err(Outcome::Wrong(format!("{request}, {}: its tasks are {counts:?}, not {tasks}", job.id)));
    }
    Ok(())
}
