//! A running service, and somebody who plays the coordinator.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
use uuid::Uuid;
use warren_blob::{BlobSettings, Blobs};
use warren_broker::{Broker, BrokerSettings, GroupHandler, Received};
use warren_clock::Clock;
use warren_fault::Fault;
use warren_host::Readiness;
use warren_jobs::{JobKind, JobState};
use warren_local::{Scratch, rabbitmq, s3};
use warren_messages::{
    ids::JobId,
    replay,
    routes::COMMANDS,
    wire::{
        self, Command, EmbedSpec, Job, MediaObject, Notice, SubmitJobRequest, UploadHeader, UploadRequest,
        command::Command as What, dead_letters_client::DeadLettersClient, embeddings_client::EmbeddingsClient,
        jobs_client::JobsClient, media_client::MediaClient, operations_client::OperationsClient,
        search_client::SearchClient, submit_job_request::Spec, transcripts_client::TranscriptsClient,
        upload_request::Part,
    },
};
use warren_relay::Relay;
use warren_settings::Secret;
use warren_store::{EmbeddingRow, EventLevel, NewEvent, NewReplay, Store, StoreSettings, migrate};

use crate::{hints::Hints, parts::Parts, settings::Settings, wiring};

/// Nothing here takes longer unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) parts: Parts,
    pub(crate) channel: Channel,
    pub(crate) s3: s3::TestS3,
    pub(crate) rabbit: rabbitmq::TestBroker,
    done: CancellationToken,
    serving: JoinHandle<()>,
    _folder: Scratch,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let rabbit = tokio::task::spawn_blocking(rabbitmq::for_tests).await.expect("RabbitMQ");
        let s3 = s3::for_tests().await;
        let folder = Scratch::new("ingest").expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("warren.sqlite").display());
        migrate::up(&url).await.expect("migrated");
        let mut settings = Settings {
            broker: BrokerSettings {
                url: Secret::new(rabbit.amqp_url.clone()),
                management_url: rabbit.management_url.clone(),
                ..BrokerSettings::default()
            },
            store: StoreSettings::at(url),
            blob: BlobSettings {
                endpoint: s3.endpoint.clone(),
                region: s3.region.to_owned(),
                bucket: s3.bucket.clone(),
                access_key: s3.access_key.clone(),
                secret_key: Secret::new(s3.secret_key.clone()),
                path_style: true,
            },
            ..Settings::default()
        };
        change(&mut settings);

        let clock = Clock::system();
        let done = CancellationToken::new();
        let store = Store::open(&settings.store, clock.clone()).await.expect("opened");
        let broker = Broker::start(settings.broker.clone(), clock.clone(), "ingest", done.clone());
        assert!(within("the broker gets ready", broker.ready()).await);
        let blobs = Blobs::connect(&settings.blob);
        blobs.ensure_bucket().await.expect("a bucket");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let parts = Parts::new(
            store,
            broker,
            blobs,
            clock,
            Relay::new("ingest-test"),
            Hints::default(),
            Readiness::default(),
            Arc::new(settings),
            CancellationToken::new(),
        );
        let serving = tokio::spawn({
            let (parts, done) = (parts.clone(), done.clone());
            async move {
                let served = async {
                    wiring::serve(&parts, listener).await.expect("served");
                    done.cancel();
                };
                let relaying = parts.relay.run(&parts.store, &parts.broker, &done);
                tokio::join!(served, relaying, parts.hints.run(&parts.broker, &done));
            }
        });
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let channel = endpoint.connect().await.expect("connected");
        Self { parts, channel, s3, rabbit, done, serving, _folder: folder }
    }

    pub(crate) fn media(&self) -> MediaClient<Channel> {
        MediaClient::new(self.channel.clone())
    }

    pub(crate) fn jobs(&self) -> JobsClient<Channel> {
        JobsClient::new(self.channel.clone())
    }

    pub(crate) fn transcripts(&self) -> TranscriptsClient<Channel> {
        TranscriptsClient::new(self.channel.clone())
    }

    pub(crate) fn embeddings(&self) -> EmbeddingsClient<Channel> {
        EmbeddingsClient::new(self.channel.clone())
    }

    pub(crate) fn search(&self) -> SearchClient<Channel> {
        SearchClient::new(self.channel.clone())
    }

    pub(crate) fn letters(&self) -> DeadLettersClient<Channel> {
        DeadLettersClient::new(self.channel.clone())
    }

    pub(crate) fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel.clone())
    }

    pub(crate) async fn upload(&self, name: &str, bytes: Vec<u8>) -> MediaObject {
        let sent = self.media().upload(recording(name, Bytes::from(bytes))).await;
        sent.expect("taken").into_inner()
    }

    pub(crate) async fn submit_texts(&self, texts: &[&str]) -> Job {
        self.jobs().submit(embed(texts)).await.expect("accepted").into_inner()
    }

    /// Commands on `warren.job`, in order. `play`: what they ask for is done, too.
    pub(crate) fn coordinator(&self, play: bool) -> mpsc::UnboundedReceiver<Command> {
        let (heard, commands) = mpsc::unbounded_channel();
        let (store, broker, done) = (self.parts.store.clone(), self.parts.broker.clone(), self.done.clone());
        tokio::spawn(async move {
            let coordinator = Coordinator { store, broker: broker.clone(), heard, play };
            broker.consume_group(COMMANDS, 16, coordinator, done).await;
        });
        commands
    }

    pub(crate) async fn move_job(&self, job: &Job, from: JobState, to: JobState) {
        move_job(&self.parts.store, uuid(job), from, to).await;
        self.parts.broker.notice(&Notice { job: job.id.clone(), ended: to.is_ended() }).await;
    }

    /// Stops it as a signal would.
    pub(crate) async fn stop(self) {
        self.parts.stopping.cancel();
        drop(self.channel);
        within("the service stops", self.serving).await.expect("no panic");
        within("the broker closes", self.parts.broker.closed()).await;
        self.s3.server.stop().await;
    }
}

