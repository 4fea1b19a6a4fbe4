//! Why a job does not run, in one answer.

use tonic::Status;
use warren_clock::UnixMillis;
use warren_jobs::{JobState, TaskKind};
use warren_messages::{
    from_millis,
    ids::JobId,
    wire::{DeviceHolder, JobExplanation, WaitingFor},
};
use warren_store::{Job, StoreError, Waiting, Worker};

use super::operations::{InHand, in_hand};
use crate::{parts::Parts, shown, status::of_store};

/// Newest events that are searched for the reason of a later try.
const EVENTS: u64 = 100;

/// Everything that decides whether a job runs.
struct Seen {
    waiting: Vec<Waiting>,
    /// Its tasks in workers' hands: the worker's name and the step.
    in_hand: Vec<(String, String)>,
    workers: Vec<Worker>,
    paused: Vec<(TaskKind, String)>,
    leader: bool,
    /// Why RabbitMQ is not there.
    broker: Option<String>,
    /// Why a task of it was put off last.
    put_off: Option<String>,
    holders: Vec<DeviceHolder>,
    jobs_ahead: u64,
    tasks_ahead: u64,
}

/// Explains.
///
/// # Errors
/// `UNAVAILABLE` when the database is away.
pub(crate) async fn explain(parts: &Parts, job: &Job) -> Result<JobExplanation, Status> {
    let seen = look(parts, job).await.map_err(|error| of_store(&error))?;
    let (waiting_for, reason) = judge(job, &seen);
    let next = seen.waiting.iter().filter_map(|waiting| waiting.next_try).min();
    Ok(JobExplanation {
        state: shown::state(job.state).into(),
        waiting_for: waiting_for.into(),
        reason,
        jobs_ahead: seen.jobs_ahead,
        tasks_ahead: seen.tasks_ahead,
        next_retry_at: next.map(|at| from_millis(at.0)),
        holders: seen.holders,
    })
}

async fn look(parts: &Parts, job: &Job) -> Result<Seen, StoreError> {
    let read = parts.store.read();
    let now = parts.clock.now();
    let waiting = read.waiting_of(job.id, now).await?;
    let (mut jobs_ahead, mut tasks_ahead) = (0, 0);
    if let Some(first) = waiting.first() {
        (tasks_ahead, jobs_ahead) = read.open_of_kind(first.kind, UnixMillis(job.created.0 - 1)).await?;
    }
    let workers: Vec<Worker> = read.workers().await?.into_iter().filter(|worker| worker.live).collect();
    let own = JobId(job.id).to_string();
    let hands =
        |worker: &Worker| -> Vec<InHand> { in_hand(&worker.running).into_iter().map(|(_, task)| task).collect() };
    let mine = workers.iter().flat_map(|worker| hands(worker).into_iter().map(|task| (worker.id.clone(), task)));
    let mine = mine.filter(|(_, task)| task.job == own).map(|(worker, task)| (worker, task.step)).collect();
    let put_off =
        read.newest_events(job.id, EVENTS).await?.into_iter().find(|event| event.event.event == "job.retry_later");
    let mut holders = Vec::new();
    for lease in read.leases().await? {
        let jobs = workers.iter().filter(|worker| worker.id == lease.worker).flat_map(hands);
        let jobs: Vec<_> = jobs.filter_map(|task| task.job.parse::<JobId>().ok()).map(|id| id.0).collect();
        let jobs = read.jobs_by_id(&jobs).await?;
        let ends = jobs.iter().filter_map(|job| shown::expected_end(job, now)).max();
        holders.push(DeviceHolder {
            device: lease.device,
            model: lease.model,
            worker: lease.worker,
            expected_end: ends.map(|at| from_millis(at.0)),
        });
    }
    Ok(Seen {
        waiting,
        in_hand: mine,
        workers,
        paused: read
            .pauses()
            .await?
            .into_iter()
            .map(|pause| (pause.kind, format!("{}: {}", pause.actor, pause.reason)))
            .collect(),
        leader: read.leader().await?.is_some_and(|leader| leader.expires > now),
        broker: parts.readiness.down().remove("rabbitmq"),
        put_off: put_off.map(|event| event.event.message),
        holders,
        jobs_ahead,
        tasks_ahead,
    })
}

