//! The handle that the rest of a process uses.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::{Mutex, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use warren_clock::Clock;

use crate::{BrokerSettings, link::Link, supervisor};

/// How the connections to the broker are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not connected; tried again for ever.
    Connecting {
        /// Why the last attempt failed or the last connection was lost.
        error: Option<String>,
    },
    /// Connected, and every queue is declared.
    Ready,
    /// The broker takes no messages because it is short of memory or disk. Messages in hand are finished.
    Blocked {
        /// What the broker said.
        reason: String,
    },
}

impl Health {
    /// Whether messages can be published and consumed, or why not; for readiness.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn usable(&self) -> Result<(), String> {
        match self {
            Self::Ready => Ok(()),
            Self::Blocked { reason } => Err(format!("blocked: {reason}")),
            Self::Connecting { error } => Err(error.clone().unwrap_or_else(|| "connecting".to_owned())),
        }
    }
}

/// Supervised connections to RabbitMQ. Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Broker {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) settings: BrokerSettings,
    pub(crate) clock: Clock,
    pub(crate) name: String,
    pub(crate) link: watch::Receiver<Option<Arc<Link>>>,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) stopping: CancellationToken,
    /// Consumers and scans; the connections stay until they are done.
    pub(crate) users: TaskTracker,
    pub(crate) closed: CancellationToken,
    /// Two scans at once would hide letters from each other.
    pub(crate) scans: Mutex<()>,
}

impl Broker {
    /// Starts connecting in the background and returns at once; must be called inside a tokio runtime.
    ///
    /// `name` is shown on RabbitMQ's own page. When `stopping` is cancelled, the connections are closed after the
    /// consumers have finished, at the latest after the drain time.
    pub fn start(settings: BrokerSettings, clock: Clock, name: impl Into<String>, stopping: CancellationToken) -> Self {
        let (link_sender, link) = watch::channel(None);
        let (health_sender, health) = watch::channel(Health::Connecting { error: None });
        let shared = Arc::new(Shared {
            settings,
            clock,
            name: name.into(),
            link,
            health,
            stopping,
            users: TaskTracker::new(),
            closed: CancellationToken::new(),
            scans: Mutex::new(()),
        });
        tokio::spawn(supervisor::run(shared.clone(), link_sender, health_sender));
        Self { shared }
    }

    /// How the connections are, now and as it changes.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.clone()
    }

    /// Waits until everything is connected and declared; false when the broker handle was stopped before.
    pub async fn ready(&self) -> bool {
        let mut health = self.shared.health.clone();
        health.wait_for(|health| *health == Health::Ready).await.is_ok()
    }

    /// Waits until the connections are closed after `stopping`.
    pub async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    pub(crate) fn settings(&self) -> &BrokerSettings {
        &self.shared.settings
    }

    /// The current generation; `None` when none came within `wait`, or none will.
    pub(crate) async fn link_within(&self, wait: Duration) -> Option<Arc<Link>> {
        tokio::time::timeout(wait, self.link()).await.ok().flatten()
    }

    /// The current generation, as soon as there is one; `None` after the end.
    pub(crate) async fn link(&self) -> Option<Arc<Link>> {
        let mut links = self.shared.link.clone();
        let link = links.wait_for(|link| link.as_ref().is_some_and(|link| !link.is_lost())).await;
        link.ok().and_then(|link| link.clone())
    }

    /// Runs `work` such that the connections outlive it.
    pub(crate) async fn using<T>(&self, work: impl Future<Output = T>) -> T {
        self.shared.users.track_future(work).await
    }

    /// Waits while the broker takes no messages; more work would only pile up in this process.
    pub(crate) async fn unblocked(&self) {
        let mut health = self.shared.health.clone();
        // An error means the end, which the caller notices by itself.
        let _ = health.wait_for(|health| !matches!(health, Health::Blocked { .. })).await;
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("name", &self.shared.name)
            .field("health", &*self.shared.health.borrow())
            .finish()
    }
}
