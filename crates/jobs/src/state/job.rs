//! A job's moves.

use super::Refused;
use crate::JobState;

/// What can happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JobEvent {
    /// A task was released; the first one starts the job.
    Released,
    /// Every task of the final plan is done.
    AllDone,
    /// The last open task ended and not all are done, or the job could not be planned.
    Failed,
    /// The reaper found the job past its limit.
    TimedOut,
    /// Its caller stopped it.
    Cancelled,
    /// A dead letter of one of its tasks is being replayed.
    Redriven,
}

impl JobEvent {
    /// All events.
    pub const ALL: &[Self] =
        &[Self::Released, Self::AllDone, Self::Failed, Self::TimedOut, Self::Cancelled, Self::Redriven];
}

/// The state after `event`.
///
/// # Errors
/// [`Refused::Stale`] when the event is late or repeated, [`Refused::Illegal`] when only a defect can cause it.
pub const fn step(state: JobState, event: &JobEvent) -> Result<JobState, Refused> {
    use JobEvent as E;
    use JobState::{Cancelled, Failed, Queued, Running, Succeeded};
    use Refused::{Illegal, Stale};
    match (state, event) {
        (Queued | Running, E::Released) => Ok(Running),
        // An empty plan is done without a release.
        (Queued | Running, E::AllDone) => Ok(Succeeded),
        (Queued | Running, E::Failed | E::TimedOut) => Ok(Failed),
        (Queued | Running, E::Cancelled) => Ok(Cancelled),
        (Queued, E::Redriven) => Err(Illegal),
        // Other tasks may still be open when the letter of one is replayed.
        (Running | Failed, E::Redriven) => Ok(Running),
        (Succeeded, E::Failed) => Err(Illegal),
        (Succeeded, E::Released | E::AllDone | E::TimedOut | E::Cancelled | E::Redriven) => Err(Stale),
        (Failed, E::Released | E::AllDone | E::Failed | E::TimedOut | E::Cancelled) => Err(Stale),
        (Cancelled, E::Released | E::AllDone | E::Failed | E::TimedOut | E::Cancelled | E::Redriven) => Err(Stale),
    }
}

/// True when some event leads from the one state to the other. The store makes no other move.
pub fn leads_to(from: JobState, to: JobState) -> bool {
    JobEvent::ALL.iter().any(|event| step(from, event) == Ok(to))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STALE: Result<JobState, Refused> = Err(Refused::Stale);
    const ILLEGAL: Result<JobState, Refused> = Err(Refused::Illegal);

    #[test]
    fn every_pair_is_decided() {
        use JobState::{Cancelled, Failed, Queued, Running, Succeeded};
        // Columns: Released, AllDone, Failed, TimedOut, Cancelled, Redriven.
        let table = [
            (Queued, [Ok(Running), Ok(Succeeded), Ok(Failed), Ok(Failed), Ok(Cancelled), ILLEGAL]),
            (Running, [Ok(Running), Ok(Succeeded), Ok(Failed), Ok(Failed), Ok(Cancelled), Ok(Running)]),
            (Succeeded, [STALE, STALE, ILLEGAL, STALE, STALE, STALE]),
            (Failed, [STALE, STALE, STALE, STALE, STALE, Ok(Running)]),
            (Cancelled, [STALE, STALE, STALE, STALE, STALE, STALE]),
        ];
        assert_eq!(table.map(|(state, _)| state), JobState::ALL);
        for (state, answers) in table {
            for (event, answer) in JobEvent::ALL.iter().zip(answers) {
                assert_eq!(step(state, event), answer, "{state} + {event:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_final_state_never_moves(history in prop::collection::vec(prop::sample::select(JobEvent::ALL), 0..64)) {
            let mut state = JobState::Queued;
            for event in history {
                let next = step(state, &event).unwrap_or(state);
                if matches!(state, JobState::Succeeded | JobState::Cancelled) {
                    prop_assert_eq!(next, state);
                }
                if state == JobState::Failed && next != state {
                    prop_assert_eq!((event, next), (JobEvent::Redriven, JobState::Running));
                }
                prop_assert!(next != JobState::Queued || state == JobState::Queued, "nothing goes back to queued");
                state = next;
            }
        }
    }
}
