//! Keeps the readiness of a worker right.

use warren_blob::Blobs;
use warren_broker::{Broker, Health};
use warren_host::Host;
use warren_leases::{Connection, Leases};

use crate::{Loadable, Shelf};

/// Registers the worker's parts and watches them for ever.
pub async fn watch_parts<M: Loadable>(host: &Host, broker: &Broker, blobs: &Blobs, leases: &Leases, shelf: &Shelf<M>) {
    let rabbitmq = host.part("rabbitmq", "not connected yet");
    let s3 = host.part("s3", "not asked yet");
    let coordinator = host.part("coordinator", "not connected yet");
    let models = host.part("models", "not checked yet");
    tokio::join!(
        rabbitmq.follow(broker.health(), Health::usable),
        s3.ask(async || blobs.ping().await),
        coordinator.follow(leases.connection(), connected),
        shelf.watch(&models),
    );
}

fn connected(connection: &Connection) -> Result<(), String> {
    match connection {
        Connection::Connected(_) => Ok(()),
        Connection::Searching(reason) | Connection::Refused(reason) => Err(reason.clone()),
    }
}
