//! Which parts of the platform a process has, and which it still waits for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;
use warren_telemetry::metrics;

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
    pub fn set<E: std::fmt::Display>(&self, outcome: Result<(), E>) {
        match outcome {
            Ok(()) => self.ready(),
            Err(error) => self.down(error.to_string()),
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
}
