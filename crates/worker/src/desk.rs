//! From delivery to report: tasks are taken in hand here, and what became of them leaves from here.

use std::{sync::PoisonError, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument as _;
use warren_broker::{Broker, Delay, Delivery};
use warren_clock::{Clock, Reconnect, UnixMillis};
use warren_fault::{Cause, Code, Fault};
use warren_jobs::{TaskKind, retry::RetryPolicy};
use warren_leases::{Dropped, Leases};
use warren_messages::{
    envelope::Envelope,
    from_millis,
    ids::{JobId, TaskId},
    routes, to_millis,
    wire::{self, task_report::Report},
};
use warren_telemetry::metrics;

use crate::{Hand, Stopped, Watermark};

/// How long a finished result waits for the broker to come back before the work is given up and done again.
const PUBLISH_FOR: Duration = Duration::from_secs(60);

/// How long a task that failed waits for the coordinator's word on whether it is wanted.
const ANSWER: Duration = Duration::from_secs(1);

/// Takes tasks in hand and sends their reports. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Desk {
    broker: Broker,
    leases: Leases,
    clock: Clock,
    policy: RetryPolicy,
    watermark: Watermark,
}

/// What is to be done about a task whose work has ended.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// Send this report, then acknowledge.
    Send(Report),
    /// Acknowledge.
    Drop(Dropped),
    /// Let the broker's retry rules decide.
    Fault(Fault),
}

impl Desk {
    /// A desk of this process.
    pub fn new(broker: Broker, leases: Leases, clock: Clock, policy: RetryPolicy, watermark: Watermark) -> Self {
        Self { broker, leases, clock, policy, watermark }
    }

    /// How patient to be with a task that fails.
    pub fn policy(&self) -> RetryPolicy {
        self.policy.clone()
    }

    /// Source of ids.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Takes a task in hand: from now on the coordinator sees it.
    ///
    /// # Errors
    /// `Malformed` when its ids cannot be read.
    pub fn take(&self, task: &wire::Task, delivery: &Delivery) -> Result<Hand, Fault> {
        let malformed = |error: warren_messages::ids::InvalidId| Fault::permanent(Code::Malformed, error.to_string());
        let task_id: TaskId = task.id.parse().map_err(malformed)?;
        let job_id: JobId = task.job.parse().map_err(malformed)?;
        let in_hand = self.leases.in_hand(&task.id, task.dispatch, &task.job);
        let kind = task.kind().map_or("none", TaskKind::as_str);
        let returned = delivery.delivery_count > 0;
        Ok(Hand::new(in_hand, kind, task_id.0, job_id.0, returned))
    }

    /// Does `work` on the task in hand and sends its report. This is what a handler returns.
    ///
    /// # Errors
    /// The fault that the broker settles the message by. Input faults are reported instead; a task that nobody wants
    /// any more is acknowledged without a report.
    pub async fn attend(
        &self,
        hand: &Hand,
        work: impl Future<Output = Result<Report, Stopped>> + Send,
    ) -> Result<(), Fault> {
        let span = tracing::info_span!(
            "task",
            task.id = hand.task.task(),
            job.id = hand.task.job(),
            task.kind = hand.kind,
            task.dispatch = hand.dispatch(),
        );
        async {
            let result = work.await;
            let seconds = hand.busy_seconds();
            let mut verdict = verdict(result, hand.task.dropped());
            if matches!(verdict, Verdict::Fault(_)) {
                // The message may be a late one of a task that has ended, and have failed before the coordinator could
                // say so. Without this it would be tried again, and die in the end, for nobody.
                let _ = timeout(ANSWER, self.leases.answered(&hand.task)).await;
                if let Some(dropped) = hand.task.dropped() {
                    verdict = Verdict::Drop(dropped);
                }
            }
            let outcome = match &verdict {
                Verdict::Send(Report::Failed(_)) => "failed",
                Verdict::Send(_) => "done",
                Verdict::Drop(_) => "dropped",
                Verdict::Fault(_) => "fault",
            };
            metrics::TASK_SECONDS.record(seconds, &[("kind", hand.kind), ("outcome", outcome)]);
            let full = hand.full.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let (Some(full), false) = (full, matches!(verdict, Verdict::Drop(_))) {
                self.send(hand, Report::DeviceFull(full)).await?;
            }
            self.watermark.look();
            match verdict {
                Verdict::Send(report) => {
                    if let Report::Failed(fault) = &report {
                        tracing::info!(code = fault.code, reason = fault.message, "the input is at fault");
                    }
                    self.send(hand, report).await?;
                    warren_drills::passing("worker.report-sent");
                    tracing::info!(outcome, busy_ms = (seconds * 1000.0) as u64, "task ended");
                    Ok(())
                }
                Verdict::Drop(dropped) => {
                    tracing::info!(?dropped, "task dropped");
                    Ok(())
                }
                Verdict::Fault(fault) => {
                    tracing::warn!(%fault, step = hand.task.last_step(), "task failed");
                    Err(at_step(fault, &hand.task.last_step()))
                }
            }
        }
        .instrument(span)
        .await
    }

