//! Replays of dead letters that somebody asked for: which letters, how fast, and how far it is. They outlive whoever
//! carries them out.

use std::time::Duration;

use sea_orm::FromQueryResult;
use serde_json::json;
use warren_clock::UnixMillis;

use crate::{Reads, StoreError, Tx, sql};

/// How far a replay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayState {
    /// Letters are still to be sent.
    Running,
    /// Each letter was sent or refused.
    Finished,
    /// The rest was not sent.
    Stopped,
}

impl ReplayState {
    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
        }
    }
}

impl std::str::FromStr for ReplayState {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        [Self::Running, Self::Finished, Self::Stopped].into_iter().find(|state| state.as_str() == word).ok_or(())
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewReplay {
    /// The same each time that the request comes.
    pub id: String,
    /// Who asked.
    pub actor: String,
    /// Why, for the audit.
    pub reason: String,
    /// Letters a second; 0: as fast as it goes.
    pub rate: f64,
    /// So many first; the others when each of these has done its work.
    pub canary: u32,
    /// Letters that would come to nothing, too.
    pub forced: bool,
    /// Letters that were purged by hand, too.
    pub from_index: bool,
    /// Instead of the body of the only letter.
    pub edited_body: Option<Vec<u8>>,
}

/// A replay as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// What was asked for.
    pub asked: NewReplay,
    /// How far it is.
    pub state: ReplayState,
    /// Why it was stopped.
    pub stopped: Option<String>,
    /// When it was accepted.
    pub created: UnixMillis,
}

/// How far a letter of a replay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayLetterState {
    /// To be sent.
    Waiting,
    /// Sent.
    Sent,
    /// Not sent, for a reason.
    Refused,
}

impl std::str::FromStr for ReplayLetterState {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "waiting" => Ok(Self::Waiting),
            "sent" => Ok(Self::Sent),
            "refused" => Ok(Self::Refused),
            _ => Err(()),
        }
    }
}

/// A letter of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayLetter {
    /// Which.
    pub letter: String,
    /// Where it died; empty for one that is not known.
    pub queue: String,
    /// How far it is.
    pub state: ReplayLetterState,
    /// Why it was refused.
    pub refused: Option<String>,
    /// The letter as which it died again.
    pub came_back: Option<String>,
}

/// The letters of a replay, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayCounts {
    /// To be sent.
    pub waiting: u64,
    /// Sent.
    pub sent: u64,
    /// Of those sent: dead again.
    pub back: u64,
}

#[derive(Debug, FromQueryResult)]
struct Row {
    id: String,
    actor: String,
    reason: String,
    state: String,
    rate: f64,
    canary: i64,
    forced: bool,
    from_index: bool,
    edited_body: Option<Vec<u8>>,
    stopped: Option<String>,
    created_ms: i64,
}

#[derive(Debug, FromQueryResult)]
struct LetterRow {
    letter_id: String,
    queue: String,
    state: String,
    refused: Option<String>,
    came_back: Option<String>,
}

#[derive(Debug, FromQueryResult)]
struct CountsRow {
    waiting: i64,
    sent: i64,
    back: i64,
}

#[derive(Debug, FromQueryResult)]
struct WaitingRow {
    ordinal: i64,
    letter_id: String,
}

impl Tx {
    /// Records a replay of these letters, in this order. False: it is known already.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn insert_replay(&self, new: &NewReplay, letters: &[String]) -> Result<bool, StoreError> {
        let text =
            "INSERT INTO replay (id, actor, reason, state, rate, canary, forced, from_index, edited_body, created_ms)
             VALUES ($1, $2, $3, 'running', $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING";
        let values = [
            sql::text(&new.id).into(),
            sql::text(&new.actor).into(),
            sql::text(&new.reason).into(),
            sql::finite(new.rate).into(),
            i64::from(new.canary).into(),
            new.forced.into(),
            new.from_index.into(),
            new.edited_body.clone().into(),
            self.now().0.into(),
        ];
        if self.execute(text, values).await? == 0 {
            return Ok(false);
        }
        let text = format!(
            "INSERT INTO replay_letter (replay_id, ordinal, letter_id, state)
             SELECT $1, v.ordinal, v.id, 'waiting' FROM {}",
            sql::table(self.backend, 2, &[sql::Column::Int("ordinal"), sql::Column::Text("id")])
        );
        let list = sql::list(letters.iter().enumerate().map(|(n, id)| json!({ "ordinal": n, "id": sql::text(id) })));
        self.execute(text, [sql::text(&new.id).into(), list]).await?;
        Ok(true)
    }

