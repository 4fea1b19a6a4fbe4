use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;

fn job(id: u32, caller: &str, class: JobClass) -> JobKey<u32> {
    JobKey { id, caller: caller.into(), class }
}

fn ordinary(id: u32) -> JobKey<u32> {
    job(id, "ann", JobClass::Default)
}

fn scheduler(slots: u32) -> Scheduler<u32> {
    Scheduler::new(Sharing::default(), slots)
}

/// Releases and ends one task at a time, `times` times.
fn one_by_one(scheduler: &mut Scheduler<u32>, times: usize) -> Vec<u32> {
    let mut order = Vec::new();
    for _ in 0..times {
        let Some(id) = scheduler.next(0) else { break };
        scheduler.released_ended(&id);
        order.push(id);
    }
    order
}

#[test]
fn a_clip_behind_a_long_recording_is_released_within_two_decisions() {
    for caller in ["ann", "bob"] {
        let mut scheduler = scheduler(1);
        scheduler.add(&ordinary(1), 126, 15.0, 0);
        assert_eq!([scheduler.next(0), scheduler.next(0), scheduler.next(0)], [Some(1), Some(1), None], "window of 2");
        scheduler.add(&job(2, caller, JobClass::Default), 1, 1.0, 0);
        let mut decisions = Vec::new();
        for _ in 0..2 {
            scheduler.released_ended(&1);
            decisions.extend(scheduler.next(0));
        }
        assert!(decisions.contains(&2), "{decisions:?}");
    }
}

#[test]
fn only_short_tasks_wait_until_a_long_one_does() {
    let mut scheduler = scheduler(1);
    assert!(scheduler.only_short(), "nothing waits");
    scheduler.add(&ordinary(1), 5, SHORT_SECONDS, 0);
    assert!(scheduler.only_short());
    scheduler.add(&ordinary(2), 1, 15.0, 0);
    assert!(!scheduler.only_short());
    while scheduler.of_job(&2).0 > 0 {
        let id = scheduler.next(0).expect("there is room after each end");
        scheduler.released_ended(&id);
    }
    assert!(scheduler.only_short(), "the long one does not wait any more");
    scheduler.add(&ordinary(3), 1, 15.0, 0);
    scheduler.remove_job(&3);
    assert!(scheduler.only_short(), "a job that is gone does not count");
}

#[test]
fn callers_share_evenly_however_many_jobs_they_have() {
    let mut scheduler = scheduler(1);
    scheduler.add(&job(0, "bob", JobClass::Default), 100, 15.0, 0);
    for id in 1..=9 {
        scheduler.add(&ordinary(id), 100, 15.0, 0);
    }
    let order = one_by_one(&mut scheduler, 90);
    assert_eq!(order.iter().filter(|id| **id == 0).count(), 45);
    for id in 1..=9 {
        assert_eq!(order.iter().filter(|of| **of == id).count(), 5);
    }
}

#[test]
fn tasks_of_half_the_cost_are_released_twice_as_often() {
    let mut scheduler = scheduler(1);
    scheduler.add(&ordinary(1), 100, 15.0, 0);
    scheduler.add(&ordinary(2), 100, 7.5, 0);
    let order = one_by_one(&mut scheduler, 60);
    assert_eq!(order.iter().filter(|id| **id == 2).count(), 40);
}

#[test]
fn a_job_alone_fills_the_window_and_among_many_keeps_to_its_cap() {
    let mut alone = scheduler(4);
    alone.add(&ordinary(1), 100, 15.0, 0);
    let filled = std::iter::from_fn(|| alone.next(0)).count();
    assert_eq!(filled, 8);

    let mut crowded = scheduler(4);
    for id in 0..10 {
        crowded.add(&ordinary(id), 100, 15.0, 0);
    }
    for _ in 0..200 {
        while crowded.next(0).is_some() {}
        assert!((0..10).all(|id| crowded.of_job(&id).1 <= 2));
        crowded.released_ended(&((crowded.waiting() % 10) as u32));
    }
}

#[test]
fn classes_go_in_order_and_the_passed_over_are_promoted() {
    let mut scheduler = scheduler(1);
    let after = Sharing::default().promote_after_ms;
    scheduler.add(&job(1, "ann", JobClass::Batch), 5, 15.0, 0);
    scheduler.add(&job(2, "ann", JobClass::Default), 5, 15.0, 0);
    scheduler.add(&job(3, "ann", JobClass::Interactive), 1000, 15.0, 0);
    let mut released = BTreeMap::<u32, Vec<u64>>::new();
    for second in 0..400 {
        let now = second * 1000;
        let id = scheduler.next(now).expect("there is work");
        scheduler.released_ended(&id);
        released.entry(id).or_default().push(now);
    }
    assert!(released[&3].len() > 380, "the interactive job has nearly all");
    assert_eq!(released[&2][0], after + 1000, "one class up, then its turn comes");
    assert!(released[&1][0] <= 3 * after, "two classes up: {:?}", released[&1]);
    assert!(released[&2].len() >= 3, "again and again: {:?}", released[&2]);
}

