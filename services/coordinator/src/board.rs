//! What the leader keeps in memory of open work. The rows are the truth; this is loaded from them at the start of a
//! term and follows each commit.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use uuid::Uuid;
use warren_clock::UnixMillis;
use warren_jobs::{
    TaskKind,
    release::{JobKey, Scheduler, Sharing},
};

use crate::sessions::Sessions;

/// A task that is in the outbox, in the broker, with a worker or on the retry ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Out {
    /// Its job.
    pub job: Uuid,
    /// Its kind.
    pub kind: TaskKind,
    /// The current dispatch; any other is stale.
    pub dispatch: u32,
}

/// What a committed transaction means for the board.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// New waiting tasks: job, kind, how many, device seconds of each.
    pub waiting: Vec<(JobKey<Uuid>, TaskKind, u64, f64)>,
    /// Jobs of which one task at a time goes out: it is waiting or out, as long as there is one.
    pub keep_going: Vec<(JobKey<Uuid>, TaskKind, f64)>,
    /// Tasks that are released now without the scheduler's choice: replayed ones.
    pub released: Vec<(Uuid, JobKey<Uuid>, Out)>,
    /// Tasks that are no longer out.
    pub ended: Vec<Uuid>,
    /// Tasks that wait on the retry ladder.
    pub postponed: Vec<Uuid>,
    /// Jobs that ended; whatever they had waiting or out is void.
    pub finished: Vec<Uuid>,
    /// Jobs that somebody may be watching.
    pub touched: Vec<Uuid>,
}

impl Changes {
    /// Adds what another part of the same transaction did.
    pub(crate) fn merge(&mut self, other: Self) {
        self.waiting.extend(other.waiting);
        self.keep_going.extend(other.keep_going);
        self.released.extend(other.released);
        self.ended.extend(other.ended);
        self.postponed.extend(other.postponed);
        self.finished.extend(other.finished);
        self.touched.extend(other.touched);
    }
}

/// What the live workers can take of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    /// Tasks that they run at once.
    slots: u32,
    /// Tasks that they take in hand at once.
    holds: u32,
}

impl Room {
    /// What counts for the window. A worker may have measured short tasks where long ones wait now, so both must agree.
    fn now(self, scheduler: &Scheduler<Uuid>) -> u32 {
        if scheduler.only_short() { self.holds } else { self.slots }
    }
}

/// The schedulers, one a kind, and the released tasks.
#[derive(Debug)]
pub(crate) struct Board {
    schedulers: BTreeMap<TaskKind, Scheduler<Uuid>>,
    rooms: BTreeMap<TaskKind, Room>,
    out: HashMap<Uuid, Out>,
    /// Of those out, the ones that were put off to a later try, for as long as this dispatch lasts.
    postponed: HashSet<Uuid>,
    /// Kinds of which nothing is released.
    paused: BTreeSet<TaskKind>,
}

impl Board {
    /// An empty board.
    pub(crate) fn new(sharing: &Sharing) -> Self {
        let schedulers = TaskKind::ALL.iter().map(|kind| (*kind, Scheduler::new(sharing.clone(), 0))).collect();
        Self {
            schedulers,
            rooms: BTreeMap::new(),
            out: HashMap::new(),
            postponed: HashSet::new(),
            paused: BTreeSet::new(),
        }
    }

