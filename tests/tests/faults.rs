//! Faults of every kind, under load, on real parts: nothing is lost, nothing counts twice, and the ledger balances.
//!
//! `WARREN_TEST_SEED` repeats the chances of a run, `WARREN_TEST_ROWS=1,7` runs some rows alone.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rand::{
    Rng as _,
    seq::{IndexedRandom as _, SliceRandom as _},
};
use serde_json::json;
use warren_tests::{
    cases::Cases,
    faults::{
        callers::Tally,
        flood::{Flood, Load},
        kills::{self, Kill, Victim},
        ledger::Ledger,
        proxy::{Fault, Proxy},
        table::{Row, Table},
        talk::Talk,
        watch::{Look, Watch},
        world::{HEARTBEAT_S, World},
    },
    nightly,
    wait::until,
};

/// Tasks in a job.
const TASKS: usize = 10;
/// Longest recovery of whatever is killed; of the broker, which starts slowly.
const RECOVERY: Duration = Duration::from_secs(30);
const RECOVERY_OF_BROKER: Duration = Duration::from_secs(60);
/// Callers with a recording under way beside it, while anything may be killed, in the long run.
const SPEAKERS: usize = 1;
/// Load that goes on until it is told to stop: every fifth job has results that are objects in storage.
const STEADY: Load = Load { lanes: 8, jobs: None, tasks: TASKS, model: "drill-50", other: Some((5, "drill-wide-50")) };

#[test]
fn nothing_is_lost() {
    let world = World::start();
    let (mut cases, mut table, mut ledger) = (Cases::new(), Table::default(), Ledger::default());
    cases.case("without faults", || table.0.push(no_faults(&world, &mut ledger)));
    type Body = fn(&World, &mut Ledger) -> Row;
    let rows: [(u32, &str, Body); 12] = [
        (1, "kill -9 of anything at any moment", random_kills),
        (3, "the broker restarts", broker_restarts),
        (4, "kill -9 of the broker under load", broker_dies),
        (5, "kill -9 of the database under load", database_dies),
        (7, "the leader stands still for 30 s", leader_stands_still),
        (8, "a worker stands still for longer than its lease", worker_stands_still),
        (9, "every delivery three times, in another order", threefold),
        (13, "workers ten times as slow", slow_workers),
        (14, "the broker's memory alarm", memory_alarm),
        // From here on every line has a proxy.
        (15, "S3 says that it is asked too much", slow_down),
        (2, "kill -9 at each named point", named_points),
        (6, "bad lines to broker, database, coordinator, S3", bad_lines),
    ];
    let wanted = std::env::var("WARREN_TEST_ROWS").ok();
    let wanted = |row: u32| wanted.as_ref().is_none_or(|rows| rows.split(',').any(|one| one.trim() == row.to_string()));
    for (number, about, body) in rows.into_iter().filter(|(number, ..)| wanted(*number)) {
        let passed = cases.case(&format!("{number} {about}"), || {
            let row = body(&world, &mut ledger);
            ledger.check(&world);
            table.0.push(Row { number, name: about.to_owned(), ..row });
        });
        if !passed {
            table.0.push(Row { number, name: about.to_owned(), failed: true, ..Row::default() });
            ledger.begin_anew(&world);
        }
    }
    table.0.sort_by_key(|row| row.number);
    println!("{table}");
    cases.finish();
    world.stop();
}

/// What the same load comes to when nothing happens.
fn no_faults(world: &World, ledger: &mut Ledger) -> Row {
    let flood = Flood::start(world, "calm", Load { lanes: 4, jobs: Some(10), ..STEADY });
    let tally = flood.finish(world);
    ledger.enter(&tally, TASKS);
    ledger.check(world);
    let again = world.passes() - ledger.vectors;
    assert_eq!(again, 0, "without faults every task is run once");
    Row { name: "no faults".to_owned(), jobs: tally.jobs, again: Some(again), ..Row::default() }
}

/// Something bad that was done, and when it is over.
struct Blow {
    what: String,
    at: Instant,
    limit: Duration,
    is_over: Box<dyn Fn(&Look) -> bool>,
}