struct Coordinator {
    store: Store,
    broker: Broker,
    heard: mpsc::UnboundedSender<Command>,
    play: bool,
}

impl GroupHandler<Received<Command>> for Coordinator {
    async fn handle(&self, group: &[Received<Command>]) -> Result<(), Fault> {
        for received in group {
            if self.play {
                self.play(&received.message).await;
            }
            let _ = self.heard.send(received.message.clone());
        }
        Ok(())
    }
}

impl Coordinator {
    async fn play(&self, command: &Command) {
        let changed = match &command.command {
            Some(What::Cancel(cancel)) => {
                let JobId(id) = cancel.job.parse().expect("a job");
                move_job(&self.store, id, JobState::Queued, JobState::Cancelled).await;
                Some(cancel.job.clone())
            }
            Some(What::Submitted(submitted)) => {
                let JobId(id) = submitted.job.parse().expect("a job");
                let job = self.store.read().job(id).await.expect("read").expect("there");
                if job.kind == JobKind::Query {
                    let tx = self.store.begin().await.expect("begun");
                    let row = EmbeddingRow { job: id, ordinal: 0, model: job.model, vector: vec![1.0, 0.0] };
                    tx.upsert_embeddings(&[row]).await.expect("written");
                    tx.commit().await.expect("committed");
                }
                Some(submitted.job.clone())
            }
            Some(What::Replay(asked)) => {
                self.play_replay(&command.actor, asked).await;
                None
            }
            Some(What::Discard(asked)) => {
                let tx = self.store.begin().await.expect("begun");
                for id in &asked.letters {
                    tx.discard_letter(id, &asked.reason).await.expect("written");
                }
                tx.letters_left(&asked.letters).await.expect("written");
                tx.commit().await.expect("committed");
                None
            }
            Some(What::PutBack(asked)) => {
                let id = asked.letter.as_ref().map(|letter| letter.id.clone()).unwrap_or_default();
                let known = self.store.read().letter(&id).await.expect("read").expect("exported from here");
                let tx = self.store.begin().await.expect("begun");
                tx.put_letter_back(&known.letter, known.replays).await.expect("written");
                tx.commit().await.expect("committed");
                None
            }
            Some(What::Delete(_) | What::Operate(_)) | None => None,
        };
        if let Some(job) = changed {
            self.broker.notice(&Notice { job, ended: false }).await;
        }
    }
}

