//! The searchable archive: passages of transcripts and texts, found by words and by meaning.
//!
//! Passages belong to the caller of their job, and nobody finds another's. They also belong to a generation; searches look at
//! the active one. Vectors are searched exactly, over a copy in memory that follows the table.

mod matrix;
mod query;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use matrix::Matrix;
use sea_orm::{DatabaseConnection, DbBackend, Value};
use tokio::sync::RwLock;
use uuid::Uuid;
use warren_clock::Clock;

use crate::{Reads, StoreError, Tx, results::to_bytes, sql};

/// A passage to add.
#[derive(Clone, Debug, PartialEq)]
pub struct NewPassage {
    /// Whose.
    pub job_id: Uuid,
    /// Its place within the job; added twice, the last one counts.
    pub ordinal: i64,
    /// Name of the recording or of the list of texts.
    pub name: String,
    /// Seconds into the recording; 0 for a text.
    pub start_s: f64,
    /// Seconds into the recording; 0 for a text.
    pub end_s: f64,
    /// What is searched.
    pub text: String,
    /// Model and unit vector; `None` finds it by its words alone.
    pub vector: Option<(String, Vec<f32>)>,
}

/// A passage of the archive, without its vector.
#[derive(Clone, Debug, PartialEq, sea_orm::FromQueryResult)]
pub struct Passage {
    /// The same in both kinds of search.
    pub id: i64,
    /// Whose.
    pub job_id: Uuid,
    /// Its place within the job.
    pub ordinal: i64,
    /// Name of the recording or of the list of texts.
    pub name: String,
    /// Seconds into the recording; 0 for a text.
    pub start_s: f64,
    /// Seconds into the recording; 0 for a text.
    pub end_s: f64,
    /// What is searched.
    pub text: String,
    /// Model of its vector.
    pub model: Option<String>,
}

/// A passage that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The passage.
    pub passage: Passage,
    /// By words: only its order means something. By meaning: cosine similarity.
    pub score: f64,
}

/// What the archive holds of one caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveStats {
    /// The active generation.
    pub generation: i64,
    /// Passages of it.
    pub passages: u64,
    /// Of them, those with a vector, by model and dimensions.
    pub vectors: Vec<(String, u64, u64)>,
}

const COLUMNS: &str = "passage.id AS id, passage.job_id AS job_id, passage.ordinal AS ordinal, passage.name AS name,
    passage.start_s AS start_s, passage.end_s AS end_s, passage.text AS text, passage.model AS model";

impl Tx {
    /// Adds passages to a generation, in place of those with the same job and ordinal.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] when a vector has other dimensions than that model's in the archive;
    /// [`StoreError::Conflict`] when there is no such job.
    pub async fn upsert_passages(&self, generation: i64, passages: &[NewPassage]) -> Result<(), StoreError> {
        if passages.is_empty() {
            return Ok(());
        }
        self.check_dimensions(generation, passages).await?;
        // Locks the row until the commit: versions become visible in their own order, so that no search misses one.
        let text = "UPDATE archive SET version = version + 1 WHERE singleton = 1 RETURNING version AS n";
        let version: Option<sql::Number> = self.read().one(text, []).await?;
        let version = version.ok_or_else(|| StoreError::corrupt("archive: no row"))?.n;
        for passage in passages {
            let (model, vector) = passage.vector.as_ref().map(|(model, vector)| (model.clone(), vector)).unzip();
            let text = "INSERT INTO passage
                     (generation, job_id, ordinal, name, start_s, end_s, text, model, dim, vector, version)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                 ON CONFLICT (generation, job_id, ordinal) DO UPDATE SET name = excluded.name,
                     start_s = excluded.start_s, end_s = excluded.end_s, text = excluded.text, model = excluded.model,
                     dim = excluded.dim, vector = excluded.vector, version = excluded.version";
            let values: [Value; 11] = [
                generation.into(),
                passage.job_id.into(),
                passage.ordinal.into(),
                sql::text(&passage.name).into(),
                sql::finite(passage.start_s).into(),
                sql::finite(passage.end_s).into(),
                sql::text(&passage.text).into(),
                model.into(),
                (vector.map_or(0, Vec::len) as i64).into(),
                vector.map(|vector| to_bytes(vector)).into(),
                version.into(),
            ];
            self.execute(text, values).await?;
        }
        Ok(())
    }