impl From<Kill> for Blow {
    fn from(kill: Kill) -> Self {
        let limit = if kill.victim == Victim::Broker { RECOVERY_OF_BROKER } else { RECOVERY };
        Self { what: kill.victim.to_string(), at: kill.at, limit, is_over: Box::new(move |look| kill.is_over(look)) }
    }
}

/// Runs `faults` while there is load, and watches.
fn under<B: Into<Blow>>(
    world: &World,
    ledger: &mut Ledger,
    name: &str,
    load: Load,
    faults: impl FnOnce(&Flood, &Watch) -> Vec<B>,
) -> Row {
    let watch = Watch::default();
    let passes = world.passes();
    let (blows, tally) = thread::scope(|scope| {
        scope.spawn(|| watch.run(world));
        // Also when this panics: a scope waits for its threads.
        let stop = Stop(&watch);
        let flood = Flood::start(world, name, load);
        until("the flood has begun", Duration::from_secs(60), || {
            (flood.accepted() > load.lanes / 2 && watch.last().is_some()).then_some(())
        });
        let blows: Vec<Blow> = faults(&flood, &watch).into_iter().map(Into::into).collect();
        let tally = flood.finish(world);
        until("every part is ready again", RECOVERY_OF_BROKER, || watch.last().filter(all_ready));
        drop(stop);
        (blows, tally)
    });
    ledger.enter(&tally, load.tasks);
    // What is hit again before it has recovered has its time from the last hit on.
    let recovered = |blow: &Blow| {
        let over = watch.recovered(blow.at, &blow.is_over).unwrap_or_else(|| panic!("{}: not over", blow.what));
        let over = blow.at + over;
        let last = blows.iter().map(|other| other.at).filter(|at| *at <= over).max().unwrap_or(blow.at);
        let took = over - last.max(blow.at);
        println!("    {:<24} recovered after {:.1} s", blow.what, took.as_secs_f64());
        took
    };
    let recovery: Vec<Duration> = blows.iter().map(recovered).collect();
    if let Some((blow, took)) = blows.iter().zip(&recovery).find(|(blow, took)| **took > blow.limit) {
        panic!("{} took {:.1} s to recover", blow.what, took.as_secs_f64());
    }
    Row {
        faults: blows.len(),
        jobs: tally.jobs,
        lost: tally.lost.len(),
        double: tally.wrong.len(),
        again: Some((world.passes() - passes).saturating_sub(tally.jobs as u64 * load.passes())),
        recovery,
        ..Row::default()
    }
}

fn all_ready(look: &Look) -> bool {
    look.progress.is_some() && look.services.iter().all(|service| service.state == "ready")
}

struct Stop<'a>(&'a Watch);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn random_kills(world: &World, ledger: &mut Ledger) -> Row {
    // So that the kills are spread over the work, of which little is done while the broker or the database starts.
    let (jobs, count, mean_s) = if nightly() { (2_000, 300, 3.5) } else { (200, 20, 1.5) };
    let load = Load { lanes: jobs, jobs: Some(jobs), ..STEADY };
    let talk = nightly().then(|| Talk::record(world));
    let talking = talk.as_ref().map(|talk| talk.repeat(world, SPEAKERS));
    let mut recordings = Tally::default();
    let mut chance = world.chance(1);
    let mut killed = Vec::new();
    let row = under(world, ledger, "kills", load, |flood, watch| {
        killed = kills::spree(world, flood, watch, &mut chance, count, Duration::from_secs_f64(mean_s));
        // What is left are the texts that the kills delayed: they have the machine to themselves.
        recordings = talking.map(|talking| talking.stop(world)).unwrap_or_default();
        killed.clone()
    });
    if let Some(talk) = &talk {
        println!("    {} recordings of {} tasks beside the texts", recordings.jobs, talk.tasks());
        ledger.enter_recordings(&talk.calm(), talk.tasks());
        ledger.enter_recordings(&recordings, talk.tasks());
    }
    println!("    {:<20} kills  with work in flight", "victim");
    let by_victim = kills::by_victim(&killed);
    for (victim, (all, busy)) in &by_victim {
        println!("    {victim:<20} {all:>5}  {busy:>5}");
    }
    assert_eq!(row.faults, count, "the work was done before all kills were");
    let busy = killed.iter().filter(|kill| kill.in_flight > 0).count();
    assert!(busy * 10 >= count * 8, "{busy} of {count} kills hit work in flight");
    let seldom = kills::victims().iter().find(|victim| by_victim.get(victim).is_none_or(|(all, _)| all * 12 < count));
    assert_eq!(seldom, None, "killed less often than one time in twelve");
    row
}

