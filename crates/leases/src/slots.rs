//! The worker's places for tasks that need a device. Each keeps its lease from task to task.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};
use warren_jobs::lease::Standing;
use warren_messages::wire;

use crate::{leases::Shared, pass::Grant};

/// How long giving a lease back may take before it is left to expire.
const GIVE_BACK: Duration = Duration::from_secs(5);

/// All slots of a worker.
#[derive(Debug)]
pub(crate) struct Slots {
    places: Mutex<Vec<Place>>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Place {
    busy: bool,
    grant: Option<Arc<Grant>>,
    /// How often the place was freed: what was seen before the last time is out of date.
    freed: u64,
    /// Somebody gives the lease back once the place has been idle. One for many tasks: short ones come by the thousand.
    watched: bool,
}

/// A free place with a lease.
struct Idle {
    lease: String,
    freed: u64,
}

impl Slots {
    pub(crate) fn new(count: u32) -> Self {
        let places = (0..count.max(1)).map(|_| Place::default()).collect();
        Self { places: Mutex::new(places), freed: Notify::new() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<Place>) -> T) -> T {
        act(&mut self.places.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a free place: one with a lease for `model`, else one without a lease, else any.
    fn try_take(&self, model: &str) -> Option<(u32, Option<Arc<Grant>>)> {
        self.with(|places| {
            let rank = |place: &Place| match &place.grant {
                Some(grant) if grant.model == model => 0,
                None => 1,
                Some(_) => 2,
            };
            let (index, place) =
                places.iter_mut().enumerate().filter(|(_, place)| !place.busy).min_by_key(|(_, place)| rank(place))?;
            place.busy = true;
            Some((u32::try_from(index).unwrap_or(u32::MAX), place.grant.take()))
        })
    }

    async fn take(&self, model: &str) -> (u32, Option<Arc<Grant>>) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Before looking, or a place freed in between would go unnoticed.
            freed.as_mut().enable();
            if let Some(taken) = self.try_take(model) {
                return taken;
            }
            freed.await;
        }
    }

    /// Frees a place. True when it has a lease that nobody watches; the caller does, from now on.
    fn free(&self, index: u32, grant: Option<Arc<Grant>>) -> bool {
        let unwatched = self.with(|places| {
            let place = &mut places[index as usize];
            let unwatched = grant.is_some() && !place.watched;
            place.busy = false;
            place.grant = grant;
            place.freed += 1;
            place.watched |= unwatched;
            unwatched
        });
        // One place is for one task. Who waits and goes away passes the word on.
        self.freed.notify_one();
        unwatched
    }

    /// A place that is watched, while it is free and has a lease. `None`: it is not watched any more.
    fn idle(&self, index: u32) -> Option<Idle> {
        self.with(|places| {
            let place = &mut places[index as usize];
            let idle = place.grant.as_ref().filter(|_| !place.busy);
            let idle = idle.map(|grant| Idle { lease: grant.lease.clone(), freed: place.freed });
            place.watched = idle.is_some();
            idle
        })
    }

    /// Takes the lease out of a place that is still free since its `freed`th freeing; the place is busy then.
    fn take_idle(&self, index: u32, freed: u64) -> Option<Arc<Grant>> {
        self.with(|places| {
            let place = &mut places[index as usize];
            if place.busy || place.freed != freed {
                return None;
            }
            let grant = place.grant.take()?;
            place.busy = true;
            place.watched = false;
            Some(grant)
        })
    }

    fn take_all_idle(&self) -> Vec<Arc<Grant>> {
        self.with(|places| {
            places.iter_mut().filter(|place| !place.busy).filter_map(|place| place.grant.take()).collect()
        })
    }
}

/// One place for a task. Dropping it ends the task there: the lease stays for the next task if it comes soon, and
/// is given back if the coordinator wants it.
#[derive(Debug)]
pub struct Slot {
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: u32,
    pub(crate) grant: Option<Arc<Grant>>,
}

impl Slot {
    pub(crate) async fn take(shared: Arc<Shared>, model: &str) -> Self {
        let (index, grant) = shared.slots.take(model).await;
        Self { shared, index, grant }
    }

    /// Which of the worker's slots this is, 0-based.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Gives the lease back now, for instance after an urgent yield.
    pub async fn give_back(&mut self) {
        if let Some(grant) = self.grant.take() {
            give_back(&self.shared, &grant).await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let (shared, index) = (self.shared.clone(), self.index);
        let Some(grant) = self.grant.take() else {
            shared.slots.free(index, None);
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            // The process is ending; the lease expires.
            shared.held().given_back(&grant.lease);
            return;
        };
        let keep = shared.held().standing(&grant.lease) == Standing::Good && !shared.stopping.is_cancelled();
        if keep {
            if shared.slots.free(index, Some(grant)) {
                runtime.spawn(watch(shared, index));
            }
            return;
        }
        runtime.spawn(async move {
            // Busy until it is given back: asking again earlier would return the same lease.
            give_back(&shared, &grant).await;
            shared.slots.free(index, None);
        });
    }
}

/// Gives a place's lease back once the place has been free for the idle time, or as soon as the coordinator wants it.
async fn watch(shared: Arc<Shared>, index: u32) {
    let (mut seen, mut until) = (0, Instant::now());
    loop {
        let changed = shared.leases_changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        // While a task is there, nobody has to watch; its end begins it anew.
        let Some(idle) = shared.slots.idle(index) else { return };
        if idle.freed != seen {
            (seen, until) = (idle.freed, Instant::now() + shared.timing.idle);
        }
        if shared.held().standing(&idle.lease) == Standing::Good && Instant::now() < until {
            tokio::select! {
                () = sleep_until(until) => {}
                () = changed => {}
            }
        } else if let Some(grant) = shared.slots.take_idle(index, idle.freed) {
            give_back(&shared, &grant).await;
            shared.slots.free(index, None);
            return;
        }
    }
}

/// Gives a lease back to the coordinator. Afterwards it cannot be used, whether or not the coordinator heard of it.
pub(crate) async fn give_back(shared: &Arc<Shared>, grant: &Grant) {
    if !shared.held().given_back(&grant.lease) {
        return;
    }
    let request = wire::ReleaseRequest { lease: grant.lease.clone(), fence: grant.fence };
    let mut leader = shared.leader.subscribe();
    let told = timeout(GIVE_BACK, async {
        loop {
            let Ok(client) = leader.wait_for(Option::is_some).await.map(|client| client.clone()) else { return };
            let Some(mut client) = client else { return };
            leader.mark_unchanged();
            tokio::select! {
                answer = client.release(request.clone()) => match answer {
                    Ok(_) => return,
                    Err(status) => tracing::debug!(%status, lease = grant.lease, "lease could not be given back"),
                },
                _ = leader.changed() => {}
            }
            sleep(Duration::from_millis(200)).await;
        }
    });
    if told.await.is_err() {
        tracing::warn!(lease = grant.lease, "no coordinator took the lease back; it expires by itself");
    }
}

/// Gives back the leases of all places without a task.
pub(crate) async fn give_back_all(shared: &Arc<Shared>) {
    for grant in shared.slots.take_all_idle() {
        give_back(shared, &grant).await;
    }
}
