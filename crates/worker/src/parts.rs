//! Keeps the readiness of a worker right.

use warren_blob::Blobs;
use warren_broker::{Broker, Health};
use warren_host::{Host, Readiness};
use warren_leases::{Connection, Leases};

use crate::{Loadable, Shelf};

/// The part that a worker has when somebody hears what it says.
const COORDINATOR: &str = "coordinator";

/// Registers the worker's parts and watches them for ever.
pub async fn watch_parts<M: Loadable>(host: &Host, broker: &Broker, blobs: &Blobs, leases: &Leases, shelf: &Shelf<M>) {
    let rabbitmq = host.part("rabbitmq", "not connected yet");
    let s3 = host.part("s3", "not asked yet");
    let coordinator = host.part(COORDINATOR, "not connected yet");
    let models = host.part("models", "not checked yet");
    tokio::join!(
        rabbitmq.follow(broker.health(), Health::usable),
        s3.ask(async || blobs.ping().await),
        coordinator.follow(leases.connection(), connected),
        shelf.watch(&models),
        tell(host.readiness(), leases),
        shelf.show_memory(leases.device()),
    );
}

/// Has the coordinator know why this worker takes no work.
async fn tell(readiness: &Readiness, leases: &Leases) {
    let mut changes = readiness.changes();
    loop {
        changes.mark_unchanged();
        let down = readiness.down().into_iter().filter(|(part, _)| part != COORDINATOR);
        leases.set_trouble(down.map(|(part, reason)| format!("{part}: {reason}")).collect::<Vec<_>>().join("; "));
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn connected(connection: &Connection) -> Result<(), String> {
    match connection {
        Connection::Connected(_) => Ok(()),
        Connection::Searching(reason) | Connection::Refused(reason) => Err(reason.clone()),
    }
}
