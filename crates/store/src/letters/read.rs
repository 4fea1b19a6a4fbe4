//! Listing, grouping and counting letters.

use sea_orm::{EntityTrait, FromQueryResult, Value};
use serde_json::json;
use warren_clock::UnixMillis;

use super::{DeadLetter, LetterFilter, LetterState};
use crate::{PageKey, Reads, StoreError, entity::dead_letter, sql};

/// A page of letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterPage {
    /// Newest first.
    pub letters: Vec<DeadLetter>,
    /// All that match, over all pages.
    pub total: u64,
}

/// Letters with the same trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterGroup {
    /// What they have in common.
    pub fingerprint: String,
    /// How many there are.
    pub letters: u64,
    /// Of them: parked.
    pub parked: u64,
    /// Jobs that they are of.
    pub jobs: u64,
    /// Class.
    pub class: String,
    /// Where they died; of several queues, one.
    pub queue: String,
    /// Type of the messages.
    pub kind: String,
    /// The cause of one of them.
    pub cause: String,
    /// When the first one was found.
    pub first_seen: UnixMillis,
    /// When one was last found.
    pub last_seen: UnixMillis,
}

/// Letters of one state, class and queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterCount {
    /// State.
    pub state: LetterState,
    /// Class.
    pub class: String,
    /// Where they died.
    pub queue: String,
    /// How many there are.
    pub letters: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// When the first one was found.
    pub oldest: UnixMillis,
}

#[derive(Debug, FromQueryResult)]
pub(super) struct LetterId {
    pub(super) id: String,
}

#[derive(Debug, FromQueryResult)]
struct GroupRow {
    fingerprint: String,
    n: i64,
    parked: i64,
    jobs: i64,
    class: String,
    queue: String,
    kind: String,
    cause: String,
    first_ms: i64,
    last_ms: i64,
}

#[derive(Debug, FromQueryResult)]
struct CountRow {
    state: String,
    class: String,
    queue: String,
    n: i64,
    bytes: i64,
    oldest_ms: i64,
}

