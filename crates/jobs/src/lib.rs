//! What a job and a task are, and how they may move. Pure: no clock, no database, no broker.

mod names;

pub use names::{JobClass, JobKind, JobState, TaskKind, TaskState, UnknownName};
