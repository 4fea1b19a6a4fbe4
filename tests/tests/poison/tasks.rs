//! Row 10: tasks that panic, abort, hang, and have their worker killed for want of memory.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use warren_drills::StandIn;
use warren_messages::wire::{Job, JobState};
use warren_tests::{
    faults::{table::Row, world::World},
    nightly,
};

use crate::number;

const JOBS: usize = 50;
const TASKS: usize = 10;
const MODEL: &str = "drill-20";
/// Longest that a job takes for each task that does harm: a task that hangs is given up after half a minute, three times.
const HARM: Duration = Duration::from_secs(30);
/// What a text can do, and how its task ends. Most of the deaths that a worker survives cost little, so there are more.
const ORDERS: [(&str, &str); 10] = [
    ("drill:panic", "Internal"),
    ("drill:abort", "WorkerLost"),
    ("drill:memory 0", "OutOfMemory"),
    ("drill:kill", "WorkerLost"),
    ("drill:die-until /nowhere/mended: nobody mends it", "Internal"),
    ("drill:panic", "Internal"),
    ("drill:hang", "WorkerLost"),
    ("drill:memory 0", "OutOfMemory"),
    ("drill:abort", "WorkerLost"),
    ("drill:kill", "WorkerLost"),
];

pub(crate) fn poison(world: &World) -> Row {
    let all = if nightly() { 100 } else { 10 };
    let limit = HARM * all as u32;
    let begun = Instant::now();
    let restarts: u64 = world.stack.ps().iter().map(|service| service.restarts).sum();
    let mut texts: Vec<Vec<String>> =
        (0..JOBS).map(|job| (0..TASKS).map(|task| format!("poison {job} text {task}")).collect()).collect();
    // Spread over the jobs, none of them first.
    for number in 0..all {
        let (job, task) = (number * JOBS / all, 3 + 2 * (number % 2));
        ORDERS[number % ORDERS.len()].0.clone_into(&mut texts[job][task]);
    }
    let made: usize = texts.iter().flatten().filter(|text| text.starts_with("drill:")).count();
    assert_eq!(made, all, "each has its place");
    let jobs: Vec<(String, Job)> = world.runtime.block_on(async {
        let run = |(number, texts): (usize, &Vec<String>)| {
            let (client, texts) = (world.client.clone(), texts.clone());
            tokio::spawn(async move {
                let id = client.submit(&format!("poison {number}"), MODEL, &texts).await?;
                let job = client.ended(&id, limit).await?;
                Ok::<_, tonic::Status>((id, job))
            })
        };
        let running: Vec<_> = texts.iter().enumerate().map(run).collect();
        let mut jobs = Vec::new();
        for job in running {
            jobs.push(job.await.expect("no panic").expect("it ends"));
        }
        jobs
    });
    let took = begun.elapsed();
    world.stack.until_ready();

    let model = StandIn::named(MODEL).expect("a stand-in");
    let (mut classes, mut expected) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new());
    for ((id, job), texts) in jobs.iter().zip(&texts) {
        let dead = texts.iter().filter(|text| text.starts_with("drill:")).count();
        let wanted = if dead == 0 { JobState::Succeeded } else { JobState::Failed };
        assert_eq!(job.state(), wanted, "{job:?}");
        let counts = job.tasks.unwrap_or_default();
        assert_eq!((counts.done as usize, counts.dead as usize), (TASKS - dead, dead), "{job:?}");
        let vectors = world.runtime.block_on(world.client.vectors(id)).expect("what was done can be had");
        let sound: Vec<(u32, Vec<f32>)> = texts
            .iter()
            .enumerate()
            .filter(|(_, text)| !text.starts_with("drill:"))
            .map(|(index, text)| (index as u32, model.vector(text)))
            .collect();
        assert!(vectors == sound, "{id}: other vectors than of its {} sound texts", sound.len());
        for letter in world.stack.warren(&["dlq", "list", "--json", "--job", id]).ok().json_lines() {
            let class = letter["class"].as_str().unwrap_or_default().to_owned();
            let cause = letter["cause"].as_str().unwrap_or_default();
            assert!(!cause.is_empty(), "{letter}");
            println!("    {class}: {cause}");
            *classes.entry(class).or_default() += 1;
        }
        for text in texts {
            if let Some((_, class)) = ORDERS.iter().find(|(order, _)| order == text) {
                *expected.entry((*class).to_owned()).or_default() += 1;
            }
        }
    }
    assert_eq!(classes, expected, "each with the code that says why");
    let of =
        |what: &str| number(world, &format!("SELECT coalesce(max(losses), 0) AS n FROM task WHERE state = '{what}'"));
    let (dead, done) = (of("dead"), of("done"));
    let restarts = world.stack.ps().iter().map(|service| service.restarts).sum::<u64>() - restarts;
    println!(
        "    {restarts} workers lost in {:.0} s; a dead task took {dead} at most, a sound one {done}",
        took.as_secs_f64()
    );
    assert!(dead <= 3, "no more workers than the limit says");
    assert!(done < 3, "a sound task nearly died of its neighbours");
    Row { faults: all, jobs: jobs.len(), ..Row::default() }
}