fn broker_restarts(world: &World, ledger: &mut Ledger) -> Row {
    let times = if nightly() { 10 } else { 1 };
    let before = world.stack.ps();
    let row = under(world, ledger, "broker restarts", STEADY, |_, watch| {
        let restart = |_| {
            let broker = world.stack.service("rabbitmq");
            broker.signal(Signal::SIGTERM);
            let kill = made(Victim::Broker, "rabbitmq", broker.pid, world);
            until("the broker is ready again", RECOVERY, || {
                watch.last().filter(|look| look.at > kill.at && kill.is_over(look))
            });
            kill
        };
        (0..times).map(restart).collect()
    });
    for service in world.stack.ps().into_iter().filter(|service| service.name != "rabbitmq") {
        let old = before.iter().find(|old| old.name == service.name).expect("it ran before");
        assert_eq!((old.pid, old.restarts), (service.pid, service.restarts), "{} was restarted, too", service.name);
    }
    row
}

fn made(victim: Victim, service: &str, pid: Option<u32>, world: &World) -> Kill {
    let in_flight = world.runtime.block_on(world.facts.progress()).map_or(0, |(_, released)| released);
    Kill { victim, service: service.to_owned(), pid, at: Instant::now(), in_flight }
}

/// Kills one victim so many times, each time once it has recovered from the last.
fn again_and_again(world: &World, watch: &Watch, row: u64, victim: Victim, times: usize) -> Vec<Kill> {
    let mut chance = world.chance(row);
    let one = |_| {
        thread::sleep(Duration::from_millis(chance.random_range(500..2_000)));
        let kill = until(&format!("{victim} can be killed"), RECOVERY, || kills::kill(world, victim));
        println!("    {victim} killed with {} in flight", kill.in_flight);
        until(&format!("{victim} is over it"), RECOVERY_OF_BROKER, || {
            watch.recovered(kill.at, |look| kill.is_over(look))
        });
        kill
    };
    (0..times).map(one).collect()
}

fn broker_dies(world: &World, ledger: &mut Ledger) -> Row {
    let times = if nightly() { 20 } else { 3 };
    under(world, ledger, "broker dies", STEADY, |_, watch| again_and_again(world, watch, 4, Victim::Broker, times))
}

fn database_dies(world: &World, ledger: &mut Ledger) -> Row {
    let times = if nightly() { 20 } else { 2 };
    under(world, ledger, "database dies", STEADY, |_, watch| again_and_again(world, watch, 5, Victim::Database, times))
}

fn leader_stands_still(world: &World, ledger: &mut Ledger) -> Row {
    let times = if nightly() { 20 } else { 1 };
    let leader = || world.runtime.block_on(world.facts.leader()).expect("the database answers");
    under(world, ledger, "leader stands still", STEADY, |_, watch| {
        let stop = |_| {
            let (frozen, _) = world.coordinators();
            let (_, term) = leader();
            frozen.signal(Signal::SIGSTOP);
            let at = Instant::now();
            let (heir, new_term) =
                until("another one leads", Duration::from_secs(15), || Some(leader()).filter(|(_, now)| *now > term));
            assert_ne!(heir, frozen.name);
            let failover = at.elapsed();
            println!("    another one led after {:.1} s", failover.as_secs_f64());
            until("work goes on", RECOVERY, || watch.recovered(at, |look| look.at > at + failover));
            thread::sleep(Duration::from_secs(30).saturating_sub(at.elapsed()));
            frozen.signal(Signal::SIGCONT);
            // It believes that it leads until the database tells it otherwise.
            until("the old one stands by", RECOVERY, || {
                watch.last().filter(|look| look.at > at + Duration::from_secs(31) && all_ready(look))
            });
            assert_eq!(leader(), (heir, new_term), "the old leader took nothing back");
            let old = world.stack.service(&frozen.name);
            assert_eq!((old.pid, old.restarts), (frozen.pid, frozen.restarts), "it steps down by itself");
            let led = at + failover;
            Blow { what: "leader".to_owned(), at, limit: RECOVERY, is_over: Box::new(move |look| look.at > led) }
        };
        (0..times).map(stop).collect()
    })
}

