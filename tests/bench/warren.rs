//! Our side: a private stack whose engine does nothing, and callers who use its gRPC API.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tokio::task::JoinHandle;
use warren_clock::Clock;
use warren_local::process::Identity;
use warren_messages::wire::JobState;
use warren_tests::{
    faults::{client::Client, grounds::Grounds},
    processes::family,
    stack::Wishes,
    wait::until,
};

use crate::figures::{BySecond, processor_seconds};

/// Callers at once.
const CALLERS: usize = 4;
/// Longest that a job takes, whatever is killed meanwhile.
const JOB: Duration = Duration::from_secs(300);

/// All of it, ready.
pub(crate) struct Warren(Grounds);

/// What one run of load came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    /// Tasks that ended in each second.
    pub by_second: Vec<u64>,
    /// Microseconds of processor time for each task, by part.
    pub processor_us: Vec<(String, f64)>,
}

impl Run {
    /// Tasks in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.by_second.iter().sum::<u64>() as f64 / self.by_second.len().max(1) as f64
    }
}

impl Warren {
    /// One of each part, with so many workers of two slots each.
    pub(crate) fn start(workers: u32) -> Self {
        Self(Grounds::start(&Wishes {
            arguments: &["--workers", &format!("transcription=0,batch-embedding={workers}")],
            // Logs as terse as the other side's.
            settings: "[all.telemetry]\nlog = \"warn\"\n\
                       [coordinator]\ndevices = [{ name = \"cpu\", max_concurrent = 8 }]\n\
                       [coordinator.release]\ntask_texts = 1\n\
                       [batch-embedding.work]\nslots = 2\n"
                .to_owned(),
            ..Wishes::default()
        }))
    }

    /// Measures `seconds` of load after `warm_up` seconds of the same: jobs of so many tasks each.
    pub(crate) fn throughput(&self, model: &'static str, tasks: usize, warm_up: u64, seconds: u64) -> Run {
        let parts = self.parts();
        let load = self.load("steady", model, tasks, Duration::from_secs(warm_up + seconds + 2));
        thread::sleep(Duration::from_secs(warm_up));
        let from = next_second();
        let before: Vec<f64> = parts.iter().map(|(_, pid)| spent(*pid)).collect();
        thread::sleep(Duration::from_secs(seconds));
        let after: Vec<f64> = parts.iter().map(|(_, pid)| spent(*pid)).collect();
        self.finish(load);
        let by_second = self.by_second().within(from, from + seconds as i64);
        let tasks = by_second.iter().sum::<u64>().max(1) as f64;
        let spent = parts.into_iter().zip(before.into_iter().zip(after));
        let processor_us = spent.map(|((name, _), (before, after))| (name, (after - before) * 1e6 / tasks)).collect();
        Run { by_second, processor_us }
    }

    /// Load during which broker and database are killed once each. Returns how many tasks were asked for; all have ended
    /// well.
    pub(crate) fn throughput_under_kills(&self, seconds: u64) -> u64 {
        let load = self.load("killed", "drill-0", 500, Duration::from_secs(seconds));
        let third = Duration::from_secs(seconds) / 3;
        thread::sleep(third);
        self.0.stack.service("rabbitmq").signal(Signal::SIGKILL);
        thread::sleep(third);
        self.0.crash_database();
        let tasks = self.finish(load);
        self.0.stack.until_ready();
        tasks
    }

    /// Milliseconds from the call to the end of a job of one task, for `count` jobs one after another.
    pub(crate) fn latency(&self, count: usize) -> Vec<f64> {
        self.0.runtime.block_on(async {
            let mut times = Vec::with_capacity(count);
            // The first ones open connections and load the model.
            for number in 0..count + 20 {
                let start = Instant::now();
                job(&self.0.client, &format!("alone {number}"), "drill-0", 1).await;
                times.push(start.elapsed().as_secs_f64() * 1000.0);
            }
            times.split_off(20)
        })
    }

