//! A thread of its own that ends the process when a device is used under a lease that was not renewed in time, whatever
//! else hangs. A lease that nobody uses at that moment is only marked lost.

use std::{
    sync::{Arc, Weak, mpsc},
    thread,
    time::{Duration, Instant},
};

use warren_jobs::lease::Breach;

use crate::leases::Shared;

/// What happens at a breach. Only tests have another than [`abort`].
pub(crate) type OnBreach = Box<dyn Fn(&Breach) + Send + Sync>;

/// Looks until the last user of `shared` is gone.
pub(crate) fn start(shared: &Arc<Shared>) -> std::io::Result<()> {
    let watched: Weak<Shared> = Arc::downgrade(shared);
    let every = shared.timing.watch;
    thread::Builder::new().name("lease-watchdog".to_owned()).spawn(move || {
        while let Some(shared) = watched.upgrade() {
            let overdue = shared.held().overdue(Instant::now());
            match overdue {
                Ok(lost) if lost.is_empty() => {}
                // Nothing is logged here: the log may be blocked, and the next look must not wait for it.
                Ok(_) => shared.leases_changed.notify_waiters(),
                Err(breach) => shared.breached(&breach),
            }
            drop(shared);
            thread::sleep(every);
        }
    })?;
    Ok(())
}

/// Ends the process without unwinding: nothing else stops a forward pass that is running.
pub(crate) fn abort(breach: &Breach) {
    let line = format!(
        "lease {} (fence {}) must not be used any more: {}; aborting so that the device is free",
        breach.lease, breach.fence, breach.why
    );
    // The log may be blocked, and the abort must not wait for it.
    let (done, logged) = mpsc::channel();
    let logger = thread::Builder::new().spawn(move || {
        tracing::error!("{line}");
        let _ = done.send(());
    });
    if logger.is_ok() {
        let _ = logged.recv_timeout(Duration::from_millis(50));
    }
    std::process::abort();
}
