//! Everything at a glance, and whether anything is stuck.

use std::time::Duration;

use tonic::Status;
use warren_clock::UnixMillis;
use warren_jobs::JobState;
use warren_messages::{
    from_millis, to_millis,
    wire::{
        BrokerQueue, DiagnoseResponse, Job, JobCount, QueuesResponse, SchedulerTick, TaskQueue, Worker, WorkersResponse,
    },
};

use crate::{parts::Parts, shown, status::of_store};

/// Running jobs that are shown.
const SHOWN: u64 = 20;
/// A running job was heard of within this time; workers report every 2 s.
const HEALTHY: Duration = Duration::from_secs(30);
/// Work may be open for so long before anybody has begun it.
const BEGINS_WITHIN: Duration = Duration::from_secs(60);
/// A row waits for so long in the outbox when the broker does not take it.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(15);
/// Rounds that a duty of the leader may miss.
const ROUNDS: u32 = 3;

/// Looks at everything.
///
/// # Errors
/// `UNAVAILABLE` when the database is away.
pub(crate) async fn diagnose(
    parts: &Parts,
    queues: QueuesResponse,
    workers: WorkersResponse,
) -> Result<DiagnoseResponse, Status> {
    let read = parts.store.read();
    let now = parts.clock.now();
    let counts = read.job_counts().await.map_err(|error| of_store(&error))?;
    let jobs = counts.into_iter().map(|(kind, state, jobs)| JobCount {
        kind: kind.as_str().to_owned(),
        state: shown::state(state).into(),
        jobs,
    });
    let running = read.running_jobs(SHOWN).await.map_err(|error| of_store(&error))?;
    let running = shown::jobs(parts, &running).await?;
    let ticks = read.ticks().await.map_err(|error| of_store(&error))?;
    let ticks = ticks.into_iter().map(|tick| SchedulerTick {
        name: tick.name,
        at: Some(from_millis(tick.at.0)),
        every_s: shown::number(tick.every.as_secs()),
    });
    let outbox = read.unsent_count().await.map_err(|error| of_store(&error))?;
    let oldest = read.oldest_unsent().await.map_err(|error| of_store(&error))?;
    let (broker, broker_trouble) = match parts.broker.queues().await {
        Ok(found) => (found, String::new()),
        Err(error) => (Vec::new(), error.to_string()),
    };
    let broker = broker.into_iter().map(|queue| BrokerQueue {
        name: queue.name,
        messages: queue.messages,
        unacknowledged: queue.messages_unacknowledged,
        consumers: queue.consumers,
    });
    let mut seen = DiagnoseResponse {
        jobs: jobs.collect(),
        running,
        workers: workers.workers,
        queues: queues.queues,
        broker: broker.collect(),
        broker_trouble,
        ticks: ticks.collect(),
        leader: workers.leader,
        term: workers.term,
        dead_letters: queues.dead_letters,
        outbox,
        at: Some(from_millis(now.0)),
        ..DiagnoseResponse::default()
    };
    let outbox_age = oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
    let here = parts.readiness.down().into_iter().map(|(part, reason)| format!("ingest: {part}: {reason}")).collect();
    judge(&mut seen, now, outbox_age, here);
    Ok(seen)
}

/// Something that is not as it should be.
struct Finding {
    /// While it is so, open work cannot go on.
    stops: bool,
    what: String,
}

/// Fills in the findings and the verdict. `here`: what this process misses.
fn judge(seen: &mut DiagnoseResponse, now: UnixMillis, outbox_age: Duration, here: Vec<String>) {
    let mut findings: Vec<Finding> = here.into_iter().map(|what| Finding { stops: true, what }).collect();
    findings.extend(of_leader(seen, now, outbox_age));
    findings.extend(seen.queues.iter().filter_map(of_queue));
    findings.extend(seen.workers.iter().filter_map(of_worker));
    findings.sort_by_key(|finding| !finding.stops);
    (seen.stuck, seen.verdict) = verdict(seen, now, &findings);
    seen.findings = findings.into_iter().map(|finding| finding.what).collect();
}

