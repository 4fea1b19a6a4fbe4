//! Keeps the readiness of a worker right.

use std::time::Duration;

use warren_blob::Blobs;
use warren_broker::Broker;
use warren_host::{Host, Part};
use warren_leases::{Connection, Leases};

use crate::{Loadable, Shelf};

/// How often object storage is asked whether it is there.
const PING: Duration = Duration::from_secs(5);

/// Registers the worker's parts and watches them for ever.
pub async fn watch_parts<M: Loadable>(host: &Host, broker: &Broker, blobs: &Blobs, leases: &Leases, shelf: &Shelf<M>) {
    let rabbitmq = host.part("rabbitmq", "not connected yet");
    let s3 = host.part("s3", "not asked yet");
    let coordinator = host.part("coordinator", "not connected yet");
    let models = host.part("models", "not checked yet");
    tokio::join!(
        watch_broker(broker, &rabbitmq),
        watch_blobs(blobs, &s3),
        watch_session(leases, &coordinator),
        shelf.watch(&models),
    );
}

async fn watch_broker(broker: &Broker, part: &Part) {
    let mut health = broker.health();
    loop {
        part.set(health.borrow_and_update().usable());
        if health.changed().await.is_err() {
            return;
        }
    }
}

async fn watch_blobs(blobs: &Blobs, part: &Part) {
    loop {
        part.set(blobs.ping().await);
        tokio::time::sleep(PING).await;
    }
}

async fn watch_session(leases: &Leases, part: &Part) {
    let mut connection = leases.connection();
    loop {
        match &*connection.borrow_and_update() {
            Connection::Connected(_) => part.ready(),
            Connection::Searching(reason) => part.down(reason.clone()),
        }
        if connection.changed().await.is_err() {
            return;
        }
    }
}
