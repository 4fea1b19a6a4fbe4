//! What a report says, and which reports have not been answered.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use warren_messages::wire;

use crate::leases::Shared;

impl Shared {
    /// The whole truth about this worker; reports never build on earlier ones.
    pub(crate) fn report(&self, number: u64) -> wire::WorkerReport {
        let renewals = self
            .held()
            .to_renew()
            .map(|(lease, fence)| wire::LeaseRenewal { lease: lease.to_owned(), fence })
            .collect();
        wire::WorkerReport {
            worker: self.worker.clone(),
            boot: self.boot.clone(),
            service: self.identity.service.to_owned(),
            takes: self
                .identity
                .kinds
                .iter()
                .map(|takes| wire::KindSlots {
                    kind: takes.kind.to_string(),
                    slots: takes.slots.into(),
                    holds: (*takes.holds.borrow()).into(),
                })
                .collect(),
            device: self.device.clone(),
            running: self.tasks.report(),
            renewals,
            version: self.identity.version.to_owned(),
            draining: self.stopping.is_cancelled(),
            report: number,
            trouble: self.trouble(),
            leaving: self.leaving(),
        }
    }
}

/// Reports sent and not answered, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Unanswered(VecDeque<(u64, Instant)>);

impl Unanswered {
    pub(crate) fn sent(&mut self, report: u64, at: Instant) {
        self.0.push_back((report, at));
    }

    /// When the report was sent. Earlier ones count as answered, too: each report says everything.
    pub(crate) fn answered(&mut self, report: u64) -> Option<Instant> {
        while let Some(&(number, sent)) = self.0.front() {
            if number > report {
                return None;
            }
            self.0.pop_front();
            if number == report {
                return Some(sent);
            }
        }
        None
    }

    /// True when the oldest waits for longer than `limit`.
    pub(crate) fn too_long(&self, now: Instant, limit: Duration) -> bool {
        self.0.front().is_some_and(|(_, sent)| now.saturating_duration_since(*sent) >= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_covers_the_reports_before_it() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut unanswered = Unanswered::default();
        for number in 1..=3 {
            unanswered.sent(number, start + second * u32::try_from(number).expect("small"));
        }
        assert!(unanswered.too_long(start + 4 * second, 3 * second));
        assert_eq!(unanswered.answered(2), Some(start + 2 * second));
        assert_eq!(unanswered.answered(2), None, "an answer counts once");
        assert!(!unanswered.too_long(start + 4 * second, 3 * second));
        assert_eq!(unanswered.answered(9), None, "never sent");
    }
}
