//! The one thread that starts children.
//!
//! `PR_SET_PDEATHSIG` fires when the *thread* that forked ends, not the process: a child started by a short-lived
//! thread (a test's, or one of a runtime's pool) would be killed with it. This thread lives as long as the process.

use std::{
    io,
    sync::{
        Mutex, OnceLock,
        mpsc::{self, Sender},
    },
    thread,
};

type Job = Box<dyn FnOnce() + Send>;

static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();

/// Runs `job` on the spawner's thread and waits for its answer (a fork and exec: milliseconds).
pub(crate) fn run<T: Send + 'static>(job: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let (answer, answered) = mpsc::sync_channel(1);
    let job: Job = Box::new(move || {
        // The caller waits below, so the other end is there.
        let _ = answer.send(job());
    });
    let gone = || io::Error::other("the thread that starts child processes is gone");
    spawner().lock().map_err(|_| gone())?.send(job).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

fn spawner() -> &'static Mutex<Sender<Job>> {
    SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        let started = thread::Builder::new().name("child-spawner".to_owned()).spawn(move || {
            for job in jobs {
                job();
            }
        });
        // When no thread can be made, `jobs` is dropped and `run` reports it.
        drop(started);
        Mutex::new(sender)
    })
}
