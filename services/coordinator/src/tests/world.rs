//! A leader whose clock stands still, and rows to begin with.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_blob::{BlobSettings, Blobs};
use warren_broker::{Broker, BrokerSettings, Delivery, Letter, Received};
use warren_clock::{Clock, UnixMillis};
use warren_jobs::{JobClass, JobKind, JobState, TaskKind};
use warren_local::{Scratch, s3};
use warren_messages::{
    envelope::{Envelope, Message},
    ids::{JobId, TaskId},
    routes::Route,
    wire::{self, TaskReport, Texts, embed_task::Input, task::Work},
};
use warren_relay::Relay;
use warren_settings::Secret;
use warren_store::{NewJob, NewOutbox, NewTask, OutboxRow, Store, StoreSettings, SubmitRequest, Task, Want, migrate};

use crate::{
    lead::{Lead, Parts},
    planner::Payload,
    settings::Settings,
};

/// Name of the relay; nothing publishes its rows.
const RELAY: &str = "test";
/// Longer than any test's clock goes.
const TERM: Duration = Duration::from_secs(1_000_000);

pub(super) struct World {
    pub(super) lead: Arc<Lead>,
    s3: Option<s3::TestS3>,
    stopping: CancellationToken,
    _folder: Scratch,
}

impl World {
    /// RabbitMQ is away.
    pub(super) async fn new() -> Self {
        Self::with("amqp://guest:guest@127.0.0.1:9/%2f".to_owned()).await
    }

    pub(super) async fn with(amqp_url: String) -> Self {
        let folder = Scratch::new("coordinator").expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("warren.sqlite").display());
        migrate::up(&url).await.expect("migrated");
        let s3 = s3::for_tests().await;
        let settings = Settings {
            broker: BrokerSettings { url: Secret::new(amqp_url), ..BrokerSettings::default() },
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
        let clock = Clock::manual(UnixMillis(1_700_000_000_000));
        let stopping = CancellationToken::new();
        let store = Store::open(&settings.store, clock.clone()).await.expect("opened");
        let blobs = Blobs::connect(&settings.blob);
        blobs.ensure_bucket().await.expect("a bucket");
        let broker = Broker::start(settings.broker.clone(), clock.clone(), "coordinator", stopping.clone());
        let term = store.try_lead("test", "nowhere", TERM).await.expect("asked").expect("nobody else leads");
        let parts = Parts { store, broker, blobs, clock, relay: Relay::new(RELAY), settings: Arc::new(settings) };
        let lead = Arc::new(Lead::start(term, parts).await.expect("leading"));
        Self { lead, s3: Some(s3), stopping, _folder: folder }
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
        let (job, task) = (self.submitted().await, self.clock().new_id());
        let work = wire::EmbedTask { model: "m".to_owned(), first: 0, input: Some(Input::Texts(given(texts))) };
        let new = NewTask {
            id: task,
            job_id: job,
            kind: TaskKind::Embed,
            ordinal: 0,
            payload: Payload::write(Work::Embed(work)),
            cost: 1.0,
            units: 1.0,
        };
        let tx = self.lead.begin().await.expect("begun");
        tx.insert_tasks(&[new]).await.expect("planned");
        tx.add_planned(job, 0.0, true).await.expect("planned");
        tx.release_next(&[Want { job, kind: TaskKind::Embed, count: 1 }]).await.expect("released");
        let row = tx.read().job(job).await.expect("read").expect("there");
        let event = warren_store::NewEvent::new(warren_store::EventLevel::Info, "job.started", "started");
        tx.set_job_state(job, JobState::Queued, JobState::Running, &event).await.expect("running");
        tx.set_deadline(job, tx.now().plus(crate::releaser::limit(&self.lead.parts, &row))).await.expect("a deadline");
        tx.commit().await.expect("committed");
        self.task(task).await
    }

    /// A job of texts that is not planned.
    pub(super) async fn submitted(&self) -> Uuid {
        let id = self.clock().new_id();
        let new = NewJob {
            id,
            caller: "ada".to_owned(),
            kind: JobKind::Embed,
            class: JobClass::Default,
            media_id: None,
            name: "notes".to_owned(),
            spec: "{}".to_owned(),
            model: "m".to_owned(),
            language: None,
            timeout_s: 0,
            progress_planned: 1.0,
            resubmitted_from: None,
        };
        let tx = self.lead.begin().await.expect("begun");
        tx.submit(&new, &SubmitRequest::default()).await.expect("submitted");
        tx.commit().await.expect("committed");
        id
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
    let delivery = Delivery {
        queue: route.queue,
        message_id: world.clock().new_id(),
        attempt: 1,
        delivery_count: 0,
        redelivered: false,
        first_seen: world.clock().now(),
        headers: BTreeMap::new(),
        letter: None,
    };
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
