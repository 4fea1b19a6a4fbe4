//! Finding letters, and what is done with them.

use sea_orm::Value;

use super::{
    DeadLetter, LetterFilter, LetterState, NewLetter,
    read::{LetterId, letter_ids},
};
use crate::{StoreError, Tx, outbox::write_headers, sql};

/// A letter that is dead again after so many replays is not replayed with others any more.
pub const PARKED_AFTER: i64 = 2;

/// What became of a letter that was to be put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutBack {
    /// Its row is dead; its message must be published to `warren.dead`.
    Publish,
    /// It was discarded, and is still to leave `warren.dead`: only then can it be put back.
    Leaving,
    /// It is in this state and stays there.
    Refused(LetterState),
}

impl Tx {
    /// Records a letter. True when it is new; one found before is only seen again. A new one that came back from
    /// [`PARKED_AFTER`] replays is parked.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn insert_letter(&self, letter: &NewLetter) -> Result<bool, StoreError> {
        let again = "UPDATE dead_letter SET last_seen_ms = $2 WHERE id = $1";
        if self.execute(again, [letter.id.clone().into(), self.now().0.into()]).await? > 0 {
            return Ok(false);
        }
        let parent = self.came_from(letter).await?;
        let replays = parent.as_ref().map_or(0, |parent| parent.replays);
        let state = if replays >= PARKED_AFTER { LetterState::Parked } else { LetterState::Dead };
        let replay_of = parent.map(|parent| parent.letter.id).or_else(|| letter.replay_of.clone());
        self.write_letter(&NewLetter { replay_of, ..letter.clone() }, state, replays).await?;
        Ok(true)
    }

    /// The letter whose replay a new one is: as its headers say, or the last one of its task that was replayed.
    async fn came_from(&self, letter: &NewLetter) -> Result<Option<DeadLetter>, StoreError> {
        if let Some(id) = &letter.replay_of
            && let Some(parent) = self.read().letter(id).await?
        {
            return Ok(Some(parent));
        }
        let Some(task) = letter.task_id else { return Ok(None) };
        let states = vec![LetterState::Replaying, LetterState::Replayed];
        let filter = LetterFilter { states, task: Some(task), ..LetterFilter::default() };
        Ok(self.read().letters(&filter, None, 1).await?.letters.pop())
    }

    async fn write_letter(&self, letter: &NewLetter, state: LetterState, replays: i64) -> Result<(), StoreError> {
        let text =
            "INSERT INTO dead_letter (id, state, queue, kind, class, cause, fingerprint, job_id, task_id, dispatch,
                 body, content_type, headers, first_seen_ms, last_seen_ms, generation, replays, replay_of, in_queue)
             VALUES ($1, $14, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13, 0, $15, $16, true)
             ON CONFLICT (id) DO UPDATE SET last_seen_ms = excluded.last_seen_ms";
        let values: Vec<Value> = vec![
            sql::text(&letter.id).into(),
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
            self.now().0.into(),
            state.as_str().into(),
            replays.into(),
            letter.replay_of.as_deref().map(sql::text).into(),
        ];
        self.execute(text, values).await?;
        Ok(())
    }

    /// Begins the replay of a letter and returns the replay's number. `None`: the letter is neither dead nor parked nor
    /// purged.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn begin_replay(&self, id: &str) -> Result<Option<i64>, StoreError> {
        let text = "UPDATE dead_letter SET state = CASE WHEN in_queue THEN 'replaying' ELSE 'replayed' END,
                 generation = generation + 1, replays = replays + 1
             WHERE id = $1 AND state IN ('dead', 'parked', 'purged') RETURNING generation AS n";
        let begun: Option<sql::Number> = self.read().one(text, [id.into()]).await?;
        Ok(begun.map(|begun| begun.n))
    }

    /// Nobody needs this letter, for a reason. False: it is not dead.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn void_letter(&self, id: &str, reason: &str) -> Result<bool, StoreError> {
        let text = "UPDATE dead_letter SET state = 'void', reason = $2 WHERE id = $1 AND state IN ('dead', 'parked')";
        Ok(self.execute(text, [id.into(), sql::text(reason).into()]).await? == 1)
    }

    /// An operator wants no more of this letter, for a reason. False: it is neither dead nor parked nor purged.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn discard_letter(&self, id: &str, reason: &str) -> Result<bool, StoreError> {
        let text = "UPDATE dead_letter SET state = 'discarded', reason = $2
             WHERE id = $1 AND state IN ('dead', 'parked', 'purged')";
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
             WHERE in_queue AND state NOT IN ('dead', 'parked', 'purged') AND id IN (SELECT id FROM {})",
            sql::table(self.backend, 1, &[sql::Column::Text("id")])
        );
        self.execute(text, [letter_ids(ids)]).await
    }

    /// Somebody took these letters out of `warren.dead`. Returns those of them of which nothing else was known.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn letters_purged(&self, ids: &[String]) -> Result<Vec<String>, StoreError> {
        let text = format!(
            "UPDATE dead_letter SET in_queue = false, state = 'purged'
             WHERE in_queue AND state IN ('dead', 'parked') AND id IN (SELECT id FROM {}) RETURNING id",
            sql::table(self.backend, 1, &[sql::Column::Text("id")])
        );
        let rows: Vec<LetterId> = self.read().all(text, [letter_ids(ids)]).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// These letters lie in `warren.dead`. Those that were taken out by hand are dead again, and are returned; others of
    /// which it is news are to leave.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn letters_found(&self, ids: &[String]) -> Result<Vec<String>, StoreError> {
        let found = format!("id IN (SELECT id FROM {})", sql::table(self.backend, 1, &[sql::Column::Text("id")]));
        let text = format!(
            "UPDATE dead_letter SET in_queue = true,
                 state = CASE WHEN replays >= {PARKED_AFTER} THEN 'parked' ELSE 'dead' END
             WHERE NOT in_queue AND state = 'purged' AND {found} RETURNING id"
        );
        let rows: Vec<LetterId> = self.read().all(text, [letter_ids(ids)]).await?;
        let text = format!("UPDATE dead_letter SET in_queue = true WHERE NOT in_queue AND {found}");
        self.execute(text, [letter_ids(ids)]).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Puts a letter back that was exported after so many replays.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn put_letter_back(&self, letter: &NewLetter, replays: i64) -> Result<PutBack, StoreError> {
        let Some(known) = self.read().letter(&letter.id).await? else {
            let state = if replays >= PARKED_AFTER { LetterState::Parked } else { LetterState::Dead };
            self.write_letter(letter, state, replays).await?;
            return Ok(PutBack::Publish);
        };
        if !matches!(known.state, LetterState::Discarded | LetterState::Purged) {
            return Ok(PutBack::Refused(known.state));
        }
        let text = "UPDATE dead_letter SET reason = NULL, in_queue = true, last_seen_ms = $2,
                 state = CASE WHEN replays >= $3 THEN 'parked' ELSE 'dead' END
             WHERE id = $1 AND NOT in_queue";
        let values = [letter.id.clone().into(), self.now().0.into(), PARKED_AFTER.into()];
        Ok(if self.execute(text, values).await? > 0 { PutBack::Publish } else { PutBack::Leaving })
    }
}
