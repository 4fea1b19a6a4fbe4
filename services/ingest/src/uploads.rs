//! Room for uploads: how many at once, and how slow one may be.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::settings::LimitSettings;

/// Longest silence of a caller.
pub(crate) const STALL: Duration = Duration::from_secs(60);

/// The uploads that run. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Uploads {
    all: Arc<Semaphore>,
    /// As many as there are names in `auth.keys`.
    callers: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
    each: usize,
}

/// A place among the uploads, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

impl Uploads {
    /// Nobody uploads yet.
    pub(crate) fn new(limits: &LimitSettings) -> Self {
        Self { all: Arc::new(Semaphore::new(limits.uploads)), callers: Arc::default(), each: limits.uploads_per_caller }
    }

    /// Waits for a place, in the order of arrival. Who waits for a place of its own takes none from others.
    pub(crate) async fn place(&self, caller: &str) -> Place {
        let own = {
            let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
            callers.entry(caller.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.each))).clone()
        };
        let own = own.acquire_owned().await.expect("the semaphores are never closed");
        let shared = self.all.clone().acquire_owned().await.expect("the semaphores are never closed");
        Place { _own: own, _shared: shared }
    }
}

/// How long a caller has been waited for, against what it sent. Only waiting for the caller counts: our storage may
/// take its time.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    received: u64,
    waited: Duration,
}

impl Pace {
    /// A caller who must send this much a second on average, after the first [`STALL`].
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, received: 0, waited: Duration::ZERO }
    }

    /// How long its next message may take; zero when it is too slow altogether.
    pub(crate) fn patience(&self) -> Duration {
        let earned = Duration::from_secs(self.received / self.bytes_per_second.max(1));
        (STALL + earned).saturating_sub(self.waited).min(STALL)
    }

    /// A message of this many bytes came after `waited`.
    pub(crate) fn came(&mut self, bytes: usize, waited: Duration) {
        self.received += bytes as u64;
        self.waited += waited;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_caller_takes_its_own_places_and_no_more() {
        let uploads = Uploads::new(&LimitSettings { uploads: 3, uploads_per_caller: 2, ..LimitSettings::default() });
        let now = |caller: &str| uploads.place(caller).now_or_never();
        let first = now("anna").expect("room");
        let _second = now("anna").expect("room");
        assert!(now("anna").is_none(), "a third one waits");
        let bert = now("bert").expect("room for others");
        assert!(now("cleo").is_none(), "all are taken");
        drop(bert);
        let _cleo = now("cleo").expect("given back");
        drop(first);
        assert!(now("anna").is_some(), "given back");
    }

    #[test]
    fn a_trickle_is_given_up_and_a_steady_stream_is_not() {
        let mut trickle = Pace::new(1_000);
        let mut messages = 0;
        while trickle.patience() > Duration::from_secs(59) {
            trickle.came(1, Duration::from_secs(59));
            messages += 1;
        }
        assert_eq!((messages, trickle.patience()), (1, Duration::from_secs(1)));

        let mut steady = Pace::new(1_000);
        for _ in 0..100_000 {
            assert!(steady.patience() >= Duration::from_secs(50), "{steady:?}");
            steady.came(10_000, Duration::from_secs(10));
        }
        // What was sent fast does not excuse a silence.
        assert_eq!(steady.patience(), STALL);
    }
}
