//! Row 20: load for a long time, with faults of several kinds. Nothing is lost, and no service grows.
//!
//! `WARREN_TEST_SEED` repeats the chances of a run.

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use warren_tests::{
    faults::{
        flood::{Flood, Load},
        kills::{self, Victim},
        ledger::Ledger,
        proxy::Fault,
        world::World,
    },
    nightly,
    wait::until,
};

const LOAD: Load = Load { lanes: 8, jobs: None, tasks: 10, model: "drill-50", other: Some((5, "drill-wide-50")) };
/// Between two looks at the services' memory.
const LOOK: Duration = Duration::from_secs(5);
/// Growth that is allowed, bytes in a minute, once the first third of the run has warmed everything up.
const GROWTH: f64 = 1_000_000.0;
/// Descriptors more than before: a connection that is made anew while the old one is not gone yet.
const DESCRIPTORS: usize = 16;

/// What can happen here. Services that are looked at are not killed: a new process tells nothing of growth.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Line(Fault),
    Worker,
    Broker,
    Database,
    Storage,
    Frozen,
}

const TROUBLES: [Trouble; 10] = [
    Trouble::Line(Fault::Cut),
    Trouble::Line(Fault::OneWay),
    Trouble::Line(Fault::Blackhole),
    Trouble::Line(Fault::Latency(Duration::from_millis(200))),
    Trouble::Line(Fault::Reset(4_096)),
    Trouble::Worker,
    Trouble::Broker,
    Trouble::Database,
    Trouble::Storage,
    Trouble::Frozen,
];

#[test]
fn nothing_is_lost_and_nothing_grows() {
    let span = Duration::from_secs(if nightly() { 1_800 } else { 60 });
    let world = World::start();
    world.links();
    let (mut chance, mut ledger, mut growth) = (world.chance(20), Ledger::default(), Growth::default());
    let flood = Flood::start(&world, "soak", LOAD);
    let begun = Instant::now();
    let mut troubles = 0;
    thread::scope(|scope| {
        let looks = scope.spawn(|| {
            while begun.elapsed() < span {
                growth.look(&world, begun.elapsed());
                thread::sleep(LOOK);
            }
        });
        while begun.elapsed() < span && !looks.is_finished() {
            thread::sleep(Duration::from_millis(chance.random_range(2_000..8_000)));
            let trouble = *TROUBLES.choose(&mut chance).expect("there are some");
            println!("{:>7.1} s  {trouble:?}", begun.elapsed().as_secs_f64());
            make(&world, trouble, &mut chance);
            troubles += 1;
        }
    });
    let tally = flood.finish(&world);
    println!("{troubles} troubles in {:.0} s, {} jobs", begun.elapsed().as_secs_f64(), tally.jobs);
    ledger.enter(&tally, LOAD.tasks);
    ledger.check(&world);
    let grown = growth.judge();
    // A minute is too short to tell growth from warming up.
    assert!(!nightly() || grown.is_empty(), "{grown:?}");
    world.stop();
}

fn make(world: &World, trouble: Trouble, chance: &mut StdRng) {
    let links = world.links();
    match trouble {
        Trouble::Line(fault) => {
            let lines = [&links.amqp, &links.database, &links.storage, &links.coordinators[0], &links.coordinators[1]];
            let line = lines.choose(chance).expect("there are some");
            line.fail(fault);
            thread::sleep(Duration::from_millis(chance.random_range(500..5_000)));
            line.heal();
        }
        Trouble::Frozen => {
            let (leader, _) = world.coordinators();
            leader.signal(Signal::SIGSTOP);
            thread::sleep(Duration::from_millis(chance.random_range(500..4_000)));
            leader.signal(Signal::SIGCONT);
        }
        Trouble::Worker => strike(world, Victim::Worker(2)),
        Trouble::Broker => strike(world, Victim::Broker),
        Trouble::Database => strike(world, Victim::Database),
        Trouble::Storage => strike(world, Victim::Storage),
    }
}

/// Kills, unless it is down already.
fn strike(world: &World, victim: Victim) {
    if let Some(kill) = kills::kill(world, victim) {
        println!("           with {} in flight", kill.in_flight);
    }
    if matches!(victim, Victim::Broker | Victim::Database) {
        until("the database answers", Duration::from_secs(60), || world.counts());
    }
}

/// Memory and open descriptors of the processes that live all the time.
#[derive(Debug, Default)]
struct Growth {
    /// By service and process.
    seen: BTreeMap<(String, u32), Vec<Sample>>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    minutes: f64,
    bytes: f64,
    descriptors: usize,
}

impl Growth {
    fn look(&mut self, world: &World, at: Duration) {
        for service in world.stack.ps().into_iter().filter(|service| service.http.is_some()) {
            let Some(pid) = service.pid else { continue };
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kilobytes = resident.and_then(|text| text.trim().trim_end_matches(" kB").parse::<f64>().ok());
            let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
            if let (Some(kilobytes), Ok(descriptors)) = (kilobytes, descriptors) {
                let sample = Sample { minutes: at.as_secs_f64() / 60.0, bytes: kilobytes * 1024.0, descriptors };
                self.seen.entry((service.name, pid)).or_default().push(sample);
            }
        }
    }

    /// What grew, of the processes that lived for the most part.
    fn judge(&self) -> Vec<String> {
        let longest = self.seen.values().map(Vec::len).max().unwrap_or(0);
        let lived: Vec<_> = self.seen.iter().filter(|(_, samples)| samples.len() * 2 > longest).collect();
        assert!(lived.len() >= 3, "too few lived on: {lived:?}");
        let mut grown = Vec::new();
        for ((service, _), samples) in lived {
            let (early, late) = samples.split_at(samples.len() / 3);
            let slope = slope(late);
            let most = |samples: &[Sample]| samples.iter().map(|sample| sample.descriptors).max().unwrap_or(0);
            let (before, after) = (most(early), most(&late[late.len() / 2..]));
            println!(
                "    {service:<18} {:>4.0} MB, {:+.2} MB/min; {before} descriptors at first, {after} at last",
                samples[samples.len() - 1].bytes / 1e6,
                slope / 1e6,
            );
            if slope > GROWTH || after > before + DESCRIPTORS {
                grown.push(service.clone());
            }
        }
        grown
    }
}

/// Least squares: bytes in a minute.
fn slope(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|sample| sample.minutes), mean(|sample| sample.bytes));
    let (mut across, mut along) = (0.0, 0.0);
    for sample in samples {
        across += (sample.minutes - x) * (sample.bytes - y);
        along += (sample.minutes - x).powi(2);
    }
    if along > 0.0 { across / along } else { 0.0 }
}

#[test]
fn growth_is_seen() {
    let samples = |bytes: fn(f64) -> f64| -> Vec<Sample> {
        (0..30).map(|n| Sample { minutes: f64::from(n), bytes: bytes(f64::from(n)), descriptors: 9 }).collect()
    };
    assert!((slope(&samples(|minutes| 5e7 + 2e6 * minutes)) - 2e6).abs() < 1.0);
    assert!(slope(&samples(|_| 5e7)).abs() < 1.0);
}
