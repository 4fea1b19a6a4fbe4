//! A lead on a real database and real object storage, and rows to begin with.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;
use warren_blob::{BlobSettings, Blobs};
use warren_broker::{Broker, BrokerSettings, Delivery, Letter, Received};
use warren_clock::{Clock, UnixMillis};
use warren_host::Readiness;
use warren_jobs::{JobClass, JobKind, JobState, TaskKind};
use warren_local::{Scratch, rabbitmq, s3};
use warren_messages::{
    envelope::{Envelope, Message},
    ids::{JobId, TaskId},
    routes::{COMMANDS, Route},
    wire::{
        self, TaskReport, Texts, embed_task::Input, leases_client::LeasesClient, leases_server::LeasesServer,
        task::Work,
    },
};
use warren_relay::Relay;
use warren_settings::Secret;
use warren_store::{
    JobLimits, NewJob, NewOutbox, NewTask, OutboxRow, Store, StoreSettings, SubmitRequest, Task, Term, Want, migrate,
};

use crate::{
    lead::{Lead, Parts},
    leadership::{self, Current},
    planner::Payload,
    replay,
    service::Door,
    settings::{DeviceSettings, LeaderSettings, Settings},
    wiring,
};

/// Nothing here takes longer unless it is broken.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Name of the relay; nothing publishes its rows.
const RELAY: &str = "test";
/// Longer than any test's clock goes.
const TERM: Duration = Duration::from_secs(1_000_000);
/// No RabbitMQ is there.
const NOWHERE: &str = "amqp://guest:guest@127.0.0.1:9/%2f";

pub(super) struct World {
    /// The first one.
    pub(super) lead: Arc<Lead>,
    turns: Option<Turns>,
    /// Ends the lead, not the door.
    pub(super) stopping: CancellationToken,
    s3: Option<s3::TestS3>,
    _folder: Scratch,
}

/// A coordinator that takes its turns at leading.
struct Turns {
    current: Current,
    running: JoinHandle<()>,
}

impl Turns {
    async fn lead(&self, wanted: impl Fn(&Lead) -> bool) -> Arc<Lead> {
        let mut current = self.current.clone();
        let leads = current.wait_for(|now| now.as_deref().is_some_and(&wanted));
        within("it leads", leads).await.expect("it runs").clone().expect("it leads")
    }
}

impl World {
    /// A lead whose duties do not run and whose clock stands still: what happens, the test does. RabbitMQ is away.
    pub(super) async fn new() -> Self {
        Self::with(NOWHERE).await
    }

    async fn with(amqp_url: &str) -> Self {
        let clock = Clock::manual(UnixMillis(1_700_000_000_000));
        let begin = async |parts: Parts, _| {
            let asked = tokio::time::Instant::now();
            let term = parts.store.try_lead("test", "nowhere", TERM).await.expect("asked").expect("nobody else leads");
            (Arc::new(Lead::start(term, asked, parts).await.expect("leading")), None)
        };
        Self::begun(amqp_url, clock, begin).await
    }

    /// The same with a RabbitMQ of its own.
    pub(super) async fn with_rabbitmq() -> Self {
        let rabbit = tokio::task::spawn_blocking(rabbitmq::for_tests).await.expect("RabbitMQ");
        let world = Self::with(&rabbit.amqp_url).await;
        assert!(world.lead.parts.broker.ready().await);
        world
    }

    /// A coordinator as it runs, with one `cpu` for one lease at a time. RabbitMQ is away.
    pub(super) async fn leading() -> Self {
        let begin = async |parts: Parts, stopping: CancellationToken| {
            let (lead, current) = watch::channel(None);
            let health = Readiness::default().part("database", "not opened yet");
            let running = tokio::spawn(leadership::run(parts, lead, health, stopping));
            let turns = Turns { current, running };
            (turns.lead(|_| true).await, Some(turns))
        };
        Self::begun(NOWHERE, Clock::system(), begin).await
    }

