//! One term of leadership: everything that the leader's parts share, and what follows each commit.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;
use warren_blob::Blobs;
use warren_broker::Broker;
use warren_clock::Clock;
use warren_jobs::{lease::Tenure, release::JobKey};
use warren_messages::{
    ids::{JobId, TaskId},
    wire::Notice,
};
use warren_relay::Relay;
use warren_store::{Committed, Job, Store, StoreError, Term, Tx};

use crate::{
    board::{Board, Changes},
    devices::Devices,
    doubt::Doubt,
    sessions::Sessions,
    settings::Settings,
};

/// What outlives a term.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    /// The database.
    pub store: Store,
    /// RabbitMQ.
    pub broker: Broker,
    /// Object storage.
    pub blobs: Blobs,
    /// Time and ids.
    pub clock: Clock,
    /// The outbox's way out.
    pub relay: Relay,
    /// Told when messages that wait may go on: object storage has answered, or letters were indexed.
    pub retry: Arc<Notify>,
    /// As read at the start.
    pub settings: Arc<Settings>,
}

/// The leader's state during one term.
#[derive(Debug)]
pub(crate) struct Lead {
    /// Every write is made under it.
    pub term: Term,
    /// What is done in its name without a write.
    tenure: Mutex<Tenure>,
    /// What outlives the term.
    pub parts: Parts,
    /// Who may use which device.
    pub devices: Devices,
    /// Woken when tasks may be released.
    pub release: Notify,
    /// Woken when letters may have to leave `warren.dead`.
    pub leaving: Notify,
    /// Woken when letters are to be replayed.
    pub replays: Notify,
    /// Woken when tasks or jobs ended, or a job was planned: whoever waits for the fate of a replay looks again.
    pub fates: Notify,
    /// Raised when the rows may say something else than the board.
    pub doubt: Doubt,
    sessions: Mutex<Sessions>,
    board: Mutex<Board>,
}

impl Lead {
    /// Starts a term, asked for at `asked`, with what the rows say.
    ///
    /// # Errors
    /// When the store is away or the term is lost already.
    pub(crate) async fn start(term: Term, asked: Instant, parts: Parts) -> Result<Self, StoreError> {
        let tenure = Tenure::new(Duration::from_millis(parts.settings.leader.step_down_ms), asked.into_std());
        let doubt = Doubt::default();
        let settings = &parts.settings.devices;
        let devices = Devices::load(term, parts.store.clone(), &parts.clock, settings, doubt.clone()).await?;
        let board = Mutex::new(crate::load::board(&parts.store, parts.clock.now()).await?);
        Ok(Self {
            term,
            tenure: Mutex::new(tenure),
            parts,
            devices,
            release: Notify::new(),
            leaving: Notify::new(),
            replays: Notify::new(),
            fates: Notify::new(),
            doubt,
            sessions: Mutex::default(),
            board,
        })
    }

    /// True while nobody else can lead. Whatever writes need not ask: the row of the term is held while it does.
    pub(crate) fn leads(&self) -> bool {
        self.tenure().holds(Instant::now().into_std())
    }

    /// How long this coordinator leads for certain.
    pub(crate) fn tenure(&self) -> MutexGuard<'_, Tenure> {
        self.tenure.lock().expect("no panic while the tenure is locked")
    }

    /// The workers.
    pub(crate) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().expect("no panic while sessions are locked")
    }

    /// The same, for the parts that lock it themselves.
    pub(crate) const fn sessions_mutex(&self) -> &Mutex<Sessions> {
        &self.sessions
    }

    /// The open work.
    pub(crate) fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().expect("no panic while the board is locked")
    }

    /// Begins a transaction under the term.
    ///
    /// # Errors
    /// [`StoreError::TermLost`] when somebody else leads.
    pub(crate) async fn begin(&self) -> Result<Tx, StoreError> {
        self.parts.store.begin_as_leader(self.term).await
    }

    /// Commits it. Afterwards the board, the outbox, whoever watches and the workers learn of its changes.
    ///
    /// # Errors
    /// When it cannot be committed; then nobody learns of anything, and if it is not known whether it was, the term ends.
    pub(crate) async fn commit(&self, tx: Tx, changes: &Changes) -> Result<(), StoreError> {
        let committed = self.doubt.commit(tx).await?;
        self.follow(committed, changes).await;
        Ok(())
    }

    /// What has to happen after a commit.
    pub(crate) async fn follow(&self, mut committed: Committed, changes: &Changes) {
        self.parts.relay.committed(std::mem::take(&mut committed.outbox));
        self.tell_workers(changes);
        // The board is as the rows are, so that the next transaction may change both.
        drop(committed);
        self.release.notify_one();
        if !(changes.ended.is_empty() && changes.finished.is_empty() && changes.waiting.is_empty()) {
            self.fates.notify_one();
        }
        let jobs: BTreeSet<Uuid> = changes.touched.iter().chain(&changes.finished).copied().collect();
        for job in jobs {
            let ended = changes.finished.contains(&job);
            self.parts.broker.notice(&Notice { job: JobId(job).to_string(), ended }).await;
        }
    }

    /// Takes note of workers that came, went or began to drain.
    pub(crate) fn count_slots(&self) {
        let sessions = self.sessions();
        self.board().set_slots(&sessions);
    }

    fn tell_workers(&self, changes: &Changes) {
        let stopped = self.board().apply(changes, self.parts.clock.now());
        let sessions = self.sessions();
        for task in stopped {
            sessions.cancel(TaskId(task));
        }
    }
}

/// A job as the scheduler knows it.
pub(crate) fn key(job: &Job) -> JobKey<Uuid> {
    JobKey { id: job.id, caller: job.caller.clone(), class: job.class }
}
