//! Which parts of the platform a process has, and which it still waits for.

use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use warren_clock::Reconnect;
use warren_telemetry::metrics;

/// How often a part is asked whether it is there, if it does not tell.
const ASK_EVERY: Duration = Duration::from_secs(5);

type Down = BTreeMap<String, String>;

/// The parts of one process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Parts that are down, with the reason.
    down: Mutex<Down>,
    changed: watch::Sender<bool>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(Inner { down: Mutex::default(), changed: watch::Sender::new(true) }))
    }
}

impl Readiness {
    /// Registers a part as not ready for `reason`. Parts of the same name share their state.
    pub fn part(&self, name: impl Into<String>, reason: impl Into<String>) -> Part {
        let part = Part { name: name.into(), readiness: self.clone() };
        part.down(reason);
        part
    }

    /// Parts that are down, with the reason; empty when the process is ready.
    pub fn down(&self) -> BTreeMap<String, String> {
        self.0.down.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True when no part is down.
    pub fn is_ready(&self) -> bool {
        *self.0.changed.borrow()
    }

    /// Changes whenever a part is down, or ready, or down for another reason.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.0.changed.subscribe()
    }

    /// Waits until no part is down.
    pub async fn ready(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.changed.subscribe().wait_for(|ready| *ready).await;
    }

    fn change(&self, change: impl FnOnce(&mut Down)) {
        let mut down = self.0.down.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut down);
        let ready = down.is_empty();
        metrics::READY.set(if ready { 1.0 } else { 0.0 }, &[]);
        self.0.changed.send_replace(ready);
    }
}

/// One part that a process needs, such as `rabbitmq` or a model. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Part {
    name: String,
    readiness: Readiness,
}

impl Part {
    /// The part is there.
    pub fn ready(&self) {
        self.readiness.change(|down| {
            if down.remove(&self.name).is_some() {
                tracing::info!(part = self.name, "part is ready");
            }
        });
    }

    /// The part is missing; `reason` is for the person who looks at `/health/ready`.
    pub fn down(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.readiness.change(|down| {
            let before = down.insert(self.name.clone(), reason.clone());
            if before.as_ref() != Some(&reason) {
                tracing::warn!(part = self.name, reason, "part is not ready");
            }
        });
    }

    /// Shows the outcome of reaching the part.
    pub fn set<E: Display>(&self, outcome: Result<(), E>) {
        match outcome {
            Ok(()) => self.ready(),
            Err(error) => self.down(error.to_string()),
        }
    }

    /// Opens the part as soon as it is there. `None`: the process is to stop first.
    pub async fn opened<T, E: Display>(
        &self,
        open: impl AsyncFn() -> Result<T, E>,
        stopping: &CancellationToken,
    ) -> Option<T> {
        let mut reconnect = Reconnect::new();
        loop {
            let opened = tokio::select! {
                opened = open() => opened,
                () = stopping.cancelled() => return None,
            };
            match opened {
                Ok(part) => {
                    self.ready();
                    return Some(part);
                }
                Err(error) => self.down(error.to_string()),
            }
            tokio::select! {
                () = tokio::time::sleep(reconnect.next_delay()) => {}
                () = stopping.cancelled() => return None,
            }
        }
    }

    /// Shows what the part tells of itself, until it tells no more.
    pub async fn follow<T, E: Display>(&self, mut told: watch::Receiver<T>, usable: impl Fn(&T) -> Result<(), E>) {
        loop {
            self.set(usable(&told.borrow_and_update()));
            if told.changed().await.is_err() {
                return;
            }
        }
    }

    /// Asks every few seconds whether the part is there, for ever.
    pub async fn ask<E: Display>(&self, ask: impl AsyncFn() -> Result<(), E>) {
        loop {
            self.set(ask().await);
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_every_part_is() {
        let readiness = Readiness::default();
        assert!(readiness.is_ready());
        let broker = readiness.part("rabbitmq", "not connected yet");
        let store = readiness.part("store", "not opened yet");
        broker.ready();
        assert_eq!(readiness.down(), BTreeMap::from([("store".to_owned(), "not opened yet".to_owned())]));
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        store.ready();
        waiting.await.expect("woken");
        broker.down("connection lost");
        assert!(!readiness.is_ready());
    }

    #[tokio::test]
    async fn a_part_is_opened_as_soon_as_it_is_there() {
        let (readiness, stopping) = (Readiness::default(), CancellationToken::new());
        let store = readiness.part("store", "not opened yet");
        let tries = std::cell::Cell::new(0);
        let open = async || {
            tries.set(tries.get() + 1);
            if tries.get() < 3 { Err(format!("try {}", tries.get())) } else { Ok(7) }
        };
        assert_eq!(store.opened(open, &stopping).await, Some(7));
        assert!(readiness.is_ready() && tries.get() == 3);
        let stopped_meanwhile = async || {
            stopping.cancel();
            Err::<(), _>("away")
        };
        assert_eq!(store.opened(stopped_meanwhile, &stopping).await, None);
        assert_eq!(readiness.down()["store"], "away");
    }

    #[tokio::test]
    async fn what_a_part_tells_is_shown_until_it_is_gone() {
        let readiness = Readiness::default();
        let broker = readiness.part("rabbitmq", "not connected yet");
        let (health, told) = watch::channel(Ok(()));
        let following = tokio::spawn(async move { broker.follow(told, Clone::clone).await });
        readiness.ready().await;
        assert_eq!(health.send_replace(Err("blocked")), Ok(()));
        drop(health);
        following.await.expect("it ends with the part");
        assert_eq!(readiness.down()["rabbitmq"], "blocked");
    }
}