    async fn begun(
        amqp_url: &str,
        clock: Clock,
        begin: impl AsyncFnOnce(Parts, CancellationToken) -> (Arc<Lead>, Option<Turns>),
    ) -> Self {
        let folder = Scratch::new("coordinator").expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("warren.sqlite").display());
        migrate::up(&url).await.expect("migrated");
        let s3 = s3::for_tests().await;
        let settings = Settings {
            broker: BrokerSettings { url: Secret::new(amqp_url.to_owned()), ..BrokerSettings::default() },
            store: StoreSettings::at(url),
            blob: BlobSettings {
                endpoint: s3.endpoint.clone(),
                region: s3.region.to_owned(),
                bucket: s3.bucket.clone(),
                access_key: s3.access_key.clone(),
                secret_key: Secret::new(s3.secret_key.clone()),
                path_style: true,
            },
            // A machine that has much to do must not end a term.
            leader: LeaderSettings { ttl_ms: 60_000, step_down_ms: 50_000, poll_ms: 20, ..LeaderSettings::default() },
            devices: vec![DeviceSettings { max_concurrent: 1, ..DeviceSettings::cpu() }],
            ..Settings::default()
        };
        let stopping = CancellationToken::new();
        let store = Store::open(&settings.store, clock.clone()).await.expect("opened");
        let blobs = Blobs::connect(&settings.blob);
        blobs.ensure_bucket().await.expect("a bucket");
        let broker = Broker::start(settings.broker.clone(), clock.clone(), "coordinator", stopping.clone());
        let (relay, retry) = (Relay::new(RELAY), Arc::<Notify>::default());
        let parts = Parts { store, broker, blobs, clock, relay, retry, settings: Arc::new(settings) };
        let (lead, turns) = begin(parts, stopping.clone()).await;
        Self { lead, turns, stopping, s3: Some(s3), _folder: folder }
    }

    /// The lead of a later term.
    pub(super) async fn lead_after(&self, term: Term) -> Arc<Lead> {
        self.turns().lead(|lead| lead.term > term).await
    }

    fn turns(&self) -> &Turns {
        self.turns.as_ref().expect("a world that is leading")
    }

    pub(super) fn door(&self) -> Door {
        let (store, address) = (self.store().clone(), self.lead.parts.settings.grpc.address());
        Door { current: self.turns().current.clone(), store, address }
    }

    /// The door as workers find it.
    pub(super) async fn client(&self) -> LeasesClient<Channel> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let door = LeasesServer::new(self.door());
        tokio::spawn(wiring::serve(door, listener, CancellationToken::new()));
        LeasesClient::new(Endpoint::from_shared(address).expect("an address").connect().await.expect("connected"))
    }

    /// The lead ends and nothing runs any more.
    pub(super) async fn stop(mut self) {
        self.stopping.cancel();
        if let Some(turns) = self.turns.take() {
            within("it stops", turns.running).await.expect("no panic");
        }
    }

    /// From now on, object storage is away.
    pub(super) async fn stop_storage(&mut self) {
        let s3 = self.s3.take().expect("it is there until now");
        s3.server.stop().await;
    }

    pub(super) fn store(&self) -> &Store {
        &self.lead.parts.store
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.lead.parts.clock
    }

    /// A running job of `texts`, all in one task that is out under dispatch 1.
    pub(super) async fn running(&self, texts: &[&str]) -> Task {
        let work = wire::EmbedTask { model: "m".to_owned(), first: 0, input: Some(Input::Texts(given(texts))) };
        let job = self.submitted().await;
        self.out(job, TaskKind::Embed, &Payload::write(Work::Embed(work)), true).await
    }

    /// A running job with one task out and `waiting` more that are not released.
    pub(super) async fn running_within(&self, limits: JobLimits, waiting: i64) -> Task {
        let work = wire::EmbedTask { model: "m".to_owned(), first: 0, input: Some(Input::Texts(given(&["a"]))) };
        let payload = Payload::write(Work::Embed(work));
        let job = self.submitted_within(JobKind::Embed, limits).await;
        let out = self.out(job, TaskKind::Embed, &payload, true).await;
        let more = (1..=waiting).map(|ordinal| NewTask {
            id: self.clock().new_id(),
            job_id: job,
            kind: TaskKind::Embed,
            ordinal,
            payload: payload.clone(),
            cost: 1.0,
            units: 1.0,
        });
        let tx = self.lead.begin().await.expect("begun");
        tx.insert_tasks(&more.collect::<Vec<_>>()).await.expect("planned");
        tx.commit().await.expect("committed");
        out
    }

    /// A running job whose recording is being prepared, under dispatch 1.
    pub(super) async fn preparing(&self) -> Task {
        let media_key = format!("media/{}", Uuid::nil());
        let work = wire::PrepareTask { media_key, ..wire::PrepareTask::default() };
        let job = self.submitted_as(JobKind::Transcribe).await;
        self.out(job, TaskKind::Prepare, &Payload::write(Work::Prepare(work)), false).await
    }

    /// The only task of a job is out; `all`: there will be no other.
    async fn out(&self, job: Uuid, kind: TaskKind, payload: &str, all: bool) -> Task {
        let task = self.clock().new_id();
        let new =
            NewTask { id: task, job_id: job, kind, ordinal: 0, payload: payload.to_owned(), cost: 1.0, units: 1.0 };
        let tx = self.lead.begin().await.expect("begun");
        tx.insert_tasks(&[new]).await.expect("planned");
        tx.add_planned(job, 0.0, all).await.expect("planned");
        tx.release_next(&[Want { job, kind, count: 1 }]).await.expect("released");
        let row = tx.read().job(job).await.expect("read").expect("there");
        let event = warren_store::NewEvent::new(warren_store::EventLevel::Info, "job.started", "started");
        tx.set_job_state(job, JobState::Queued, JobState::Running, &event).await.expect("running");
        tx.set_deadline(job, tx.now().plus(crate::releaser::limit(&self.lead.parts, &row))).await.expect("a deadline");
        tx.commit().await.expect("committed");
        self.task(task).await
    }

    /// A job of texts that is not planned.
    pub(super) async fn submitted(&self) -> Uuid {
        self.submitted_as(JobKind::Embed).await
    }

    async fn submitted_as(&self, kind: JobKind) -> Uuid {
        self.submitted_within(kind, JobLimits::default()).await
    }

    async fn submitted_within(&self, kind: JobKind, limits: JobLimits) -> Uuid {
        let id = self.clock().new_id();
        let new = NewJob {
            id,
            caller: "ada".to_owned(),
            kind,
            class: JobClass::Default,
            media_id: None,
            name: "notes".to_owned(),
            spec: "{}".to_owned(),
            model: "m".to_owned(),
            language: None,
            limits,
            progress_planned: 1.0,
            resubmitted_from: None,
        };
        let tx = self.lead.begin().await.expect("begun");
        tx.submit(&new, &SubmitRequest::default()).await.expect("submitted");
        tx.commit().await.expect("committed");
        id
    }

    /// Dead letters are sent again, as far as that goes by itself.
    pub(super) async fn replayed(&self, command: &wire::ReplayLetters) {
        let delivery = self.delivery(COMMANDS.queue);
        replay::accept(&self.lead, "ada", command, &delivery).await.expect("accepted");
        self.replaying().await;
    }

    /// Carries replays out until none runs any more.
    pub(super) async fn replaying(&self) {
        let over = CancellationToken::new();
        let done = eventually("the letters are sent", async || {
            self.store().read().running_replays().await.expect("read").is_empty()
        });
        tokio::select! {
            () = done => {}
            ended = replay::run(&self.lead, &over) => panic!("the duty ended: {ended:?}"),
        }
    }

    pub(super) fn delivery(&self, queue: &'static str) -> Delivery {
        Delivery {
            queue,
            message_id: self.clock().new_id(),
            attempt: 1,
            waits: 0,
            delivery_count: 0,
            redelivered: false,
            first_seen: self.clock().now(),
            headers: BTreeMap::new(),
            by_hand: None,
        }
    }

    pub(super) async fn task(&self, id: Uuid) -> Task {
        self.store().read().task(id).await.expect("read").expect("there")
    }

    pub(super) async fn job(&self, id: Uuid) -> warren_store::Job {
        self.store().read().job(id).await.expect("read").expect("there")
    }

    /// What would be published, oldest first.
    pub(super) async fn outbox(&self) -> Vec<NewOutbox> {
        let rows = self.store().read().unsent(RELAY, &[], 100).await.expect("read");
        rows.into_iter().map(|OutboxRow { message, .. }| message).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

pub(super) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("it took too long until {what}"))
}

