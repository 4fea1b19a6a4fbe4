//! The plumbing that `main` leaves out: waiting for parts, watching them, serving.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};
use warren_clock::{Clock, Reconnect};
use warren_host::{Host, Part};
use warren_messages::wire::leases_server::LeasesServer;
use warren_store::{Store, StoreSettings};

use crate::{lead::Parts, service::Door};

/// How often object storage is asked whether it is there.
const PING: Duration = Duration::from_secs(5);

/// Opens the database as soon as it is there. `None`: the process is to stop first.
pub(crate) async fn open_store(
    settings: &StoreSettings,
    clock: &Clock,
    health: &Part,
    stopping: &CancellationToken,
) -> Option<Store> {
    let mut reconnect = Reconnect::new();
    loop {
        match Store::open(settings, clock.clone()).await {
            Ok(store) => {
                health.ready();
                return Some(store);
            }
            Err(error) => {
                tracing::warn!(%error, "waiting for the database");
                health.down(error.to_string());
            }
        }
        tokio::select! {
            () = tokio::time::sleep(reconnect.next_delay()) => {}
            () = stopping.cancelled() => return None,
        }
    }
}

/// Keeps readiness right until the process stops.
pub(crate) async fn watch_parts(host: &Host, parts: &Parts) {
    let (rabbitmq, s3) = (host.part("rabbitmq", "not connected yet"), host.part("s3", "not asked yet"));
    let stopping = host.stopping();
    let broker = async {
        let mut health = parts.broker.health();
        loop {
            rabbitmq.set(health.borrow_and_update().usable());
            if health.changed().await.is_err() {
                return;
            }
        }
    };
    let blobs = async {
        let mut made = false;
        loop {
            let outcome = if made { parts.blobs.ping().await } else { parts.blobs.ensure_bucket().await };
            made |= outcome.is_ok();
            s3.set(outcome.map_err(|error| error.to_string()));
            tokio::time::sleep(PING).await;
        }
    };
    tokio::select! {
        () = async { tokio::join!(broker, blobs); } => {}
        () = stopping.cancelled() => {}
    }
}

/// Serves workers until `stopping`.
///
/// # Errors
/// When the listener fails.
pub(crate) async fn serve(
    door: LeasesServer<Door>,
    listener: TcpListener,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter.set_serving::<LeasesServer<Door>>().await;
    // Sessions last as long as workers do: they end by the term, or with the process.
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .add_routes(Routes::new(door).add_service(health))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopping.cancelled_owned())
        .await?;
    Ok(())
}
