//! Workers that share one device never use it at once, whoever is killed or stopped: shown by their own records.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use warren_tests::{
    command::Running,
    nightly, recordings,
    stack::{Stack, Wishes},
    wait::{during, until},
};

/// Workers, by service.
const WORKERS: [&str; 4] = ["transcription", "transcription-2", "batch-embedding", "batch-embedding-2"];
/// Longer than a lease and its grace: the stopped worker's lease goes to others meanwhile.
const STOPPED: Duration = Duration::from_secs(25);
const LIMIT: Duration = Duration::from_secs(240);
/// A standby leads within this time after the leader's end.
const TAKES_OVER: Duration = Duration::from_secs(10);

/// One forward pass, in nanoseconds of the machine's monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pass {
    worker: String,
    fence: u64,
    start: u64,
    end: u64,
}

#[test]
fn no_two_workers_use_a_device_at_once() {
    let records = tempfile::tempdir().expect("a temporary folder");
    let stack = Stack::with(&Wishes {
        arguments: &["--coordinators", "3", "--workers", "transcription=2,batch-embedding=2"],
        settings: settings(records.path()),
        ..Wishes::default()
    });
    let mut load = Load::new(&stack);
    let (rounds, span) = if nightly() { (5, Duration::from_secs(36)) } else { (1, Duration::from_secs(12)) };
    let (mut leaders_killed, mut stopped) = (0, BTreeMap::<String, u64>::new());
    for _ in 0..rounds {
        load.for_a_while(span);

        let (old, term) = leader(&stack).expect("somebody leads");
        listens_alone(&stack);
        println!("{old} killed");
        let killed = Instant::now();
        stack.kill(&old);
        leaders_killed += 1;
        // The killed one starts again, and may be the next one.
        let (heir, _) = until("another term", TAKES_OVER, || leader(&stack).filter(|(_, now)| *now > term));
        println!("{heir} leads after {:.1} s", killed.elapsed().as_secs_f64());
        load.for_a_while(span);
        listens_alone(&stack);

        // Whoever computes at this moment is in the middle of its lease.
        let victim = busiest(records.path());
        let restarts = stack.service(&victim).restarts;
        println!("{victim} stopped for {} s", STOPPED.as_secs());
        stack.service(&victim).signal(Signal::SIGSTOP);
        load.for_a_while(STOPPED);
        let others_before = passes(records.path()).len();
        stack.service(&victim).signal(Signal::SIGCONT);
        until("work by the others", LIMIT, || (passes(records.path()).len() > others_before).then_some(()));
        load.for_a_while(span);
        *stopped.entry(victim.clone()).or_default() += 1;
        println!("{victim}: {} restarts after it", stack.service(&victim).restarts - restarts);
    }
    load.finish();
    stack.until_ready();

    let all = passes(records.path());
    report(&all);
    let overlaps = overlaps(&all);
    assert!(overlaps.is_empty(), "{} overlaps, the first: {:?}", overlaps.len(), overlaps[0]);
    for worker in WORKERS {
        assert!(all.iter().any(|pass| pass.worker == worker), "{worker} never had the device");
        let allowed = stopped.get(worker).copied().unwrap_or_default();
        let restarts = stack.service(worker).restarts;
        assert!(restarts <= allowed, "{worker}, which nobody stopped that often, ended {restarts} times");
    }
    let coordinators: u64 = stack.ps().iter().filter(|s| s.name.starts_with("coordinator")).map(|s| s.restarts).sum();
    assert_eq!(coordinators, leaders_killed, "only those ended that were killed");
    assert!(stack.jobs().iter().all(|job| job["state"] == "succeeded"), "{:?}", stack.jobs());
    assert_eq!(stack.dead_letters(), Vec::<Value>::new());
    stack.stop();
}

/// One device for one worker at a time, and a record for each worker.
fn settings(records: &Path) -> String {
    let mut settings = "[[coordinator.devices]]\nname = \"cpu\"\nmax_concurrent = 1\n".to_owned();
    for worker in WORKERS {
        let record = record(records, worker);
        settings.push_str(&format!("\n[{worker}.leases]\nrecord = {:?}\n", record.display().to_string()));
    }
    settings
}

fn record(records: &Path, worker: &str) -> PathBuf {
    records.join(format!("{worker}.jsonl"))
}

/// Jobs of both kinds, always more than the workers can do.
struct Load<'a> {
    stack: &'a Stack,
    recording: String,
    texts: String,
    running: Vec<(bool, Running)>,
    done: usize,
}

impl<'a> Load<'a> {
    fn new(stack: &'a Stack) -> Self {
        let recording = recordings::long_english(&stack.folder().join("speech.wav"), 3).path;
        let texts = stack.folder().join("texts.txt");
        let line =
            |number: usize| format!("Sentence {number} says that {}.\n", "things go on and on ".repeat(number % 12));
        fs::write(&texts, (0..400).map(line).collect::<String>()).expect("room for a file");
        let [recording, texts] = [recording, texts].map(|path| path.to_str().expect("a plain name").to_owned());
        Self { stack, recording, texts, running: Vec::new(), done: 0 }
    }

