//! Where a task stands, for whoever decides about a dead letter of it.

use crate::{JobState, TaskState};

/// What the rows say of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its state.
    pub task: TaskState,
    /// Its current dispatch.
    pub dispatch: u32,
    /// The state of its job.
    pub job: JobState,
}