fn of_leader(seen: &DiagnoseResponse, now: UnixMillis, outbox_age: Duration) -> Vec<Finding> {
    let mut findings = Vec::new();
    if seen.leader.is_empty() {
        findings.push(Finding { stops: true, what: "no coordinator leads".to_owned() });
    }
    for tick in &seen.ticks {
        let age = since(now, tick.at.as_ref());
        if age > Duration::from_secs(u64::from(tick.every_s)) * ROUNDS {
            let what = format!(
                "the {} of the coordinator last ran {} s ago; it is due every {} s",
                tick.name,
                age.as_secs(),
                tick.every_s
            );
            findings.push(Finding { stops: false, what });
        }
    }
    if outbox_age > PUBLISHED_WITHIN {
        let (rows, seconds) = (seen.outbox, outbox_age.as_secs());
        let what = format!("{rows} messages wait to be published, the oldest for {seconds} s: is RabbitMQ reachable?");
        findings.push(Finding { stops: true, what });
    }
    if !seen.broker_trouble.is_empty() {
        findings.push(Finding { stops: false, what: seen.broker_trouble.clone() });
    }
    findings
}

fn of_queue(queue: &TaskQueue) -> Option<Finding> {
    let open = queue.unreleased + queue.released;
    let what = match &queue.paused {
        Some(paused) => format!(
            "{} is paused by {}, and {} tasks wait; to go on: warren queues resume {}",
            queue.kind, paused.actor, queue.unreleased, queue.kind
        ),
        None if open > 0 && queue.slots == 0 => format!("{open} tasks wait, and no worker takes {}", queue.kind),
        None => return None,
    };
    Some(Finding { stops: open > 0, what })
}

fn of_worker(worker: &Worker) -> Option<Finding> {
    let what = match worker.state.as_str() {
        "live" => return None,
        "lost" => format!("{} is lost; it comes back by itself or is forgotten within a day", worker.id),
        state => format!("{} takes no work ({state}): {}", worker.id, worker.trouble),
    };
    Some(Finding { stops: worker.state != "lost", what })
}

/// Whether anything is stuck, in one sentence.
fn verdict(seen: &DiagnoseResponse, now: UnixMillis, findings: &[Finding]) -> (bool, String) {
    let count = |state: JobState| {
        let wanted: i32 = shown::state(state).into();
        seen.jobs.iter().filter(|count| count.state == wanted).map(|count| count.jobs).sum::<u64>()
    };
    let (queued, running) = (count(JobState::Queued), count(JobState::Running));
    if queued + running == 0 {
        return (false, "idle: no job is queued or running".to_owned());
    }
    let healthy: Vec<&Job> =
        seen.running.iter().filter(|job| since(now, job.heartbeat_at.as_ref()) <= HEALTHY).collect();
    if let Some(first) = healthy.first() {
        let age = since(now, first.heartbeat_at.as_ref()).as_secs();
        let jobs =
            if healthy.len() == 1 { "1 healthy job".to_owned() } else { format!("{} healthy jobs", healthy.len()) };
        return (false, format!("not stuck: {jobs}, {} done, heartbeat {age} s ago", percent(first)));
    }
    if let Some(finding) = findings.iter().find(|finding| finding.stops) {
        return (true, format!("stuck: {}", finding.what));
    }
    let oldest = seen.queues.iter().map(|queue| queue.oldest_wait_seconds).fold(0.0, f64::max);
    let silent = seen.running.iter().map(|job| since(now, job.heartbeat_at.as_ref().or(job.started_at.as_ref()))).min();
    let silent = silent.unwrap_or_else(|| Duration::try_from_secs_f64(oldest).unwrap_or_default());
    let open = format!("{queued} queued and {running} running");
    let later: u64 = seen.queues.iter().map(|queue| queue.retry_later).sum();
    if later > 0 {
        return (false, format!("not stuck: {later} tasks wait for a later try ({open})"));
    }
    if silent <= BEGINS_WITHIN {
        return (false, format!("not stuck: {open}, the last sign of life {} s ago", silent.as_secs()));
    }
    let seconds = silent.as_secs();
    (true, format!("stuck: {open}, and no sign of life for {seconds} s; try: warren jobs recover"))
}

fn percent(job: &Job) -> String {
    let done = if job.progress_planned > 0.0 { job.progress_done / job.progress_planned } else { 0.0 };
    format!("{:.0} %", (done * 100.0).min(100.0))
}