    /// A letter of a replay was sent, or refused for a reason.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn replay_letter_done(
        &self,
        replay: &str,
        ordinal: i64,
        refused: Option<&str>,
    ) -> Result<(), StoreError> {
        let text = "UPDATE replay_letter SET refused = $3, state = CASE WHEN $3 IS NULL THEN 'sent' ELSE 'refused' END
             WHERE replay_id = $1 AND ordinal = $2";
        self.execute(text, [replay.into(), ordinal.into(), refused.map(sql::text).into()]).await?;
        Ok(())
    }

    /// Ends a running replay; `stopped`: why before its last letter. False: it was over.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn end_replay(&self, replay: &str, stopped: Option<&str>) -> Result<bool, StoreError> {
        let state = if stopped.is_some() { ReplayState::Stopped } else { ReplayState::Finished };
        let text = "UPDATE replay SET state = $2, stopped = $3, ended_ms = $4 WHERE id = $1 AND state = 'running'";
        let values = [replay.into(), state.as_str().into(), stopped.map(sql::text).into(), self.now().0.into()];
        Ok(self.execute(text, values).await? == 1)
    }

    /// Forgets replays that ended longer ago. Returns how many.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn purge_replays(&self, age: Duration) -> Result<u64, StoreError> {
        let before = self.now().0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        self.execute("DELETE FROM replay WHERE ended_ms IS NOT NULL AND ended_ms < $1", [before.into()]).await
    }
}

impl Reads<'_> {
    /// One replay.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn replay(&self, id: &str) -> Result<Option<Replay>, StoreError> {
        let row: Option<Row> = self.one("SELECT * FROM replay WHERE id = $1", [id.into()]).await?;
        row.map(Replay::try_from).transpose()
    }

    /// The replays that still have letters to send, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn running_replays(&self) -> Result<Vec<Replay>, StoreError> {
        let rows: Vec<Row> =
            self.all("SELECT * FROM replay WHERE state = 'running' ORDER BY created_ms, id", []).await?;
        rows.into_iter().map(Replay::try_from).collect()
    }

    /// The letters of a replay, in its order.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn replay_letters(&self, replay: &str) -> Result<Vec<ReplayLetter>, StoreError> {
        let text = "SELECT one.letter_id, COALESCE(letter.queue, '') AS queue, one.state, one.refused,
                 (SELECT MAX(back.id) FROM dead_letter AS back
                  WHERE back.replay_of = one.letter_id AND one.state = 'sent') AS came_back
             FROM replay_letter AS one LEFT JOIN dead_letter AS letter ON letter.id = one.letter_id
             WHERE one.replay_id = $1 ORDER BY one.ordinal";
        let rows: Vec<LetterRow> = self.all(text, [replay.into()]).await?;
        rows.into_iter()
            .map(|row| {
                Ok(ReplayLetter {
                    letter: row.letter_id,
                    queue: row.queue,
                    state: sql::word("replay_letter.state", &row.state)?,
                    refused: row.refused,
                    came_back: row.came_back,
                })
            })
            .collect()
    }

    /// The next letters of a replay that wait, with their places.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn waiting_letters(&self, replay: &str, limit: u64) -> Result<Vec<(i64, String)>, StoreError> {
        let text = "SELECT ordinal, letter_id FROM replay_letter WHERE replay_id = $1 AND state = 'waiting'
             ORDER BY ordinal LIMIT $2";
        let rows: Vec<WaitingRow> = self.all(text, [replay.into(), (limit as i64).into()]).await?;
        Ok(rows.into_iter().map(|row| (row.ordinal, row.letter_id)).collect())
    }

    /// How far a replay is.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn replay_counts(&self, replay: &str) -> Result<ReplayCounts, StoreError> {
        let text = "SELECT COUNT(*) FILTER (WHERE state = 'waiting') AS waiting,
                 COUNT(*) FILTER (WHERE state = 'sent') AS sent,
                 COUNT(*) FILTER (WHERE state = 'sent'
                     AND EXISTS (SELECT 1 FROM dead_letter AS back WHERE back.replay_of = one.letter_id)) AS back
             FROM replay_letter AS one WHERE replay_id = $1";
        let row: Option<CountsRow> = self.one(text, [replay.into()]).await?;
        Ok(row.map_or_else(ReplayCounts::default, |row| ReplayCounts {
            waiting: row.waiting as u64,
            sent: row.sent as u64,
            back: row.back as u64,
        }))
    }
}

impl TryFrom<Row> for Replay {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            state: sql::word("replay.state", &row.state)?,
            stopped: row.stopped,
            created: UnixMillis(row.created_ms),
            asked: NewReplay {
                id: row.id,
                actor: row.actor,
                reason: row.reason,
                rate: row.rate,
                canary: u32::try_from(row.canary).unwrap_or(0),
                forced: row.forced,
                from_index: row.from_index,
                edited_body: row.edited_body,
            },
        })
    }
}
