//! What becomes of a message after its work: acknowledged, delayed on the retry ladder, or dead.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use warren_fault::{Code, Fault};

/// The delays of the retry ladder, in seconds: doubling from 5, capped at 600. There is one delay queue for each.
pub const RUNGS: [u32; 8] = [5, 10, 20, 40, 80, 160, 320, 600];

/// How patient we are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// Runs of a task that may fail by themselves before it is dead. Default 8.
    pub max_attempts: u32,
    /// Workers that may be lost while they run a task before it is dead as `WorkerLost`. Default 8.
    pub max_losses: u32,
    /// Seconds until we look again when a part of the platform is away and named no time; covered by the next rung of
    /// the ladder. Default 20.
    pub later_seconds: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: 8, max_losses: 8, later_seconds: 20 }
    }
}

impl RetryPolicy {
    /// True when a task that was reported running has lost so many workers that it must be the cause.
    pub const fn lost_too_often(&self, losses: u32) -> bool {
        losses >= self.max_losses
    }
}

/// What a message has been through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Attempts, this one included: 1 on the first run.
    pub attempts: u32,
    /// Stays on the ladder that spent no attempt, since the last one that did.
    pub waits: u32,
    /// The job's deadline has passed.
    pub past_deadline: bool,
}

/// What to do with the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Its effect is durable.
    Ack,
    /// Publish it to the delay queue of `seconds`, then acknowledge.
    Delay {
        /// One of [`RUNGS`].
        seconds: u32,
        /// False for trouble of the platform, which is not the message's fault.
        spends_attempt: bool,
    },
    /// Publish it to the dead letters with its last real cause, then acknowledge.
    DeadLetter,
}

/// Turns the outcome of one run into a settlement.
///
/// Whoever did not get a device waits longer each time, so that many who want it do not crowd those whose turn it is; a
/// part of the platform that is away is looked for at an even pace, so that its return is soon noticed.
///
/// `jitter`, in `[0, 1)`, spreads retries over this rung and the one below. A worker reports input faults
/// ([`Fault::is_input`]) as the task's result and settles with `Ok`; one that arrives here is kept as evidence.
pub fn settle(result: &Result<(), Fault>, tried: &Tried, policy: &RetryPolicy, jitter: f64) -> Settlement {
    match result {
        Ok(()) => Settlement::Ack,
        Err(Fault::Permanent(_)) => Settlement::DeadLetter,
        Err(Fault::Retryable(_) | Fault::RetryLater { .. }) if tried.past_deadline => Settlement::DeadLetter,
        Err(Fault::Retryable(_)) if tried.attempts >= policy.max_attempts => Settlement::DeadLetter,
        Err(Fault::Retryable(_)) => {
            let rung = tried.attempts.saturating_sub(1) as usize;
            Settlement::Delay { seconds: jittered(rung, jitter), spends_attempt: true }
        }
        Err(Fault::RetryLater { wait: Some(wait), .. }) => {
            Settlement::Delay { seconds: RUNGS[covering(*wait)], spends_attempt: false }
        }
        Err(Fault::RetryLater { cause, wait: None }) => {
            let rung = if cause.code == Code::LeaseNotGranted {
                tried.waits as usize
            } else {
                covering(Duration::from_secs(policy.later_seconds.into()))
            };
            Settlement::Delay { seconds: jittered(rung, jitter), spends_attempt: false }
        }
    }
}

/// This rung or the one below.
fn jittered(rung: usize, jitter: f64) -> u32 {
    let rung = rung.min(RUNGS.len() - 1);
    RUNGS[if jitter < 0.5 { rung.saturating_sub(1) } else { rung }]
}

