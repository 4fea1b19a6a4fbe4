//! After the faults: does everything add up, for the callers, in the database, the broker and storage?

use std::time::Duration;

use super::{callers::Tally, facts::Counts, world::World};

/// What has to come to rest, rests within this time.
const REST: Duration = Duration::from_secs(60);

/// What a stack should have in all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ledger {
    /// Jobs.
    pub jobs: u64,
    /// Tasks, all of them done.
    pub tasks: u64,
    /// Those of texts, with one vector each.
    pub vectors: u64,
    /// Dead letters that wait for a decision.
    pub letters: u64,
}

impl Ledger {
    /// Enters what a flood of texts has come to, `tasks` to each job.
    ///
    /// # Panics
    /// When a job was lost or has something twice.
    pub fn enter(&mut self, tally: &Tally, tasks: usize) {
        self.enter_recordings(tally, tasks);
        self.vectors += (tally.jobs * tasks) as u64;
    }

    /// Enters what recordings have come to, `tasks` to each job.
    ///
    /// # Panics
    /// As [`Ledger::enter`].
    pub fn enter_recordings(&mut self, tally: &Tally, tasks: usize) {
        assert!(tally.lost.is_empty(), "{} of {} jobs lost:\n{}", tally.lost.len(), tally.jobs, tally.lost.join("\n"));
        assert!(
            tally.wrong.is_empty(),
            "{} of {} jobs wrong:\n{}",
            tally.wrong.len(),
            tally.jobs,
            tally.wrong.join("\n")
        );
        self.jobs += tally.jobs as u64;
        self.tasks += (tally.jobs * tasks) as u64;
    }

    /// Waits until outbox and leases are empty, compares, and has `warren verify` add up the rest.
    ///
    /// # Panics
    /// When something is left over, missing or double.
    pub fn check(&self, world: &World) {
        let counts = world.at_rest(REST).unwrap_or_else(|last| panic!("outbox and leases are not empty: {last:?}"));
        let expected = Counts {
            jobs: self.jobs,
            succeeded: self.jobs,
            tasks: self.tasks,
            done: self.tasks,
            vectors: self.vectors,
            letters: self.letters,
            ..Counts::default()
        };
        assert_eq!(counts, expected, "the ledger does not balance");
        world.stack.balances();
    }

    /// Begins anew from what is there, after a row that failed and entered nothing: later rows are judged by what they
    /// do themselves.
    pub fn begin_anew(&mut self, world: &World) {
        let counts = match world.at_rest(REST) {
            Ok(counts) => counts,
            Err(last) => last.expect("the database answers"),
        };
        *self = Self { jobs: counts.jobs, tasks: counts.tasks, vectors: counts.vectors, letters: counts.letters };
    }
}