#[test]
fn a_removed_job_leaves_nothing_behind_and_frees_its_share() {
    let mut scheduler = scheduler(1);
    scheduler.add(&ordinary(1), 10, 15.0, 0);
    scheduler.add(&ordinary(2), 10, 15.0, 0);
    while scheduler.next(0).is_some() {}
    scheduler.remove_job(&1);
    scheduler.released_ended(&1);
    assert_eq!(scheduler.of_job(&1), (0, 0));
    let order = one_by_one(&mut scheduler, 100);
    assert!(order.iter().all(|id| *id == 2) && scheduler.waiting() == 0);
}

#[test]
fn a_release_that_could_not_be_written_is_put_back() {
    let mut scheduler = scheduler(1);
    scheduler.add(&ordinary(1), 1, 15.0, 0);
    assert_eq!(scheduler.next(0), Some(1));
    scheduler.put_back(&1, 0);
    assert_eq!((scheduler.waiting(), scheduler.released()), (1, 0));
    assert_eq!(scheduler.next(0), Some(1));
}

#[test]
fn what_was_released_before_a_hand_over_fills_the_window() {
    let mut scheduler = scheduler(1);
    scheduler.add_released(&ordinary(1), 2, 0);
    scheduler.add(&ordinary(1), 1, 15.0, 0);
    assert_eq!(scheduler.next(0), None);
    scheduler.released_ended(&1);
    assert_eq!(scheduler.next(0), Some(1));
}

#[test]
fn tasks_that_wait_for_a_later_try_keep_nobody_else_from_running() {
    let mut scheduler = scheduler(1);
    scheduler.add(&ordinary(1), 100, 15.0, 0);
    while let Some(id) = scheduler.next(0) {
        scheduler.postponed(&id);
    }
    assert_eq!((scheduler.of_job(&1), scheduler.released()), ((98, 2), 0), "its cap bounds what is put off");
    scheduler.add(&ordinary(2), 4, 15.0, 0);
    assert_eq!(one_by_one(&mut scheduler, 10), [2; 4]);
    scheduler.postponed_ended(&1);
    assert_eq!(scheduler.next(0), Some(1), "one that ran after all makes room for the next");
    scheduler.remove_job(&1);
    assert_eq!((scheduler.waiting(), scheduler.released()), (0, 0));
}

#[test]
fn jobs_take_turns_and_so_do_callers() {
    let mut scheduler = scheduler(1);
    for id in 1..=3 {
        scheduler.add(&ordinary(id), 5, 15.0, 0);
    }
    scheduler.add(&job(4, "bob", JobClass::Default), 5, 15.0, 0);
    scheduler.add(&job(5, "bob", JobClass::Interactive), 1, 15.0, 0);
    assert_eq!(one_by_one(&mut scheduler, 5), [5, 1, 4, 2, 4], "bob has no second job to take turns with");
}

#[test]
fn a_hundred_thousand_waiting_tasks_cost_no_more_per_decision() {
    let mut scheduler = scheduler(8);
    for id in 0..5000_u32 {
        let caller = format!("caller-{}", id % 700);
        let class = JobClass::ALL[id as usize % 3];
        scheduler.add(&job(id, &caller, class), 20, f64::from(id % 20), 0);
    }
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut decisions = 0_u64;
    while scheduler.waiting() > 0 {
        let decided = Instant::now();
        let id = scheduler.next(decisions * 100).expect("the window has room");
        slowest = slowest.max(decided.elapsed());
        scheduler.released_ended(&id);
        decisions += 1;
    }
    assert_eq!(decisions, 100_000);
    // Far above what it takes on an idle machine, far below what a scan of the waiting tasks would.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    println!("mean {:?}, slowest {slowest:?}", started.elapsed() / 100_000);
}

#[derive(Clone, Debug)]
enum Op {
    Add { id: u32, tasks: u64, cost: f64 },
    AddReleased { id: u32 },
    End { pick: usize },
    Postpone { pick: usize },
    EndPostponed { pick: usize },
    Release,
    PutBack,
    Remove { id: u32 },
    Slots(u32),
    Wait(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0_u32..12, 0_u64..20, 0.0..30.0).prop_map(|(id, tasks, cost)| Op::Add { id, tasks, cost }),
        1 => (0_u32..12).prop_map(|id| Op::AddReleased { id }),
        10 => any::<usize>().prop_map(|pick| Op::End { pick }),
        2 => any::<usize>().prop_map(|pick| Op::Postpone { pick }),
        2 => any::<usize>().prop_map(|pick| Op::EndPostponed { pick }),
        12 => Just(Op::Release),
        1 => Just(Op::PutBack),
        1 => (0_u32..12).prop_map(|id| Op::Remove { id }),
        1 => (0_u32..6).prop_map(Op::Slots),
        1 => (0_u64..50_000).prop_map(Op::Wait),
    ];
    prop::collection::vec(op, 0..400)
}

