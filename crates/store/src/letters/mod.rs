//! The index of the queue `warren.dead`: what could not be processed, and what became of it since.

mod change;
mod filter;
mod read;

use std::collections::BTreeMap;

pub use change::{PARKED_AFTER, PutBack};
pub use filter::LetterFilter;
pub use read::{LetterCount, LetterGroup, LetterPage};
use uuid::Uuid;
use warren_clock::UnixMillis;

use crate::{PageKey, StoreError, entity::dead_letter, outbox::read_headers, sql};

/// Where a letter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LetterState {
    /// In `warren.dead`.
    Dead,
    /// In `warren.dead`, dead again after [`PARKED_AFTER`] replays: only who means this one letter replays it.
    Parked,
    /// Its message is on its way again; it is still to be taken out of `warren.dead`.
    Replaying,
    /// Back at work.
    Replayed,
    /// Of something that was over or went on without it: nobody needs it, and `warren.dead` does not keep it.
    Void,
    /// An operator wants no more of it; its row is the record.
    Discarded,
    /// Somebody took it out of `warren.dead` by hand.
    Purged,
}

impl LetterState {
    /// All states.
    pub const ALL: [Self; 7] =
        [Self::Dead, Self::Parked, Self::Replaying, Self::Replayed, Self::Void, Self::Discarded, Self::Purged];
    /// Those that somebody has to decide about.
    pub const OPEN: [Self; 2] = [Self::Dead, Self::Parked];

    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Parked => "parked",
            Self::Replaying => "replaying",
            Self::Replayed => "replayed",
            Self::Void => "void",
            Self::Discarded => "discarded",
            Self::Purged => "purged",
        }
    }
}

impl std::str::FromStr for LetterState {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|state| state.as_str() == word).ok_or(())
    }
}

/// A letter as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLetter {
    /// The same each time that it is found.
    pub id: String,
    /// Where it was when it died, e.g. `warren.task.transcribe`.
    pub queue: String,
    /// Full name of the message's type, as far as known.
    pub kind: String,
    /// `malformed`, or a documented code.
    pub class: String,
    /// For people.
    pub cause: String,
    /// The same for letters with the same trouble.
    pub fingerprint: String,
    /// Job, if it could be read.
    pub job_id: Option<Uuid>,
    /// Task, if it could be read.
    pub task_id: Option<Uuid>,
    /// Dispatch, if it could be read.
    pub dispatch: Option<i64>,
    /// The letter that this message was a replay of.
    pub replay_of: Option<String>,
    /// The body, unchanged.
    pub body: Vec<u8>,
    /// As it said itself.
    pub content_type: String,
    /// As they were.
    pub headers: BTreeMap<String, String>,
}

/// A letter as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// What was found.
    pub letter: NewLetter,
    /// Where it is.
    pub state: LetterState,
    /// When it was first found.
    pub first_seen: UnixMillis,
    /// When it was last found.
    pub last_seen: UnixMillis,
    /// Of its replays: part of their message ids.
    pub generation: i64,
    /// How often it, and the letters that it came back from, were replayed.
    pub replays: i64,
    /// Why nobody needs it, when it is void or discarded.
    pub reason: Option<String>,
}

impl DeadLetter {
    /// Why it is not to be sent again, by its own state; `from_index`: a letter that was purged may be.
    pub fn stays(&self, from_index: bool) -> Option<String> {
        let because = |why: &str, reason: &Option<String>| match reason {
            Some(reason) => format!("{why}: {reason}"),
            None => why.to_owned(),
        };
        match self.state {
            LetterState::Dead | LetterState::Parked => None,
            LetterState::Purged if from_index => None,
            LetterState::Purged => Some("it was purged by hand; it can be replayed from the index".to_owned()),
            LetterState::Replaying => Some("it is being replayed".to_owned()),
            LetterState::Replayed => Some("it was replayed already".to_owned()),
            LetterState::Void => Some(self.reason.clone().unwrap_or_else(|| "nobody needs it".to_owned())),
            LetterState::Discarded => Some(because("it was discarded", &self.reason)),
        }
    }

    /// Where the page after this letter starts.
    pub fn page_key(&self) -> PageKey<String> {
        PageKey { at: self.first_seen, id: self.letter.id.clone() }
    }
}

impl TryFrom<dead_letter::Model> for DeadLetter {
    type Error = StoreError;

    fn try_from(row: dead_letter::Model) -> Result<Self, StoreError> {
        Ok(Self {
            state: sql::word("dead_letter.state", &row.state)?,
            first_seen: UnixMillis(row.first_seen_ms),
            last_seen: UnixMillis(row.last_seen_ms),
            generation: row.generation,
            replays: row.replays,
            reason: row.reason,
            letter: NewLetter {
                id: row.id,
                queue: row.queue,
                kind: row.kind,
                class: row.class,
                cause: row.cause,
                fingerprint: row.fingerprint,
                job_id: row.job_id,
                task_id: row.task_id,
                dispatch: row.dispatch,
                replay_of: row.replay_of,
                body: row.body,
                content_type: row.content_type,
                headers: read_headers("dead_letter.headers", &row.headers)?,
            },
        })
    }
}