    /// Follows a commit. Returns the tasks whose workers must be told to stop.
    pub(crate) fn apply(&mut self, changes: &Changes, now: UnixMillis) -> Vec<Uuid> {
        let now_ms = u64::try_from(now.0).unwrap_or(0);
        for task in &changes.ended {
            let Some(out) = self.out.remove(task) else { continue };
            let postponed = self.postponed.remove(task);
            let scheduler = self.scheduler(out.kind);
            if postponed { scheduler.postponed_ended(&out.job) } else { scheduler.released_ended(&out.job) }
        }
        for (job, kind, tasks, cost) in &changes.waiting {
            self.scheduler(*kind).add(job, *tasks, *cost, now_ms);
        }
        for (task, job, out) in &changes.released {
            self.scheduler(out.kind).add_released(job, 1, now_ms);
            self.out.insert(*task, out.clone());
        }
        for task in &changes.postponed {
            if let Some(out) = self.out.get(task).cloned()
                && self.postponed.insert(*task)
            {
                self.scheduler(out.kind).postponed(&out.job);
            }
        }
        for (job, kind, cost) in &changes.keep_going {
            let scheduler = self.scheduler(*kind);
            if scheduler.of_job(&job.id) == (0, 0) {
                scheduler.add(job, 1, *cost, now_ms);
            }
        }
        let mut stopped = Vec::new();
        for job in &changes.finished {
            for scheduler in self.schedulers.values_mut() {
                scheduler.remove_job(job);
            }
            stopped.extend(self.out.iter().filter(|(_, out)| out.job == *job).map(|(task, _)| *task));
            self.out.retain(|_, out| out.job != *job);
        }
        let out = &self.out;
        self.postponed.retain(|task| out.contains_key(task));
        stopped
    }

    /// Follows the coming and going of workers.
    pub(crate) fn set_slots(&mut self, sessions: &Sessions) {
        for (kind, scheduler) in &mut self.schedulers {
            let room = Room { slots: sessions.slots(*kind), holds: sessions.holds(*kind) };
            self.rooms.insert(*kind, room);
            scheduler.set_slots(room.now(scheduler));
        }
    }

    /// Somebody paused a kind of work, or ended the pause.
    pub(crate) fn set_paused(&mut self, kind: TaskKind, paused: bool) {
        if paused {
            self.paused.insert(kind)
        } else {
            self.paused.remove(&kind)
        };
    }

    /// Up to `most` decisions for one kind: how many tasks of which job go out now, in order. None while it is paused.
    pub(crate) fn decide(&mut self, kind: TaskKind, most: usize, now: UnixMillis) -> Vec<(Uuid, u64)> {
        if self.paused.contains(&kind) {
            return Vec::new();
        }
        let now_ms = u64::try_from(now.0).unwrap_or(0);
        let room = self.rooms.get(&kind).copied().unwrap_or_default();
        let scheduler = self.scheduler(kind);
        scheduler.set_slots(room.now(scheduler));
        let mut picked: Vec<(Uuid, u64)> = Vec::new();
        for _ in 0..most {
            let Some(job) = scheduler.next(now_ms) else { break };
            match picked.iter_mut().find(|(known, _)| *known == job) {
                Some((_, tasks)) => *tasks += 1,
                None => picked.push((job, 1)),
            }
        }
        picked
    }

    /// A decided task is out under this dispatch.
    pub(crate) fn went_out(&mut self, task: Uuid, out: Out) {
        self.out.insert(task, out);
    }

    /// Decisions whose rows were not there any more: the job ended meanwhile.
    pub(crate) fn came_to_nothing(&mut self, job: Uuid, kind: TaskKind, tasks: u64) {
        for _ in 0..tasks {
            self.scheduler(kind).released_ended(&job);
        }
    }

    /// Decisions that could not be written.
    pub(crate) fn put_back(&mut self, job: Uuid, kind: TaskKind, tasks: u64, now: UnixMillis) {
        for _ in 0..tasks {
            self.scheduler(kind).put_back(&job, u64::try_from(now.0).unwrap_or(0));
        }
    }

    /// A released task, if it is out.
    pub(crate) fn out(&self, task: Uuid) -> Option<&Out> {
        self.out.get(&task)
    }

    /// Waiting and released tasks of a kind.
    pub(crate) fn open(&self, kind: TaskKind) -> (u64, u64) {
        self.schedulers.get(&kind).map_or((0, 0), |scheduler| (scheduler.waiting(), scheduler.released()))
    }

    fn scheduler(&mut self, kind: TaskKind) -> &mut Scheduler<Uuid> {
        self.schedulers.get_mut(&kind).expect("there is a scheduler for every kind")
    }
}

