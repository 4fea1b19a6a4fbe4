//! A caller that goes on through faults: it asks again until it is answered, and counts what it is waiting for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use warren_messages::wire::{
    EmbedSpec, GetEmbeddingsRequest, GetJobRequest, GetTranscriptRequest, Job, JobState, SubmitJobRequest,
    TranscribeSpec, Transcript, UploadHeader, UploadRequest, WatchJobRequest, embeddings_client::EmbeddingsClient,
    jobs_client::JobsClient, media_client::MediaClient, submit_job_request::Spec,
    transcripts_client::TranscriptsClient, upload_request::Part,
};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(20);
/// How long the server may be away.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(250);
/// A server answers some 200 calls on one connection at a time; the others wait.
const CONNECTIONS: usize = 32;
/// Bytes of a recording in one message.
const CHUNK: usize = 512 << 10;
/// Largest answer.
const MAX_ANSWER: usize = 64 << 20;

/// Talks to one ingest. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    channels: Arc<[Channel]>,
    calls: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

/// A call that waits for its answer.
struct Open<'a>(&'a AtomicUsize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Client {
    /// Connects when used. Must be called inside a runtime.
    ///
    /// # Panics
    /// When `url` is none.
    pub fn new(url: &str) -> Self {
        let endpoint = Endpoint::from_shared(url.to_owned()).unwrap_or_else(|error| panic!("{url}: {error}"));
        let endpoint = endpoint
            .connect_timeout(Duration::from_secs(3))
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5));
        let channels = (0..CONNECTIONS).map(|_| endpoint.connect_lazy()).collect();
        Self { channels, calls: Arc::default(), open: Arc::default() }
    }

    /// The connection for the next call.
    fn channel(&self) -> Channel {
        self.channels[self.calls.fetch_add(1, Ordering::Relaxed) % self.channels.len()].clone()
    }

    /// Calls that wait for their answers now.
    pub fn open_calls(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Has texts embedded; asked twice, it is one job. The job's id.
    ///
    /// # Errors
    /// What the server refused, or its last word after three minutes of faults.
    pub async fn submit(&self, request_id: &str, model: &str, texts: &[String]) -> Result<String, Status> {
        let embed = EmbedSpec { texts: texts.to_vec(), model: model.to_owned(), index: false };
        self.begin(request_id, Spec::Embed(embed)).await
    }

    /// Has a recording transcribed, otherwise as [`Client::submit`].
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn transcribe(&self, request_id: &str, model: &str, media: &str) -> Result<String, Status> {
        let spec = TranscribeSpec { media: media.to_owned(), model: model.to_owned(), ..TranscribeSpec::default() };
        self.begin(request_id, Spec::Transcribe(spec)).await
    }

    async fn begin(&self, request_id: &str, spec: Spec) -> Result<String, Status> {
        let (spec, request_id) = (Some(spec), request_id.to_owned());
        let request = SubmitJobRequest { spec, request_id, ..SubmitJobRequest::default() };
        let job = self
            .again(|channel| {
                let request = request.clone();
                async move { JobsClient::new(channel).submit(request).await }
            })
            .await?;
        Ok(job.into_inner().id)
    }

    /// Uploads a recording, once and without patience. Its id.
    ///
    /// # Errors
    /// What the server said.
    pub async fn upload(&self, name: &str, recording: Vec<u8>) -> Result<String, Status> {
        let header = UploadHeader { name: name.to_owned(), ..UploadHeader::default() };
        let mut parts = vec![UploadRequest { part: Some(Part::Header(header)) }];
        let chunks = recording.chunks(CHUNK).map(|chunk| Part::Chunk(chunk.to_vec().into()));
        parts.extend(chunks.map(|part| UploadRequest { part: Some(part) }));
        let stored = MediaClient::new(self.channel()).upload(tokio_stream::iter(parts)).await?;
        Ok(stored.into_inner().id)
    }

    /// A job's transcript.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn transcript(&self, id: &str) -> Result<Transcript, Status> {
        let request = GetTranscriptRequest { job: id.to_owned(), ..GetTranscriptRequest::default() };
        let transcript = self
            .again(|channel| {
                let request = request.clone();
                async move { TranscriptsClient::new(channel).get(request).await }
            })
            .await?;
        Ok(transcript.into_inner())
    }

    /// A job now.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn job(&self, id: &str) -> Result<Job, Status> {
        let request = GetJobRequest { id: id.to_owned() };
        let job = self
            .again(|channel| {
                let request = request.clone();
                async move { JobsClient::new(channel).get(request).await }
            })
            .await?;
        Ok(job.into_inner())
    }

    /// Watches a job to its end.
    ///
    /// # Errors
    /// As [`Client::submit`]; `DEADLINE_EXCEEDED` when it has not ended within `limit`.
    pub async fn ended(&self, id: &str, limit: Duration) -> Result<Job, Status> {
        let late = || Status::deadline_exceeded(format!("{id} has not ended within {} s", limit.as_secs()));
        timeout(limit, self.watch(id)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn watch(&self, id: &str) -> Result<Job, Status> {
        loop {
            let _open = self.opened();
            let request = WatchJobRequest { id: id.to_owned(), after_sequence: i64::MAX };
            let watched = JobsClient::new(self.channel()).watch(request).await;
            let Ok(watched) = watched else {
                sleep(PAUSE).await;
                continue;
            };
            let mut updates = watched.into_inner();
            while let Ok(Some(update)) = updates.message().await {
                let Some(job) = update.job else { continue };
                if matches!(job.state(), JobState::Succeeded | JobState::Failed | JobState::Cancelled) {
                    return Ok(job);
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// The vectors of a job, with the indexes of their texts.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn vectors(&self, id: &str) -> Result<Vec<(u32, Vec<f32>)>, Status> {
        let request = GetEmbeddingsRequest { job: id.to_owned(), first: 0 };
        self.again(|channel| {
            let request = request.clone();
            async move {
                let client = EmbeddingsClient::new(channel).max_decoding_message_size(MAX_ANSWER);
                let mut batches = { client }.get(request).await?.into_inner();
                let mut vectors = Vec::new();
                while let Some(batch) = batches.message().await? {
                    vectors.extend(batch.embeddings.into_iter().map(|embedding| (embedding.index, embedding.values)));
                }
                Ok(vectors)
            }
        })
        .await
    }

    fn opened(&self) -> Open<'_> {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(&self.open)
    }

    async fn again<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let start = Instant::now();
        loop {
            let _open = self.opened();
            let outcome = timeout(CALL, call(self.channel())).await;
            let status = match outcome.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer"))) {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            let refused = [
                Code::InvalidArgument,
                Code::NotFound,
                Code::AlreadyExists,
                Code::FailedPrecondition,
                Code::PermissionDenied,
                Code::Unauthenticated,
                Code::Unimplemented,
            ];
            if refused.contains(&status.code()) || start.elapsed() > PATIENCE {
                return Err(status);
            }
            sleep(PAUSE).await;
        }
    }
}
