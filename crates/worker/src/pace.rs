//! How many tasks a worker takes in hand, by how long they take.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use warren_jobs::TaskKind;
use warren_leases::Takes;

/// Work that a worker keeps at hand for each slot. A long task is taken when a slot is free; of short ones several
/// wait their turn, or each would cost a way to the broker and back in which the slot does nothing.
const AT_HAND: Duration = Duration::from_millis(250);
/// Most tasks at hand for each slot.
const MOST: u16 = 64;

/// Follows the time that tasks take, and tells how many the worker takes in hand at once.
#[derive(Debug)]
pub struct Pace {
    slots: u16,
    /// Mean seconds of a task in a slot, the latest tasks counting most.
    mean: Mutex<Option<f64>>,
    holds: watch::Sender<u16>,
}

impl Pace {
    /// For a worker with so many slots. Until the first tasks are done, it takes as many in hand as it runs at once.
    pub fn new(slots: u16) -> Self {
        Self { slots: slots.max(1), mean: Mutex::new(None), holds: watch::Sender::new(slots.max(1)) }
    }

    /// Tasks that are run at once.
    pub fn slots(&self) -> u16 {
        self.slots
    }

    /// Tasks that are taken in hand at once, now and whenever that changes.
    pub fn holds(&self) -> watch::Receiver<u16> {
        self.holds.subscribe()
    }

    /// What the coordinator is told of it.
    pub fn takes(&self, kind: TaskKind) -> Takes {
        Takes { kind, slots: self.slots, holds: self.holds() }
    }

    /// A task was in its slot for this long.
    pub(crate) fn took(&self, time: Duration) {
        let mut mean = self.mean.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = time.as_secs_f64();
        let now = mean.map_or(seconds, |before| before + (seconds - before) / 8.0);
        *mean = Some(now);
        let wanted = self.slots.saturating_mul(each(now));
        // Changed in steps, because each change costs a word with the broker.
        self.holds.send_if_modified(|holds| {
            let changes = wanted >= holds.saturating_mul(2) || wanted <= *holds / 2;
            if changes {
                *holds = wanted;
            }
            changes
        });
    }
}

/// Tasks at hand for one slot.
fn each(seconds: f64) -> u16 {
    let tasks = (AT_HAND.as_secs_f64() / seconds.max(1e-6)).ceil();
    if tasks >= f64::from(MOST) { MOST } else { (tasks as u16).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_tasks_wait_at_hand_and_long_ones_do_not() {
        let pace = Pace::new(2);
        let holds = pace.holds();
        assert_eq!(*holds.borrow(), 2);
        pace.took(Duration::from_secs(5));
        assert_eq!(*holds.borrow(), 2);
        for _ in 0..100 {
            pace.took(Duration::from_millis(25));
        }
        assert!((10..=20).contains(&*holds.borrow()), "ten for each slot, or somewhat less: {}", *holds.borrow());
        for _ in 0..100 {
            pace.took(Duration::ZERO);
        }
        assert!((64..=128).contains(&*holds.borrow()), "64 for each slot, or somewhat less: {}", *holds.borrow());
        pace.took(Duration::from_secs(15));
        assert_eq!(*holds.borrow(), 2, "one long task, and the next may be long, too");
    }
}
