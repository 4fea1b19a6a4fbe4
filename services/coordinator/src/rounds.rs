//! Duties that come round: every so often, for as long as the term lasts.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use warren_store::StoreError;

/// The rounds of one duty. What one took too long is not caught up on.
#[derive(Debug)]
pub(crate) struct Rounds<'a> {
    every: Interval,
    over: &'a CancellationToken,
}

impl<'a> Rounds<'a> {
    /// The first at once, the others a `period` apart, until `over`.
    pub(crate) fn every(period: Duration, over: &'a CancellationToken) -> Self {
        Self::starting(Instant::now(), period, over)
    }

    /// The same; the first after a `period`, too.
    pub(crate) fn after(period: Duration, over: &'a CancellationToken) -> Self {
        Self::starting(Instant::now() + period, period, over)
    }

    fn starting(at: Instant, period: Duration, over: &'a CancellationToken) -> Self {
        let mut every = interval_at(at, period);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { every, over }
    }

    /// Waits for the next round. False when the term is over.
    pub(crate) async fn next(&mut self) -> bool {
        self.over.run_until_cancelled(self.every.tick()).await.is_some()
    }
}

/// What failed in a round is tried again in the next one; `what` names it in the log.
///
/// # Errors
/// When the term is lost: there is no next round.
pub(crate) fn or_next_round(what: &'static str, outcome: Result<(), StoreError>) -> Result<(), StoreError> {
    match outcome {
        Err(StoreError::TermLost) => Err(StoreError::TermLost),
        Err(error) => {
            tracing::warn!(%error, what, "failed; again in the next round");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
