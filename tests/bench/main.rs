//! `warren bench`: what Warren costs, measured against others on the same machine.
//!
//! It is no test: it asserts that nothing is lost, and shows figures. Run it on a machine that does nothing else.

mod celery;
mod figures;
mod warren;

use std::fmt;

use celery::Celery;
use clap::{Parser, Subcommand};
use figures::{median, percentile};
use serde_json::{Value, json};
use warren::{Run, Warren};

/// Seconds of load before anything is measured.
const WARM_UP: u64 = 10;
/// Tasks whose time is taken one after another.
const SINGLE: usize = 300;
/// A model that lets 50 ms pass.
const WAITING: &str = "drill-wait-50";

/// Measure what Warren costs.
#[derive(Debug, Parser)]
#[command(name = "warren bench", bin_name = "./warren bench", version)]
struct Arguments {
    /// One JSON value instead of text for people.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The way of a task through database, broker and worker and back, with a model that does nothing; the same with
    /// Celery.
    Orchestration {
        /// How often; medians count.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
        /// Seconds that are measured, after 10 s of the same load.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..))]
        seconds: u64,
        /// Measure Warren alone.
        #[arg(long)]
        without_celery: bool,
    },
}

fn main() {
    let Arguments { json, what: What::Orchestration { runs, seconds, without_celery } } = Arguments::parse();
    let minutes = u64::from(runs) * (seconds + 50) * if without_celery { 1 } else { 4 } / 60 + 3;
    eprintln!("about {minutes} minutes; let the machine do nothing else");
    let report = orchestration(runs, seconds, !without_celery);
    if json {
        println!("{}", report.json());
    } else {
        println!("{report}");
    }
}

fn orchestration(runs: u32, seconds: u64, with_celery: bool) -> Report {
    let mut report = Report { machine: machine(), build: build(), seconds, ..Report::default() };
    for run in 1..=runs {
        let warren = Warren::start(1);
        report.versions = warren.versions();
        let measured = warren.throughput("drill-0", 500, WARM_UP, seconds);
        eprintln!("warren, run {run}: {:.0} tasks/s", measured.rate());
        report.warren.push(measured);
        report.warren_alone.extend(warren.latency(SINGLE));
        warren.stop();
    }
    let warren = Warren::start(1);
    report.killed = warren.throughput_under_kills(seconds.clamp(15, 30));
    eprintln!("warren, broker and database killed: {} tasks, none lost", report.killed);
    report.waiting.0 = warren.throughput(WAITING, 50, 5, seconds.min(20)).rate();
    warren.scale(4);
    report.waiting.1 = warren.throughput(WAITING, 50, 5, seconds.min(20)).rate();
    eprintln!("warren, one worker and four: {:.0} and {:.0} tasks/s", report.waiting.0, report.waiting.1);
    warren.stop();
    if with_celery {
        report.celery_versions = Some(Celery::versions());
        for run in 1..=runs {
            let celery = Celery::start();
            for (prefetch, runs) in celery::PREFETCHES.into_iter().zip(&mut report.celery) {
                let by_second = celery.throughput(prefetch, WARM_UP, seconds);
                let measured = Run { by_second, ..Run::default() };
                eprintln!("celery, run {run}, prefetch {prefetch}: {:.0} tasks/s", measured.rate());
                runs.push(measured);
            }
            report.celery_alone.extend(celery.latency(SINGLE));
        }
    }
    report
}

/// All that was measured.
#[derive(Debug, Default)]
struct Report {
    machine: String,
    build: &'static str,
    versions: String,
    seconds: u64,
    warren: Vec<Run>,
    /// Milliseconds of single tasks.
    warren_alone: Vec<f64>,
    /// Tasks of the run in which broker and database were killed.
    killed: u64,
    /// Tasks in a second by one worker and by four.
    waiting: (f64, f64),
    celery_versions: Option<String>,
    /// By prefetch.
    celery: [Vec<Run>; 3],
    celery_alone: Vec<f64>,
}

fn rate(runs: &[Run]) -> f64 {
    median(runs.iter().map(Run::rate))
}

/// The slowest second of a run.
fn slowest(runs: &[Run]) -> f64 {
    median(runs.iter().map(|run| run.by_second.iter().copied().min().unwrap_or_default() as f64))
}

impl Report {
    /// The best prefetch, and its rate.
    fn celery_best(&self) -> (u32, f64) {
        let all = celery::PREFETCHES.into_iter().zip(self.celery.iter().map(|runs| rate(runs)));
        all.max_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or_default()
    }

