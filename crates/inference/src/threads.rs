//! The processor threads that one model instance may use.

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::InferenceError;

/// A model's own threads, or those shared by the whole process.
pub(crate) struct Threads(Option<ThreadPool>);

impl Threads {
    /// `None` shares the process's threads, one per core.
    pub(crate) fn new(count: Option<usize>) -> Result<Self, InferenceError> {
        let Some(count) = count else { return Ok(Self(None)) };
        let pool = ThreadPoolBuilder::new()
            .num_threads(count.max(1))
            .thread_name(|index| format!("inference-{index}"))
            .build()
            .map_err(|error| InferenceError::Internal(format!("cannot start {count} threads: {error}")))?;
        Ok(Self(Some(pool)))
    }

    /// Runs `work`, with all its parallel parts on these threads.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.0 {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}
