//! A coordinator that grants every lease and renews it for ever. It knows tasks by their dispatch alone.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};
use warren_messages::wire::{
    self, acquire_response::Outcome, coordinator_order::Order, leases_server::Leases, leases_server::LeasesServer,
};

/// Tasks of this dispatch are nobody's any more.
pub(super) const STALE: u32 = 7;

struct Generous;

/// Serves until the test's runtime ends; returns the address.
pub(super) async fn start() -> String {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let server = Server::builder().add_service(LeasesServer::new(Generous));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

#[async_trait::async_trait]
impl Leases for Generous {
    type SessionStream = ReceiverStream<Result<wire::CoordinatorOrder, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::WorkerReport>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (orders, stream) = mpsc::channel(8);
        let mut reports = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(report)) = reports.message().await {
                for task in report.running.into_iter().filter(|task| task.dispatch == STALE) {
                    let stale = Order::Stale(wire::StaleOrder { task: task.task, dispatch: task.dispatch });
                    if orders.send(Ok(wire::CoordinatorOrder { order: Some(stale) })).await.is_err() {
                        return;
                    }
                }
                let leases = report.renewals.into_iter().map(|renewal| renewal.lease).collect();
                let renewed = wire::RenewedOrder { report: report.report, leases, lost: Vec::new(), ttl_ms: 15_000 };
                let order = wire::CoordinatorOrder { order: Some(Order::Renewed(renewed)) };
                if orders.send(Ok(order)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn acquire(&self, request: Request<wire::AcquireRequest>) -> Result<Response<wire::AcquireResponse>, Status> {
        let lease = format!("lease-{}", request.into_inner().slot);
        let granted = wire::Granted { lease, fence: 1, ttl_ms: 15_000, batches: Vec::new() };
        Ok(Response::new(wire::AcquireResponse { outcome: Some(Outcome::Granted(granted)) }))
    }

    async fn release(&self, _: Request<wire::ReleaseRequest>) -> Result<Response<wire::ReleaseResponse>, Status> {
        Ok(Response::new(wire::ReleaseResponse {}))
    }
}
