//! The index of the queue `warren.dead`: what could not be processed, and what became of it since.

use std::collections::BTreeMap;

use sea_orm::{EntityTrait, Value};
use uuid::Uuid;
use warren_clock::UnixMillis;

use crate::{
    PageKey, Reads, StoreError, Tx,
    entity::dead_letter,
    outbox::{read_headers, write_headers},
    sql,
};

/// Where a letter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LetterState {
    /// In `warren.dead`.
    Dead,
    /// Its message is on its way again; it is still to be taken out of `warren.dead`.
    Replaying,
    /// Back at work.
    Replayed,
    /// Of something that was over or went on without it: nobody needs it, and `warren.dead` does not keep it.
    Void,
}

impl LetterState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Dead, Self::Replaying, Self::Replayed, Self::Void];

    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Replaying => "replaying",
            Self::Replayed => "replayed",
            Self::Void => "void",
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
    /// How often it was replayed.
    pub replays: i64,
    /// The request that replayed it, if it had an id.
    pub replay_request: Option<String>,
    /// Why nobody needs it, when it is void.
    pub void_reason: Option<String>,
}

impl DeadLetter {
    /// Where the page after this letter starts.
    pub fn page_key(&self) -> PageKey<String> {
        PageKey { at: self.first_seen, id: self.letter.id.clone() }
    }
}

/// Which letters to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterFilter {
    /// In one of these states; empty: in any.
    pub states: Vec<LetterState>,
    /// Only of this class.
    pub class: Option<String>,
    /// Only with this fingerprint.
    pub fingerprint: Option<String>,
    /// Only of this job.
    pub job: Option<Uuid>,
    /// Only replayed by this request.
    pub replay_request: Option<String>,
}

impl Default for LetterFilter {
    /// Those that are dead or being replayed.
    fn default() -> Self {
        Self {
            states: vec![LetterState::Dead, LetterState::Replaying],
            class: None,
            fingerprint: None,
            job: None,
            replay_request: None,
        }
    }
}

/// A page of letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterPage {
    /// Newest first.
    pub letters: Vec<DeadLetter>,
    /// All that match, over all pages.
    pub total: u64,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct LetterId {
    id: String,
}

impl Tx {
    /// Records a letter. True when it is new; one found before is only seen again.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn insert_letter(&self, letter: &NewLetter) -> Result<bool, StoreError> {
        let now: Value = self.now().0.into();
        let again = "UPDATE dead_letter SET last_seen_ms = $2 WHERE id = $1";
        if self.execute(again, [letter.id.clone().into(), now.clone()]).await? > 0 {
            return Ok(false);
        }
        let text =
            "INSERT INTO dead_letter (id, state, queue, kind, class, cause, fingerprint, job_id, task_id, dispatch,
                 body, content_type, headers, first_seen_ms, last_seen_ms, generation, replays, in_queue)
             VALUES ($1, 'dead', $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13, 0, 0, true)
             ON CONFLICT (id) DO UPDATE SET last_seen_ms = excluded.last_seen_ms";
        let values: Vec<Value> = vec![
            letter.id.clone().into(),
            sql::text(&letter.queue).into(),
            sql::text(&letter.kind).into(),
            sql::text(&letter.class).into(),
            sql::text(&letter.cause).into(),
            sql::text(&letter.fingerprint).into(),
            letter.job_id.into(),
            letter.task_id.into(),
            letter.dispatch.into(),
            letter.body.clone().into(),
            sql::text(&letter.content_type).into(),
            write_headers(&letter.headers).into(),
            now,
        ];
        self.execute(text, values).await?;
        Ok(true)
    }

    /// Begins the replay of a dead letter, for a request if that has an id, and returns the replay's number. `None`:
    /// the letter is not dead.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn begin_replay(&self, id: &str, request: Option<&str>) -> Result<Option<i64>, StoreError> {
        let text = "UPDATE dead_letter SET state = 'replaying', generation = generation + 1, replays = replays + 1,
                 replay_request = $2
             WHERE id = $1 AND state = 'dead' RETURNING generation AS n";
        let values = [id.into(), request.map(sql::text).into()];
        let begun: Option<sql::Number> = self.read().one(text, values).await?;
        Ok(begun.map(|begun| begun.n))
    }

    /// Nobody needs this letter, for a reason. False: it is not dead.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn void_letter(&self, id: &str, reason: &str) -> Result<bool, StoreError> {
        let text = "UPDATE dead_letter SET state = 'void', void_reason = $2 WHERE id = $1 AND state = 'dead'";
        Ok(self.execute(text, [id.into(), sql::text(reason).into()]).await? == 1)
    }

    /// These letters are no longer in `warren.dead`: those being replayed are replayed now. Returns of how many it was
    /// news.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn letters_left(&self, ids: &[String]) -> Result<u64, StoreError> {
        let text = format!(
            "UPDATE dead_letter SET in_queue = false,
                 state = CASE state WHEN 'replaying' THEN 'replayed' ELSE state END
             WHERE in_queue AND state IN ('replaying', 'void') AND id IN (SELECT id FROM {})",
            sql::table(self.backend, 1, &[sql::Column::Text("id")])
        );
        let list = sql::list(ids.iter().map(|id| serde_json::json!({ "id": id })));
        self.execute(text, [list]).await
    }
}

