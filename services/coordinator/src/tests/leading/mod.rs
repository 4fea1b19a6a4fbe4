//! A coordinator that leads, on a database of its own. Its broker is out of reach: what is tested here needs none.

mod devices;
mod door;
mod reaping;
mod terms;

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;
use warren_blob::Blobs;
use warren_broker::{Broker, BrokerSettings};
use warren_clock::Clock;
use warren_host::Readiness;
use warren_jobs::{JobClass, JobKind, TaskKind};
use warren_local::Scratch;
use warren_messages::wire::{leases_client::LeasesClient, leases_server::LeasesServer};
use warren_relay::Relay;
use warren_settings::Secret;
use warren_store::{NewJob, NewTask, Store, StoreSettings, SubmitRequest, migrate};

use crate::{
    lead::{Lead, Parts},
    leadership::{self, Current},
    service::Door,
    settings::{DeviceSettings, LeaderSettings, Settings},
    wiring,
};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    parts: Parts,
    current: Current,
    /// Ends the lead, not the door.
    stopping: CancellationToken,
    leading: JoinHandle<()>,
    _folder: Scratch,
}

impl World {
    /// Leads, with one `cpu` for one lease at a time.
    async fn new() -> Self {
        let folder = Scratch::new("coordinator").expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("warren.sqlite").display());
        migrate::up(&url).await.expect("migrated");
        let settings = Settings {
            broker: BrokerSettings { url: Secret::new("amqp://127.0.0.1:1".to_owned()), ..BrokerSettings::default() },
            store: StoreSettings::at(url),
            leader: LeaderSettings { poll_ms: 20, ..LeaderSettings::default() },
            devices: vec![DeviceSettings { max_concurrent: 1, ..DeviceSettings::cpu() }],
            ..Settings::default()
        };
        let (clock, stopping) = (Clock::system(), CancellationToken::new());
        let store = Store::open(&settings.store, clock.clone()).await.expect("opened");
        let broker = Broker::start(settings.broker.clone(), clock.clone(), "coordinator", stopping.clone());
        let blobs = Blobs::connect(&settings.blob);
        let parts =
            Parts { store, broker, blobs, clock, relay: Relay::new("coordinator-test"), settings: Arc::new(settings) };
        let (lead, current) = watch::channel(None);
        let health = Readiness::default().part("database", "not opened yet");
        let leading = tokio::spawn(leadership::run(parts.clone(), lead, health, stopping.clone()));
        Self { parts, current, stopping, leading, _folder: folder }
    }

    /// The lead, once there is one that `wanted` accepts.
    async fn lead(&self, wanted: impl Fn(&Lead) -> bool) -> Arc<Lead> {
        let mut current = self.current.clone();
        let leads = current.wait_for(|now| now.as_deref().is_some_and(&wanted));
        within("it leads", leads).await.expect("it runs").clone().expect("it leads")
    }

    fn door(&self) -> Door {
        let address = self.parts.settings.grpc.address();
        Door { current: self.current.clone(), store: self.parts.store.clone(), address }
    }

    /// The door as workers find it.
    async fn client(&self) -> LeasesClient<Channel> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let door = LeasesServer::new(self.door());
        tokio::spawn(wiring::serve(door, listener, CancellationToken::new()));
        LeasesClient::new(Endpoint::from_shared(address).expect("an address").connect().await.expect("connected"))
    }

    /// A job with one released task, written past the leader: (job, task). Its dispatch is 1.
    async fn released_task(&self) -> (Uuid, Uuid) {
        let (job, task) = (self.parts.clock.new_id(), self.parts.clock.new_id());
        let new_job = NewJob {
            id: job,
            caller: "anna".to_owned(),
            kind: JobKind::Embed,
            class: JobClass::Default,
            media_id: None,
            name: "notes".to_owned(),
            spec: "{}".to_owned(),
            model: "all-MiniLM-L6-v2".to_owned(),
            language: None,
            timeout_s: 0,
            progress_planned: 1.0,
            resubmitted_from: None,
        };
        let new_task = NewTask {
            id: task,
            job_id: job,
            kind: TaskKind::Embed,
            ordinal: 0,
            payload: "{}".to_owned(),
            cost: 1.0,
            units: 1.0,
        };
        let tx = self.parts.store.begin().await.expect("begun");
        tx.submit(&new_job, &SubmitRequest::default()).await.expect("submitted");
        tx.insert_tasks(&[new_task]).await.expect("planned");
        assert_eq!(tx.release(&[task]).await.expect("released").len(), 1);
        tx.commit().await.expect("committed");
        (job, task)
    }

    async fn stop(self) {
        self.stopping.cancel();
        within("it stops", self.leading).await.expect("no panic");
    }
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("it took too long until {what}"))
}

/// Looks again until it is so: for effects that tell nobody.
async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    within(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
