//! Search by words and by meaning.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;
use tonic::{Request, Response, Status};
use warren_fault::Code;
use warren_jobs::{JobClass, JobKind, fuse};
use warren_messages::{
    ids::JobId,
    wire::{self, SearchHit, SearchRequest, SearchResponse, job::Spec, search_server},
};
use warren_store::{ArchiveStats, Hit, Job, JobLimits};

use super::attached::Attached;
use crate::{
    accept::{Asked, accept},
    auth::{Caller, caller},
    page::Range,
    parts::Parts,
    status::{invalid, of_store, refused},
    vectors::Vector,
};

const LIMIT: Range = Range { default: 10, most: 100 };
/// Most characters of a query.
const MAX_QUERY: usize = 2_000;
/// Longest wait for the vector of a query; then words have to do.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the vector is looked for without a hint.
const LOOK: Duration = Duration::from_millis(100);
/// Seconds that the job of a query may take.
const TIMEOUT_S: i64 = 60;
/// Candidates of each ranking.
const DEPTH: usize = 100;

/// Service `warren.v1.Search`.
pub(crate) struct Search(pub(crate) Parts);

#[tonic::async_trait]
impl search_server::Search for Search {
    async fn query(&self, request: Request<SearchRequest>) -> Result<Response<SearchResponse>, Status> {
        let caller = caller(&request)?;
        let SearchRequest { query, limit } = request.into_inner();
        let limit = LIMIT.of("limit", limit)? as usize;
        let query = query.trim();
        if query.is_empty() {
            return Err(invalid("query", "is empty; give at least one word"));
        }
        if query.chars().count() > MAX_QUERY {
            return Err(refused("query", Code::InputTooLong, format!("must have at most {MAX_QUERY} characters")));
        }
        let stats = self.0.store.archive().stats(&caller.name).await.map_err(|error| of_store(&error))?;
        let meaning = match self.model(&stats) {
            Some(model) => self.vector(&caller, &model, query).await?.map(|vector| (model, vector)),
            None => None,
        };
        let hits = self.hits(&caller, query, meaning, limit).await?;
        Ok(Response::new(SearchResponse { hits, indexed: stats.passages }))
    }
}

impl Search {
    /// The model of the caller's vectors: the default one, else the one with the most; `None` without vectors.
    fn model(&self, stats: &ArchiveStats) -> Option<String> {
        let known = |name: &str| self.0.catalogue.get(name).is_ok_and(|model| model.embedding.is_some());
        let default = &self.0.settings.defaults.embedding_model;
        let default = self.0.catalogue.get(default).map_or(default.as_str(), |model| model.name.as_str());
        let held = stats.vectors.iter().filter(|(name, ..)| known(name));
        held.max_by_key(|(name, _, count)| (name == default, *count)).map(|(name, ..)| name.clone())
    }

    /// The vector of a query. `None`: no worker made it in time.
    async fn vector(&self, caller: &Caller, model: &str, query: &str) -> Result<Option<Vector>, Status> {
        let parts = &self.0;
        if let Some(vector) = parts.vectors.get(model, query) {
            return Ok(Some(vector));
        }
        let asked = Asked {
            kind: JobKind::Query,
            class: JobClass::Interactive,
            media: None,
            name: "search".to_owned(),
            spec: Spec::Embed(wire::EmbedSpec {
                model: model.to_owned(),
                texts: vec![query.to_owned()],
                ..Default::default()
            }),
            limits: JobLimits { timeout_s: TIMEOUT_S, ..JobLimits::default() },
            resubmitted_from: None,
            request: None,
        };
        let accepted = async {
            parts.admit().await?;
            accept(parts, caller, asked).await
        };
        let job = match accepted.await {
            Ok(job) => job,
            // Words can still be found when object storage or RabbitMQ is away.
            Err(error) => {
                tracing::warn!(%error, "a search goes by words alone");
                return Ok(None);
            }
        };
        let attached = Attached::new(parts.clone(), caller.clone(), job.id);
        let vector = self.wait(&job).await?;
        match &vector {
            Some(vector) => {
                attached.over();
                parts.vectors.put(model, query, vector.clone());
            }
            None => {
                tracing::warn!(job.id = %JobId(job.id), "no worker embedded a search in time; it goes by words alone");
            }
        }
        Ok(vector)
    }

    async fn wait(&self, job: &Job) -> Result<Option<Vector>, Status> {
        let parts = &self.0;
        let mut hint = parts.hints.wait_for(job.id);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            hint.change(LOOK).await;
            let rows = parts.store.read().embeddings(job.id, 0, 1).await.map_err(|error| of_store(&error))?;
            if let Some(row) = rows.into_iter().next() {
                return Ok(Some(row.vector.into()));
            }
            let now = parts.store.read().job(job.id).await.map_err(|error| of_store(&error))?;
            if now.is_none_or(|job| job.state.is_ended()) {
                break;
            }
        }
        Ok(None)
    }

    async fn hits(
        &self,
        caller: &Caller,
        query: &str,
        meaning: Option<(String, Vector)>,
        limit: usize,
    ) -> Result<Vec<SearchHit>, Status> {
        let (archive, depth) = (self.0.store.archive(), DEPTH.max(limit));
        let by_words = archive.text_top_k(&caller.name, query, depth as u64).await.map_err(|error| of_store(&error))?;
        let by_meaning = match &meaning {
            Some((model, vector)) => {
                let found = archive.vector_top_k(&caller.name, model, vector, depth).await;
                found.map_err(|error| of_store(&error))?
            }
            None => Vec::new(),
        };
        Ok(fused(&by_words, &by_meaning, limit))
    }
}

/// One ranking of two, best first.
fn fused(by_words: &[Hit], by_meaning: &[Hit], limit: usize) -> Vec<SearchHit> {
    let ids = |hits: &[Hit]| hits.iter().map(|hit| hit.passage.id).collect::<Vec<_>>();
    let similar: HashMap<i64, f64> = by_meaning.iter().map(|hit| (hit.passage.id, hit.score)).collect();
    let passages: HashMap<i64, &Hit> = by_words.iter().chain(by_meaning).map(|hit| (hit.passage.id, hit)).collect();
    fuse::rrf(&[ids(by_words), ids(by_meaning)], fuse::K)
        .into_iter()
        .take(limit)
        .filter_map(|(id, score)| {
            let passage = &passages.get(&id)?.passage;
            Some(SearchHit {
                job: JobId(passage.job_id).to_string(),
                name: passage.name.clone(),
                text: passage.text.clone(),
                start: passage.start_s,
                end: passage.end_s,
                score,
                similarity: similar.get(&id).map_or(0.0, |similarity| *similarity as f32),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use warren_store::Passage;

    use super::*;

    fn hit(id: i64, score: f64) -> Hit {
        let passage = Passage {
            id,
            job_id: Uuid::nil(),
            ordinal: id,
            name: "talk".to_owned(),
            start_s: 0.0,
            end_s: 1.0,
            text: id.to_string(),
            model: None,
        };
        Hit { passage, score }
    }

    #[test]
    fn what_both_rankings_hold_comes_first_and_carries_its_similarity() {
        let hits = fused(&[hit(1, 9.0), hit(2, 8.0)], &[hit(3, 0.9), hit(2, 0.5)], 2);
        assert_eq!(hits.iter().map(|hit| hit.text.as_str()).collect::<Vec<_>>(), ["2", "1"]);
        assert_eq!((hits[0].similarity, hits[1].similarity), (0.5, 0.0));
    }
}