fn worker_stands_still(world: &World, ledger: &mut Ledger) -> Row {
    let times = if nightly() { 20 } else { 1 };
    // Long passes, so that the lease is in use when the worker stops.
    let load = Load { lanes: 3, tasks: 2, model: "drill-5000", other: None, ..STEADY };
    under(world, ledger, "worker stands still", load, |_, watch| {
        let stop = |_| {
            let name = "batch-embedding";
            let frozen = until("it uses a lease", RECOVERY, || {
                let leases = world.runtime.block_on(world.facts.leases_of(name)).ok()?;
                Some(world.stack.service(name)).filter(|worker| leases > 0 && worker.state == "ready")
            });
            frozen.signal(Signal::SIGSTOP);
            thread::sleep(Duration::from_secs(22));
            let kill = made(Victim::Worker(1), name, frozen.pid, world);
            frozen.signal(Signal::SIGCONT);
            let back = until("it has ended itself and is back", RECOVERY, || {
                watch.last().filter(|look| kill.is_over(look)).map(|_| world.stack.service(name))
            });
            assert_eq!(back.restarts, frozen.restarts + 1, "it ends itself: its lease is another's by now");
            kill
        };
        (0..times).map(stop).collect()
    })
}

/// What a line can suffer.
const FAULTS: [Fault; 6] = [
    Fault::Cut,
    Fault::Blackhole,
    Fault::OneWay,
    Fault::Latency(Duration::from_millis(500)),
    Fault::Reset(4_096),
    Fault::Throttle(20_000),
];

fn bad_lines(world: &World, ledger: &mut Ledger) -> Row {
    let span = Duration::from_secs(if nightly() { 30 } else { 10 });
    let links = world.links();
    let mut chance = world.chance(6);
    let mut lines: Vec<(&str, Vec<&Proxy>, Vec<Fault>)> = vec![("rabbitmq", vec![&links.amqp], FAULTS.to_vec())];
    for (name, line) in [
        ("postgresql", vec![&links.database]),
        ("coordinator", links.coordinators.iter().collect()),
        ("s3", vec![&links.storage]),
    ] {
        let count = if nightly() { FAULTS.len() } else { 2 };
        lines.push((name, line, FAULTS.choose_multiple(&mut chance, count).copied().collect()));
    }
    under(world, ledger, "bad lines", STEADY, |_, watch| {
        let mut blows = Vec::new();
        for (name, line, faults) in &lines {
            for fault in faults {
                let what = format!("{name} {fault:?}");
                println!("    {what}");
                let begun = Instant::now();
                line.iter().for_each(|proxy| proxy.fail(*fault));
                if (*name, *fault) == ("rabbitmq", Fault::Blackhole) {
                    let limit = Duration::from_secs(HEARTBEAT_S * 5 / 2);
                    let unready = |look: &Look| look.at > begun && look.services.iter().any(|one| one.state != "ready");
                    until("the silent broker is noticed", limit, || watch.last().filter(unready));
                    println!("    noticed after {:.1} s", begun.elapsed().as_secs_f64());
                }
                thread::sleep(span.saturating_sub(begun.elapsed()));
                line.iter().for_each(|proxy| proxy.heal());
                let at = Instant::now();
                until(&format!("{what}: all is well again"), RECOVERY, || watch.recovered(at, all_ready));
                blows.push(Blow { what, at, limit: RECOVERY, is_over: Box::new(all_ready) });
            }
        }
        blows
    })
}

