//! Which job's next task is released: fairness between callers and jobs.
//!
//! Tasks wait as rows; the broker holds only a window of them. One [`Scheduler`] for each task kind counts what waits
//! and what is out, and picks the next job by weighted deficit round robin, first between callers, then between the
//! jobs of a caller. A decision costs O(log jobs), however many tasks wait.
//!
//! - A task counts as between half a chunk and one chunk of device time. So between two releases of a job that has
//!   work and is below its cap, every other job of the same caller, and every other caller, is
//!   released at most twice.
//! - Classes are served in order: interactive, default, batch. A class that was passed over for a set time gets its
//!   next job promoted by one class until that job's next release, so nothing waits forever.
//! - A job holds at most its cap of released tasks; the cap grows with the window when few jobs have work. So the
//!   window never has room while work waits.
//! - A task that was put off to a later try takes no room in the window, and its job no share of it: whoever can run,
//!   runs. It still counts for its job's cap, which bounds how many tasks of a job that cannot run now are out.
//!
//! Source: Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round Robin", SIGCOMM 1995.

mod lane;
mod scheduler;
#[cfg(test)]
mod tests;

pub use scheduler::Scheduler;

use crate::JobClass;

/// Device seconds that a task takes, by estimate, to count as short.
pub const SHORT_SECONDS: f64 = 0.01;

/// A job as the scheduler knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobKey<K> {
    /// Unique among all jobs.
    pub id: K,
    /// Whose job it is; callers share evenly, however many jobs each has.
    pub caller: String,
    /// Who waits for it.
    pub class: JobClass,
}

/// How work is shared out.
#[derive(Clone, Debug, PartialEq)]
pub struct Sharing {
    /// Most tasks of one job that are out while many other jobs wait. Default 2.
    pub job_cap: u32,
    /// Device seconds of one chunk: the share of a turn. Default 15.
    pub chunk_seconds: f64,
    /// Milliseconds that a class may be passed over before its next job is promoted. Default 60 000.
    pub promote_after_ms: u64,
}

impl Default for Sharing {
    fn default() -> Self {
        Self { job_cap: 2, chunk_seconds: 15.0, promote_after_ms: 60_000 }
    }
}
