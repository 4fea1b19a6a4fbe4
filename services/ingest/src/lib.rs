//! ingest: recordings and texts in, jobs submitted (`warren.job`), read, watched and searched.
//!
//! Every call is a method of one service in `api`; what callers may ask is decided in `check`, how a job is accepted
//! in `accept`. Nothing here changes a job after it was accepted: that is the coordinator's.

mod accept;
mod api;
mod auth;
mod check;
mod hints;
mod kept;
mod languages;
mod measure;
mod page;
mod parts;
mod pressure;
mod room;
mod settings;
mod shown;
mod status;
pub mod testing;
mod uploads;
mod vectors;
mod wiring;

#[cfg(test)]
mod tests;

use std::{process::ExitCode, sync::Arc};

use tokio_util::sync::CancellationToken;
use warren_blob::Blobs;
use warren_broker::Broker;
use warren_clock::Clock;
use warren_host::Host;
use warren_relay::Relay;
use warren_store::Store;

use crate::{hints::Hints, parts::Parts, settings::Settings, wiring::Watched};

/// The program.
pub fn main() -> ExitCode {
    warren_host::run("ingest", async |host: Host, settings: Settings| {
        let clock = Clock::system();
        let stopping = host.stopping();
        let settings = Arc::new(settings);
        let watched = Watched::on(&host);
        let open = async || Store::open(&settings.store, clock.clone()).await;
        let Some(store) = watched.database.opened(open, &stopping).await else { return Ok(()) };
        // What is behind the door stays until the last call is answered.
        let done = CancellationToken::new();
        let broker =
            Broker::start(settings.broker.within(settings.drain.grace_s), clock.clone(), "ingest", done.clone());
        let blobs = Blobs::connect(&settings.blob);
        let relay = Relay::new(format!("ingest-{}", clock.new_id()));
        let hints = Hints::default();
        let listener = tokio::net::TcpListener::bind(settings.grpc.bind).await?;
        let readiness = host.readiness().clone();
        let parts = Parts::new(store, broker, blobs, clock, relay, hints, readiness, settings, stopping.clone());

        let serving = async {
            let served = wiring::serve(&parts, listener).await;
            done.cancel();
            served
        };
        let relaying = parts.relay.run(&parts.store, &parts.broker, &done);
        let hinting = parts.hints.run(&parts.broker, &done);
        let watching = wiring::watch_parts(&watched, &parts, &done);
        let (served, (), (), ()) = tokio::join!(serving, relaying, hinting, watching);
        parts.broker.closed().await;
        served
    })
}
