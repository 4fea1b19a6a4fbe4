//! Looking at a stack all the time, to tell afterwards how long something took to recover.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::world::World;
use crate::stack::Service;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(200);

/// One look.
#[derive(Clone, Debug)]
pub struct Look {
    /// When it was over.
    pub at: Instant,
    /// All parts that `warren ps` lists.
    pub services: Vec<Service>,
    /// Tasks done and released; `None` when the database does not answer.
    pub progress: Option<(u64, u64)>,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub struct Watch {
    looks: Mutex<Vec<Look>>,
    over: AtomicBool,
}

impl Watch {
    /// Looks until [`Watch::stop`].
    pub fn run(&self, world: &World) {
        while !self.over.load(Ordering::Relaxed) {
            let services = world.stack.ps();
            let progress = world.runtime.block_on(world.facts.progress()).ok();
            let look = Look { at: Instant::now(), services, progress };
            self.looks.lock().unwrap_or_else(PoisonError::into_inner).push(look);
            thread::sleep(EVERY);
        }
    }

    /// Ends [`Watch::run`].
    pub fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// The last look, if there was one.
    pub fn last(&self) -> Option<Look> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    /// How long after `since` something was ready, and a further task was done after that. `None`: never.
    pub fn recovered(&self, since: Instant, is_ready: impl Fn(&Look) -> bool) -> Option<Duration> {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut after = looks.iter().filter(|look| look.at > since).skip_while(|look| !is_ready(look));
        let ready = after.next()?;
        let done = |look: &Look| look.progress.map(|(done, _)| done);
        let before = looks.iter().filter(|look| look.at <= ready.at).filter_map(done).next_back()?;
        let most = looks.iter().filter_map(done).max()?;
        if before == most {
            // Nothing was left to do.
            return Some(ready.at - since);
        }
        let moved = after.find(|look| done(look) > Some(before))?;
        Some(moved.at - since)
    }
}
