//! What a leader does, side by side, for as long as its term lasts.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    task::{self, JoinError, JoinSet},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use warren_messages::routes::{COMMANDS, REPORTS};
use warren_store::StoreError;

use crate::{
    commands::Commands,
    lead::{Lead, Parts},
    leaving,
    letters::Index,
    missing, progress, reaper, releaser, replay,
    reports::Reports,
    rounds::Rounds,
    sweeper,
};

/// Messages in one transaction.
const GROUP: u16 = 64;
/// Commands can be long: a smaller group, so that fewer run again when one of them cannot be taken.
const COMMAND_GROUP: u16 = 8;
/// How often rows of dead processes are looked for in the outbox.
const SWEEP: Duration = Duration::from_secs(5);
/// How often the database is asked whether its tables have grown.
const STATISTICS: Duration = Duration::from_secs(5);

/// Duties have so long to end when the term is over. What they are in the middle of cannot be committed any more.
pub(crate) const ENDING: Duration = Duration::from_secs(10);

/// What runs side by side.
pub(crate) struct Duties {
    running: JoinSet<Result<(), StoreError>>,
    names: HashMap<task::Id, &'static str>,
}

impl Duties {
    /// Starts all of them. Each ends when `over` is cancelled, or with an error when the term is lost.
    pub(crate) fn start(lead: &Arc<Lead>, over: &CancellationToken) -> Self {
        let mut duties = Self { running: JoinSet::new(), names: HashMap::new() };
        let own = || (Arc::clone(lead), over.clone());
        let broker = &lead.parts.broker;
        duties.spawn("commands", {
            let (broker, (lead, over)) = (broker.clone(), own());
            async move {
                broker.consume_group(COMMANDS, COMMAND_GROUP, Commands(lead), over).await;
                Ok(())
            }
        });
        duties.spawn("reports", {
            let (broker, (lead, over)) = (broker.clone(), own());
            async move {
                broker.consume_group(REPORTS, GROUP, Reports(lead), over).await;
                Ok(())
            }
        });
        duties.spawn("index of letters", {
            let (broker, (lead, over)) = (broker.clone(), own());
            async move {
                broker.consume_dead_index(GROUP, Index(lead), over).await;
                Ok(())
            }
        });
        duties.spawn("release", {
            let (lead, over) = own();
            async move { releaser::run(&lead, &over).await }
        });
        duties.spawn("devices", {
            let (lead, over) = own();
            async move { lead.devices.run(lead.sessions_mutex(), &over).await }
        });
        duties.spawn("progress", {
            let (lead, over) = own();
            async move { progress::run(&lead, &over).await }
        });
        duties.spawn("reaper", {
            let (lead, over) = own();
            async move { reaper::run(&lead, &over).await }
        });
        duties.spawn("missing tasks", {
            let (lead, over) = own();
            async move { missing::run(&lead, &over).await }
        });
        duties.spawn("replay", {
            let (lead, over) = own();
            async move { replay::run(&lead, &over).await }
        });
        duties.spawn("leaving letters", {
            let (lead, over) = own();
            async move { leaving::run(&lead, &over).await }
        });
        duties.spawn("outbox of others", {
            let (lead, over) = own();
            async move { sweep(&lead, &over).await }
        });
        duties.spawn("statistics", {
            let (lead, over) = own();
            async move { statistics(&lead, &over).await }
        });
        duties.spawn("sweeper", {
            let (lead, over) = own();
            async move { sweeper::run(&lead, &over).await }
        });
        duties
    }

    fn spawn(&mut self, name: &'static str, duty: impl Future<Output = Result<(), StoreError>> + Send + 'static) {
        self.names.insert(self.running.spawn(duty).id(), name);
    }

    /// Waits until one ends, and says which and how. Never returns when there is none.
    pub(crate) async fn one_ended(&mut self) -> (&'static str, Result<Result<(), StoreError>, JoinError>) {
        match self.running.join_next_with_id().await {
            Some(Ok((id, ended))) => (self.name(id), Ok(ended)),
            Some(Err(error)) => (self.name(error.id()), Err(error)),
            None => std::future::pending().await,
        }
    }

    /// Waits for all to end, whose token was cancelled before. One that does not within `patience`, say because a broken
    /// line never answers, is dropped together with its transaction: the next term must not wait for it.
    pub(crate) async fn end(mut self, patience: Duration) {
        let until = Instant::now() + patience;
        while !self.names.is_empty() {
            match timeout_at(until, self.one_ended()).await {
                Ok((duty, Err(error))) => tracing::error!(duty, %error, "a duty of the leader panicked"),
                Ok((_, Ok(_))) => {}
                Err(_) => break,
            }
        }
        for duty in self.names.values() {
            tracing::error!(duty, "a duty of the leader does not end; it is dropped");
        }
        self.running.shutdown().await;
    }

    fn name(&mut self, id: task::Id) -> &'static str {
        self.names.remove(&id).unwrap_or_default()
    }
}

/// Publishes what processes that died left in the outbox.
async fn sweep(lead: &Lead, over: &CancellationToken) -> Result<(), StoreError> {
    let mut rounds = Rounds::every(SWEEP, over);
    while rounds.next().await {
        let Parts { relay, store, broker, .. } = &lead.parts;
        match warren_relay::sweep(relay, store, broker).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "published what another process had left in the outbox"),
            Err(error) => tracing::debug!(error, "outbox not swept"),
        }
    }
    Ok(())
}

/// Has the database plan for the rows that there are.
async fn statistics(lead: &Lead, over: &CancellationToken) -> Result<(), StoreError> {
    let mut rounds = Rounds::every(STATISTICS, over);
    while rounds.next().await {
        match lead.parts.store.refresh_statistics().await {
            Ok(tables) if tables.is_empty() => {}
            Ok(tables) => tracing::debug!(tables = tables.join(", "), "the database plans anew for what has grown"),
            Err(error) => tracing::debug!(%error, "statistics not refreshed"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_term_does_not_wait_for_a_duty_that_never_ends() {
        let mut duties = Duties { running: JoinSet::new(), names: HashMap::new() };
        duties.spawn("ends", async { Ok(()) });
        assert!(matches!(duties.one_ended().await, ("ends", Ok(Ok(())))));
        let held = Arc::new(());
        let dropped = Arc::downgrade(&held);
        duties.spawn("hangs", async move {
            let _held = held;
            std::future::pending().await
        });
        duties.end(Duration::from_millis(10)).await;
        assert!(dropped.upgrade().is_none(), "what it held is given back");
    }
}
