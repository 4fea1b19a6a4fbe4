//! The protocol of leases and tasks, searched state by state with [stateright](https://docs.rs/stateright).
//!
//! **What is real.** Every decision is made by the code that runs in production: [`warren_jobs::lease::LeaseTable`] on
//! the coordinators, [`warren_jobs::lease::HeldLeases`] in the workers (when a lease may be used, when a process ends
//! itself), [`warren_jobs::lease::Tenure`] (how long a leader believes that it leads), `state::accepts` and
//! `state::task::step` for what is recorded.
//!
//! **What is modelled**, by its contract. The store: transactions are atomic, and one of a leader commits only in its term
//! (the SQL is tested in `crates/store/tests/contract`). The broker: at least once, in any order. The network between
//! coordinators and workers: any message to a coordinator may be late, lost, heard twice, or overtaken by another one;
//! an answer is heard at once or never. A process that does nothing for a while is stopped: nobody has to act, except
//! that a forward pass ends within one tick after the watchdog's rule. Clocks of coordinators differ; a worker's may lose
//! a tick while it holds a lease.
//!
//! **What is not.** Memory that a stopped process keeps on a card; several devices, classes and yields (the property
//! tests beside the table have them); a report of a worker that is older than its last but one; more than the bounds
//! that each test names. Leases and tasks are searched apart: whether a report counts does not depend on any lease.
//!
//! Ticks stand for the intervals in their order: leader's step-down ≤ its row's life ≤ self-fence < lease < lease and
//! grace. The margin is used up to its end: a watchdog one tick late and a clock one tick behind are just safe, and
//! `margins_are_used_up` shows that a tick more is not.
//!
//! Invariants are numbered as in the design: I1 a device is used within its limit, I2 fences increase, I3 one result
//! counts, I4 nothing of a stale term commits, I5 nobody computes past the self-fence, I6 nothing is granted again before
//! expiry and grace, I7 what is free is granted, I8 an open task is somewhere, I9 what is heard twice counts once.

use std::{collections::BTreeSet, hash::Hash, time::Instant};

use stateright::{Checker, HasDiscoveries, Model};

mod leases;
mod tasks;

use leases::{Leases, Mutation as Wrong};
use tasks::{Mutation as Mistake, Tasks};

/// However many steps it takes.
const ALL: usize = usize::MAX;

/// Steps of a task: enough for it to go out, die, be replayed and be done. All of them are too many states.
const STEPS: usize = 14;

/// Searches all states that `depth` steps lead to, or until `until` is found broken. Returns what was found: properties that do not hold, and
/// examples of what has to be possible.
fn explore<M>(what: &str, model: M, depth: usize, until: Option<&str>) -> BTreeSet<&'static str>
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static,
    M::Action: Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static,
{
    let started = Instant::now();
    let sought = |name: &&'static str| until.is_some_and(|until| name.starts_with(until));
    let wanted: BTreeSet<_> = model.properties().iter().map(|property| property.name).filter(sought).collect();
    assert_eq!(wanted.len(), usize::from(until.is_some()), "one property is looked for");
    let mut checker = model.checker().threads(2).target_max_depth(depth);
    if until.is_some() {
        checker = checker.finish_when(HasDiscoveries::AnyOf(wanted));
    }
    let checker = checker.spawn_bfs().join();
    println!(
        "{what}: {} states, {} different ones, {} deep, {:.1} s",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64()
    );
    let discoveries = checker.discoveries();
    for (name, path) in &discoveries {
        if name.contains(": ") {
            println!("  {name}: not so after {:?}", path.clone().into_actions());
        }
    }
    discoveries.into_keys().collect()
}

/// One coordinator leads all the time; a worker asks up to twice, and reports before it hears of a grant.
fn one_leader() -> Leases {
    Leases {
        mutation: None,
        horizon: 2,
        terms: 1,
        term_ttl: 9,
        fences: 2,
        waits: 2,
        asks: 3,
        boots: 1,
        skew: 1,
        lossy: true,
        early_reports: true,
        lucky: true,
        epoch: Instant::now(),
    }
}

/// Long enough for a lease to be lost, to drain, and to be granted again.
fn long() -> Leases {
    Leases { horizon: 3, waits: 1, asks: 2, early_reports: false, ..one_leader() }
}

/// A second coordinator takes over while the first one may believe that it still leads.
fn hand_over() -> Leases {
    Leases { horizon: 2, terms: 2, term_ttl: 1, waits: 1, ..one_leader() }
}

#[test]
fn no_lease_breaks_an_invariant() {
    let found = explore("one leader", one_leader(), ALL, None);
    assert_eq!(found, BTreeSet::new());
    let found = explore("one leader, long", long(), ALL, None);
    assert_eq!(found, BTreeSet::from(["a device goes from a lost worker to another"]));
    let found = explore("hand-over", hand_over(), ALL, None);
    assert_eq!(found, BTreeSet::from(["a worker computes under the second term"]));
    let processes = Leases { boots: 2, lossy: false, ..hand_over() };
    let found = explore("hand-over, two processes", processes, ALL, None);
    assert_eq!(found, BTreeSet::from(["a worker computes under the second term"]));
}

#[test]
fn every_mistake_with_leases_is_found() {
    let one = Leases { horizon: 1, fences: 3, lossy: false, skew: 0, early_reports: false, ..one_leader() };
    let late = Leases { horizon: 4, asks: 2, lossy: false, skew: 0, early_reports: false, ..hand_over() };
    let over = Leases { lossy: false, ..hand_over() };
    for (mutation, model, broken) in [
        (Wrong::NoGrace, long(), "I6"),
        (Wrong::AnyFence, one, "I1"),
        (Wrong::AnyTerm, Leases { early_reports: false, ..over.clone() }, "I4"),
        (Wrong::LateLeader, late, "I6"),
        (Wrong::GoneLater, over.clone(), "I1"),
        (Wrong::AbandonsUsed, over, "I1"),
    ] {
        let found = explore(&format!("{mutation:?}"), Leases { mutation: Some(mutation), ..model }, ALL, Some(broken));
        assert!(found.iter().any(|name| name.starts_with(broken)), "{mutation:?} goes unnoticed");
    }
}

#[test]
fn margins_are_used_up() {
    let found = explore("a clock two ticks behind", Leases { skew: 2, lossy: false, ..long() }, ALL, Some("I1"));
    assert!(found.iter().any(|name| name.starts_with("I1")), "the model is more careful than it says");
}

#[test]
fn no_task_breaks_an_invariant() {
    let found = explore("one task", right(), STEPS, None);
    let examples = [
        "a dead task is done in the end",
        "a late report is refused",
        "a task is done after it was lost and went out again",
    ];
    assert_eq!(found, BTreeSet::from(examples));
}

#[test]
fn every_mistake_with_tasks_is_found() {
    for (mutation, broken) in [(Mistake::AnyDispatch, "I3"), (Mistake::BlindCount, "Ledger"), (Mistake::AckFirst, "I8")]
    {
        let found =
            explore(&format!("{mutation:?}"), Tasks { mutation: Some(mutation), ..right() }, STEPS, Some(broken));
        assert!(found.iter().any(|name| name.starts_with(broken)), "{mutation:?} goes unnoticed");
    }
}

fn right() -> Tasks {
    Tasks { mutation: None, faults: 1, dispatches: 2 }
}
