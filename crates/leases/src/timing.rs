//! Every interval of the protocol, in one place.

use std::time::Duration;

/// Intervals of the session. The defaults fit the coordinator's lease of 15 s and its 5 s of grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Past this age of the last successful renewal the process aborts.
    pub self_fence: Duration,
    /// Between reports while nothing changes.
    pub report: Duration,
    /// Between reports while leases are held: one lost answer must not matter.
    pub renew: Duration,
    /// Least time between two reports that only tell of changes.
    pub change: Duration,
    /// How long a coordinator may take to answer before another is tried: to the first report.
    pub first_answer: Duration,
    /// The same, to later reports.
    pub answer: Duration,
    /// Longest wait between two rounds over all coordinators while a lease is held.
    pub search: Duration,
    /// How long a slot without work keeps its lease.
    pub idle: Duration,
    /// One poll of Acquire.
    pub poll: Duration,
    /// How long a task waits for a lease in all before it goes back to the retry ladder.
    pub wait: Duration,
    /// How often the watchdog looks.
    pub watch: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            self_fence: Duration::from_secs(12),
            report: Duration::from_secs(2),
            renew: Duration::from_secs(1),
            change: Duration::from_millis(200),
            first_answer: Duration::from_secs(1),
            answer: Duration::from_secs(3),
            search: Duration::from_millis(500),
            idle: Duration::from_millis(500),
            poll: Duration::from_secs(20),
            wait: Duration::from_secs(120),
            watch: Duration::from_millis(100),
        }
    }
}
