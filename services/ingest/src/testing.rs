//! The door with a database behind it and nothing else, for those who try out what callers may send.

use std::{path::Path, sync::Arc};

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    codegen::{Service as _, http},
    service::Routes,
};
use uuid::Uuid;
use warren_blob::{BlobSettings, Blobs};
use warren_broker::{Broker, BrokerSettings};
use warren_clock::Clock;
use warren_host::Readiness;
use warren_jobs::{JobClass, JobKind};
use warren_relay::Relay;
use warren_settings::{Secret, SettingsError};
use warren_store::{JobLimits, NewJob, NewLetter, Store, StoreSettings, SubmitRequest, migrate};

use crate::{api, hints::Hints, parts::Parts, settings::Settings};

/// Largest answer that is still one, bytes.
const LARGEST: usize = 64 << 20;

/// The id of the job and of the dead letter that are there, as a UUID.
pub const KNOWN: u128 = 1;

/// The services on a fresh database. RabbitMQ and object storage are away and stay so.
pub struct Door {
    routes: Routes,
    _stopping: tokio_util::sync::DropGuard,
}

impl Door {
    /// Opens it on a new SQLite file in `folder`, with one job and one dead letter.
    ///
    /// # Errors
    /// When the database cannot be made.
    pub async fn open(folder: &Path) -> anyhow::Result<Self> {
        let url = format!("sqlite:{}", folder.join("warren.sqlite").display());
        migrate::up(&url).await?;
        let mut settings = Settings {
            store: StoreSettings { max_connections: 1, ..StoreSettings::at(url) },
            broker: BrokerSettings { url: Secret::new("amqp://127.0.0.1:1".to_owned()), ..BrokerSettings::default() },
            blob: BlobSettings { endpoint: "http://127.0.0.1:1".to_owned(), ..BlobSettings::default() },
            ..Settings::default()
        };
        settings.limits.broker_away_s = u32::MAX.into();
        let clock = Clock::system();
        let stopping = CancellationToken::new();
        let store = Store::open(&settings.store, clock.clone()).await?;
        fill(&store).await?;
        let parts = Parts::new(
            store,
            Broker::start(settings.broker.clone(), clock.clone(), "ingest", stopping.clone()),
            Blobs::connect(&settings.blob),
            clock,
            Relay::new("ingest-test"),
            Hints::default(),
            Readiness::default(),
            Arc::new(settings),
            stopping.clone(),
        );
        Ok(Self { routes: api::services(&parts), _stopping: stopping.drop_guard() })
    }

    /// Calls a method, e.g. `Jobs/List`, with a body of length-prefixed messages, and reads the answer to its end.
    ///
    /// # Errors
    /// The status that the caller would see.
    ///
    /// # Panics
    /// When the answer is longer than 64 MiB.
    pub async fn call(&self, method: &str, body: Vec<u8>) -> Result<(), Status> {
        let request = http::Request::post(format!("http://ingest/warren.v1.{method}"))
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .header(http::header::TE, "trailers")
            .body(Body::from(Bytes::from(body)))
            .expect("a method is part of an address");
        let answer = match self.routes.clone().call(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        };
        if let Some(status) = Status::from_header_map(answer.headers()) {
            return Err(status);
        }
        let read = to_bytes(Body::new(answer.into_body()), LARGEST).await;
        assert!(read.is_ok(), "an answer of more than {LARGEST} bytes, or cut");
        Ok(())
    }
}

/// Reads a settings file as the service does, and gives back what `--print-settings` would say.
///
/// # Errors
/// The key that is wrong.
pub fn settings(file: &Path) -> Result<String, SettingsError> {
    let read: Settings = warren_settings::load(Some(file))?;
    Ok(toml::to_string(&read).expect("settings have a form in TOML"))
}

async fn fill(store: &Store) -> anyhow::Result<()> {
    let id = Uuid::from_u128(KNOWN);
    let job = NewJob {
        id,
        caller: "local".to_owned(),
        kind: JobKind::Embed,
        class: JobClass::Default,
        media_id: None,
        name: "1 text".to_owned(),
        spec: "{}".to_owned(),
        model: "all-MiniLM-L6-v2".to_owned(),
        language: None,
        limits: JobLimits::default(),
        progress_planned: 1.0,
        resubmitted_from: None,
    };
    let letter = NewLetter {
        id: id.to_string(),
        queue: "warren.job".to_owned(),
        kind: "warren.v1.Command".to_owned(),
        class: "Malformed".to_owned(),
        cause: "it says nothing".to_owned(),
        fingerprint: "0011223344556677".to_owned(),
        job_id: Some(id),
        task_id: None,
        dispatch: None,
        replay_of: None,
        body: b"{}".to_vec(),
        content_type: "application/json".to_owned(),
        headers: Default::default(),
    };
    let tx = store.begin().await?;
    tx.submit(&job, &SubmitRequest { request_id: None, body_hash: String::new(), outbox: Vec::new() }).await?;
    tx.insert_letter(&letter).await?;
    tx.commit().await?;
    Ok(())
}
