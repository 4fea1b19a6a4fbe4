//! What a leader does, side by side, for as long as its term lasts.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use warren_messages::routes::{COMMANDS, REPORTS};
use warren_store::StoreError;

use crate::{
    commands::Commands, lead::Lead, leaving, letters::Index, missing, progress, reaper, releaser, replay,
    reports::Reports, sweeper,
};

/// Messages in one transaction.
const GROUP: u16 = 64;
/// Commands can be long: a smaller group, so that fewer run again when one of them cannot be taken.
const COMMAND_GROUP: u16 = 8;
/// How often rows of dead processes are looked for in the outbox.
const SWEEP: Duration = Duration::from_secs(5);

/// Starts all duties. Each ends when `over` is cancelled, or with an error when the term is lost.
pub(crate) fn start(lead: &Arc<Lead>, work: &mut JoinSet<Result<(), StoreError>>, over: &CancellationToken) {
    let broker = &lead.parts.broker;
    {
        let (broker, handler, over) = (broker.clone(), Commands(Arc::clone(lead)), over.clone());
        work.spawn(async move {
            broker.consume_group(COMMANDS, COMMAND_GROUP, handler, over).await;
            Ok(())
        });
    }
    {
        let (broker, handler, over) = (broker.clone(), Reports(Arc::clone(lead)), over.clone());
        work.spawn(async move {
            broker.consume_group(REPORTS, GROUP, handler, over).await;
            Ok(())
        });
    }
    {
        let (broker, handler, over) = (broker.clone(), Index(Arc::clone(lead)), over.clone());
        work.spawn(async move {
            broker.consume_dead_index(GROUP, handler, over).await;
            Ok(())
        });
    }
    {
        let (lead, over) = (Arc::clone(lead), over.clone());
        work.spawn(async move { releaser::run(&lead, &over).await });
    }
    {
        let (lead, over) = (Arc::clone(lead), over.clone());
        work.spawn(async move { lead.devices.run(lead.sessions_mutex(), &over).await });
    }
    {
        let (lead, over) = (Arc::clone(lead), over.clone());
        work.spawn(async move { progress::run(&lead, &over).await });
    }
    {
        let (lead, over) = (Arc::clone(lead), over.clone());
        work.spawn(async move { reaper::run(&lead, &over).await });
    }
    {
        let (lead, over) = (Arc::clone(lead), over.clone());
        work.spawn(async move { missing::run(&lead, &over).await });
    }
    {
        let (lead, over) = (Arc::clone(lead), over.clone());
        work.spawn(async move { replay::run(&lead, &over).await });
    }
    {
        let (lead, over) = (Arc::clone(lead), over.clone());
        work.spawn(async move { leaving::run(&lead, &over).await });
    }
    {
        let (lead, over) = (Arc::clone(lead), over.clone());
        work.spawn(async move { sweep(&lead, &over).await });
    }
    {
        let (lead, over) = (Arc::clone(lead), over.clone());
        work.spawn(async move { sweeper::run(&lead, &over).await });
    }
}

/// Publishes what processes that died left in the outbox.
async fn sweep(lead: &Lead, over: &CancellationToken) -> Result<(), StoreError> {
    let mut every = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = over.cancelled() => return Ok(()),
            _ = every.tick() => {}
        }
        match warren_relay::sweep(&lead.parts.store, &lead.parts.broker).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "published what another process had left in the outbox"),
            Err(error) => tracing::debug!(error, "outbox not swept"),
        }
    }
}
