//! How long a coordinator may believe that it leads.

use std::time::{Duration, Instant};

/// The newest renewal of a term, from the leader's side. Past it the leader does nothing in the term's name: the row is
/// good for longer, so whoever leads next begins later.
///
/// What is written is safe without it, because every write checks the term. Renewals of leases are not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tenure {
    step_down: Duration,
    renewed: Instant,
}

impl Tenure {
    /// A term that was taken, or renewed, by a request sent at `asked`. `step_down` is shorter than the row's life.
    pub const fn new(step_down: Duration, asked: Instant) -> Self {
        Self { step_down, renewed: asked }
    }

    /// The term was renewed by a request sent at `asked`: the row may be older than the answer.
    pub fn renewed(&mut self, asked: Instant) {
        self.renewed = self.renewed.max(asked);
    }

    /// What is left of it.
    pub fn left(&self, now: Instant) -> Duration {
        self.step_down.saturating_sub(now.saturating_duration_since(self.renewed))
    }

    /// True while the coordinator leads for certain.
    pub fn holds(&self, now: Instant) -> bool {
        !self.left(now).is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenure_counts_from_when_its_newest_renewal_was_sent() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut tenure = Tenure::new(Duration::from_secs(3), start);
        assert!(tenure.holds(after(2_999)) && !tenure.holds(after(3_000)));
        tenure.renewed(after(1_000));
        tenure.renewed(after(500));
        assert_eq!(tenure.left(after(1_500)), Duration::from_millis(2_500), "a late answer shortens nothing");
        assert!(!tenure.holds(after(60_000)));
    }
}