impl Reads<'_> {
    /// One letter.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn letter(&self, id: &str) -> Result<Option<DeadLetter>, StoreError> {
        dead_letter::Entity::find_by_id(sql::text(id)).one(&self.inner).await?.map(DeadLetter::try_from).transpose()
    }

    /// The ids of all letters that are still to be taken out of `warren.dead`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn leaving_letters(&self) -> Result<Vec<String>, StoreError> {
        let text = "SELECT id FROM dead_letter WHERE in_queue AND state NOT IN ('dead', 'parked', 'purged')";
        let rows: Vec<LetterId> = self.all(text, []).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// How many letters should lie in `warren.dead`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn letters_in_queue(&self) -> Result<u64, StoreError> {
        let found: Option<sql::Number> = self.one("SELECT COUNT(*) AS n FROM dead_letter WHERE in_queue", []).await?;
        Ok(found.map_or(0, |found| found.n as u64))
    }

    /// The ids of the letters that should lie in `warren.dead` and were last seen before this moment.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn letters_lying(&self, before: UnixMillis) -> Result<Vec<String>, StoreError> {
        let text = "SELECT id FROM dead_letter WHERE in_queue AND state IN ('dead', 'parked') AND last_seen_ms < $1";
        let rows: Vec<LetterId> = self.all(text, [before.0.into()]).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Those of these letters that have a row.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn known_letters(&self, ids: &[String]) -> Result<Vec<String>, StoreError> {
        let ids_table = sql::table(self.backend, 1, &[sql::Column::Text("id")]);
        let text = format!("SELECT id FROM dead_letter WHERE id IN (SELECT id FROM {ids_table})");
        let rows: Vec<LetterId> = self.all(text, [letter_ids(ids)]).await?;
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
        let (mut rule, mut values) = filter.rule();
        let total = self.count_letters(filter).await?;
        if let Some(after) = after {
            values.extend([after.at.0.into(), after.id.clone().into()]);
            rule.push_str(&format!(" AND (first_seen_ms, id) < (${}, ${})", values.len() - 1, values.len()));
        }
        let letters = self.some_letters(&rule, values, "DESC", limit).await?;
        Ok(LetterPage { letters, total })
    }

    /// The oldest letters, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn oldest_letters(&self, filter: &LetterFilter, limit: u64) -> Result<Vec<DeadLetter>, StoreError> {
        let (rule, values) = filter.rule();
        self.some_letters(&rule, values, "ASC", limit).await
    }

    async fn some_letters(
        &self,
        rule: &str,
        mut values: Vec<Value>,
        order: &str,
        limit: u64,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        values.push((limit as i64).into());
        let text = format!(
            "SELECT * FROM dead_letter WHERE {rule} ORDER BY first_seen_ms {order}, id {order} LIMIT ${}",
            values.len()
        );
        let rows: Vec<dead_letter::Model> = self.all(text, values).await?;
        rows.into_iter().map(DeadLetter::try_from).collect()
    }

    /// How many letters match.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn count_letters(&self, filter: &LetterFilter) -> Result<u64, StoreError> {
        let (rule, values) = filter.rule();
        let text = format!("SELECT COUNT(*) AS n FROM dead_letter WHERE {rule}");
        let found: Option<sql::Number> = self.one(text, values).await?;
        Ok(found.map_or(0, |found| found.n as u64))
    }

    /// Letters by fingerprint, most letters first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn letter_groups(&self, filter: &LetterFilter, limit: u64) -> Result<Vec<LetterGroup>, StoreError> {
        let (rule, mut values) = filter.rule();
        values.push((limit as i64).into());
        let text = format!(
            "SELECT fingerprint, COUNT(*) AS n, COUNT(*) FILTER (WHERE state = 'parked') AS parked,
                 COUNT(DISTINCT job_id) AS jobs, MIN(class) AS class, MIN(queue) AS queue, MIN(kind) AS kind,
                 MIN(cause) AS cause, MIN(first_seen_ms) AS first_ms, MAX(last_seen_ms) AS last_ms
             FROM dead_letter WHERE {rule} GROUP BY fingerprint ORDER BY n DESC, fingerprint LIMIT ${}",
            values.len()
        );
        let rows: Vec<GroupRow> = self.all(text, values).await?;
        Ok(rows.into_iter().map(LetterGroup::from).collect())
    }

    /// All letters, counted by state, class and queue.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn letter_counts(&self) -> Result<Vec<LetterCount>, StoreError> {
        let text = "SELECT state, class, queue, COUNT(*) AS n, CAST(SUM(LENGTH(body)) AS BIGINT) AS bytes,
                 MIN(first_seen_ms) AS oldest_ms
             FROM dead_letter GROUP BY state, class, queue ORDER BY state, n DESC, class, queue";
        let rows: Vec<CountRow> = self.all(text, []).await?;
        rows.into_iter()
            .map(|row| {
                Ok(LetterCount {
                    state: sql::word("dead_letter.state", &row.state)?,
                    class: row.class,
                    queue: row.queue,
                    letters: row.n as u64,
                    bytes: row.bytes as u64,
                    oldest: UnixMillis(row.oldest_ms),
                })
            })
            .collect()
    }

    /// The letters as which the replays of this one came back, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn came_back(&self, id: &str) -> Result<Vec<DeadLetter>, StoreError> {
        let text = "SELECT * FROM dead_letter WHERE replay_of = $1 ORDER BY first_seen_ms, id";
        let rows: Vec<dead_letter::Model> = self.all(text, [id.into()]).await?;
        rows.into_iter().map(DeadLetter::try_from).collect()
    }
}

impl From<GroupRow> for LetterGroup {
    fn from(row: GroupRow) -> Self {
        Self {
            fingerprint: row.fingerprint,
            letters: row.n as u64,
            parked: row.parked as u64,
            jobs: row.jobs as u64,
            class: row.class,
            queue: row.queue,
            kind: row.kind,
            cause: row.cause,
            first_seen: UnixMillis(row.first_ms),
            last_seen: UnixMillis(row.last_ms),
        }
    }
}

pub(super) fn letter_ids(ids: &[String]) -> Value {
    sql::list(ids.iter().map(|id| json!({ "id": id })))
}
