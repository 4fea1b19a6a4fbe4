//! When a job is over.

use crate::TaskState;

/// How many tasks of one job are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// Rows only.
    pub unreleased: u64,
    /// Given to the broker.
    pub released: u64,
    /// Result recorded.
    pub done: u64,
    /// The caller's input was at fault.
    pub failed: u64,
    /// Dead letters.
    pub dead: u64,
    /// Ended with their job.
    pub cancelled: u64,
}

impl TaskCounts {
    /// Counts `tasks` more in `state`.
    pub const fn add(&mut self, state: TaskState, tasks: u64) {
        let count = match state {
            TaskState::Unreleased => &mut self.unreleased,
            TaskState::Released => &mut self.released,
            TaskState::Done => &mut self.done,
            TaskState::Failed => &mut self.failed,
            TaskState::Dead => &mut self.dead,
            TaskState::Cancelled => &mut self.cancelled,
        };
        *count += tasks;
    }

    /// Tasks in which work may still happen.
    pub const fn open(&self) -> u64 {
        self.unreleased + self.released
    }

    /// Tasks that ended without a result.
    pub const fn ended_badly(&self) -> u64 {
        self.failed + self.dead + self.cancelled
    }

    /// All tasks.
    pub const fn total(&self) -> u64 {
        self.open() + self.done + self.ended_badly()
    }
}

impl FromIterator<(TaskState, u64)> for TaskCounts {
    fn from_iter<I: IntoIterator<Item = (TaskState, u64)>>(counts: I) -> Self {
        let mut sum = Self::default();
        for (state, tasks) in counts {
            sum.add(state, tasks);
        }
        sum
    }
}

/// How a job ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// Every task is done.
    Succeeded,
    /// Some task has no result; what the others produced is kept.
    Failed,
}

/// Decides whether a job is over: the moment its last open task ends.
///
/// `planned_final`: no further tasks will be added. A plan that lost a task before it was final (say, the recording
/// could not be decoded) never becomes final, so it fails as soon as nothing is open.
pub const fn settle(counts: &TaskCounts, planned_final: bool) -> Option<JobOutcome> {
    if counts.open() > 0 {
        None
    } else if counts.ended_badly() > 0 {
        Some(JobOutcome::Failed)
    } else if planned_final {
        Some(JobOutcome::Succeeded)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_job_settles_with_its_last_open_task() {
        let mut counts = TaskCounts { released: 1, done: 2, ..TaskCounts::default() };
        assert_eq!(settle(&counts, true), None);
        counts.released = 0;
        counts.done = 3;
        assert_eq!(settle(&counts, true), Some(JobOutcome::Succeeded));
        assert_eq!(settle(&counts, false), None, "more tasks are to come");
    }

    #[test]
    fn one_task_without_result_fails_the_job_but_only_at_the_end() {
        let mut counts = TaskCounts { unreleased: 1, dead: 1, done: 5, ..TaskCounts::default() };
        assert_eq!(settle(&counts, true), None, "the other tasks still run");
        counts.unreleased = 0;
        assert_eq!(settle(&counts, true), Some(JobOutcome::Failed));
    }

    #[test]
    fn a_recording_that_cannot_be_prepared_fails_although_its_plan_never_became_final() {
        assert_eq!(settle(&TaskCounts { failed: 1, ..TaskCounts::default() }, false), Some(JobOutcome::Failed));
    }

    proptest! {
        #[test]
        fn success_means_all_done(states in prop::collection::vec(prop::sample::select(TaskState::ALL), 0..12)) {
            let counts: TaskCounts = states.iter().map(|state| (*state, 1)).collect();
            prop_assert_eq!(counts.total(), states.len() as u64);
            let all_done = states.iter().all(|state| *state == TaskState::Done);
            prop_assert_eq!(settle(&counts, true) == Some(JobOutcome::Succeeded), all_done);
            prop_assert_eq!(settle(&counts, true).is_none(), states.iter().any(|state| state.is_open()));
        }
    }
}
