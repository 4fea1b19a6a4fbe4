//! Time, chance and new ids as arguments, so that tests can choose them.
//!
//! Wall-clock time is for records and people; how long something took or may take is measured with
//! `tokio::time::Instant`, which tests pause.

mod backoff;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

pub use backoff::Reconnect;
use uuid::Uuid;

/// A moment, in milliseconds since the Unix epoch (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// This moment plus `duration`, saturating.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This moment less `duration`, saturating.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Time from `earlier` to this moment; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// The wall clock, a source of ids and of chance. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    /// The wall clock at a moment, and what has passed since by the clock that nobody sets.
    Steady(UnixMillis, Instant),
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's own clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that agrees with this one now, and that a step of the machine's clock does not move: for deadlines that
    /// somebody else measures by a clock of their own.
    #[must_use]
    pub fn steady(&self) -> Self {
        match &self.0 {
            Source::System => Self(Source::Steady(self.now(), Instant::now())),
            Source::Steady(..) | Source::Manual(_) => self.clone(),
        }
    }

    /// A clock for tests that moves only by [`Clock::advance`].
    pub fn manual(start: UnixMillis) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(start.0))))
    }

    /// Now.
    pub fn now(&self) -> UnixMillis {
        match &self.0 {
            Source::System => {
                #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
                let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixMillis(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
            }
            Source::Steady(start, since) => start.plus(since.elapsed()),
            Source::Manual(now) => UnixMillis(now.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock; does nothing to the machine's.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(now) = &self.0 {
            now.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// A new UUIDv7: sorts by time of creation.
    pub fn new_id(&self) -> Uuid {
        #[allow(clippy::disallowed_methods, reason = "the one place that makes ids")]
        Uuid::now_v7()
    }

    /// A number in [0, 1), for jitter.
    pub fn jitter(&self) -> f64 {
        rand::random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(UnixMillis(1_000));
        assert_eq!(clock.now(), UnixMillis(1_000));
        clock.advance(Duration::from_secs(2));
        assert_eq!(clock.now(), UnixMillis(3_000));
        assert_eq!(clock.now().since(UnixMillis(1_000)), Duration::from_secs(2));
    }

    #[test]
    fn a_steady_clock_goes_on_from_the_one_it_was_made_of() {
        let before = Clock::system().now();
        let clock = Clock::system().steady();
        let first = clock.now();
        assert!(first >= before && first.since(before) < Duration::from_secs(60));
        assert!(clock.steady().now() >= first);
        let manual = Clock::manual(UnixMillis(1_000));
        let steady = manual.steady();
        manual.advance(Duration::from_secs(2));
        assert_eq!(steady.now(), UnixMillis(3_000));
    }

    #[test]
    fn ids_sort_by_creation() {
        let clock = Clock::system();
        let ids: Vec<_> = (0..100).map(|_| clock.new_id()).collect();
        assert!(ids.is_sorted());
    }
}
