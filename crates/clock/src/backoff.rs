//! Delays between attempts to reach a part of the platform again.
//!
//! The `backoff` crate is unmaintained (RUSTSEC-2025-0012) and chosen by our user; this module is the only one that
//! knows it, so replacing it is a change of this file.

use std::time::Duration;

use ::backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff};

/// Jittered exponential delays for reconnecting, for ever: from 0.2 s, at most 2 s apart during the first minute, so
/// that a restarted part is found quickly, and at most 10 s apart after it.
#[derive(Debug)]
pub struct Reconnect {
    delays: ExponentialBackoff,
    waited: Duration,
}

impl Reconnect {
    /// Starts at the shortest delay.
    pub fn new() -> Self {
        let delays = ExponentialBackoffBuilder::new()
            .with_initial_interval(Duration::from_millis(200))
            .with_multiplier(1.6)
            .with_randomization_factor(0.3)
            .with_max_interval(Duration::from_secs(10))
            .with_max_elapsed_time(None)
            .build();
        Self { delays, waited: Duration::ZERO }
    }

    /// How long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let cap = if self.waited < Duration::from_secs(60) { Duration::from_secs(2) } else { Duration::from_secs(10) };
        let delay = self.delays.next_backoff().unwrap_or(cap).min(cap);
        self.waited += delay;
        delay
    }

    /// Call after a success: the next trouble starts with the shortest delay again.
    pub fn reset(&mut self) {
        self.delays.reset();
        self.waited = Duration::ZERO;
    }
}

impl Default for Reconnect {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_stay_under_two_seconds_in_the_first_minute() {
        let mut reconnect = Reconnect::new();
        let mut waited = Duration::ZERO;
        while waited < Duration::from_secs(58) {
            let delay = reconnect.next_delay();
            assert!(delay <= Duration::from_secs(2) && delay >= Duration::from_millis(100), "{delay:?}");
            waited += delay;
        }
        for _ in 0..10 {
            assert!(reconnect.next_delay() <= Duration::from_secs(10));
        }
    }

    #[test]
    fn a_success_starts_over() {
        let mut reconnect = Reconnect::new();
        for _ in 0..20 {
            reconnect.next_delay();
        }
        reconnect.reset();
        assert!(reconnect.next_delay() < Duration::from_millis(400));
    }
}
