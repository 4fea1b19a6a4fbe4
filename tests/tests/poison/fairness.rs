//! Row 17: a job of 126 tasks does not keep short ones waiting.

use std::time::{Duration, Instant};

use rand::Rng as _;
use warren_messages::wire::JobState;
use warren_tests::faults::{table::Row, world::World};

/// The long job: its tasks, and what each takes.
const LONG: (usize, &str) = (126, "drill-wait-500");
const CHUNK: Duration = Duration::from_millis(500);
const SHORT: usize = 20;
/// Two workers of two slots; twice as many tasks are out.
const SLOTS: u32 = 4;
const WINDOW: u32 = 8;
/// What a job takes besides its work and its turn: its plan, its way there and back.
const OVERHEAD: Duration = Duration::from_secs(1);

pub(crate) fn short_jobs_behind_a_long_one(world: &World) -> Row {
    let mut chance = world.chance(17);
    let span = CHUNK * LONG.0 as u32 / SLOTS;
    let moments: Vec<Duration> = (0..SHORT).map(|_| span.mul_f64(0.05 + 0.75 * chance.random::<f64>())).collect();
    let texts: Vec<String> = (0..LONG.0).map(|task| format!("long text {task}")).collect();
    let (mut waits, long) = world.runtime.block_on(async {
        let begun = Instant::now();
        let client = world.client.clone();
        let long = tokio::spawn(async move {
            let id = client.submit("the long job", LONG.1, &texts).await?;
            let job = client.ended(&id, Duration::from_secs(120)).await?;
            Ok::<_, tonic::Status>((job, begun.elapsed()))
        });
        let short = |(number, moment): (usize, &Duration)| {
            let (client, moment) = (world.client.clone(), *moment);
            tokio::spawn(async move {
                tokio::time::sleep_until((begun + moment).into()).await;
                let submitted = Instant::now();
                let id = client.submit(&format!("short {number}"), LONG.1, &[format!("short text {number}")]).await?;
                let job = client.ended(&id, Duration::from_secs(60)).await?;
                Ok::<_, tonic::Status>((job, moment, submitted.elapsed().saturating_sub(CHUNK)))
            })
        };
        let short: Vec<_> = moments.iter().enumerate().map(short).collect();
        let mut waits = Vec::new();
        for job in short {
            let (job, moment, wait) = job.await.expect("no panic").expect("it ends");
            assert_eq!(job.state(), JobState::Succeeded, "{job:?}");
            waits.push((wait, moment));
        }
        (waits, long.await.expect("no panic").expect("it ends"))
    });
    let (long, took) = long;
    assert_eq!(long.state(), JobState::Succeeded, "{long:?}");
    // Jobs that were there when one came: the long one, and those that had come and not yet gone.
    let active = |moment: Duration, waits: &[(Duration, Duration)]| {
        1 + waits.iter().filter(|(wait, at)| *at < moment && *at + *wait + CHUNK > moment).count() as u32
    };
    let worst = waits.iter().map(|(wait, at)| {
        let bound = CHUNK * (WINDOW + active(*at, &waits) + 1) / SLOTS + OVERHEAD;
        assert!(*wait <= bound, "one that came at {at:?} waited {wait:?}, with a bound of {bound:?}");
        bound
    });
    let bound = worst.max().expect("there are some");
    waits.sort();
    let seconds = |index: usize| waits[index].0.as_secs_f64();
    let all = span + CHUNK * SHORT as u32 / SLOTS;
    println!(
        "    waits: {:.2} s in the middle, {:.2} s at most, of {:.2} s; all of it takes {:.1} s, the long one took {:.1} s",
        seconds(SHORT / 2),
        seconds(SHORT - 1),
        bound.as_secs_f64(),
        all.as_secs_f64(),
        took.as_secs_f64()
    );
    assert!(took <= all.mul_f64(1.5) + OVERHEAD, "the slots stood idle");
    Row { jobs: 1 + SHORT, recovery: waits.into_iter().map(|(wait, _)| wait).collect(), ..Row::default() }
}
