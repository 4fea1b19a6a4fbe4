//! What tasks produced: segments of transcripts, and vectors.

use std::collections::BTreeMap;

use sea_orm::{ActiveValue, EntityTrait};
use serde_json::json;
use uuid::Uuid;

use crate::{
    Reads, StoreError, Tx,
    entity::{embedding, segment},
    sql,
};

/// Text with times on the recording's own time line.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Ordinal of the transcribe task that produced it.
    pub task_ordinal: i64,
    /// Its place within the task.
    pub idx: i64,
    /// Seconds.
    pub start_s: f64,
    /// Seconds.
    pub end_s: f64,
    /// What was said.
    pub text: String,
    /// Mean natural-log probability of its tokens.
    pub avg_logprob: f64,
    /// Probability that its window held no speech.
    pub no_speech_prob: f64,
}

/// The vector of one text.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingRow {
    /// Whose.
    pub job: Uuid,
    /// Index of the text within the job.
    pub ordinal: i64,
    /// Model that made it.
    pub model: String,
    /// Unit length.
    pub vector: Vec<f32>,
}

impl Tx {
    /// Stores the segments of one task in place of those that it may have stored before.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when there is no such job.
    pub async fn replace_segments(&self, job: Uuid, task_ordinal: i64, rows: &[Segment]) -> Result<(), StoreError> {
        let gone = [job.into(), task_ordinal.into()];
        self.execute("DELETE FROM segment WHERE job_id = $1 AND task_ordinal = $2", gone).await?;
        for group in rows.chunks(500) {
            let rows = group.iter().map(|row| segment::ActiveModel {
                job_id: ActiveValue::Set(job),
                task_ordinal: ActiveValue::Set(task_ordinal),
                idx: ActiveValue::Set(row.idx),
                start_s: ActiveValue::Set(sql::finite(row.start_s)),
                end_s: ActiveValue::Set(sql::finite(row.end_s)),
                text: ActiveValue::Set(sql::text(&row.text)),
                avg_logprob: ActiveValue::Set(sql::finite(row.avg_logprob)),
                no_speech_prob: ActiveValue::Set(sql::finite(row.no_speech_prob)),
            });
            segment::Entity::insert_many(rows).exec_without_returning(&*self.inner).await?;
        }
        Ok(())
    }

    /// Stores vectors; one stored before is replaced, and of two with one place the last counts.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn upsert_embeddings(&self, rows: &[EmbeddingRow]) -> Result<(), StoreError> {
        use sql::Column::{Bytes, Id, Int, Text};
        // PostgreSQL refuses to update one row twice in a statement.
        let newest: BTreeMap<_, _> = rows.iter().map(|row| ((row.job, row.ordinal), row)).collect();
        let rows: Vec<_> = newest.into_values().collect();
        let text = format!(
            "INSERT INTO embedding (job_id, ordinal, model, vector)
             SELECT v.job_id, v.ordinal, v.model, v.vector FROM {} WHERE true
             ON CONFLICT (job_id, ordinal) DO UPDATE SET model = excluded.model, vector = excluded.vector",
            sql::table(self.backend, 1, &[Id("job_id"), Int("ordinal"), Text("model"), Bytes("vector")])
        );
        for group in rows.chunks(500) {
            let list = sql::list(group.iter().map(|row| {
                json!({
                    "job_id": sql::id(&row.job), "ordinal": row.ordinal, "model": row.model,
                    "vector": sql::bytes(&to_bytes(&row.vector)),
                })
            }));
            self.execute(text.as_str(), [list]).await?;
        }
        Ok(())
    }
}

impl Reads<'_> {
    /// All segments of a job, in order of the recording.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn segments(&self, job: Uuid) -> Result<Vec<Segment>, StoreError> {
        let text = "SELECT * FROM segment WHERE job_id = $1 ORDER BY task_ordinal, idx";
        let rows: Vec<segment::Model> = self.all(text, [job.into()]).await?;
        Ok(rows
            .into_iter()
            .map(|row| Segment {
                task_ordinal: row.task_ordinal,
                idx: row.idx,
                start_s: row.start_s,
                end_s: row.end_s,
                text: row.text,
                avg_logprob: row.avg_logprob,
                no_speech_prob: row.no_speech_prob,
            })
            .collect())
    }

    /// Vectors of a job from ordinal `first` on, in order; ask again from the last one's ordinal plus one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn embeddings(&self, job: Uuid, first: i64, limit: u64) -> Result<Vec<EmbeddingRow>, StoreError> {
        let text = "SELECT * FROM embedding WHERE job_id = $1 AND ordinal >= $2 ORDER BY ordinal LIMIT $3";
        let rows: Vec<embedding::Model> = self.all(text, [job.into(), first.into(), (limit as i64).into()]).await?;
        rows.into_iter()
            .map(|row| {
                let vector = from_bytes("embedding.vector", &row.vector)?;
                Ok(EmbeddingRow { job, ordinal: row.ordinal, model: row.model, vector })
            })
            .collect()
    }
}

pub(crate) fn to_bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(crate) fn from_bytes(column: &str, bytes: &[u8]) -> Result<Vec<f32>, StoreError> {
    let (values, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(StoreError::corrupt(format!("{column}: {} bytes are no f32 values", bytes.len())));
    }
    Ok(values.iter().map(|value| f32::from_le_bytes(*value)).collect())
}
