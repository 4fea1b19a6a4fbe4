//! Hints that a job changed, passed on to whoever waits for that job.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_broker::Broker;
use warren_messages::ids::JobId;

/// The jobs that somebody waits for. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints(Arc<Mutex<HashMap<Uuid, watch::Sender<bool>>>>);

/// One who waits for a job.
#[derive(Debug)]
pub(crate) struct Waiting {
    hints: Hints,
    job: Uuid,
    /// Whether the last change was its end.
    changed: watch::Receiver<bool>,
}

impl Hints {
    /// Passes hints on until `done`.
    pub(crate) async fn run(&self, broker: &Broker, done: &CancellationToken) {
        let mut notices = broker.subscribe_notices();
        loop {
            let notice = tokio::select! {
                notice = notices.next() => notice,
                () = done.cancelled() => None,
            };
            let Some(notice) = notice else { return };
            if let Ok(JobId(job)) = notice.job.parse() {
                self.changed(job, notice.ended);
            }
        }
    }

    /// Wakes whoever waits for `job`.
    pub(crate) fn changed(&self, job: Uuid, ended: bool) {
        if let Some(sender) = self.lock().get(&job) {
            sender.send_replace(ended);
        }
    }

    /// Waits for changes of `job` from now on.
    pub(crate) fn wait_for(&self, job: Uuid) -> Waiting {
        let changed = self.lock().entry(job).or_insert_with(|| watch::Sender::new(false)).subscribe();
        Waiting { hints: self.clone(), job, changed }
    }

    /// True while somebody waits for `job`.
    pub(crate) fn is_awaited(&self, job: Uuid) -> bool {
        self.lock().contains_key(&job)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, watch::Sender<bool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Returns at the next change, or after `patience`: hints may be lost.
    pub(crate) async fn change(&mut self, patience: Duration) {
        // The sender lives in the map as long as this receiver.
        let _ = tokio::time::timeout(patience, self.changed.changed()).await;
    }

    /// Returns when the job ends, or at `soonest`. Other changes are left for [`Waiting::change`].
    pub(crate) async fn end(&mut self, soonest: Instant) {
        let mut changed = self.changed.clone();
        let ended = async {
            while changed.changed().await.is_ok() {
                if *changed.borrow() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout_at(soonest, ended).await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut jobs = self.hints.lock();
        if jobs.get(&self.job).is_some_and(|sender| sender.receiver_count() <= 1) {
            jobs.remove(&self.job);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn only_the_job_that_changed_wakes_its_waiters() {
        let hints = Hints::default();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (mut first, mut second) = (hints.wait_for(one), hints.wait_for(two));
        hints.changed(one, false);
        let patience = Duration::from_secs(9);
        assert!(first.change(patience).now_or_never().is_some());
        assert!(second.change(patience).now_or_never().is_none());
    }

    #[tokio::test]
    async fn the_end_comes_sooner_than_other_changes() {
        let hints = Hints::default();
        let job = Uuid::from_u128(1);
        let mut waiting = hints.wait_for(job);
        let soonest = Instant::now() + Duration::from_secs(9);
        hints.changed(job, false);
        assert!(waiting.end(soonest).now_or_never().is_none());
        hints.changed(job, true);
        assert!(waiting.end(soonest).now_or_never().is_some());
        assert!(waiting.change(Duration::from_secs(9)).now_or_never().is_some(), "it is still a change");
        assert!(waiting.end(soonest).now_or_never().is_none(), "and told once");
    }

    #[test]
    fn nothing_is_left_when_the_last_waiter_is_gone() {
        let hints = Hints::default();
        let (first, second) = (hints.wait_for(Uuid::nil()), hints.wait_for(Uuid::nil()));
        drop(first);
        assert_eq!(hints.lock().len(), 1);
        assert!(hints.is_awaited(Uuid::nil()));
        drop(second);
        assert!(!hints.is_awaited(Uuid::nil()));
        assert!(hints.lock().is_empty());
    }
}
