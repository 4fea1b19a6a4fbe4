//! Where jobs and tasks may go. Delivery is at least once, so late and repeated events are normal and have an answer of
//! their own: [`Refused::Stale`].

pub mod job;
mod settle;
mod standing;
pub mod task;

pub use job::JobEvent;
pub use settle::{JobOutcome, TaskCounts, settle};
pub use standing::Standing;
pub use task::{TaskEvent, accepts};

/// Why an event moved nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Late or repeated: settle the message and move on.
    #[error("late or repeated: nothing to do")]
    Stale,
    /// Cannot happen unless Warren has a defect: log it and keep the message as a dead letter.
    #[error("not a legal move: a defect in Warren")]
    Illegal,
}
