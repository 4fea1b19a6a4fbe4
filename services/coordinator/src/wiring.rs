//! The plumbing that `main` leaves out: watching the parts, serving.

use std::time::Duration;

use tokio::{net::TcpListener, sync::Notify};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};
use warren_blob::{BlobError, Blobs};
use warren_broker::{Broker, Health};
use warren_host::Host;
use warren_messages::wire::leases_server::LeasesServer;

use crate::service::Door;

/// Keeps readiness right until the process stops. The database shows in the turns at leading.
pub(crate) async fn watch_parts(host: &Host, broker: &Broker, blobs: &Blobs, retry: &Notify) {
    let (rabbitmq, s3) = (host.part("rabbitmq", "not connected yet"), host.part("s3", "not asked yet"));
    let stopping = host.stopping();
    let watching = async {
        tokio::join!(rabbitmq.follow(broker.health(), Health::usable), s3.ask(async || ask_storage(blobs, retry).await))
    };
    tokio::select! {
        _ = watching => {}
        () = stopping.cancelled() => {}
    }
}

/// Asks object storage whether it is there. When it is, what waits for it may go on.
///
/// # Errors
/// When it is not there, or refuses.
pub(crate) async fn ask_storage(blobs: &Blobs, retry: &Notify) -> Result<(), BlobError> {
    blobs.ensure_bucket().await?;
    retry.notify_waiters();
    Ok(())
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
