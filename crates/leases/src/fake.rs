//! A coordinator for tests: leads or not, grants one device to one slot at a time, answers or is silent.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::server::TcpIncoming};
use warren_messages::wire::{self, acquire_response::Outcome, coordinator_order::Order, leases_server};

type OrderStream = ReceiverStream<Result<wire::CoordinatorOrder, Status>>;

/// What coordinators share: the lease table, which outlives a leader.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) granted: BTreeMap<String, (u64, u32)>,
    pub(crate) released: Vec<String>,
    fence: u64,
}

#[derive(Clone)]
pub(crate) struct Coordinator {
    pub(crate) address: String,
    state: Arc<State>,
}

/// What a coordinator that does not know the device refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Session,
    Acquire,
}

struct State {
    table: Arc<Mutex<Table>>,
    leads: watch::Sender<bool>,
    hint: Mutex<Option<String>>,
    silent: watch::Sender<bool>,
    /// What to answer to Acquire instead of a grant.
    answer: Mutex<Option<Outcome>>,
    /// Why sessions are refused, or only requests for the device.
    refusal: Mutex<Option<(Refused, Status)>>,
    forgotten: Mutex<BTreeSet<String>>,
    orders: Mutex<Option<mpsc::Sender<Result<wire::CoordinatorOrder, Status>>>>,
    reports: watch::Sender<Vec<wire::WorkerReport>>,
}

impl Coordinator {
    pub(crate) async fn start(table: &Arc<Mutex<Table>>, leads: bool) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(State {
            table: table.clone(),
            leads: watch::Sender::new(leads),
            hint: Mutex::default(),
            silent: watch::Sender::new(false),
            answer: Mutex::default(),
            refusal: Mutex::default(),
            forgotten: Mutex::default(),
            orders: Mutex::default(),
            reports: watch::Sender::new(Vec::new()),
        });
        let coordinator = Self { address, state };
        let service = leases_server::LeasesServer::new(coordinator.clone());
        tokio::spawn(
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)),
        );
        coordinator
    }

    pub(crate) fn lead(&self, leads: bool) {
        self.state.leads.send_replace(leads);
    }

    pub(crate) fn hint(&self, leader: &str) {
        *self.state.hint.lock().unwrap() = Some(leader.to_owned());
    }

    pub(crate) fn fall_silent(&self) {
        self.state.silent.send_replace(true);
    }

    pub(crate) fn answer_acquire(&self, outcome: Outcome) {
        *self.state.answer.lock().unwrap() = Some(outcome);
    }

    pub(crate) fn refuse_device(&self, what: Refused, reason: &str) {
        *self.state.refusal.lock().unwrap() = Some((what, Status::invalid_argument(reason)));
    }

    fn refused(&self, what: Refused) -> Result<(), Status> {
        let refusal = self.state.refusal.lock().unwrap().clone();
        refusal.filter(|(refused, _)| *refused == what).map_or(Ok(()), |(_, status)| Err(status))
    }

    pub(crate) fn forget(&self, lease: &str) {
        self.state.forgotten.lock().unwrap().insert(lease.to_owned());
    }

    pub(crate) async fn order(&self, order: Order) {
        let orders = self.state.orders.lock().unwrap().clone().expect("a session");
        orders.send(Ok(wire::CoordinatorOrder { order: Some(order) })).await.expect("the session stands");
    }

    /// Waits for a report like this.
    pub(crate) async fn reported(&self, wanted: impl Fn(&wire::WorkerReport) -> bool) -> wire::WorkerReport {
        let mut reports = self.state.reports.subscribe();
        let found = reports.wait_for(|reports| reports.iter().any(&wanted)).await.expect("the coordinator lives");
        found.iter().find(|report| wanted(report)).cloned().expect("just found")
    }

    /// Waits for a report like this that comes after now.
    pub(crate) async fn reports_next(&self, wanted: impl Fn(&wire::WorkerReport) -> bool) -> wire::WorkerReport {
        self.state.reports.send_modify(Vec::clear);
        self.reported(wanted).await
    }

    fn refuse(&self) -> Status {
        let mut status = Status::failed_precondition("NOT_LEADER");
        if let Some(leader) = self.state.hint.lock().unwrap().as_deref() {
            status.metadata_mut().insert("leader", leader.parse().expect("ASCII"));
        }
        status
    }

    async fn while_silent(&self) {
        if *self.state.silent.borrow() {
            std::future::pending::<()>().await;
        }
    }

    fn renew(&self, report: &wire::WorkerReport) -> wire::RenewedOrder {
        let table = self.state.table.lock().unwrap();
        let forgotten = self.state.forgotten.lock().unwrap();
        let known = |lease: &str| table.granted.contains_key(lease) && !forgotten.contains(lease);
        let (leases, lost) = report.renewals.iter().map(|r| r.lease.clone()).partition(|lease| known(lease));
        wire::RenewedOrder { report: report.report, leases, lost, ttl_ms: 15_000 }
    }
}

