//! What is tried when a device has no room for a forward pass: what can be freed is freed and the pass tried once more;
//! then half as many inputs, down to one. So it ends after a few passes, whatever the device says.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use warren_messages::wire::{DeviceFull, SafeBatch, Shortage};

/// The way down of one task.
#[derive(Debug)]
pub(crate) struct Ladder {
    rows: usize,
    freed: bool,
    shortages: Vec<Shortage>,
}

impl Ladder {
    /// From so many inputs.
    pub(crate) fn new(rows: usize) -> Self {
        Self { rows: rows.max(1), freed: false, shortages: Vec::new() }
    }

    /// Inputs in the next pass.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// There was no room, and what could be freed has been: `free` bytes before and after. False: nothing is left to try.
    /// Where the weights alone did not fit, `loaded` is false, and fewer inputs would not help.
    pub(crate) fn down(&mut self, reason: String, free: (u64, u64), loaded: bool) -> bool {
        let next = match (self.freed, loaded, self.rows) {
            (false, _, rows) => rows,
            (true, false, _) | (true, true, 1) => 0,
            (true, true, rows) => rows / 2,
        };
        self.freed = true;
        let count = |rows: usize| u32::try_from(rows).unwrap_or(u32::MAX);
        self.shortages.push(Shortage {
            rows: count(self.rows),
            next_rows: count(next),
            free_before: free.0,
            free_after: free.1,
            reason,
        });
        self.rows = next.max(1);
        next > 0
    }

    /// True when fewer inputs than at first were tried.
    pub(crate) fn is_lower(&self) -> bool {
        self.shortages.first().is_some_and(|first| (self.rows as u64) < u64::from(first.rows))
    }

    /// What was tried, in words: `32, 32, 16`.
    pub(crate) fn tried(&self) -> String {
        self.shortages.iter().map(|shortage| shortage.rows.to_string()).collect::<Vec<_>>().join(", ")
    }

    /// What the coordinator is told; `None` when there always was room.
    pub(crate) fn told(self, device: &str, model: &str, length: u32, fitted: bool) -> Option<DeviceFull> {
        (!self.shortages.is_empty()).then(|| DeviceFull {
            device: device.to_owned(),
            model: model.to_owned(),
            length,
            safe_rows: if fitted { u32::try_from(self.rows).unwrap_or(u32::MAX) } else { 0 },
            shortages: self.shortages,
        })
    }
}

/// The class of lengths that an input of `length` belongs to: the next power of two, or 0.
pub(crate) fn bucket(length: u32) -> u32 {
    if length == 0 { 0 } else { length.checked_next_power_of_two().unwrap_or(u32::MAX) }
}

/// What this worker found is older than the coordinator's list by now: that has it, or has forgotten it.
const REPORTED: Duration = Duration::from_secs(60);

/// How many inputs have been found to fit, by model and class of lengths.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<HashMap<(String, u32), Fits>>);

#[derive(Clone, Copy, Debug)]
struct Fits {
    rows: usize,
    /// When this worker found it; `None`: it was told.
    found: Option<Instant>,
}

impl Known {
    /// Takes in what the coordinator knows now, in place of what it knew. It forgets after a while, since room comes back.
    /// Of what was found here just now and what it says, the smaller counts.
    pub(crate) fn hear(&self, model: &str, batches: &[SafeBatch], now: Instant) {
        let mut known = self.lock();
        let is_new = |fits: &Fits| fits.found.is_some_and(|found| now.duration_since(found) < REPORTED);
        known.retain(|(of, _), fits| of != model || is_new(fits));
        for batch in batches {
            let rows = (batch.rows as usize).max(1);
            let told = Fits { rows, found: None };
            let fits = known.entry((model.to_owned(), batch.length)).or_insert(told);
            fits.rows = fits.rows.min(rows);
        }
    }

    /// So many fit: found at `now`.
    pub(crate) fn learn(&self, model: &str, length: u32, rows: usize, now: Instant) {
        let found = Fits { rows: rows.max(1), found: Some(now) };
        let mut known = self.lock();
        let fits = known.entry((model.to_owned(), length)).or_insert(found);
        *fits = Fits { rows: found.rows.min(fits.rows), ..found };
    }

    /// How many fit, as far as is known.
    pub(crate) fn rows(&self, model: &str, length: u32) -> Option<usize> {
        self.lock().get(&(model.to_owned(), length)).map(|fits| fits.rows)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, u32), Fits>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(mut ladder: Ladder, room: usize) -> (Vec<usize>, Option<DeviceFull>) {
        let mut tried = Vec::new();
        let fitted = loop {
            tried.push(ladder.rows());
            if ladder.rows() <= room {
                break true;
            }
            if !ladder.down("full".to_owned(), (1, 2), true) {
                break false;
            }
        };
        (tried, ladder.told("cpu", "m", 64, fitted))
    }

    #[test]
    fn half_as_many_are_tried_until_they_fit_or_one_does_not() {
        let (tried, told) = trail(Ladder::new(32), 6);
        assert_eq!(tried, [32, 32, 16, 8, 4]);
        let told = told.expect("there was no room at first");
        let steps: Vec<_> = told.shortages.iter().map(|step| (step.rows, step.next_rows)).collect();
        assert_eq!((steps, told.safe_rows), (vec![(32, 32), (32, 16), (16, 8), (8, 4)], 4));
        let (tried, told) = trail(Ladder::new(32), 0);
        assert_eq!((tried.len(), told.map(|told| told.safe_rows)), (7, Some(0)), "it ends");
        assert_eq!(trail(Ladder::new(8), 8), (vec![8], None));
    }

    #[test]
    fn weights_that_do_not_fit_are_tried_once_more() {
        let mut ladder = Ladder::new(8);
        assert!(ladder.down("full".to_owned(), (1, 2), false));
        assert!(!ladder.down("full".to_owned(), (1, 2), false));
        assert_eq!(ladder.tried(), "8, 8");
    }

    #[test]
    fn the_smaller_of_two_answers_counts_for_its_lengths() {
        let (known, now) = (Known::default(), Instant::now());
        known.learn("m", bucket(100), 8, now);
        known.hear("m", &[SafeBatch { length: 128, rows: 4 }, SafeBatch { length: 128, rows: 16 }], now);
        assert_eq!((known.rows("m", 128), known.rows("m", 64), known.rows("n", 128)), (Some(4), None, None));
        assert_eq!((bucket(0), bucket(1), bucket(65), bucket(u32::MAX)), (0, 1, 128, u32::MAX));
    }

    #[test]
    fn what_the_coordinator_forgets_is_forgotten_here_but_not_what_was_just_found() {
        let (known, found) = (Known::default(), Instant::now());
        known.learn("m", 64, 8, found);
        known.learn("n", 64, 2, found);
        known.hear("m", &[], found + REPORTED / 2);
        assert_eq!(known.rows("m", 64), Some(8), "the coordinator may not have heard of it");
        known.hear("m", &[SafeBatch { length: 64, rows: 16 }], found + REPORTED);
        assert_eq!(known.rows("m", 64), Some(16), "it says what counts");
        known.hear("m", &[], found + REPORTED);
        assert_eq!((known.rows("m", 64), known.rows("n", 64)), (None, Some(2)));
    }
}
