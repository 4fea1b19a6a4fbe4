//! The source of truth: tables, migrations and every statement that reads or changes them, on SQLite or PostgreSQL.
//!
//! [`Store::read`] gives the reading methods outside a transaction, [`Tx::read`] the same ones inside it. Changes are
//! methods of [`Tx`]. [`Store::write`] hands one to a closure and commits it; the closure may run more than once, so it
//! must not do anything but talk to the database. [`Store::begin`] and [`Store::begin_as_leader`] leave the commit, and
//! trying again after [`StoreError::Busy`], to the caller. Nothing here decides what runs where.

mod audit;
mod batches;
mod connect;
mod entity;
mod error;
mod inbox;
mod jobs;
mod leader;
mod leases;
mod ledger;
mod leftovers;
mod letters;
mod media;
pub mod migrate;
mod outbox;
mod pauses;
mod replays;
mod results;
mod search;
mod settings;
mod sql;
mod statistics;
mod store;
mod tasks;
mod ticks;
mod workers;

pub use audit::AuditEntry;
pub use batches::SafeBatch;
pub use error::StoreError;
pub use jobs::{
    EventLevel, Failures, Heartbeat, Job, JobEvent, JobFilter, JobLimits, NewEvent, NewJob, PageKey, SubmitRequest,
    Submitted, Waiting,
};
pub use leader::{Leader, Term};
pub use leases::{Device, Lease};
pub use ledger::{Discrepancy, Ledger};
pub use letters::{
    DeadLetter, LetterCount, LetterFilter, LetterGroup, LetterPage, LetterState, NewLetter, PARKED_AFTER, PutBack,
};
pub use media::Media;
pub use outbox::{Destination, NewOutbox, OutboxRow};
pub use pauses::Pause;
pub use replays::{NewReplay, Replay, ReplayCounts, ReplayLetter, ReplayLetterState, ReplayState};
pub use results::{EmbeddingRow, Segment};
pub use search::{ArchiveStats, Hit, NewPassage, Passage, SearchIndex};
pub use settings::StoreSettings;
pub use store::{Committed, Reads, Store, Tx};
pub use tasks::{Finish, Finished, NewTask, OpenTasks, QueueStats, Task, Want};
pub use ticks::Tick;
pub use workers::{LastError, Worker};