    fn for_a_while(&mut self, span: Duration) {
        let start = Instant::now();
        while start.elapsed() < span {
            self.top_up();
            during(Duration::from_millis(400), || None::<()>);
        }
    }

    /// Three clients of each kind; those that are done are looked at.
    fn top_up(&mut self) {
        for (speech, mut client) in std::mem::take(&mut self.running) {
            if client.runs() {
                self.running.push((speech, client));
            } else {
                client.wait(LIMIT).ok();
                self.done += 1;
            }
        }
        for speech in [true, false] {
            while self.running.iter().filter(|(kind, _)| *kind == speech).count() < 3 {
                let client = if speech {
                    self.stack.begin(&["transcribe", "--json", "--model", "tiny.en", &self.recording])
                } else {
                    self.stack.begin(&["embed", "--json", &self.texts])
                };
                self.running.push((speech, client));
            }
        }
    }

    /// Lets what is begun come to its end.
    fn finish(mut self) {
        for (_, client) in self.running.drain(..) {
            client.wait(LIMIT).ok();
            self.done += 1;
        }
        println!("{} jobs done", self.done);
    }
}

/// Who leads and in which term, as `warren workers` tells; `None` while nobody does.
fn leader(stack: &Stack) -> Option<(String, u64)> {
    let told = stack.warren(&["workers"]).ok().stdout;
    let (leader, rest) = told.lines().rev().find_map(|line| line.split_once(" leads (term "))?;
    let term = rest.trim_end().trim_end_matches(')').parse().unwrap_or_else(|error| panic!("{error}: {told}"));
    Some((leader.to_owned(), term))
}

/// Of three coordinators one takes what there is to decide: commands and results have a single consumer.
fn listens_alone(stack: &Stack) {
    // The broker's counts are up to five seconds old.
    until("one consumer for each queue of the leader's", Duration::from_secs(20), || {
        let queues = stack.management().queues();
        let consumers = |name: &str| {
            let queue = queues.iter().find(|queue| queue["name"] == name).unwrap_or_else(|| panic!("no queue {name}"));
            queue["consumers"].as_u64()
        };
        ["warren.job", "warren.result"].iter().all(|name| consumers(name) == Some(1)).then_some(())
    });
}

/// The worker whose record grew last.
fn busiest(records: &Path) -> String {
    let all = passes(records);
    all.iter().max_by_key(|pass| pass.end).map(|pass| pass.worker.clone()).expect("somebody worked")
}

fn passes(records: &Path) -> Vec<Pass> {
    let read = |worker: &&str| fs::read_to_string(record(records, worker)).unwrap_or_default();
    WORKERS.iter().map(read).flat_map(|text| text.lines().map(pass).collect::<Vec<_>>()).collect()
}

fn pass(line: &str) -> Pass {
    let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let number = |field: &str| line[field].as_u64().unwrap_or_else(|| panic!("{field}: {line}"));
    Pass {
        worker: line["worker"].as_str().unwrap_or_default().to_owned(),
        fence: number("fence"),
        start: number("start_ns"),
        end: number("end_ns"),
    }
}

/// Pairs of different workers' passes that were under way at the same moment.
fn overlaps(passes: &[Pass]) -> Vec<(Pass, Pass)> {
    let mut sorted: Vec<&Pass> = passes.iter().collect();
    sorted.sort_by_key(|pass| pass.start);
    let mut found = Vec::new();
    let mut longest: Vec<&Pass> = Vec::new();
    for pass in sorted {
        longest.retain(|earlier| earlier.end > pass.start);
        found.extend(
            longest
                .iter()
                .filter(|earlier| earlier.worker != pass.worker)
                .map(|&earlier| (earlier.clone(), pass.clone())),
        );
        longest.push(pass);
    }
    found
}

fn report(passes: &[Pass]) {
    let mut by_worker = BTreeMap::<&str, (usize, u64)>::new();
    for pass in passes {
        let entry = by_worker.entry(&pass.worker).or_default();
        entry.0 += 1;
        entry.1 += pass.end - pass.start;
    }
    for (worker, (count, nanoseconds)) in by_worker {
        println!("{worker}: {count} passes, {:.1} s", nanoseconds as f64 / 1e9);
    }
    let fences: std::collections::BTreeSet<_> = passes.iter().map(|pass| pass.fence).collect();
    println!("{} leases", fences.len());
}

#[test]
fn the_measure_sees_an_overlap() {
    let pass = |worker: &str, start, end| Pass { worker: worker.to_owned(), fence: 1, start, end };
    assert!(overlaps(&[pass("a", 0, 10), pass("b", 10, 20), pass("a", 20, 30), pass("a", 22, 24)]).is_empty());
    // A long pass under which others begin and end.
    let seen = overlaps(&[pass("a", 0, 100), pass("b", 10, 20), pass("b", 30, 40), pass("c", 35, 36)]);
    assert_eq!(seen.len(), 4, "{seen:?}");
}
