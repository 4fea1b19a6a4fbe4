//! Load: many jobs of many tasks, each with the vectors that it must have in the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use warren_drills::StandIn;
use warren_messages::wire::Job;

use super::{
    callers::{Callers, Outcome, Tally, succeeded},
    client::Client,
    world::World,
};

/// Longest that one job takes, faults included; and for each other one that there is at the same time.
const JOB: Duration = Duration::from_secs(300);
const OTHER_JOB: Duration = Duration::from_secs(2);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Jobs at once.
    pub lanes: usize,
    /// Jobs in all; `None`: until told to stop.
    pub jobs: Option<usize>,
    /// Tasks in each.
    pub tasks: usize,
    /// What most of them cost.
    pub model: &'static str,
    /// Every so manieth job has this model instead.
    pub other: Option<(usize, &'static str)>,
}

impl Load {
    /// Longest that one job takes.
    fn patience(&self) -> Duration {
        JOB + OTHER_JOB * self.lanes as u32
    }

    /// Passes of the model that a job takes.
    pub fn passes(&self) -> u64 {
        let model = StandIn::named(self.model).expect("a stand-in");
        (self.tasks * model.slices().count()) as u64
    }
}

/// Load on a stack.
#[derive(Debug)]
pub struct Flood {
    load: Load,
    callers: Callers,
    accepted: Arc<AtomicUsize>,
}

impl Flood {
    /// Begins. `name` tells its jobs from those of others on the same stack.
    pub fn start(world: &World, name: &str, load: Load) -> Self {
        let (accepted, next) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let lane = Lane { load, name: name.to_owned(), client: world.client.clone(), accepted: accepted.clone() };
        let lane = Arc::new(lane);
        let callers = Callers::start(world, load.lanes, move |_, _| {
            let (lane, number) = (lane.clone(), next.fetch_add(1, Ordering::Relaxed));
            async move { if load.jobs.is_some_and(|jobs| number >= jobs) { None } else { Some(lane.job(number).await) } }
        });
        Self { load, callers, accepted }
    }

    /// Jobs that were accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Tasks of all jobs, if their number was given.
    pub fn tasks(&self) -> u64 {
        (self.load.jobs.unwrap_or_default() * self.load.tasks) as u64
    }

    /// True when all have ended.
    pub fn is_over(&self) -> bool {
        self.callers.are_through()
    }

    /// Waits for all jobs; if they are without number, for those that were begun.
    pub fn finish(self, world: &World) -> Tally {
        if self.load.jobs.is_some() { self.callers.wait(world) } else { self.callers.stop(world) }
    }
}

struct Lane {
    load: Load,
    name: String,
    client: Client,
    accepted: Arc<AtomicUsize>,
}

impl Lane {
    async fn job(&self, number: usize) -> Outcome {
        let model = match self.load.other {
            Some((every, model)) if number % every == every - 1 => model,
            _ => self.load.model,
        };
        // Every other job's texts are too many for its row, and lie in object storage.
        let filling =
            if number.is_multiple_of(2) { " and on".repeat(5_000 / 7 / self.load.tasks + 1) } else { String::new() };
        let texts: Vec<String> =
            (0..self.load.tasks).map(|task| format!("{} job {number} text {task}{filling}", self.name)).collect();
        let request = format!("{} {number}", self.name);
        let id = match self.client.submit(&request, model, &texts).await {
            Ok(id) => id,
            Err(status) => return Outcome::Lost(format!("{request}: not accepted: {status}")),
        };
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let job = match self.client.ended(&id, self.load.patience()).await {
            Ok(job) => job,
            Err(status) => {
                let now = self.client.job(&id).await;
                return Outcome::Lost(format!("{request}: {status}; now {now:?}"));
            }
        };
        if let Err(outcome) = succeeded(&request, &job, texts.len()) {
            return outcome;
        }
        match self.client.vectors(&id).await {
            Ok(vectors) => judge(&request, &job, model, &texts, &vectors),
            Err(status) => Outcome::Lost(format!("{request}: its vectors: {status}")),
        }
    }
}

/// Compares what a job that succeeded has made with what it must have.
fn judge(request: &str, job: &Job, model: &str, texts: &[String], vectors: &[(u32, Vec<f32>)]) -> Outcome {
    let wrong = |what: String| Outcome::Wrong(format!("{request}, {}: {what}", job.id));
    if job.progress_done != texts.len() as f64 || job.progress_planned != texts.len() as f64 {
        return wrong(format!("progress is {} of {}", job.progress_done, job.progress_planned));
    }
    let indexes: Vec<u32> = vectors.iter().map(|(index, _)| *index).collect();
    if indexes != (0..texts.len() as u32).collect::<Vec<_>>() {
        return wrong(format!("its vectors are of the texts {indexes:?}"));
    }
    let model = StandIn::named(model).expect("a stand-in");
    match texts.iter().zip(vectors).find(|(text, (_, vector))| model.vector(text) != *vector) {
        Some((text, _)) => wrong(format!("another vector for `{text}`")),
        None => Outcome::Right,
    }
}
