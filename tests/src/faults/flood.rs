//! Load: many jobs of many tasks, each with the vectors that it must have in the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;
use warren_drills::StandIn;
use warren_messages::wire::{Job, JobState};

use super::{client::Client, world::World};

/// Longest that one job takes, faults included; and for each other one that there is at the same time.
const JOB: Duration = Duration::from_secs(300);
const OTHER_JOB: Duration = Duration::from_secs(1);

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
    lanes: Vec<JoinHandle<Vec<Outcome>>>,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
}

/// What became of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded, each task once, with the right vectors.
    Right,
    /// It never ended, or not well.
    Lost(String),
    /// It has more than it should, or something else.
    Wrong(String),
}

/// The outcomes of all.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Jobs that were accepted.
    pub jobs: usize,
    /// Jobs without their end.
    pub lost: Vec<String>,
    /// Jobs with something double or different.
    pub wrong: Vec<String>,
}

impl FromIterator<Outcome> for Tally {
    fn from_iter<T: IntoIterator<Item = Outcome>>(outcomes: T) -> Self {
        let mut tally = Self::default();
        for outcome in outcomes {
            tally.jobs += 1;
            match outcome {
                Outcome::Right => {}
                Outcome::Lost(why) => tally.lost.push(why),
                Outcome::Wrong(why) => tally.wrong.push(why),
            }
        }
        tally
    }
}

impl Flood {
    /// Begins. `name` tells its jobs from those of others on the same stack.
    pub fn start(world: &World, name: &str, load: Load) -> Self {
        let (stop, accepted, next) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Arc::default());
        let lane = |_| {
            let lane = Lane {
                load,
                name: name.to_owned(),
                client: world.client.clone(),
                stop: stop.clone(),
                accepted: accepted.clone(),
                next: Arc::clone(&next),
            };
            world.runtime.spawn(lane.run())
        };
        let lanes = (0..load.lanes).map(lane).collect();
        Self { load, lanes, stop, accepted }
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
        self.lanes.iter().all(JoinHandle::is_finished)
    }

    /// Waits for all jobs; if they are without number, for those that were begun.
    ///
    /// # Panics
    /// When a lane did.
    pub fn finish(mut self, world: &World) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let lanes = std::mem::take(&mut self.lanes).into_iter();
        lanes.flat_map(|lane| world.runtime.block_on(lane).expect("lanes do not panic")).collect()
    }
}

/// A row that fails leaves no load behind.
impl Drop for Flood {
    fn drop(&mut self) {
        self.lanes.iter().for_each(JoinHandle::abort);
    }
}

struct Lane {
    load: Load,
    name: String,
    client: Client,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    next: Arc<AtomicUsize>,
}

impl Lane {
    async fn run(self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let over = self.load.jobs.map_or_else(|| self.stop.load(Ordering::Relaxed), |jobs| number >= jobs);
            if over {
                return outcomes;
            }
            outcomes.push(self.job(number).await);
        }
    }

    async fn job(&self, number: usize) -> Outcome {
        let model = match self.load.other {
            Some((every, model)) if number % every == every - 1 => model,
            _ => self.load.model,
        };
        let texts: Vec<String> =
            (0..self.load.tasks).map(|task| format!("{} job {number} text {task}", self.name)).collect();
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
        if job.state() != JobState::Succeeded {
            return Outcome::Lost(format!("{request}: {job:?}"));
        }
        match self.client.vectors(&id).await {
            Ok(vectors) => judge(&request, &job, model, &texts, &vectors),
            Err(status) => Outcome::Lost(format!("{request}: its vectors: {status}")),
        }
    }
}

/// Compares a job that succeeded with what it must have.
fn judge(request: &str, job: &Job, model: &str, texts: &[String], vectors: &[(u32, Vec<f32>)]) -> Outcome {
    let wrong = |what: String| Outcome::Wrong(format!("{request}, {}: {what}", job.id));
    let tasks = job.tasks.unwrap_or_default();
    let others = tasks.unreleased + tasks.released + tasks.failed + tasks.dead + tasks.cancelled;
    if tasks.done as usize != texts.len() || others != 0 {
        return wrong(format!("its tasks are {tasks:?}"));
    }
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
