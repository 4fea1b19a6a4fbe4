//! A task's moves.

use super::Refused;
use crate::TaskState;

/// What can happen to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskEvent {
    /// The scheduler gave it to the broker.
    Released,
    /// Its result came.
    Done,
    /// A worker found the caller's input at fault.
    InputFault,
    /// Its message became a dead letter.
    Dead,
    /// Its job ended without it.
    Cancelled,
    /// Its dead letter is being replayed: it is out again, under the next dispatch number.
    Redriven,
    /// Its message was lost; it goes out again under the next dispatch number.
    Redispatched,
}

impl TaskEvent {
    /// All events.
    pub const ALL: &[Self] = &[
        Self::Released,
        Self::Done,
        Self::InputFault,
        Self::Dead,
        Self::Cancelled,
        Self::Redriven,
        Self::Redispatched,
    ];
}

/// The state after `event`; the statements of the store move rows by the same rule, which its contract tests walk pair
/// by pair. Whether a report speaks of the current dispatch is asked first, of [`accepts`].
///
/// # Errors
/// [`Refused::Stale`] when the event is late or repeated, [`Refused::Illegal`] when only a defect can cause it.
pub const fn step(state: TaskState, event: &TaskEvent) -> Result<TaskState, Refused> {
    use Refused::{Illegal, Stale};
    use TaskEvent as E;
    use TaskState::{Cancelled, Dead, Done, Failed, Released, Unreleased};
    match (state, event) {
        (Unreleased, E::Released) => Ok(Released),
        (Unreleased | Released, E::Cancelled) => Ok(Cancelled),
        // Nothing of it is out: whatever arrives is not about it.
        (Unreleased, E::Done | E::InputFault | E::Dead | E::Redriven) => Err(Stale),
        (Unreleased, E::Redispatched) => Err(Illegal),
        (Released, E::Done) => Ok(Done),
        (Released, E::InputFault) => Ok(Failed),
        (Released, E::Dead) => Ok(Dead),
        (Released, E::Redispatched) => Ok(Released),
        (Released, E::Released | E::Redriven) => Err(Stale),
        (Dead, E::Redriven) => Ok(Released),
        (Done | Failed | Dead, E::Released) => Err(Illegal),
        (Dead, E::Done | E::InputFault | E::Dead | E::Cancelled | E::Redispatched) => Err(Stale),
        (Done | Failed, E::Done | E::InputFault | E::Dead | E::Cancelled | E::Redriven | E::Redispatched) => Err(Stale),
        // A release decided in memory may meet a job that was cancelled meanwhile.
        (Cancelled, E::Released | E::Done | E::InputFault | E::Dead | E::Cancelled | E::Redriven | E::Redispatched) => {
            Err(Stale)
        }
    }
}

/// True when a report counts: the task is released and the report carries its current dispatch number. The first
/// accepted report moves the task on, so every later one is refused.
pub const fn accepts(state: TaskState, current_dispatch: u32, reported_dispatch: u32) -> bool {
    matches!(state, TaskState::Released) && current_dispatch == reported_dispatch
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STALE: Result<TaskState, Refused> = Err(Refused::Stale);
    const ILLEGAL: Result<TaskState, Refused> = Err(Refused::Illegal);

    #[test]
    fn every_pair_is_decided() {
        use TaskState::{Cancelled, Dead, Done, Failed, Released, Unreleased};
        // Columns: Released, Done, InputFault, Dead, Cancelled, Redriven, Redispatched.
        let table = [
            (Unreleased, [Ok(Released), STALE, STALE, STALE, Ok(Cancelled), STALE, ILLEGAL]),
            (Released, [STALE, Ok(Done), Ok(Failed), Ok(Dead), Ok(Cancelled), STALE, Ok(Released)]),
            (Done, [ILLEGAL, STALE, STALE, STALE, STALE, STALE, STALE]),
            (Failed, [ILLEGAL, STALE, STALE, STALE, STALE, STALE, STALE]),
            (Dead, [ILLEGAL, STALE, STALE, STALE, STALE, Ok(Released), STALE]),
            (Cancelled, [STALE, STALE, STALE, STALE, STALE, STALE, STALE]),
        ];
        assert_eq!(table.map(|(state, _)| state), TaskState::ALL);
        for (state, answers) in table {
            for (event, answer) in TaskEvent::ALL.iter().zip(answers) {
                assert_eq!(step(state, event), answer, "{state} + {event:?}");
            }
        }
    }

    #[test]
    fn a_report_counts_only_for_the_released_dispatch() {
        assert!(accepts(TaskState::Released, 3, 3));
        assert!(!accepts(TaskState::Released, 3, 2), "an earlier dispatch is stale");
        for state in TaskState::ALL.iter().filter(|state| **state != TaskState::Released) {
            assert!(!accepts(*state, 3, 3), "{state}");
        }
    }

    proptest! {
        #[test]
        fn a_final_state_never_moves(history in prop::collection::vec(prop::sample::select(TaskEvent::ALL), 0..64)) {
            let mut state = TaskState::Unreleased;
            for event in history {
                let next = step(state, &event).unwrap_or(state);
                if matches!(state, TaskState::Done | TaskState::Failed | TaskState::Cancelled) {
                    prop_assert_eq!(next, state);
                }
                if state == TaskState::Dead && next != state {
                    prop_assert_eq!((event, next), (TaskEvent::Redriven, TaskState::Released));
                }
                state = next;
            }
        }

        #[test]
        fn at_most_one_report_of_a_dispatch_counts(
            reports in prop::collection::vec((1_u32..4, prop::sample::select(TaskEvent::ALL)), 0..64),
        ) {
            let (mut state, mut dispatch) = (TaskState::Unreleased, 0);
            let mut accepted = std::collections::BTreeSet::new();
            for (reported, event) in reports {
                let is_report = matches!(event, TaskEvent::Done | TaskEvent::InputFault | TaskEvent::Dead);
                if is_report && !accepts(state, dispatch, reported) {
                    continue;
                }
                if let Ok(next) = step(state, &event) {
                    if matches!(event, TaskEvent::Released | TaskEvent::Redriven | TaskEvent::Redispatched) {
                        dispatch += 1;
                    }
                    prop_assert!(!is_report || accepted.insert(dispatch), "dispatch {} counted twice", dispatch);
                    state = next;
                }
            }
        }
    }
}