    async fn check_dimensions(&self, generation: i64, passages: &[NewPassage]) -> Result<(), StoreError> {
        let mut known: HashMap<&str, usize> = HashMap::new();
        for (model, vector) in passages.iter().filter_map(|passage| passage.vector.as_ref()) {
            if !known.contains_key(model.as_str()) {
                let text = "SELECT dim AS n FROM passage
                     WHERE generation = $1 AND model = $2 AND vector IS NOT NULL ORDER BY version LIMIT 1";
                let values = [generation.into(), model.clone().into()];
                let stored: Option<sql::Number> = self.read().one(text, values).await?;
                known.insert(model, stored.map_or(vector.len(), |stored| stored.n as usize));
            }
            let dim = known[model.as_str()];
            if vector.is_empty() || vector.len() != dim {
                return Err(mismatch(&[(model.clone(), dim)], model, vector.len()));
            }
        }
        Ok(())
    }
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct State {
    generation: i64,
    version: i64,
}

impl Reads<'_> {
    /// The generation that searches look at.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn active_generation(&self) -> Result<i64, StoreError> {
        Ok(self.archive_state().await?.generation)
    }

    async fn archive_state(&self) -> Result<State, StoreError> {
        let state: Option<State> = self.one("SELECT generation, version FROM archive", []).await?;
        state.ok_or_else(|| StoreError::corrupt("archive: no row"))
    }
}

/// Searches the archive. Reached through [`Store::archive`](crate::Store::archive).
#[derive(Debug)]
pub struct SearchIndex {
    readers: DatabaseConnection,
    backend: DbBackend,
    clock: Clock,
    /// One for each model that was asked for.
    matrices: RwLock<HashMap<String, Arc<RwLock<Matrix>>>>,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct Scored {
    id: i64,
    job_id: Uuid,
    ordinal: i64,
    name: String,
    start_s: f64,
    end_s: f64,
    text: String,
    model: Option<String>,
    score: f64,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct VectorRow {
    id: i64,
    caller: String,
    vector: Vec<u8>,
    version: i64,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct VectorCount {
    model: Option<String>,
    dim: i64,
    n: i64,
}

impl SearchIndex {
    pub(crate) fn new(readers: DatabaseConnection, backend: DbBackend, clock: Clock) -> Self {
        Self { readers, backend, clock, matrices: RwLock::default() }
    }

    fn read(&self) -> Reads<'_> {
        Reads { inner: (&self.readers).into(), backend: self.backend, clock: self.clock.clone() }
    }

    /// The caller's `k` passages that share most with the words of `query`, best first; any word counts, rare ones more.
    /// Text of any form is a query; one without a word finds nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn text_top_k(&self, caller: &str, query: &str, k: u64) -> Result<Vec<Hit>, StoreError> {
        let (words, text) = match self.backend {
            // CROSS: the words are looked up first, and not once for each of the caller's passages.
            DbBackend::Sqlite => (
                query::fts5(query),
                format!(
                    "SELECT {COLUMNS}, -bm25(passage_words) AS score
                     FROM passage_words CROSS JOIN passage ON passage.id = passage_words.rowid
                         CROSS JOIN job ON job.id = passage.job_id
                     WHERE passage_words MATCH $1 AND passage.generation = (SELECT generation FROM archive)
                         AND job.caller = $3
                     ORDER BY score DESC, passage.id LIMIT $2"
                ),
            ),
            _ => (
                query::tsquery(query),
                format!(
                    "SELECT {COLUMNS}, CAST(ts_rank_cd(passage.words, query, 1) AS DOUBLE PRECISION) AS score
                     FROM to_tsquery('english', $1) AS query, passage JOIN job ON job.id = passage.job_id
                     WHERE passage.words @@ query AND passage.generation = (SELECT generation FROM archive)
                         AND job.caller = $3
                     ORDER BY score DESC, passage.id LIMIT $2"
                ),
            ),
        };
        let Some(words) = words else { return Ok(Vec::new()) };
        let rows: Vec<Scored> = self.read().all(text, [words.into(), (k as i64).into(), caller.into()]).await?;
        Ok(rows.into_iter().map(Hit::from).collect())
    }

    /// The caller's `k` passages whose vectors by `model` are nearest to `query`, a unit vector, best first.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] when the caller has vectors, but the archive none of this model and dimension.
    pub async fn vector_top_k(
        &self,
        caller: &str,
        model: &str,
        query: &[f32],
        k: usize,
    ) -> Result<Vec<Hit>, StoreError> {
        let matrix = self.matrix(model).await;
        self.refresh(model, &matrix).await?;
        loop {
            let best = self.nearest(caller, model, query, k, &matrix).await?;
            let hits = self.hits(model, &best).await?;
            let found: HashSet<i64> = hits.iter().map(|hit| hit.passage.id).collect();
            let gone: Vec<i64> = best.iter().map(|(id, _)| *id).filter(|id| !found.contains(id)).collect();
            if gone.is_empty() {
                return Ok(hits);
            }
            // Deleted, or indexed again by another model, since the matrix was read: others have their place.
            matrix.write().await.forget(&gone);
        }
    }

    async fn nearest(
        &self,
        caller: &str,
        model: &str,
        query: &[f32],
        k: usize,
        matrix: &Arc<RwLock<Matrix>>,
    ) -> Result<Vec<(i64, f32)>, StoreError> {
        let held = matrix.clone().read_owned().await;
        if held.is_empty() {
            let others = self.stats(caller).await?.vectors;
            if others.is_empty() {
                return Ok(Vec::new());
            }
            let others: Vec<_> = others.into_iter().map(|(model, dim, _)| (model, dim as usize)).collect();
            return Err(mismatch(&others, model, query.len()));
        }
        if held.dim() != query.len() {
            return Err(mismatch(&[(model.to_owned(), held.dim())], model, query.len()));
        }
        let (caller, query) = (caller.to_owned(), query.to_vec());
        let best = tokio::task::spawn_blocking(move || held.top_k(&caller, &query, k)).await;
        best.map_err(|error| StoreError::Internal { reason: format!("vector search: {error}") })
    }

    /// What the active generation holds of the caller.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn stats(&self, caller: &str) -> Result<ArchiveStats, StoreError> {
        let generation = self.read().active_generation().await?;
        let text = "SELECT passage.model AS model, passage.dim AS dim, COUNT(*) AS n
             FROM passage JOIN job ON job.id = passage.job_id
             WHERE passage.generation = $1 AND job.caller = $2
             GROUP BY passage.model, passage.dim ORDER BY passage.model, passage.dim";
        let rows: Vec<VectorCount> = self.read().all(text, [generation.into(), caller.into()]).await?;
        let passages = rows.iter().map(|row| row.n as u64).sum();
        let vectors = rows.into_iter().filter_map(|row| Some((row.model?, row.dim as u64, row.n as u64))).collect();
        Ok(ArchiveStats { generation, passages, vectors })
    }