/// Looks again until it is so: for effects that tell nobody.
pub(super) async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    within(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

pub(super) fn given(texts: &[&str]) -> Texts {
    Texts { texts: texts.iter().map(|text| (*text).to_owned()).collect() }
}

/// The message of a task, as its worker got it.
pub(super) fn message(task: &Task) -> wire::Task {
    wire::Task {
        id: TaskId(task.id).to_string(),
        job: JobId(task.job_id).to_string(),
        dispatch: u32::try_from(task.dispatch).expect("small"),
        deadline: None,
        work: Payload::read(&task.payload).ok(),
    }
}

/// A report of a task's vectors, which its message carries.
pub(super) fn embedded(task: &Task, vectors: &[[f32; 2]]) -> TaskReport {
    let bytes = vectors.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    report(task, vectors.len(), wire::embedded::Vectors::Inline(bytes))
}

pub(super) fn report(task: &Task, count: usize, vectors: wire::embedded::Vectors) -> TaskReport {
    let message = message(task);
    TaskReport {
        task: message.id,
        job: message.job,
        dispatch: message.dispatch,
        worker: "w".to_owned(),
        report: Some(wire::task_report::Report::Embedded(wire::Embedded {
            model: "m".to_owned(),
            dimensions: 2,
            count: u32::try_from(count).expect("small"),
            vectors: Some(vectors),
        })),
        ..TaskReport::default()
    }
}

pub(super) fn received<M: Message>(world: &World, route: Route<M>, message: M) -> Received<M> {
    let delivery = world.delivery(route.queue);
    Received { message, delivery }
}

/// A letter of `message` that died on `route`.
pub(super) fn letter<M: Message>(world: &World, route: Route<M>, message: &M) -> Letter {
    let envelope = Envelope::new(world.clock().new_id(), message);
    Letter {
        id: world.clock().new_id(),
        queue: route.queue.to_owned(),
        key: route.key.to_owned(),
        kind: envelope.kind,
        content_type: "application/json".to_owned(),
        message_id: Some(envelope.message_id.to_string()),
        body: envelope.body,
        headers: envelope.headers,
        class: "Internal".to_owned(),
        cause: "why".to_owned(),
        deaths: Vec::new(),
    }
}