/// For ever, when it never was.
fn since(now: UnixMillis, at: Option<&pbjson_types::Timestamp>) -> Duration {
    at.map_or(Duration::MAX, |at| now.since(UnixMillis(to_millis(at))))
}

#[cfg(test)]
mod tests {
    use warren_messages::wire::{self, PausedKind};

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn ago(seconds: i64) -> Option<pbjson_types::Timestamp> {
        Some(from_millis(NOW.0 - seconds * 1_000))
    }

    /// One running job, half done, heard of so many seconds ago.
    fn running(heard: i64) -> DiagnoseResponse {
        let job = Job {
            progress_done: 38.0,
            progress_planned: 100.0,
            started_at: ago(300),
            heartbeat_at: ago(heard),
            ..Job::default()
        };
        let count = |state: wire::JobState| JobCount { kind: "embed".to_owned(), state: state.into(), jobs: 1 };
        let queue = TaskQueue { kind: "embed".to_owned(), unreleased: 3, slots: 2, ..TaskQueue::default() };
        DiagnoseResponse {
            jobs: vec![count(wire::JobState::Running), count(wire::JobState::Failed)],
            running: vec![job],
            queues: vec![TaskQueue { oldest_wait_seconds: 300.0, ..queue }],
            leader: "coordinator".to_owned(),
            ..DiagnoseResponse::default()
        }
    }

    fn judged(mut seen: DiagnoseResponse) -> (bool, String, Vec<String>) {
        judge(&mut seen, NOW, Duration::ZERO, Vec::new());
        (seen.stuck, seen.verdict, seen.findings)
    }

    #[test]
    fn a_slow_job_that_is_heard_of_is_not_stuck() {
        let (stuck, verdict, findings) = judged(running(4));
        assert_eq!((stuck, verdict.as_str()), (false, "not stuck: 1 healthy job, 38 % done, heartbeat 4 s ago"));
        assert_eq!(findings, Vec::<String>::new());
    }

    #[test]
    fn silence_without_a_reason_is_stuck_and_says_what_to_try() {
        let (stuck, verdict, _) = judged(running(200));
        assert!(stuck && verdict.contains("no sign of life for 200 s; try: warren jobs recover"), "{verdict}");
        let (stuck, verdict, _) = judged(running(40));
        assert!(!stuck && verdict.contains("40 s ago"), "{verdict}");
        let mut later = running(200);
        later.queues[0].retry_later = 2;
        assert!(!judged(later).0);
    }

    #[test]
    fn the_reason_is_the_verdict() {
        let mut no_leader = running(200);
        no_leader.leader.clear();
        assert_eq!(judged(no_leader).1, "stuck: no coordinator leads");
        let mut paused = running(200);
        paused.queues[0].paused = Some(PausedKind { actor: "ada".to_owned(), ..PausedKind::default() });
        let (stuck, verdict, _) = judged(paused);
        assert!(stuck && verdict.contains("embed is paused by ada") && verdict.contains("resume embed"), "{verdict}");
        let mut nobody = running(200);
        nobody.queues[0].slots = 0;
        assert_eq!(judged(nobody).1, "stuck: 3 tasks wait, and no worker takes embed");
        let mut refused = running(200);
        let worker = |state: &str| Worker {
            id: "w".to_owned(),
            state: state.to_owned(),
            trouble: "rabbitmq: ACCESS_REFUSED".to_owned(),
            ..Worker::default()
        };
        refused.workers = vec![worker("lost"), worker("auth_failed")];
        let (_, verdict, findings) = judged(refused);
        assert_eq!(verdict, "stuck: w takes no work (auth_failed): rabbitmq: ACCESS_REFUSED");
        assert!(findings.len() == 2 && findings[1].contains("is lost"), "what stops work comes first: {findings:?}");
    }

    #[test]
    fn a_scheduler_that_does_not_tick_is_found_and_nothing_open_is_idle() {
        let mut seen = running(4);
        seen.ticks = vec![SchedulerTick { name: "reaper".to_owned(), at: ago(400), every_s: 60 }];
        seen.jobs.remove(0);
        let (stuck, verdict, findings) = judged(seen);
        assert!(!stuck && verdict.starts_with("idle"), "{verdict}");
        assert!(findings[0].contains("last ran 400 s ago"), "{findings:?}");
    }
}