    async fn matrix(&self, model: &str) -> Arc<RwLock<Matrix>> {
        if let Some(matrix) = self.matrices.read().await.get(model) {
            return matrix.clone();
        }
        self.matrices.write().await.entry(model.to_owned()).or_default().clone()
    }

    /// Reads what was added since the last time. Whoever comes second waits and finds nothing left to read.
    async fn refresh(&self, model: &str, matrix: &RwLock<Matrix>) -> Result<(), StoreError> {
        let state = self.read().archive_state().await?;
        if matrix.read().await.is_at(state.generation, state.version) {
            return Ok(());
        }
        let mut matrix = matrix.write().await;
        matrix.enter(state.generation);
        // In pages, so that a large archive does not arrive as one answer.
        const PAGE: usize = 4_096;
        loop {
            let text =
                "SELECT passage.id AS id, job.caller AS caller, passage.vector AS vector, passage.version AS version
                 FROM passage JOIN job ON job.id = passage.job_id
                 WHERE passage.generation = $1 AND passage.version <= $2 AND (passage.version, passage.id) > ($3, $4)
                     AND passage.model = $5 AND passage.vector IS NOT NULL
                 ORDER BY passage.version, passage.id LIMIT $6";
            let (version, id) = matrix.position();
            let values: [Value; 6] = [
                state.generation.into(),
                state.version.into(),
                version.into(),
                id.into(),
                model.into(),
                (PAGE as i64).into(),
            ];
            let rows: Vec<VectorRow> = self.read().all(text, values).await?;
            let count = rows.len();
            for row in rows {
                matrix.put(row.id, row.version, &row.caller, &row.vector)?;
            }
            if count < PAGE {
                matrix.arrive(state.version);
                return Ok(());
            }
        }
    }

    async fn hits(&self, model: &str, best: &[(i64, f32)]) -> Result<Vec<Hit>, StoreError> {
        let text = format!(
            "SELECT {COLUMNS} FROM passage WHERE passage.id IN (SELECT id FROM {}) AND passage.model = $2",
            sql::table(self.backend, 1, &[sql::Column::Int("id")])
        );
        let list = sql::list(best.iter().map(|(id, _)| serde_json::json!({ "id": id })));
        let rows: Vec<Passage> = self.read().all(text, [list, model.into()]).await?;
        let mut rows: HashMap<i64, Passage> = rows.into_iter().map(|row| (row.id, row)).collect();
        Ok(best
            .iter()
            .filter_map(|(id, score)| Some(Hit { passage: rows.remove(id)?, score: f64::from(*score) }))
            .collect())
    }
}

fn mismatch(stored: &[(String, usize)], model: &str, dim: usize) -> StoreError {
    let name = |(model, dim): &(String, usize)| format!("{model} ({dim} dimensions)");
    StoreError::Mismatch {
        stored: stored.iter().map(name).collect::<Vec<_>>().join(", "),
        given: name(&(model.to_owned(), dim)),
    }
}

impl From<Scored> for Hit {
    fn from(row: Scored) -> Self {
        let passage = Passage {
            id: row.id,
            job_id: row.job_id,
            ordinal: row.ordinal,
            name: row.name,
            start_s: row.start_s,
            end_s: row.end_s,
            text: row.text,
            model: row.model,
        };
        Self { passage, score: row.score }
    }
}
