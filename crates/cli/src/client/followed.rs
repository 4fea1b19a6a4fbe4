//! The jobs that a command waits for. They go on without it, so that its end should name them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use warren_messages::wire::Job;

use crate::client::watch::has_ended;

/// Ids of jobs that have not ended, as far as this process knows. Cheap to clone: all clones are the same set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Followed(Arc<Mutex<BTreeSet<String>>>);

impl Followed {
    /// Takes in what the server said of a job.
    pub(crate) fn note(&self, job: &Job) {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if has_ended(job.state()) {
            jobs.remove(&job.id);
        } else {
            jobs.insert(job.id.clone());
        }
    }

    /// Those that have not ended, oldest first: ids are in the order of time.
    pub(crate) fn jobs(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