/// The first thing that is in the way, and a sentence on it.
fn judge(job: &Job, seen: &Seen) -> (WaitingFor, String) {
    if job.state.is_ended() {
        let (code, message) = (job.error_code.as_deref().unwrap_or_default(), job.error_message.as_deref());
        let reason = match message {
            Some(message) if job.state != JobState::Succeeded => format!("{}: {message} ({code})", job.state),
            _ => job.state.to_string(),
        };
        return (WaitingFor::Nothing, reason);
    }
    let waits = |step: &str| step.starts_with("waiting");
    let works = |step: &str| !waits(step) && step != "start";
    if let Some((worker, step)) = seen.in_hand.iter().find(|(_, step)| works(step)) {
        return (WaitingFor::ItsTasks, format!("{worker} is at it: {step}"));
    }
    if !seen.leader {
        return (WaitingFor::Coordinator, "no coordinator leads".to_owned());
    }
    if let Some(why) = &seen.broker {
        return (WaitingFor::Coordinator, format!("RabbitMQ is not there: {why}"));
    }
    let Some(open) = seen.waiting.first() else {
        return (WaitingFor::Coordinator, "it is still to be planned".to_owned());
    };
    if let Some((worker, step)) = seen.in_hand.iter().find(|(_, step)| waits(step)) {
        let by: Vec<_> = seen.holders.iter().map(|holder| format!("{} has {}", holder.worker, holder.device)).collect();
        return (WaitingFor::Device, format!("{worker}: {step}; {}", by.join(", ")));
    }
    if open.retry_later > 0 && open.retry_later == open.released {
        let why = seen.put_off.clone().unwrap_or_else(|| "something that it needs was away".to_owned());
        return (WaitingFor::Retry, format!("{} of its tasks wait for a later try: {why}", open.retry_later));
    }
    if let Some((kind, by)) = seen.paused.iter().find(|(kind, _)| *kind == open.kind) {
        return (WaitingFor::Resume, format!("{kind} is paused by {by}"));
    }
    let takes = |worker: &&Worker| worker.takes.iter().any(|(kind, slots)| *kind == open.kind && *slots > 0);
    let able: Vec<&Worker> = seen.workers.iter().filter(takes).collect();
    if able.iter().all(|worker| !worker.trouble.is_empty()) {
        let trouble = able.first().map(|worker| format!(": {}: {}", worker.id, worker.trouble)).unwrap_or_default();
        return (WaitingFor::Worker, format!("no worker takes {} now{trouble}", open.kind));
    }
    let mut reason = format!("{} jobs with {} tasks came before it", seen.jobs_ahead, seen.tasks_ahead);
    if let Some((worker, _)) = seen.in_hand.first() {
        reason = format!("{worker} has taken it, and works on others first; {reason}");
    }
    (WaitingFor::Turn, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A running job with one task on its way, and one worker that could do it.
    fn seen() -> Seen {
        let waiting = Waiting { kind: TaskKind::Embed, unreleased: 0, released: 1, retry_later: 0, next_try: None };
        let worker = Worker {
            id: "w".to_owned(),
            boot: String::new(),
            service: "batch-embedding".to_owned(),
            takes: vec![(TaskKind::Embed, 1)],
            version: String::new(),
            live: true,
            heartbeat: UnixMillis(0),
            running: "[]".to_owned(),
            trouble: String::new(),
            last_error: None,
        };
        Seen {
            waiting: vec![waiting],
            in_hand: Vec::new(),
            workers: vec![worker],
            paused: Vec::new(),
            leader: true,
            broker: None,
            put_off: None,
            holders: Vec::new(),
            jobs_ahead: 2,
            tasks_ahead: 9,
        }
    }

    #[test]
    fn the_first_thing_in_the_way_is_the_answer() {
        let job = shown::tests::running();
        let in_hand = |step: &str| vec![("w".to_owned(), step.to_owned())];
        let holder = DeviceHolder { device: "cpu".to_owned(), worker: "v".to_owned(), ..Default::default() };
        let later = Waiting { retry_later: 1, ..seen().waiting[0] };
        let troubled = Worker { trouble: "rabbitmq: gone".to_owned(), ..seen().workers.remove(0) };
        let cases = [
            (Seen { in_hand: in_hand("embed"), leader: false, ..seen() }, WaitingFor::ItsTasks, "w is at it: embed"),
            (Seen { leader: false, ..seen() }, WaitingFor::Coordinator, "no coordinator leads"),
            (
                Seen { broker: Some("gone".to_owned()), ..seen() },
                WaitingFor::Coordinator,
                "RabbitMQ is not there: gone",
            ),
            (Seen { waiting: Vec::new(), ..seen() }, WaitingFor::Coordinator, "it is still to be planned"),
            (
                Seen { in_hand: in_hand("waiting for cpu"), holders: vec![holder], ..seen() },
                WaitingFor::Device,
                "w: waiting for cpu; v has cpu",
            ),
            (
                Seen { waiting: vec![later], put_off: Some("S3 is away".to_owned()), ..seen() },
                WaitingFor::Retry,
                "1 of its tasks wait for a later try: S3 is away",
            ),
            (
                Seen { paused: vec![(TaskKind::Embed, "ada: later".to_owned())], ..seen() },
                WaitingFor::Resume,
                "embed is paused by ada: later",
            ),
            (Seen { workers: Vec::new(), ..seen() }, WaitingFor::Worker, "no worker takes embed now"),
            (
                Seen { workers: vec![troubled], ..seen() },
                WaitingFor::Worker,
                "no worker takes embed now: w: rabbitmq: gone",
            ),
            (
                Seen { in_hand: in_hand("start"), ..seen() },
                WaitingFor::Turn,
                "w has taken it, and works on others first; 2 jobs with 9 tasks came before it",
            ),
            (seen(), WaitingFor::Turn, "2 jobs with 9 tasks came before it"),
        ];
        for (seen, waiting_for, reason) in cases {
            assert_eq!(judge(&job, &seen), (waiting_for, reason.to_owned()));
        }
        let failed = Job {
            state: JobState::Failed,
            error_code: Some("OutOfMemory".to_owned()),
            error_message: Some("it does not fit".to_owned()),
            ..job
        };
        let (waiting_for, reason) = judge(&failed, &seen());
        assert_eq!((waiting_for, reason.as_str()), (WaitingFor::Nothing, "failed: it does not fit (OutOfMemory)"));
    }
}
