//! One task, from its release to its recorded result.

use std::collections::BTreeSet;

use stateright::{Model, Property};
use warren_jobs::{
    TaskState,
    state::{TaskEvent, accepts, task::step},
};

const WORKERS: usize = 2;

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// A report counts whatever dispatch it names.
    AnyDispatch,
    /// The job counts one more for every report that is read, whether or not it moved the task.
    BlindCount,
    /// A worker acknowledges its task before its report is with the broker.
    AckFirst,
}

/// Bounds of the search, and what is done wrong in it.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    pub(crate) mutation: Option<Mutation>,
    /// Processes that die and connections that break, all together.
    pub(crate) faults: u32,
    /// Highest dispatch: how often the task goes out.
    pub(crate) dispatches: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    // The store.
    state: TaskState,
    dispatch: u32,
    /// As the job has it.
    done: u32,
    met: BTreeSet<Message>,
    outbox: BTreeSet<u32>,
    // The broker.
    tasks: Vec<u32>,
    reports: Vec<Message>,
    letters: Vec<u32>,
    workers: [Option<Hand>; WORKERS],
    faults: u32,
    /// Somebody emptied the queue while this dispatch was in it.
    purged: BTreeSet<u32>,
    /// Dispatches whose result was recorded.
    recorded: Vec<u32>,
    broken: bool,
}

/// A report; the same one when it is published twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Message {
    dispatch: u32,
    worker: usize,
}

/// A task in a worker's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Hand {
    dispatch: u32,
    published: bool,
    acked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Release,
    Cancel,
    /// It looks as if the message were gone; perhaps it is only late.
    Redispatch,
    Redrive,
    /// The relay publishes a row of the outbox.
    Relay(u32),
    /// And notes that it did. In between, it may die.
    Relayed(u32),
    Take(usize, usize),
    /// The work is done and its report is with the broker; or was before, and is again.
    Publish(usize),
    Ack(usize),
    /// The work failed for good: the letter is with the broker.
    Bury(usize),
    /// The process dies, or its connection.
    Lose(usize),
    /// The transaction of a report. Its acknowledgement may be lost, then it comes again.
    Record(usize),
    Recorded(usize),
    Index(usize),
    Indexed(usize),
    Purge,
}

impl World {
    fn step(&mut self, event: TaskEvent) -> Option<()> {
        self.state = step(self.state, &event).ok()?;
        Some(())
    }

    fn goes_out(&mut self, event: TaskEvent) -> Option<()> {
        self.step(event)?;
        self.dispatch += 1;
        self.outbox.insert(self.dispatch);
        Some(())
    }

    fn sort(&mut self) {
        self.tasks.sort_unstable();
        self.reports.sort_unstable();
        self.letters.sort_unstable();
    }

    /// True when something still has the current dispatch of the task.
    fn somewhere(&self) -> bool {
        self.outbox.contains(&self.dispatch)
            || self.tasks.contains(&self.dispatch)
            || self.letters.contains(&self.dispatch)
            || self.workers.iter().flatten().any(|hand| hand.dispatch == self.dispatch)
            || self.reports.iter().any(|report| report.dispatch == self.dispatch)
    }
}

impl Tasks {
    /// The transaction of `reports.rs` for one report.
    fn record(&self, world: &mut World, report: Message) {
        if !world.met.insert(report) {
            return;
        }
        let counts = match self.mutation {
            Some(Mutation::AnyDispatch) => accepts(world.state, world.dispatch, world.dispatch),
            _ => accepts(world.state, world.dispatch, report.dispatch),
        };
        if counts && world.step(TaskEvent::Done).is_some() {
            world.broken |= report.dispatch != world.dispatch;
            world.recorded.push(report.dispatch);
            world.done += 1;
        } else if self.mutation == Some(Mutation::BlindCount) {
            world.done += 1;
        }
    }
}