    /// More or fewer worker processes.
    pub(crate) fn scale(&self, workers: u32) {
        self.0.stack.warren(&["scale", "batch-embedding", &workers.to_string()]).ok();
        let ready = || {
            let ready = self.0.stack.ps().into_iter().filter(|one| one.state == "ready");
            (ready.filter(|one| one.name.starts_with("batch-embedding")).count() == workers as usize).then_some(())
        };
        until("the workers are ready", Duration::from_secs(60), ready);
    }

    /// What the broker and the database are.
    pub(crate) fn versions(&self) -> String {
        let postgres = self.0.runtime.block_on(self.0.facts.version()).unwrap_or_default();
        let postgres = postgres.split_whitespace().next().unwrap_or_default();
        format!("RabbitMQ {}, PostgreSQL {postgres}", self.0.stack.management().version())
    }

    /// Stops it, once nothing is lost: each task that was asked for is done, has one result, and `warren verify` finds
    /// everything accounted for.
    pub(crate) fn stop(self) {
        let resting = self.0.at_rest(Duration::from_secs(60)).expect("nothing is on its way");
        assert_eq!((resting.done, resting.vectors), (resting.tasks, resting.tasks), "tasks were lost: {resting:?}");
        assert_eq!((resting.succeeded, resting.told_twice), (resting.jobs, 0), "jobs were lost: {resting:?}");
        self.0.stop();
    }

    /// Names of all parts and their first process.
    fn parts(&self) -> Vec<(String, u32)> {
        let services = self.0.stack.ps().into_iter().filter_map(|service| Some((service.name, service.pid?)));
        let mut parts: Vec<_> = services.collect();
        parts.push(("postgresql".to_owned(), self.0.database().pid()));
        parts.extend(Identity::me().map(|me| ("the load".to_owned(), me.pid)));
        parts
    }

    fn load(&self, name: &'static str, model: &'static str, tasks: usize, span: Duration) -> Vec<JoinHandle<u64>> {
        let begun = next_second();
        let end = Instant::now() + span;
        let caller = |caller| {
            let client = self.0.client.clone();
            self.0.runtime.spawn(async move {
                let mut sent = 0;
                while Instant::now() < end {
                    job(&client, &format!("{name} {begun} {caller} {sent}"), model, tasks).await;
                    sent += tasks as u64;
                }
                sent
            })
        };
        (0..CALLERS).map(caller).collect()
    }

    fn finish(&self, load: Vec<JoinHandle<u64>>) -> u64 {
        load.into_iter().map(|caller| self.0.runtime.block_on(caller).unwrap_or_else(|error| panic!("{error}"))).sum()
    }

    fn by_second(&self) -> BySecond {
        BySecond(self.0.runtime.block_on(self.0.facts.done_by_second()).unwrap_or_else(|error| panic!("{error}")))
    }
}

/// Processor time of a part so far, seconds.
fn spent(part: u32) -> f64 {
    // The database is a child of this program, which counts alone.
    let me = Identity::me().filter(|me| me.pid == part);
    processor_seconds(&me.map_or_else(|| family(part), |me| vec![me]))
}

/// One job to its good end.
async fn job(client: &Client, name: &str, model: &str, tasks: usize) {
    let texts: Vec<String> = (0..tasks).map(|task| format!("{name} text {task}")).collect();
    let id = client.submit(name, model, &texts).await.unwrap_or_else(|status| panic!("{name}: {status}"));
    let job = client.ended(&id, JOB).await.unwrap_or_else(|status| panic!("{name}: {status}"));
    assert_eq!(job.state(), JobState::Succeeded, "{name}: {job:?}");
    assert_eq!(job.tasks.map(|counts| counts.done), Some(tasks as u32), "{name}");
}

/// Waits for the beginning of the next second of the clock, and returns it.
fn next_second() -> i64 {
    let now = Clock::system().now().0;
    let next = now / 1000 + 1;
    thread::sleep(Duration::from_millis(u64::try_from(next * 1000 - now).unwrap_or_default()));
    next
}
