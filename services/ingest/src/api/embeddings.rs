//! Vectors of embed jobs, streamed.

use futures::{StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use tonic::{Request, Response, Status};
use warren_jobs::JobKind;
use warren_messages::wire::{Embedding, EmbeddingBatch, GetEmbeddingsRequest, embeddings_server};
use warren_store::StoreError;

use crate::{
    auth::caller,
    parts::Parts,
    shown::number,
    status::{invalid, of_store},
};

/// Vectors in one message: 400 KB of the default model's.
const BATCH: u64 = 256;

/// Service `warren.v1.Embeddings`.
pub(crate) struct Embeddings(pub(crate) Parts);

#[tonic::async_trait]
impl embeddings_server::Embeddings for Embeddings {
    type GetStream = BoxStream<'static, Result<EmbeddingBatch, Status>>;

    async fn get(&self, request: Request<GetEmbeddingsRequest>) -> Result<Response<Self::GetStream>, Status> {
        let caller = caller(&request)?;
        let GetEmbeddingsRequest { job, first } = request.into_inner();
        let job = self.0.job(&caller, "job", &job).await?;
        if job.kind == JobKind::Transcribe {
            return Err(invalid("job", "made a transcript, not vectors; use Transcripts.Get"));
        }
        let (store, id) = (self.0.store.clone(), job.id);
        let batches = stream::try_unfold(i64::from(first), move |first| {
            let store = store.clone();
            async move {
                let rows = store.read().embeddings(id, first, BATCH).await?;
                let Some(last) = rows.last() else { return Ok::<_, StoreError>(None) };
                let (next, model) = (last.ordinal + 1, last.model.clone());
                let embeddings =
                    rows.into_iter().map(|row| Embedding { index: number(row.ordinal), values: row.vector }).collect();
                Ok(Some((EmbeddingBatch { model, embeddings }, next)))
            }
        });
        Ok(Response::new(batches.map_err(|error| of_store(&error)).boxed()))
    }
}