    /// Sends one report and waits until the broker has it. A broker that is away is waited for: the work is done, and
    /// doing it again costs more.
    ///
    /// # Errors
    /// `BrokerUnavailable` when the broker did not come back.
    pub async fn send(&self, hand: &Hand, report: Report) -> Result<(), Fault> {
        let envelope = Envelope::new(self.clock.new_id(), &hand.report(self.leases.worker(), report));
        let until = Instant::now() + PUBLISH_FOR;
        let mut reconnect = Reconnect::new();
        loop {
            // The same message id each time: what was published twice counts once.
            let error = match self.broker.send(routes::REPORTS, &envelope).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let delay = reconnect.next_delay();
            if Instant::now() + delay > until || hand.task.is_cancelled() {
                return Err(error.fault());
            }
            tracing::debug!(%error, "report not sent yet");
            sleep(delay).await;
        }
    }

    /// Tells the coordinator that a task waits on the retry ladder. Handlers call it from `delayed`.
    ///
    /// # Errors
    /// `BrokerUnavailable`.
    pub async fn announce(
        &self,
        task: &wire::Task,
        delivery: &Delivery,
        delay: &Delay,
        cause: &Cause,
    ) -> Result<(), Fault> {
        let report = wire::TaskReport {
            task: task.id.clone(),
            job: task.job.clone(),
            dispatch: task.dispatch,
            worker: self.leases.worker().to_owned(),
            report: Some(Report::Retry(wire::RetryAnnounced {
                until: Some(from_millis(delay.until.0)),
                code: cause.code.to_string(),
                reason: cause.message.clone(),
                spends_attempt: delay.spends_attempt,
                attempt: delivery.attempt,
            })),
            busy_seconds: 0.0,
            inference_seconds: 0.0,
            peak_memory_bytes: 0,
        };
        let envelope = Envelope::new(self.clock.new_id(), &report);
        self.broker.send(routes::REPORTS, &envelope).await.map_err(|error| error.fault())
    }
}

/// When the task's job is over anyway.
pub fn deadline(task: &wire::Task) -> Option<UnixMillis> {
    task.deadline.as_ref().map(|deadline| UnixMillis(to_millis(deadline)))
}

/// The fault of a message that came to the wrong queue.
pub fn wrong_kind(task: &wire::Task, wanted: TaskKind) -> Fault {
    let found = task.kind().map_or("none", TaskKind::as_str);
    Fault::permanent(Code::Malformed, format!("work is `{found}`; this queue carries `{wanted}`"))
}

fn verdict(result: Result<Report, Stopped>, dropped: Option<Dropped>) -> Verdict {
    match (result, dropped) {
        // Whatever came of it, nobody wants it.
        (_, Some(dropped)) | (Err(Stopped::Dropped(dropped)), None) => Verdict::Drop(dropped),
        (Ok(report), None) => Verdict::Send(report),
        (Err(Stopped::Fault(fault)), None) if fault.is_input() => Verdict::Send(refused(fault.cause())),
        (Err(Stopped::OverLimit(cause)), None) => Verdict::Send(refused(&cause)),
        (Err(Stopped::Fault(fault)), None) => Verdict::Fault(fault),
    }
}

/// The job fails with this, and no dead letter is made.
fn refused(cause: &Cause) -> Report {
    Report::Failed(wire::InputFault { code: cause.code.to_string(), message: cause.message.clone() })
}

/// Adds the step to the cause: it is what the job will show.
fn at_step(fault: Fault, step: &str) -> Fault {
    let told = |cause: Cause| Cause { message: format!("{} (at: {step})", cause.message), ..cause };
    match fault {
        Fault::Retryable(cause) => Fault::Retryable(told(cause)),
        Fault::RetryLater { cause, wait } => Fault::RetryLater { cause: told(cause), wait },
        Fault::Permanent(cause) => Fault::Permanent(told(cause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done() -> Report {
        Report::PreparedAll(wire::PreparedAll::default())
    }

    #[test]
    fn results_are_sent_and_unwanted_ones_are_not() {
        assert_eq!(verdict(Ok(done()), None), Verdict::Send(done()));
        assert_eq!(verdict(Ok(done()), Some(Dropped::Stale)), Verdict::Drop(Dropped::Stale));
        let stopped = Err(Stopped::Dropped(Dropped::Cancelled));
        assert_eq!(verdict(stopped, None), Verdict::Drop(Dropped::Cancelled));
    }

    #[test]
    fn the_callers_faults_are_reported_and_ours_go_to_the_broker() {
        let input = Fault::permanent(Code::InputInvalid, "empty file");
        let reported = wire::InputFault { code: "InputInvalid".to_owned(), message: "empty file".to_owned() };
        assert_eq!(verdict(Err(Stopped::Fault(input)), None), Verdict::Send(Report::Failed(reported)));
        let limit = Cause::new(Code::InsufficientDisk, "max_disk_mb is 1");
        assert_eq!(verdict(Err(Stopped::OverLimit(limit.clone())), None), Verdict::Send(refused(&limit)));
        let ours = Fault::retry_later(Code::BlobUnavailable, "no answer");
        assert_eq!(verdict(Err(Stopped::Fault(ours.clone())), None), Verdict::Fault(ours.clone()));
        assert_eq!(verdict(Err(Stopped::Fault(ours)), Some(Dropped::Cancelled)), Verdict::Drop(Dropped::Cancelled));
    }

    #[test]
    fn a_fault_names_its_step_and_keeps_its_class() {
        let fault = at_step(Fault::retryable(Code::Internal, "pipe closed"), "decode");
        assert_eq!(fault, Fault::retryable(Code::Internal, "pipe closed (at: decode)"));
    }
}