    /// Median of the runs, by part.
    fn processor(&self) -> Vec<(String, f64)> {
        let Some(first) = self.warren.first() else { return Vec::new() };
        let of = |part: &str| {
            let of_run = |run: &Run| run.processor_us.iter().find(|(name, _)| name == part).map(|(_, us)| *us);
            median(self.warren.iter().filter_map(of_run))
        };
        first.processor_us.iter().map(|(name, _)| (name.clone(), of(name))).collect()
    }

    fn json(&self) -> Value {
        let runs = |runs: &[Run]| runs.iter().map(|run| run.by_second.clone()).collect::<Vec<_>>();
        let latency = |times: &[f64]| json!({ "p50_ms": percentile(times, 0.5), "p99_ms": percentile(times, 0.99) });
        let processor: serde_json::Map<_, _> =
            self.processor().into_iter().map(|(part, us)| (part, us.into())).collect();
        let celery = self.celery_versions.as_ref().map(|versions| {
            let of = |(prefetch, all): (u32, &Vec<Run>)| {
                json!({ "prefetch": prefetch, "tasks_per_second": rate(all), "by_second": runs(all) })
            };
            let all: Vec<_> = celery::PREFETCHES.into_iter().zip(&self.celery).map(of).collect();
            json!({ "versions": versions, "throughput": all, "latency": latency(&self.celery_alone) })
        });
        json!({
            "machine": self.machine, "build": self.build, "versions": self.versions, "seconds": self.seconds,
            "warren": {
                "tasks_per_second": rate(&self.warren), "slowest_second": slowest(&self.warren),
                "by_second": runs(&self.warren), "latency": latency(&self.warren_alone),
                "processor_us_per_task": processor,
            },
            "killed": { "tasks": self.killed, "lost": 0 },
            "waiting": { "one_worker": self.waiting.0, "four_workers": self.waiting.1 },
            "celery": celery,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.warren.len();
        writeln!(f, "A task that does nothing: one AMQP message out, one result back, one row of the result.")?;
        writeln!(f, "Quorum queues, publisher confirms, acknowledged after the work, PostgreSQL with fsync and")?;
        writeln!(
            f,
            "synchronous_commit on, everything on this machine. {} s each, medians of {count}.\n",
            self.seconds
        )?;
        writeln!(f, "  machine  {}\n  parts    {}\n  build    {}", self.machine, self.versions, self.build)?;
        if let Some(versions) = &self.celery_versions {
            writeln!(f, "  against  {versions}")?;
        }
        writeln!(f, "\n  {:<34}{:>10}{:>16}", "throughput", "tasks/s", "slowest second")?;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, runs: &[Run]| {
            writeln!(f, "  {name:<34}{:>10.0}{:>16.0}", rate(runs), slowest(runs))
        };
        line(f, "warren, one worker of two slots", &self.warren)?;
        if self.celery_versions.is_some() {
            for (prefetch, runs) in celery::PREFETCHES.into_iter().zip(&self.celery) {
                line(f, &format!("celery, two processes, prefetch {prefetch}"), runs)?;
            }
            let (prefetch, best) = self.celery_best();
            writeln!(f, "  {:.1} times Celery with prefetch {prefetch}", rate(&self.warren) / best)?;
        }
        writeln!(f, "\n  {:<34}{:>10}{:>10}", "one task after another", "p50 ms", "p99 ms")?;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, times: &[f64]| {
            writeln!(f, "  {name:<34}{:>10.1}{:>10.1}", percentile(times, 0.5), percentile(times, 0.99))
        };
        line(f, "warren, from submit to end of job", &self.warren_alone)?;
        if self.celery_versions.is_some() {
            line(f, "celery, from delay() to get()", &self.celery_alone)?;
        }
        writeln!(f, "\n  {:<34}{:>10}", "warren's processor time", "µs/task")?;
        for (part, us) in self.processor() {
            writeln!(f, "  {part:<34}{us:>10.0}")?;
        }
        writeln!(f, "\n  broker and database killed in mid-run: {} tasks, 0 lost, 0 twice", self.killed)?;
        let (one, four) = self.waiting;
        write!(f, "  tasks that wait 50 ms: {one:.1}/s by one worker, {four:.1}/s by four: {:.2} times", four / one)
    }
}

fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("processors of unknown make");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{cores} × {}", name.trim_start_matches([' ', '\t', ':']))
}

/// How the programs were compiled, as far as the folder tells.
fn build() -> &'static str {
    let me = std::env::current_exe().unwrap_or_default();
    let profile = me.parent().and_then(|folder| folder.file_name()).and_then(|name| name.to_str());
    if profile == Some("measured") { "optimised, as a release" } else { "for tests, hardly optimised" }
}
