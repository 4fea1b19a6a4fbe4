//! The outbox's way out: what a transaction wrote for the broker is published after its commit.
//!
//! Each process relays what it wrote itself, at once and from memory; after trouble, and every few seconds, it asks the rows
//! what is left to do. The leading coordinator also sweeps up what a dead process left behind. A crash between the confirm
//! and the deletion of its row publishes a message twice, under the same message id, and consumers have the effect once.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_broker::{Broker, Outgoing, PublishError};
use warren_clock::Reconnect;
use warren_messages::envelope::{Envelope, Message};
use warren_messages::routes::Route;
use warren_store::{Destination, NewOutbox, OutboxRow, Store, StoreError};

/// Messages published before their rows are deleted: half of what may be in flight, so that a queue that confirms nothing
/// leaves room for others.
const GROUP: u64 = 128;
/// Rows kept in memory, some tens of MiB of the longest messages; when there are more, the table says what is left to do.
const HANDED: usize = 1_024;
/// A row this old is no longer on its way out of a live process. Its own process looks for such rows as often: nobody may
/// have handed them over, if their caller went while they were committed.
const ORPHANED: Duration = Duration::from_secs(5);

/// Publishes one process's outbox rows in the background.
#[derive(Clone, Debug)]
pub struct Relay {
    name: Arc<str>,
    handed: Arc<Mutex<Handed>>,
    wake: Arc<Notify>,
}

/// Committed rows that are not published.
#[derive(Debug, Default)]
struct Handed {
    rows: VecDeque<OutboxRow>,
    /// There were too many: more are in the table.
    overflowed: bool,
}

impl Relay {
    /// A relay for rows that carry `name`, unique to this process.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), handed: Arc::default(), wake: Arc::new(Notify::new()) }
    }

    /// What its rows carry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The row that will publish `message` on `route`.
    pub fn row<M: Message>(&self, route: Route<M>, message_id: Uuid, message: &M) -> NewOutbox {
        let envelope = Envelope::new(message_id, message);
        NewOutbox {
            exchange: route.exchange.to_owned(),
            routing_key: route.key.to_owned(),
            kind: envelope.kind,
            message_id: message_id.to_string(),
            body: envelope.body,
            headers: envelope.headers,
            relay: self.name.to_string(),
        }
    }

    /// Publishes what a transaction wrote. Call it after the commit.
    pub fn committed(&self, rows: Vec<OutboxRow>) {
        if rows.is_empty() {
            return;
        }
        let mut handed = self.handed();
        handed.rows.extend(rows);
        if handed.rows.len() > HANDED {
            *handed = Handed { rows: VecDeque::new(), overflowed: true };
        }
        drop(handed);
        self.wake.notify_one();
    }

    /// Publishes until `stopping`, the oldest rows first. A destination that takes no messages keeps back the others once,
    /// for as long as a confirm may take; from then on its oldest message is tried beside them.
    pub async fn run(&self, store: &Store, broker: &Broker, stopping: &CancellationToken) {
        let stuck = watch::Sender::new(Vec::new());
        tokio::select! {
            () = self.publish_all(store, broker, &stuck, stopping) => {}
            () = self.try_stuck(store, broker, &stuck) => {}
        }
    }

    /// Publishes to all destinations but for those that are stuck, and adds to them.
    async fn publish_all(
        &self,
        store: &Store,
        broker: &Broker,
        stuck: &watch::Sender<Vec<Destination>>,
        stopping: &CancellationToken,
    ) {
        let mut trouble = Reconnect::new();
        // More may be left to do than is in memory; and when that is asked next, however much comes meanwhile.
        let (mut look, mut look_at) = (false, Instant::now() + ORPHANED);
        loop {
            let but = stuck.borrow().clone();
            look |= !but.is_empty() || std::mem::take(&mut self.handed().overflowed);
            let mut refused = Vec::new();
            let outcome = async {
                if look_at <= Instant::now() {
                    look_at = Instant::now() + ORPHANED;
                    look = look || self.forgot(store, &but).await?;
                }
                let rows = if look { self.look(store, &but).await? } else { self.next() };
                publish(store, broker, &rows, &mut refused).await.map(|_| rows.len())
            };
            let found = outcome.await;
            look = !refused.is_empty() || found.as_ref().map_or(true, |rows| look && *rows > 0);
            if !refused.is_empty() {
                stuck.send_modify(|stuck| stuck.append(&mut refused));
            }
            if found.is_ok() {
                trouble.reset();
            }
            match found {
                Ok(0) => tokio::select! {
                    () = self.wake.notified() => {}
                    () = sleep_until(look_at) => {}
                    () = stopping.cancelled() => return,
                },
                Ok(_) => {}
                Err(error) => {
                    let wait = trouble.next_delay();
                    tracing::warn!(error, wait_ms = wait.as_millis(), "outbox not published; again later");
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = stopping.cancelled() => return,
                    }
                }
            }
        }
    }

    /// Tries the oldest message of each destination that is stuck until it is taken; then the others of it follow.
    async fn try_stuck(&self, store: &Store, broker: &Broker, stuck: &watch::Sender<Vec<Destination>>) {
        let mut changes = stuck.subscribe();
        let mut tried = Vec::new();
        let mut tries = FuturesUnordered::new();
        loop {
            for to in changes.borrow_and_update().iter() {
                if !tried.contains(to) {
                    tried.push(to.clone());
                    tries.push(self.until_taken(store, broker, to.clone()));
                }
            }
            tokio::select! {
                _ = changes.changed() => {}
                Some(free) = tries.next() => {
                    tried.retain(|to| *to != free);
                    stuck.send_modify(|stuck| stuck.retain(|to| *to != free));
                    self.handed().overflowed = true;
                    self.wake.notify_one();
                }
            }
        }
    }

    /// Returns the destination once it takes a message, or has none to take.
    async fn until_taken(&self, store: &Store, broker: &Broker, to: Destination) -> Destination {
        let mut delays = Reconnect::new();
        loop {
            sleep(delays.next_delay()).await;
            let Ok(oldest) = store.read().unsent_to(&self.name, &to, 1).await else { continue };
            let mut refused = Vec::new();
            if publish(store, broker, &oldest, &mut refused).await.is_ok() && refused.is_empty() {
                return to;
            }
        }
    }

    /// What was handed over first.
    fn next(&self) -> Vec<OutboxRow> {
        let rows = &mut self.handed().rows;
        let count = rows.len().min(GROUP as usize);
        rows.drain(..count).collect()
    }

    /// True when nobody handed a row over that was committed long ago.
    async fn forgot(&self, store: &Store, stuck: &[Destination]) -> Result<bool, String> {
        let rows = store.read().unsent_older_than(ORPHANED, stuck, GROUP).await.map_err(|error| error.to_string())?;
        Ok(rows.iter().any(|row| *row.message.relay == *self.name))
    }

    /// What the table says is left to do.
    async fn look(&self, store: &Store, stuck: &[Destination]) -> Result<Vec<OutboxRow>, String> {
        // What is in memory is in the table, too, unless somebody has sent it meanwhile.
        self.handed().rows.clear();
        let rows = store.read().unsent(&self.name, stuck, GROUP).await.map_err(|error| error.to_string())?;
        if !rows.is_empty() {
            // There will be another look. If the table is empty, what is in memory was committed after this one.
            self.handed().rows.clear();
        }
        Ok(rows)
    }

    fn handed(&self) -> MutexGuard<'_, Handed> {
        self.handed.lock().expect("no panic while it is locked")
    }
}