/// What a careful person would count by hand.
#[derive(Default)]
struct Ledger {
    jobs: BTreeMap<u32, (u64, u32)>,
    postponed: BTreeMap<u32, u32>,
}

impl Ledger {
    fn of(&self, id: u32) -> (u64, u32) {
        self.jobs.get(&id).copied().unwrap_or_default()
    }

    fn postponed(&self, id: u32) -> u32 {
        self.postponed.get(&id).copied().unwrap_or_default()
    }

    /// The tasks in the window, by job.
    fn out(&self) -> Vec<u32> {
        let in_window = |(id, of): (&u32, &(u64, u32))| std::iter::repeat_n(*id, (of.1 - self.postponed(*id)) as usize);
        self.jobs.iter().flat_map(in_window).collect()
    }

    /// The tasks that wait for a later try, by job.
    fn put_off(&self) -> Vec<u32> {
        self.postponed.iter().flat_map(|(id, tasks)| std::iter::repeat_n(*id, *tasks as usize)).collect()
    }

    fn apply(
        &mut self,
        scheduler: &mut Scheduler<u32>,
        op: &Op,
        key: impl Fn(u32) -> JobKey<u32>,
        now: &mut u64,
    ) -> Option<u32> {
        match op {
            Op::Add { id, tasks, cost } => {
                scheduler.add(&key(*id), *tasks, *cost, *now);
                self.jobs.entry(*id).or_default().0 += tasks;
            }
            Op::AddReleased { id } => {
                scheduler.add_released(&key(*id), 1, *now);
                self.jobs.entry(*id).or_default().1 += 1;
            }
            Op::End { pick } => {
                let out = self.out();
                if let Some(id) = out.get(pick % out.len().max(1)) {
                    scheduler.released_ended(id);
                    self.jobs.entry(*id).or_default().1 -= 1;
                }
            }
            Op::Postpone { pick } => {
                let out = self.out();
                if let Some(id) = out.get(pick % out.len().max(1)) {
                    scheduler.postponed(id);
                    *self.postponed.entry(*id).or_default() += 1;
                }
            }
            Op::EndPostponed { pick } => {
                let put_off = self.put_off();
                if let Some(id) = put_off.get(pick % put_off.len().max(1)) {
                    scheduler.postponed_ended(id);
                    *self.postponed.entry(*id).or_default() -= 1;
                    self.jobs.entry(*id).or_default().1 -= 1;
                }
            }
            Op::Release | Op::PutBack => {
                let id = scheduler.next(*now)?;
                let of = self.jobs.entry(id).or_default();
                *of = (of.0 - 1, of.1 + 1);
                if matches!(op, Op::PutBack) {
                    scheduler.put_back(&id, *now);
                    *of = (of.0 + 1, of.1 - 1);
                }
                return Some(id);
            }
            Op::Remove { id } => {
                scheduler.remove_job(id);
                self.jobs.remove(id);
                self.postponed.remove(id);
            }
            Op::Slots(slots) => scheduler.set_slots(*slots),
            Op::Wait(ms) => *now += ms,
        }
        None
    }
}

fn mixed(id: u32) -> JobKey<u32> {
    job(id, ["ann", "bob", "eve"][id as usize % 3], JobClass::ALL[id as usize / 4])
}

/// Counts, for each group of jobs that could be released all the while, the releases of every other group.
fn at_most_twice(
    ops: Vec<Op>,
    key: impl Fn(u32) -> JobKey<u32>,
    group: impl Fn(u32) -> u32,
) -> Result<(), TestCaseError> {
    let never = Sharing { promote_after_ms: u64::MAX, ..Sharing::default() };
    let mut scheduler = Scheduler::new(never, 2);
    let mut ledger = Ledger::default();
    let mut now = 0;
    let mut since: BTreeMap<u32, BTreeMap<u32, u32>> = BTreeMap::new();
    let able = |ledger: &Ledger, scheduler: &Scheduler<u32>| -> BTreeSet<u32> {
        let able = |id: &u32| ledger.of(*id).0 > 0 && ledger.of(*id).1 < scheduler.cap();
        (0..12).filter(able).map(&group).collect()
    };
    for op in ops.into_iter().filter(|op| !matches!(op, Op::PutBack)) {
        let before = able(&ledger, &scheduler);
        let released = ledger.apply(&mut scheduler, &op, &key, &mut now).map(&group);
        let after = able(&ledger, &scheduler);
        // A release may raise the cap for those that were at it a moment ago.
        since.retain(|waiting, _| before.contains(waiting) && after.contains(waiting) && released != Some(*waiting));
        for waiting in before.intersection(&after).filter(|waiting| released != Some(**waiting)) {
            let between = since.entry(*waiting).or_default();
            if let Some(other) = released {
                let times = between.entry(other).or_default();
                *times += 1;
                prop_assert!(*times <= 2, "{} was released {} times while {} waited", other, times, waiting);
            }
        }
    }
    Ok(())
}