impl Model for Tasks {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            state: TaskState::Unreleased,
            dispatch: 0,
            done: 0,
            met: BTreeSet::new(),
            outbox: BTreeSet::new(),
            tasks: Vec::new(),
            reports: Vec::new(),
            letters: Vec::new(),
            workers: [None; WORKERS],
            faults: 0,
            purged: BTreeSet::new(),
            recorded: Vec::new(),
            broken: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.push(Action::Cancel);
        if world.dispatch < self.dispatches {
            actions.extend([Action::Release, Action::Redispatch, Action::Redrive]);
        }
        if !world.tasks.is_empty() && world.faults < self.faults {
            actions.push(Action::Purge);
        }
        for dispatch in &world.outbox {
            actions.push(Action::Relayed(*dispatch));
            // There twice at most.
            let in_hands = world.workers.iter().flatten().map(|hand| &hand.dispatch);
            if world.tasks.iter().chain(in_hands).filter(|task| *task == dispatch).count() < 2 {
                actions.push(Action::Relay(*dispatch));
            }
        }
        for (w, hand) in world.workers.iter().enumerate() {
            match hand {
                None => actions.extend((0..world.tasks.len()).map(|nth| Action::Take(w, nth))),
                Some(hand) => {
                    if world.reports.len() < 2 {
                        actions.push(Action::Publish(w));
                    }
                    if !hand.published && !hand.acked && world.letters.is_empty() {
                        actions.push(Action::Bury(w));
                    }
                    actions.push(Action::Ack(w));
                    if world.faults < self.faults {
                        actions.push(Action::Lose(w));
                    }
                }
            }
        }
        for nth in 0..world.reports.len() {
            actions.extend([Action::Record(nth), Action::Recorded(nth)]);
        }
        for nth in 0..world.letters.len() {
            actions.extend([Action::Index(nth), Action::Indexed(nth)]);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Release => world.goes_out(TaskEvent::Released)?,
            Action::Cancel => world.step(TaskEvent::Cancelled)?,
            Action::Redispatch => world.goes_out(TaskEvent::Redispatched)?,
            Action::Redrive => world.goes_out(TaskEvent::Redriven)?,
            Action::Relay(dispatch) => world.tasks.push(dispatch),
            // Marked only when it was published: the confirm is what it marks.
            Action::Relayed(dispatch) => {
                let published = last.tasks.contains(&dispatch)
                    || last.workers.iter().flatten().any(|hand| hand.dispatch == dispatch);
                if !published {
                    return None;
                }
                world.outbox.remove(&dispatch);
            }
            Action::Take(w, nth) => {
                let dispatch = world.tasks.remove(nth);
                world.workers[w] = Some(Hand { dispatch, published: false, acked: false });
            }
            Action::Publish(w) => {
                let hand = world.workers[w].as_mut()?;
                hand.published = true;
                world.reports.push(Message { dispatch: hand.dispatch, worker: w });
                if hand.acked {
                    world.workers[w] = None;
                }
            }
            Action::Ack(w) => {
                let hand = world.workers[w].as_mut()?;
                match (hand.published, self.mutation) {
                    (true, _) => world.workers[w] = None,
                    (false, Some(Mutation::AckFirst)) if !hand.acked => hand.acked = true,
                    (false, _) => return None,
                }
            }
            Action::Bury(w) => {
                let hand = world.workers[w].as_mut()?;
                hand.published = true;
                world.letters.push(hand.dispatch);
            }
            Action::Lose(w) => {
                let hand = world.workers[w].take()?;
                world.faults += 1;
                // What was not acknowledged comes again.
                if !hand.acked {
                    world.tasks.push(hand.dispatch);
                }
            }
            Action::Record(nth) => {
                let report = world.reports[nth];
                self.record(&mut world, report);
                let once = world.clone();
                self.record(&mut world, report);
                world.broken |= self.mutation.is_none() && world != once;
            }
            // Acknowledged after its transaction.
            Action::Recorded(nth) => {
                if !last.met.contains(&last.reports[nth]) {
                    return None;
                }
                world.reports.remove(nth);
            }
            Action::Index(nth) => {
                let dispatch = world.letters[nth];
                if !accepts(world.state, world.dispatch, dispatch) {
                    return None;
                }
                world.step(TaskEvent::Dead)?;
            }
            Action::Indexed(nth) => {
                if accepts(world.state, world.dispatch, last.letters[nth]) {
                    return None;
                }
                world.letters.remove(nth);
            }
            Action::Purge => {
                world.faults += 1;
                world.purged.extend(world.tasks.drain(..));
            }
        }
        world.sort();
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I3: one result counts, and it is the current dispatch's", |_, world: &World| {
                world.recorded.len() <= 1 && !world.broken
            }),
            Property::always("Ledger: the job counts its tasks", |_, world: &World| {
                world.done == u32::from(world.state == TaskState::Done)
            }),
            Property::always("I8: an open task is somewhere", |_, world: &World| {
                world.state != TaskState::Released || world.somewhere() || world.purged.contains(&world.dispatch)
            }),
            // Or nothing was shown.
            Property::sometimes("a task is done after it was lost and went out again", |_, world: &World| {
                world.state == TaskState::Done && world.dispatch == 2 && world.purged.contains(&1)
            }),
            Property::sometimes("a late report is refused", |_, world: &World| {
                world.state == TaskState::Released && world.met.iter().any(|report| report.dispatch < world.dispatch)
            }),
            Property::sometimes("a dead task is done in the end", |_, world: &World| {
                world.state == TaskState::Done && world.letters.contains(&1)
            }),
        ]
    }
}