/// What makes a process pass a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    /// A job, from its first moment.
    Job(&'static str),
    /// A job that has been planned and whose first tasks are out.
    RunningJob(&'static str),
    /// A message that nobody can read.
    Garbage,
}

/// A place to end at, how it comes to be passed, and at most how many passes of the model each end costs.
const POINTS: [(&str, Passed, u64); 12] = [
    ("ingest.texts-stored", Passed::Job("drill-20"), 0),
    ("ingest.job-committed", Passed::Job("drill-20"), 0),
    // Ingest's relay; the leader's is killed below.
    ("relay.published", Passed::Job("drill-20"), 0),
    ("relay.forgotten", Passed::Job("drill-20"), 0),
    ("coordinator.job-planned", Passed::Job("drill-20"), 0),
    // What the transaction released may be published by the time of the end, and its rows still be there: all of the
    // window at most, here and in the next two.
    ("coordinator.tasks-released", Passed::Job("drill-20"), 8),
    ("relay.published", Passed::RunningJob("drill-100"), 8),
    ("coordinator.reports-recorded", Passed::Job("drill-20"), 8),
    // A worker has two slots, and what has left them may still be on its way to storage or to the broker.
    ("worker.result-stored", Passed::Job("drill-wide-20"), 4),
    ("worker.report-sent", Passed::Job("drill-20"), 4),
    ("broker.letter-published", Passed::Garbage, 0),
    ("coordinator.letter-indexed", Passed::Garbage, 0),
];

fn named_points(world: &World, ledger: &mut Ledger) -> Row {
    let times = if nightly() { 50 } else { 3 };
    let mut row = Row { again: Some(0), ..Row::default() };
    world.hasten();
    for (point, by, most) in POINTS {
        let (passes, tasks) = (world.passes(), ledger.vectors);
        for time in 0..times {
            let at = Instant::now();
            match by {
                Passed::Job(model) => {
                    let load = Load { lanes: 1, jobs: Some(1), model, other: None, ..STEADY };
                    world.points.order(point, 1);
                    let flood = Flood::start(world, &format!("{point} {time}"), load);
                    world.points.carried_out(point, RECOVERY);
                    row.jobs += 1;
                    ledger.enter(&flood.finish(world), load.tasks);
                }
                Passed::RunningJob(model) => {
                    let done = world.counts().expect("the database answers").done;
                    // Long enough that tasks are still to be released when the order is there.
                    let load = Load { lanes: 1, jobs: Some(1), model, other: None, tasks: 10 * TASKS };
                    let flood = Flood::start(world, &format!("{point} of a running job {time}"), load);
                    until("it runs", RECOVERY, || world.counts().filter(|counts| counts.done > done));
                    world.points.order(point, 1);
                    world.points.carried_out(point, RECOVERY);
                    row.jobs += 1;
                    ledger.enter(&flood.finish(world), load.tasks);
                }
                Passed::Garbage => {
                    world.points.order(point, 1);
                    world.stack.management().publish("warren.task", "embed", &json!({}), "{ no JSON");
                    world.points.carried_out(point, RECOVERY);
                    // Who ends between publishing a letter and acknowledging its message writes it once more.
                    ledger.letters += if point == "broker.letter-published" { 2 } else { 1 };
                    let indexed = || world.counts().filter(|counts| counts.letters >= ledger.letters);
                    until("the letter is indexed", RECOVERY, indexed);
                }
            }
            row.faults += 1;
            row.recovery.push(at.elapsed());
            world.stack.until_ready();
        }
        let again = world.passes() - passes - (ledger.vectors - tasks);
        let seconds = row.recovery[row.recovery.len() - times..].iter().sum::<Duration>().as_secs_f64();
        println!("    {point:<32} {times} ends, {again} passes again, {:.1} s each", seconds / times as f64);
        assert!(again <= most * times as u64, "{point}: at most {most} passes again for each end");
        row.again = row.again.map(|all| all + again);
    }
    row
}

/// Each task and each report is delivered three times, the copies in an order of chance.
fn threefold(world: &World, ledger: &mut Ledger) -> Row {
    let jobs = if nightly() { 1_000 } else { 25 };
    let broker = world.stack.management();
    let taps = [("warren.task", "embed", "warren.task.embed"), ("warren.event", "warren.result", "warren.result")];
    let tap = |queue: &str| format!("copies.of.{queue}");
    for (exchange, key, queue) in taps {
        broker.tap(exchange, key, &tap(queue));
    }
    let mut chance = world.chance(9);
    let mut copies = 0;
    let load = Load { lanes: jobs, jobs: Some(jobs), model: "drill-20", other: None, ..STEADY };
    let mut row = under(world, ledger, "threefold", load, |flood, _| {
        let mut quiet = 0;
        while quiet < 3 {
            let before = copies;
            for (_, _, queue) in taps {
                let mut taken = broker.take_many(&tap(queue), 100);
                taken.extend(taken.clone());
                taken.shuffle(&mut chance);
                for copy in &taken {
                    broker.publish("amq.default", queue, &copy.properties, &copy.body);
                }
                copies += taken.len();
            }
            quiet = if copies == before && flood.is_over() { quiet + 1 } else { 0 };
        }
        Vec::<Blow>::new()
    });
    for (_, _, queue) in taps {
        broker.remove(&tap(queue));
    }
    println!("    {copies} copies of {} messages", 2 * jobs * TASKS);
    assert!(copies >= 4 * jobs * TASKS, "each message was to have two copies");
    row.faults = copies;
    row
}

/// However slow the workers are, no more than a window of tasks leaves the database.
fn slow_workers(world: &World, ledger: &mut Ledger) -> Row {
    let span = Duration::from_secs(if nightly() { 120 } else { 10 });
    // Two slots of each of two workers; the window is twice as many.
    let window = 8;
    let load = Load { model: "drill-wait-500", other: None, ..STEADY };
    under(world, ledger, "slow workers", load, |_, watch| {
        let released = || watch.last().and_then(|look| look.progress).map_or(0, |(_, released)| released);
        let depth = || world.stack.management().depths().get("warren.task.embed").copied().unwrap_or_default();
        // The workers have to find out first that tasks which were short are long now, and to work off what was released
        // before.
        let slow = Instant::now();
        until("what was released to fast workers is done", Duration::from_secs(90), || {
            (1..=window).contains(&released()).then_some(())
        });
        println!("    the window was back after {:.1} s", slow.elapsed().as_secs_f64());
        let (begun, mut most) = (Instant::now(), 0);
        while begun.elapsed() < span {
            most = released().max(most);
            thread::sleep(Duration::from_millis(250));
        }
        println!("    at most {most} tasks released; window {window}");
        assert!(most <= window, "{most} released");
        // The broker counts every few seconds, and later when it has much to do.
        until("its queue is no longer", Duration::from_secs(30), || (depth() <= window).then_some(()));
        assert!(most > 0, "nothing was seen");
        Vec::<Blow>::new()
    })
}

/// Nobody may publish: what runs goes on, the services say why nothing leaves, and all goes on by itself.
fn memory_alarm(world: &World, ledger: &mut Ledger) -> Row {
    let span = Duration::from_secs(if nightly() { 60 } else { 10 });
    under(world, ledger, "memory alarm", STEADY, |_, watch| {
        world.set_broker_memory(&["0.00001"]);
        let begun = Instant::now();
        let unready = |look: &Look| look.at > begun && look.services.iter().any(|one| one.state != "ready");
        until("a service is not ready", RECOVERY, || watch.last().filter(unready));
        println!("    seen after {:.1} s", begun.elapsed().as_secs_f64());
        thread::sleep(span.saturating_sub(begun.elapsed()));
        world.set_broker_memory(&["absolute", "512MB"]);
        let at = Instant::now();
        vec![Blow { what: "memory alarm".to_owned(), at, limit: RECOVERY, is_over: Box::new(all_ready) }]
    })
}

/// Work that needs storage waits, outside of the workers, and succeeds.
fn slow_down(world: &World, ledger: &mut Ledger) -> Row {
    let (times, span) = (if nightly() { 5 } else { 1 }, Duration::from_secs(10));
    let load = Load { model: "drill-wide-50", other: None, ..STEADY };
    under(world, ledger, "slow down", load, |_, watch| {
        let one = |_| {
            world.links().storage.fail(Fault::SlowDown);
            thread::sleep(span);
            world.links().storage.heal();
            let at = Instant::now();
            until("work goes on", RECOVERY, || watch.recovered(at, all_ready));
            Blow { what: "S3 503".to_owned(), at, limit: RECOVERY, is_over: Box::new(all_ready) }
        };
        (0..times).map(one).collect()
    })
}