/// Publishes rows that other processes left behind; `own` sees to its own. Returns how many.
///
/// # Errors
/// Why the store or the broker did not take part; the rows stay for the next time.
pub async fn sweep(own: &Relay, store: &Store, broker: &Broker) -> Result<usize, String> {
    let (mut stuck, mut sent) = (Vec::new(), 0);
    loop {
        let rows = store.read().unsent_of_others(&own.name, ORPHANED, &stuck, GROUP).await;
        let rows = rows.map_err(|error| error.to_string())?;
        if rows.is_empty() {
            return Ok(sent);
        }
        // Each row is sent or its destination is stuck, so that the next ones are others.
        sent += publish(store, broker, &rows, &mut stuck).await?;
    }
}

/// Publishes rows and returns how many were sent. Destinations that did not take theirs are added to `stuck`.
async fn publish(
    store: &Store,
    broker: &Broker,
    rows: &[OutboxRow],
    stuck: &mut Vec<Destination>,
) -> Result<usize, String> {
    if rows.is_empty() {
        return Ok(0);
    }
    let outgoing: Vec<_> = rows.iter().map(outgoing).collect();
    let outcomes = broker.publish_many(&outgoing).await;
    warren_drills::passing("relay.published");
    let mut sent = Vec::with_capacity(rows.len());
    let mut away = None;
    for (row, outcome) in rows.iter().zip(outcomes) {
        match outcome {
            Ok(()) => sent.push(row.id),
            Err(error @ PublishError::Disconnected) => away = Some(error.to_string()),
            Err(error) => {
                let to = row.message.destination();
                if !stuck.contains(&to) {
                    tracing::warn!(%error, exchange = to.exchange, key = to.routing_key, "its messages wait");
                    stuck.push(to);
                }
            }
        }
    }
    if !sent.is_empty() {
        forget(store, &sent).await.map_err(|error| error.to_string())?;
        warren_drills::passing("relay.forgotten");
    }
    away.map_or(Ok(sent.len()), Err)
}

async fn forget(store: &Store, sent: &[i64]) -> Result<(), StoreError> {
    let tx = store.begin().await?;
    tx.forget_outbox(sent).await?;
    tx.commit().await
}

fn outgoing(row: &OutboxRow) -> Outgoing {
    let message = &row.message;
    Outgoing {
        exchange: message.exchange.clone(),
        key: message.routing_key.clone(),
        envelope: Envelope {
            // Ours always parse; anything else would still be published, only without protection against repeats.
            message_id: message.message_id.parse().unwrap_or_default(),
            kind: message.kind.clone(),
            body: message.body.clone(),
            headers: message.headers.clone(),
        },
    }
}
