//! coordinator: jobs in (`warren.job`), tasks out (`warren.task.*`), results in (`warren.result`), device leases.
//!
//! Any number of coordinators may run; one leads (`leadership`), and what it does is in `duties`. The others answer
//! workers with the leader's address.

mod aside;
mod board;
mod commands;
mod devices;
mod doubt;
mod duties;
mod gauges;
mod lead;
mod leadership;
mod leaving;
mod letters;
mod load;
mod missing;
mod operate;
mod planner;
mod progress;
mod put_away;
mod reaper;
mod releaser;
mod replay;
mod reports;
mod rounds;
mod service;
mod sessions;
mod settings;
mod settle;
mod sweeper;
#[cfg(test)]
mod tests;
mod wiring;

use std::{process::ExitCode, sync::Arc};

use tokio::sync::{Notify, watch};
use warren_blob::Blobs;
use warren_broker::Broker;
use warren_clock::Clock;
use warren_host::Host;
use warren_messages::wire::leases_server::LeasesServer;
use warren_relay::Relay;
use warren_store::Store;

use crate::{lead::Parts, service::Door, settings::Settings};

fn main() -> ExitCode {
    warren_host::run("coordinator", async |host: Host, settings: Settings| {
        let clock = Clock::system();
        let stopping = host.stopping();
        let settings = Arc::new(settings);
        let store_health = host.part("database", "not opened yet");
        let broker = Broker::start(
            settings.broker.within(settings.drain.grace_s),
            clock.clone(),
            "coordinator",
            stopping.clone(),
        );
        let blobs = Blobs::connect(&settings.blob);
        let retry = Arc::<Notify>::default();
        let watching = wiring::watch_parts(&host, &broker, &blobs, &retry);
        let working = async {
            let open = async || Store::open(&settings.store, clock.clone()).await;
            let Some(store) = store_health.opened(open, &stopping).await else { return Ok(()) };
            let relay = Relay::new(format!("coordinator-{}", clock.new_id()));
            let parts = Parts {
                store: store.clone(),
                broker: broker.clone(),
                blobs: blobs.clone(),
                clock: clock.clone(),
                relay,
                retry: retry.clone(),
                settings: settings.clone(),
            };
            let (lead, current) = watch::channel(None);
            let door = Door { current, store: store.clone(), address: settings.grpc.address() };
            let door = LeasesServer::new(door);
            let listener = tokio::net::TcpListener::bind(settings.grpc.bind).await?;
            let relaying = parts.relay.run(&store, &broker, &stopping);
            let serving = wiring::serve(door, listener, stopping.clone());
            let leading = leadership::run(parts.clone(), lead, store_health, stopping.clone());
            tokio::join!(relaying, serving, leading).1
        };
        let (served, ()) = tokio::join!(working, watching);
        broker.closed().await;
        served
    })
}
