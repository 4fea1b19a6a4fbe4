//! What a job and a task are, and how they may move. Pure: no clock, no database, no broker.
//!
//! Every rule here takes time and chance as arguments and returns what to do; the coordinator and the workers do it.

pub mod fingerprint;
pub mod fuse;
pub mod lease;
mod names;
pub mod plan;
pub mod release;
pub mod retry;
pub mod state;
pub mod transcript;

pub use names::{JobClass, JobKind, JobState, TaskKind, TaskState, UnknownName};