/// The first rung that is not shorter than `wait`, or the last.
fn covering(wait: Duration) -> usize {
    RUNGS.iter().position(|rung| Duration::from_secs((*rung).into()) >= wait).unwrap_or(RUNGS.len() - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use warren_fault::Cause;

    use super::*;

    const FRESH: Tried = Tried { attempts: 1, waits: 0, past_deadline: false };

    fn settled(fault: Fault, tried: Tried, jitter: f64) -> Settlement {
        settle(&Err(fault), &tried, &RetryPolicy::default(), jitter)
    }

    fn later(wait: Option<Duration>) -> Fault {
        Fault::RetryLater { cause: Cause::new(Code::LeaseNotGranted, "cpu is busy"), wait }
    }

    fn away() -> Fault {
        Fault::retry_later(Code::BrokerUnavailable, "connection refused")
    }

    fn broken() -> Fault {
        Fault::retryable(Code::Internal, "pipe closed")
    }

    #[test]
    fn success_is_acknowledged_and_permanent_faults_die_at_once() {
        assert_eq!(settle(&Ok(()), &FRESH, &RetryPolicy::default(), 0.0), Settlement::Ack);
        let late = Tried { attempts: 99, past_deadline: true, ..FRESH };
        assert_eq!(settle(&Ok(()), &late, &RetryPolicy::default(), 0.0), Settlement::Ack, "work done is done");
        assert_eq!(settled(Fault::permanent(Code::Malformed, "not JSON"), FRESH, 0.0), Settlement::DeadLetter);
    }

    #[test]
    fn eight_attempts_climb_the_ladder_and_then_it_is_dead() {
        let climb = |jitter| -> Vec<_> {
            (1..=8).map(|attempts| settled(broken(), Tried { attempts, ..FRESH }, jitter)).collect()
        };
        let delays = |seconds: [u32; 7]| -> Vec<_> {
            let delay = |seconds| Settlement::Delay { seconds, spends_attempt: true };
            seconds.into_iter().map(delay).chain([Settlement::DeadLetter]).collect()
        };
        assert_eq!(climb(0.9), delays([5, 10, 20, 40, 80, 160, 320]));
        assert_eq!(climb(0.1), delays([5, 5, 10, 20, 40, 80, 160]));
    }

    #[test]
    fn a_named_wait_is_covered_by_its_rung() {
        for (wait, seconds) in [(0, 5), (5, 5), (6, 10), (100, 160), (600, 600), (86_400, 600)] {
            let got = settled(later(Some(Duration::from_secs(wait))), FRESH, 0.0);
            assert_eq!(got, Settlement::Delay { seconds, spends_attempt: false }, "wait of {wait} s");
        }
    }

    #[test]
    fn who_gets_no_device_waits_longer_each_time_and_what_is_away_is_looked_for_evenly() {
        let waits = |fault: fn() -> Fault, jitter| -> Vec<_> {
            let delay = |waits| match settled(fault(), Tried { waits, ..FRESH }, jitter) {
                Settlement::Delay { seconds, spends_attempt: false } => seconds,
                other => panic!("{other:?}"),
            };
            (0..10).map(delay).collect()
        };
        assert_eq!(waits(|| later(None), 0.9), [5, 10, 20, 40, 80, 160, 320, 600, 600, 600]);
        assert_eq!(waits(|| later(None), 0.1), [5, 5, 10, 20, 40, 80, 160, 320, 320, 320]);
        assert_eq!(waits(away, 0.9), [20; 10]);
        assert_eq!(waits(away, 0.1), [10; 10]);
    }

    #[test]
    fn waiting_for_the_platform_is_bounded_by_the_deadline_alone() {
        let patient = Tried { attempts: 1000, waits: 1000, ..FRESH };
        assert!(matches!(settled(later(None), patient, 0.5), Settlement::Delay { spends_attempt: false, .. }));
        let late = Tried { past_deadline: true, ..FRESH };
        assert_eq!(settled(later(None), late, 0.5), Settlement::DeadLetter);
        assert_eq!(settled(broken(), late, 0.5), Settlement::DeadLetter);
    }

    #[test]
    fn the_eighth_lost_worker_is_the_last() {
        let policy = RetryPolicy::default();
        assert!(!policy.lost_too_often(7));
        assert!(policy.lost_too_often(8));
    }

    proptest! {
        #[test]
        fn every_delay_is_a_rung(attempts: u32, waits: u32, wait in prop::option::of(0_u64..100_000), jitter in 0.0..1.0, max: u32) {
            let policy = RetryPolicy { max_attempts: max, later_seconds: attempts, ..RetryPolicy::default() };
            for fault in [broken(), away(), later(wait.map(Duration::from_secs))] {
                let tried = Tried { attempts, waits, ..FRESH };
                if let Settlement::Delay { seconds, .. } = settle(&Err(fault), &tried, &policy, jitter) {
                    prop_assert!(RUNGS.contains(&seconds));
                }
            }
        }
    }
}
