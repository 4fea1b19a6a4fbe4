//! The plumbing that `main` leaves out: watching the parts, serving.

use std::time::Duration;

use axum::middleware;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use warren_broker::Health;
use warren_host::{Host, Part, Readiness};
use warren_messages::DESCRIPTORS;

use crate::{api, measure, parts::Parts, pressure::room};

/// How often gRPC health follows readiness.
const HEALTH: Duration = Duration::from_secs(1);
/// Bytes of one stream that may be on their way: enough to keep a fast link busy during an upload.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Calls on one connection: open ones, and ones whose answer has not begun.
const STREAMS: u32 = 512;
const CALLS: usize = 128;
const KEEPALIVE: Duration = Duration::from_secs(20);

/// The parts that ingest needs, for readiness.
pub(crate) struct Watched {
    pub(crate) database: Part,
    rabbitmq: Part,
    s3: Part,
    disk: Part,
}

impl Watched {
    /// None is there yet; of the disk nothing bad is known.
    pub(crate) fn on(host: &Host) -> Self {
        let disk = host.part("disk", "not looked at yet");
        disk.ready();
        Self {
            database: host.part("database", "not opened yet"),
            rabbitmq: host.part("rabbitmq", "not connected yet"),
            s3: host.part("s3", "not asked yet"),
            disk,
        }
    }
}

/// Keeps readiness right until `done`.
pub(crate) async fn watch_parts(watched: &Watched, parts: &Parts, done: &CancellationToken) {
    let watching = async {
        tokio::join!(
            watched.rabbitmq.follow(parts.broker.health(), Health::usable),
            watched.s3.ask(async || parts.blobs.ensure_bucket().await),
            watched.database.ask(async || parts.store.ping().await),
            watched.disk.ask(async || room(&parts.settings.limits, 0)),
        )
    };
    tokio::select! {
        _ = watching => {}
        () = done.cancelled() => {}
    }
}

/// Serves callers until the parts say stop, and then until the last call is answered.
///
/// # Errors
/// When the listener fails.
pub(crate) async fn serve(parts: &Parts, listener: TcpListener) -> anyhow::Result<()> {
    let (reporter, health) = tonic_health::server::health_reporter();
    // Only what is served here: workers' services are described in the same files.
    let reflection = || {
        let described =
            tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
        api::NAMES.into_iter().fold(described, tonic_reflection::server::Builder::with_service_name)
    };
    let routes = api::services(parts)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let routes = Routes::from(routes.into_axum_router().layer(middleware::from_fn(measure::measured)));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .concurrency_limit_per_connection(CALLS)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, parts.stopping.clone().cancelled_owned());
    tokio::select! {
        served = serving => Ok(served?),
        () = follow(&parts.readiness, reporter) => Ok(()),
    }
}

/// gRPC health says what readiness says. Never returns.
async fn follow(readiness: &Readiness, reporter: HealthReporter) {
    let mut every = tokio::time::interval(HEALTH);
    loop {
        every.tick().await;
        let status = if readiness.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in std::iter::once("").chain(api::NAMES) {
            reporter.set_service_status(service, status).await;
        }
    }
}