impl Reads<'_> {
    /// One letter.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn letter(&self, id: &str) -> Result<Option<DeadLetter>, StoreError> {
        dead_letter::Entity::find_by_id(id).one(&self.inner).await?.map(DeadLetter::try_from).transpose()
    }

    /// The ids of all letters that are still to be taken out of `warren.dead`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn leaving_letters(&self) -> Result<Vec<String>, StoreError> {
        let text = "SELECT id FROM dead_letter WHERE in_queue AND state IN ('replaying', 'void')";
        let rows: Vec<LetterId> = self.all(text, []).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// A page of letters, newest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn letters(
        &self,
        filter: &LetterFilter,
        after: Option<&PageKey<String>>,
        limit: u64,
    ) -> Result<LetterPage, StoreError> {
        let mut rules = vec![in_states(&filter.states)];
        let mut values: Vec<Value> = Vec::new();
        for (column, value) in
            [("class", &filter.class), ("fingerprint", &filter.fingerprint), ("replay_request", &filter.replay_request)]
        {
            if let Some(value) = value {
                values.push(sql::text(value).into());
                rules.push(format!("{column} = ${}", values.len()));
            }
        }
        if let Some(job) = filter.job {
            values.push(job.into());
            rules.push(format!("job_id = ${}", values.len()));
        }
        let count = format!("SELECT COUNT(*) AS n FROM dead_letter WHERE {}", rules.join(" AND "));
        let total: Option<sql::Number> = self.one(count, values.clone()).await?;
        if let Some(after) = after {
            values.extend([after.at.0.into(), after.id.clone().into()]);
            rules.push(format!("(first_seen_ms, id) < (${}, ${})", values.len() - 1, values.len()));
        }
        values.push((limit as i64).into());
        let text = format!(
            "SELECT * FROM dead_letter WHERE {} ORDER BY first_seen_ms DESC, id DESC LIMIT ${}",
            rules.join(" AND "),
            values.len()
        );
        let rows: Vec<dead_letter::Model> = self.all(text, values).await?;
        let letters = rows.into_iter().map(DeadLetter::try_from).collect::<Result<_, _>>()?;
        Ok(LetterPage { letters, total: total.map_or(0, |total| total.n as u64) })
    }
}

/// The words are this file's own, so they need not be parameters.
fn in_states(states: &[LetterState]) -> String {
    let states = if states.is_empty() { &LetterState::ALL } else { states };
    let words: Vec<_> = states.iter().map(|state| format!("'{}'", state.as_str())).collect();
    format!("state IN ({})", words.join(", "))
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
            replay_request: row.replay_request,
            void_reason: row.void_reason,
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
                body: row.body,
                content_type: row.content_type,
                headers: read_headers("dead_letter.headers", &row.headers)?,
            },
        })
    }
}
