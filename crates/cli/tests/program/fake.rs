//! A server that answers as it is told, and remembers what it was asked.

use std::{
    net::TcpListener,
    pin::Pin,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use futures::{Stream, StreamExt as _, stream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};
use warren_messages::wire::{
    CancelJobRequest, CancelJobResponse, DeadLetter, DeadLetterGroupsRequest, DeadLetterGroupsResponse,
    DeadLetterStats, DeadLetterStatsRequest, DeleteJobRequest, DeleteJobResponse, DiscardDeadLettersRequest,
    DiscardDeadLettersResponse, DiscardOutcome, ExplainJobRequest, GetJobRequest, GetTranscriptRequest,
    ImportDeadLettersRequest, ImportDeadLettersResponse, Job, JobEvent, JobEventsRequest, JobEventsResponse,
    JobExplanation, JobState, JobUpdate, ListDeadLettersRequest, ListDeadLettersResponse, ListJobsRequest,
    ListJobsResponse, MediaObject, ReplayDeadLettersRequest, ReplayDeadLettersResponse, ResubmitJobRequest,
    ShowDeadLetterRequest, SubmitJobRequest, Transcript, UploadRequest, WatchJobRequest,
    dead_letters_server::{self, DeadLettersServer},
    jobs_server::{self, JobsServer},
    media_server::{self, MediaServer},
    submit_job_request::Spec,
    transcripts_server::{self, TranscriptsServer},
    upload_request::Part,
};

/// A job that succeeds at once.
pub(crate) const QUICK: &str = "job_quick";
/// A job that fails at once.
pub(crate) const DOOMED: &str = "job_doomed";
/// A job that runs for ever. It is what becomes of a recording called `long.wav`.
pub(crate) const LONG: &str = "job_long";
/// What is said in every recording.
pub(crate) const SAID: &str = "Ask not.";

/// The server. Ends with the test program.
#[derive(Debug)]
pub(crate) struct Fake {
    address: String,
    asked: Arc<Mutex<Asked>>,
    watched: Receiver<String>,
}

/// What it does.
#[derive(Clone, Debug)]
struct Services {
    asked: Arc<Mutex<Asked>>,
    watched: Sender<String>,
}

/// What it was asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// Name and bytes of each recording.
    pub(crate) uploads: Vec<(String, Vec<u8>)>,
    /// Jobs handed in.
    pub(crate) submitted: usize,
    /// Replays of dead letters.
    pub(crate) replays: usize,
    /// The number that was confirmed with a discard.
    pub(crate) discarded: Option<u64>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let asked = Arc::<Mutex<Asked>>::default();
        let (sender, watched) = channel();
        let services = Services { asked: asked.clone(), watched: sender };
        thread::spawn(move || services.serve(listener));
        Self { address, asked, watched }
    }

    /// For `--server`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn asked(&self) -> Asked {
        self.asked.lock().expect("no test panics with it").clone()
    }

    /// Waits until somebody follows this job.
    pub(crate) fn until_watched(&self, job: &str) {
        while self.watched.recv().expect("it runs") != job {}
    }
}

impl Services {
    #[tokio::main(flavor = "current_thread")]
    async fn serve(self, listener: TcpListener) {
        listener.set_nonblocking(true).expect("a socket of tokio's");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket of tokio's");
        tonic::transport::Server::builder()
            .add_service(JobsServer::new(self.clone()))
            .add_service(MediaServer::new(self.clone()))
            .add_service(TranscriptsServer::new(self.clone()))
            .add_service(DeadLettersServer::new(self))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .expect("served");
    }

    fn note(&self, what: impl FnOnce(&mut Asked)) {
        what(&mut self.asked.lock().expect("no test panics with it"));
    }
}

fn job(id: &str) -> Job {
    let state = match id {
        LONG => JobState::Running,
        DOOMED => JobState::Failed,
        _ => JobState::Succeeded,
    };
    let mut job = Job { id: id.to_owned(), kind: "transcribe".to_owned(), state: state.into(), ..Job::default() };
    if state == JobState::Failed {
        "WorkerLost".clone_into(&mut job.error_code);
        "the worker was lost three times".clone_into(&mut job.error_message);
    }
    job
}

fn not_asked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("no test asks for this"))
}

#[tonic::async_trait]
impl jobs_server::Jobs for Services {
    async fn submit(&self, request: Request<SubmitJobRequest>) -> Result<Response<Job>, Status> {
        self.note(|asked| asked.submitted += 1);
        let long = matches!(&request.get_ref().spec, Some(Spec::Transcribe(spec)) if spec.media == "long.wav");
        Ok(Response::new(job(if long { LONG } else { QUICK })))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<JobUpdate, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchJobRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let job = job(&request.get_ref().id);
        // Not every test waits for it.
        let _ = self.watched.send(job.id.clone());
        let event = JobEvent { sequence: 1, event: "job.submitted".to_owned(), ..JobEvent::default() };
        let ends = job.id != LONG;
        let first = stream::iter([Ok(JobUpdate { job: Some(job), events: vec![event] })]);
        Ok(Response::new(if ends { first.boxed() } else { first.chain(stream::pending()).boxed() }))
    }

