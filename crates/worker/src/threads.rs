//! Which processor threads a task gets.

use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Processors of this machine.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A task that runs alone gets every core; tasks that run side by side get a share each. Threads of one task that wait
/// for each other cost more than they gain when every core has a task of its own.
#[derive(Debug)]
pub(crate) struct Threads {
    shares: Vec<OnceLock<Option<ThreadPool>>>,
    share: usize,
    running: AtomicUsize,
}

impl Threads {
    pub(crate) fn new(slots: u16) -> Self {
        let slots = usize::from(slots.max(1));
        Self {
            shares: (0..slots).map(|_| OnceLock::new()).collect(),
            share: (cores() / slots).max(1),
            running: AtomicUsize::new(0),
        }
    }

    /// Runs `work` of the task in `slot`.
    pub(crate) fn run<T: Send>(&self, slot: u32, work: impl FnOnce() -> T + Send) -> T {
        struct Running<'a>(&'a AtomicUsize);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }

        let alone = self.running.fetch_add(1, Ordering::SeqCst) == 0;
        let _running = Running(&self.running);
        let pool = self.shares.get(slot as usize).filter(|_| !alone);
        match pool.and_then(|pool| pool.get_or_init(|| pool_of(slot, self.share)).as_ref()) {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}

fn pool_of(slot: u32, threads: usize) -> Option<ThreadPool> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(move |index| format!("slot-{slot}-{index}"));
    pool.build().inspect_err(|error| tracing::warn!(%error, slot, "no threads of its own; shares all")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_task_gets_its_share() {
        let threads = Threads::new(u16::try_from(cores()).expect("few cores"));
        let (alone, beside) = threads.run(0, || {
            let beside = threads.run(1, rayon::current_num_threads);
            (rayon::current_num_threads(), beside)
        });
        assert_eq!(alone, cores());
        assert_eq!(beside, if cores() > 1 { 1 } else { cores() });
        assert_eq!(threads.running.load(Ordering::SeqCst), 0);
    }
}