#[test]
fn a_caller_keeps_its_turn_when_one_of_its_jobs_goes_and_another_may_go_on() {
    let add = |id, cost| Op::Add { id, tasks: 20, cost };
    // Two callers; the cap rises from 2 to 3 with the end of job 5, and job 8 of the same caller was at it.
    let mut ops = vec![Op::Slots(5), add(8, 15.0), Op::Release, Op::Release];
    ops.extend([add(0, 0.0), add(3, 0.0), add(6, 0.0), add(5, 15.0)]);
    ops.extend([Op::Release, Op::Release, Op::Release, Op::Remove { id: 5 }, Op::Release]);
    at_most_twice(ops, |id| job(id, ["ann", "bob", "eve"][id as usize % 3], JobClass::Default), |id| id % 3).unwrap();
}

proptest! {
    /// Counts agree with the ledger, caps and the window hold, and room in the window means that nothing waits but jobs
    /// at their cap with tasks that were put off.
    #[test]
    fn it_counts_right_keeps_its_limits_and_wastes_no_room(ops in ops()) {
        let mut scheduler = scheduler(2);
        let mut ledger = Ledger::default();
        let mut now = 0;
        for op in ops {
            let (cap, full) = (scheduler.cap(), scheduler.released() >= u64::from(scheduler.window()));
            let able = |id| ledger.of(id).0 > 0 && (ledger.of(id).1 < cap || ledger.postponed(id) == 0);
            let able = (0..12).any(able);
            let released = ledger.apply(&mut scheduler, &op, mixed, &mut now);
            if let Some(id) = released {
                prop_assert!(!full);
                prop_assert!(matches!(op, Op::PutBack) || ledger.of(id).1 <= cap);
            } else if matches!(op, Op::Release | Op::PutBack) {
                prop_assert!(full || !able, "room, and work waits");
            }
            prop_assert_eq!(scheduler.waiting(), ledger.jobs.values().map(|of| of.0).sum::<u64>());
            prop_assert_eq!(scheduler.released(), ledger.out().len() as u64);
            prop_assert_eq!(scheduler.only_short(), scheduler.long_jobs() == 0);
            for id in 0..12 {
                prop_assert_eq!(scheduler.of_job(&id), ledger.of(id));
            }
        }
    }

    /// While a job has work and is below its cap, every other job of its caller is released at most twice.
    #[test]
    fn between_two_releases_of_a_job_every_other_is_released_at_most_twice(ops in ops()) {
        at_most_twice(ops, ordinary, |id| id)?;
    }

    /// The same between callers.
    #[test]
    fn between_two_releases_of_a_caller_every_other_is_released_at_most_twice(ops in ops()) {
        at_most_twice(ops, |id| job(id, ["ann", "bob", "eve"][id as usize % 3], JobClass::Default), |id| id % 3)?;
    }

    /// However much interactive work keeps coming, every job is released within a bounded time.
    #[test]
    fn no_job_starves(
        jobs in prop::collection::vec((0_usize..3, 0_usize..3, 1_u64..4, 0.0..30.0), 1..15),
        flood in 1_u64..4,
        slots in 0_u32..3,
    ) {
        let mut scheduler = scheduler(slots);
        let mut hungry = BTreeSet::new();
        for (id, (caller, class, tasks, cost)) in (0_u32..).zip(&jobs) {
            scheduler.add(&job(id, ["ann", "bob", "eve"][*caller], JobClass::ALL[*class]), *tasks, *cost, 0);
            hungry.insert(id);
        }
        // One promotion a minute for each class, two for a batch job, and each of up to 15 waits for those before it.
        for second in 0..(60 * 2 * 16 + 600) {
            let now = second * 1000;
            for fresh in 0..flood {
                let id = u32::try_from(1000 + second * 10 + fresh).unwrap();
                scheduler.add(&job(id, "mallory", JobClass::Interactive), 1, 15.0, now);
            }
            if let Some(id) = scheduler.next(now) {
                hungry.remove(&id);
                scheduler.released_ended(&id);
            }
        }
        prop_assert!(hungry.is_empty(), "still waiting: {:?}", hungry);
    }
}