impl Coordinator {
    /// Sends what can be read, and refuses the rest.
    async fn play_replay(&self, actor: &str, asked: &wire::ReplayLetters) {
        let id = replay::request(actor, &asked.request_id);
        let new = NewReplay { id: id.clone(), actor: actor.to_owned(), ..NewReplay::default() };
        let tx = self.store.begin().await.expect("begun");
        if tx.insert_replay(&new, &asked.letters).await.expect("written") {
            for (ordinal, letter) in tx.read().waiting_letters(&id, 1_000).await.expect("read") {
                let row = tx.read().letter(&letter).await.expect("read").expect("there");
                let body = if asked.edited_body.is_empty() { &row.letter.body } else { &asked.edited_body };
                let refused = row.stays(asked.from_index).or_else(|| {
                    let cause = replay::Content::read(&row.letter.queue, body).err()?;
                    Some(format!("{}; replay it with a corrected body", cause.message))
                });
                if refused.is_none() {
                    tx.begin_replay(&letter).await.expect("begun");
                }
                tx.replay_letter_done(&id, ordinal, refused.as_deref()).await.expect("written");
            }
            tx.letters_left(&asked.letters).await.expect("replayed");
            if asked.rate == 0.0 {
                tx.end_replay(&id, None).await.expect("written");
            }
        }
        tx.commit().await.expect("committed");
    }
}

async fn move_job(store: &Store, id: Uuid, from: JobState, to: JobState) {
    let tx = store.begin().await.expect("begun");
    let event = NewEvent::new(EventLevel::Info, format!("job.{to}"), "as told");
    assert!(tx.set_job_state(id, from, to, &event).await.expect("moved").is_some());
    tx.commit().await.expect("committed");
}

pub(crate) fn uuid(job: &Job) -> Uuid {
    job.id.parse::<JobId>().expect("a job id").0
}

pub(crate) fn embed(texts: &[&str]) -> SubmitJobRequest {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    SubmitJobRequest {
        spec: Some(Spec::Embed(EmbedSpec { texts, ..Default::default() })),
        ..SubmitJobRequest::default()
    }
}

pub(crate) fn transcribe(media: &str, model: &str) -> SubmitJobRequest {
    let spec = wire::TranscribeSpec { media: media.to_owned(), model: model.to_owned(), ..Default::default() };
    SubmitJobRequest { spec: Some(Spec::Transcribe(spec)), ..SubmitJobRequest::default() }
}

pub(crate) fn header(header: UploadHeader) -> UploadRequest {
    UploadRequest { part: Some(Part::Header(header)) }
}

pub(crate) fn chunk(bytes: Bytes) -> UploadRequest {
    UploadRequest { part: Some(Part::Chunk(bytes)) }
}

/// A whole upload, in chunks.
pub(crate) fn recording(name: &str, bytes: Bytes) -> impl Stream<Item = UploadRequest> + Send + use<> {
    let first = header(UploadHeader { name: name.to_owned(), ..Default::default() });
    let chunks: Vec<_> = bytes.chunks(1 << 20).map(Bytes::copy_from_slice).map(chunk).collect();
    stream::iter([first]).chain(stream::iter(chunks))
}

/// A tone, as 16 kHz mono s16le.
pub(crate) fn wav(seconds: u32) -> Vec<u8> {
    let samples = seconds * 16_000;
    let mut wav = Vec::new();
    wav.extend_from_slice(b"RIFF");
    wav.extend_from_slice(&(36 + samples * 2).to_le_bytes());
    wav.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    wav.extend_from_slice(&16_000_u32.to_le_bytes());
    wav.extend_from_slice(&32_000_u32.to_le_bytes());
    wav.extend_from_slice(b"\x02\0\x10\0data");
    wav.extend_from_slice(&(samples * 2).to_le_bytes());
    for sample in 0..samples {
        let tone = (f64::from(sample) * 440.0 * std::f64::consts::TAU / 16_000.0).sin() * 8_000.0;
        wav.extend_from_slice(&(tone as i16).to_le_bytes());
    }
    wav
}

pub(crate) fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("it took too long until {what}"))
}

/// Looks again until it is so: for effects that tell nobody.
pub(crate) async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    within(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