#[cfg(test)]
mod tests {
    use warren_jobs::JobClass;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000);

    fn key(id: u128) -> JobKey<Uuid> {
        JobKey { id: Uuid::from_u128(id), caller: "anna".to_owned(), class: JobClass::Default }
    }

    fn waiting(id: u128, tasks: u64) -> Changes {
        Changes { waiting: vec![(key(id), TaskKind::Transcribe, tasks, 5.0)], ..Changes::default() }
    }

    #[test]
    fn a_task_goes_out_ends_and_makes_room() {
        let mut board = Board::new(&Sharing::default());
        board.apply(&waiting(1, 5), NOW);
        assert_eq!(board.decide(TaskKind::Transcribe, 64, NOW), [(Uuid::from_u128(1), 2)], "a window of two");
        for task in [11, 12] {
            let out = Out { job: Uuid::from_u128(1), kind: TaskKind::Transcribe, dispatch: 1 };
            board.went_out(Uuid::from_u128(task), out);
        }
        assert!(board.decide(TaskKind::Transcribe, 64, NOW).is_empty());
        board.apply(&Changes { ended: vec![Uuid::from_u128(11)], ..Changes::default() }, NOW);
        assert_eq!(board.decide(TaskKind::Transcribe, 64, NOW), [(Uuid::from_u128(1), 1)]);
    }

    #[test]
    fn a_task_on_the_retry_ladder_leaves_its_place_to_other_jobs() {
        let mut board = Board::new(&Sharing::default());
        board.apply(&waiting(1, 5), NOW);
        let mine = [11, 12].map(Uuid::from_u128);
        board.decide(TaskKind::Transcribe, 64, NOW);
        for task in mine {
            board.went_out(task, Out { job: Uuid::from_u128(1), kind: TaskKind::Transcribe, dispatch: 1 });
        }
        for _ in 0..2 {
            board.apply(&Changes { postponed: mine.to_vec(), ..Changes::default() }, NOW);
        }
        assert!(board.decide(TaskKind::Transcribe, 64, NOW).is_empty(), "no more of a job that cannot run now");
        board.apply(&waiting(2, 5), NOW);
        assert_eq!(board.decide(TaskKind::Transcribe, 64, NOW), [(Uuid::from_u128(2), 2)]);
        board.apply(&Changes { ended: vec![mine[0]], ..Changes::default() }, NOW);
        assert_eq!(board.open(TaskKind::Transcribe), (6, 2), "its end makes no room: it took none");
        board.apply(&Changes { finished: vec![Uuid::from_u128(1)], ..Changes::default() }, NOW);
        assert_eq!((board.open(TaskKind::Transcribe), board.postponed.len()), ((3, 2), 0));
    }

    #[test]
    fn a_finished_job_leaves_nothing_behind_and_its_workers_are_told() {
        let mut board = Board::new(&Sharing::default());
        board.apply(&waiting(1, 5), NOW);
        board.decide(TaskKind::Transcribe, 1, NOW);
        board.went_out(Uuid::from_u128(11), Out { job: Uuid::from_u128(1), kind: TaskKind::Transcribe, dispatch: 1 });
        let stopped = board.apply(&Changes { finished: vec![Uuid::from_u128(1)], ..Changes::default() }, NOW);
        assert_eq!(stopped, [Uuid::from_u128(11)]);
        assert_eq!(board.open(TaskKind::Transcribe), (0, 0));
    }

    #[test]
    fn nothing_of_a_paused_kind_goes_out() {
        let mut board = Board::new(&Sharing::default());
        board.apply(&waiting(1, 1), NOW);
        board.set_paused(TaskKind::Transcribe, true);
        assert!(board.decide(TaskKind::Transcribe, 64, NOW).is_empty());
        assert_eq!(board.open(TaskKind::Transcribe), (1, 0), "it waits");
        board.set_paused(TaskKind::Transcribe, false);
        assert_eq!(board.decide(TaskKind::Transcribe, 64, NOW).len(), 1);
    }

    #[test]
    fn decisions_that_were_not_written_are_made_again() {
        let mut board = Board::new(&Sharing::default());
        board.apply(&waiting(1, 1), NOW);
        let picked = board.decide(TaskKind::Transcribe, 64, NOW);
        board.put_back(picked[0].0, TaskKind::Transcribe, picked[0].1, NOW);
        assert_eq!(board.decide(TaskKind::Transcribe, 64, NOW), picked);
    }
}