#[async_trait::async_trait]
impl leases_server::Leases for Coordinator {
    type SessionStream = OrderStream;

    async fn session(&self, request: Request<Streaming<wire::WorkerReport>>) -> Result<Response<OrderStream>, Status> {
        self.while_silent().await;
        if !*self.state.leads.borrow() {
            return Err(self.refuse());
        }
        let (orders, stream) = mpsc::channel(16);
        *self.state.orders.lock().unwrap() = Some(orders.clone());
        let this = self.clone();
        let mut reports = request.into_inner();
        tokio::spawn(async move {
            let mut leads = this.state.leads.subscribe();
            loop {
                let report = tokio::select! {
                    report = reports.message() => report,
                    () = async { drop(leads.wait_for(|leads| !leads).await) } => {
                        let _ = orders.send(Err(this.refuse())).await;
                        return;
                    }
                };
                let Ok(Some(report)) = report else { return };
                if let Err(status) = this.refused(Refused::Session) {
                    let _ = orders.send(Err(status)).await;
                    return;
                }
                this.while_silent().await;
                let renewed = this.renew(&report);
                this.state.reports.send_modify(|reports| reports.push(report));
                let order = wire::CoordinatorOrder { order: Some(Order::Renewed(renewed)) };
                if orders.send(Ok(order)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn acquire(&self, request: Request<wire::AcquireRequest>) -> Result<Response<wire::AcquireResponse>, Status> {
        self.while_silent().await;
        if !*self.state.leads.borrow() {
            return Err(self.refuse());
        }
        self.refused(Refused::Acquire)?;
        let request = request.into_inner();
        let instead = self.state.answer.lock().unwrap().clone();
        if let Some(Outcome::Waiting(_)) = instead {
            tokio::time::sleep(Duration::from_millis(request.wait_ms.into())).await;
        }
        let outcome = instead.unwrap_or_else(|| {
            let mut table = self.state.table.lock().unwrap();
            let own = table.granted.iter().find(|(_, (_, slot))| *slot == request.slot);
            let (lease, fence) = match own {
                Some((lease, (fence, _))) => (lease.clone(), *fence),
                None => {
                    table.fence += 1;
                    let (fence, lease) = (table.fence, format!("lease-{}", table.fence));
                    table.granted.insert(lease.clone(), (fence, request.slot));
                    (lease, fence)
                }
            };
            Outcome::Granted(wire::Granted { lease, fence, ttl_ms: 15_000, batches: Vec::new() })
        });
        Ok(Response::new(wire::AcquireResponse { outcome: Some(outcome) }))
    }

    async fn release(&self, request: Request<wire::ReleaseRequest>) -> Result<Response<wire::ReleaseResponse>, Status> {
        self.while_silent().await;
        if !*self.state.leads.borrow() {
            return Err(self.refuse());
        }
        let lease = request.into_inner().lease;
        let mut table = self.state.table.lock().unwrap();
        if table.granted.remove(&lease).is_some() {
            table.released.push(lease);
        }
        Ok(Response::new(wire::ReleaseResponse {}))
    }
}