    type RunStream = Self::WatchStream;

    async fn run(&self, _: Request<SubmitJobRequest>) -> Result<Response<Self::RunStream>, Status> {
        not_asked()
    }

    async fn get(&self, _: Request<GetJobRequest>) -> Result<Response<Job>, Status> {
        not_asked()
    }

    async fn list(&self, _: Request<ListJobsRequest>) -> Result<Response<ListJobsResponse>, Status> {
        not_asked()
    }

    async fn events(&self, _: Request<JobEventsRequest>) -> Result<Response<JobEventsResponse>, Status> {
        not_asked()
    }

    async fn cancel(&self, _: Request<CancelJobRequest>) -> Result<Response<CancelJobResponse>, Status> {
        not_asked()
    }

    async fn resubmit(&self, _: Request<ResubmitJobRequest>) -> Result<Response<Job>, Status> {
        not_asked()
    }

    async fn delete(&self, _: Request<DeleteJobRequest>) -> Result<Response<DeleteJobResponse>, Status> {
        not_asked()
    }

    async fn explain(&self, _: Request<ExplainJobRequest>) -> Result<Response<JobExplanation>, Status> {
        not_asked()
    }
}

#[tonic::async_trait]
impl media_server::Media for Services {
    async fn upload(&self, request: Request<Streaming<UploadRequest>>) -> Result<Response<MediaObject>, Status> {
        let mut parts = request.into_inner();
        let (mut name, mut bytes) = (String::new(), Vec::new());
        while let Some(message) = parts.message().await? {
            match message.part {
                Some(Part::Header(header)) => name = header.name,
                Some(Part::Chunk(chunk)) => bytes.extend_from_slice(&chunk),
                None => {}
            }
        }
        self.note(|asked| asked.uploads.push((name.clone(), bytes)));
        Ok(Response::new(MediaObject { id: name, ..MediaObject::default() }))
    }
}

#[tonic::async_trait]
impl transcripts_server::Transcripts for Services {
    async fn get(&self, request: Request<GetTranscriptRequest>) -> Result<Response<Transcript>, Status> {
        let (text, rendered) = (SAID.to_owned(), format!("{SAID}\n"));
        let job = request.into_inner().job;
        Ok(Response::new(Transcript { job, text, rendered, complete: true, ..Transcript::default() }))
    }
}

#[tonic::async_trait]
impl dead_letters_server::DeadLetters for Services {
    async fn list(&self, _: Request<ListDeadLettersRequest>) -> Result<Response<ListDeadLettersResponse>, Status> {
        let letter = DeadLetter {
            id: "0192f0c1-1111-7000-8000-000000000001".to_owned(),
            queue: "warren.task.transcribe".to_owned(),
            class: "Malformed".to_owned(),
            cause: "transcribe.model: is missing".to_owned(),
            fingerprint: "0123456789ab".to_owned(),
            job: "job_0192f0c1-2222-7000-8000-000000000002".to_owned(),
            ..DeadLetter::default()
        };
        Ok(Response::new(ListDeadLettersResponse { letters: vec![letter], total: 1, ..Default::default() }))
    }

    async fn show(&self, _: Request<ShowDeadLetterRequest>) -> Result<Response<DeadLetter>, Status> {
        not_asked()
    }

    async fn replay(
        &self,
        _: Request<ReplayDeadLettersRequest>,
    ) -> Result<Response<ReplayDeadLettersResponse>, Status> {
        self.note(|asked| asked.replays += 1);
        Ok(Response::new(ReplayDeadLettersResponse::default()))
    }

    async fn groups(&self, _: Request<DeadLetterGroupsRequest>) -> Result<Response<DeadLetterGroupsResponse>, Status> {
        not_asked()
    }

    async fn stats(&self, _: Request<DeadLetterStatsRequest>) -> Result<Response<DeadLetterStats>, Status> {
        not_asked()
    }

    async fn discard(
        &self,
        request: Request<DiscardDeadLettersRequest>,
    ) -> Result<Response<DiscardDeadLettersResponse>, Status> {
        let asked = request.into_inner();
        if !asked.dry_run {
            self.note(|asked_for| asked_for.discarded = Some(asked.confirm));
        }
        let outcome = DiscardOutcome { id: "l".to_owned(), discarded: true, ..DiscardOutcome::default() };
        let outcomes = vec![outcome.clone(), outcome];
        Ok(Response::new(DiscardDeadLettersResponse { outcomes, dry_run: asked.dry_run, left: 0 }))
    }

    async fn import(
        &self,
        _: Request<ImportDeadLettersRequest>,
    ) -> Result<Response<ImportDeadLettersResponse>, Status> {
        not_asked()
    }
}
