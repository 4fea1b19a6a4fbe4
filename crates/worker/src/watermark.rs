//! Has a worker leave that has grown too large, so that a fresh one takes its place.

use tokio_util::sync::CancellationToken;
use warren_host::{Host, Part};
use warren_leases::Leases;

use crate::{WorkSettings, memory};

/// Looks at the process's memory after each task. Only then: so every process does at least one.
#[derive(Clone, Debug)]
pub struct Watermark(Option<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    most_mb: u64,
    part: Part,
    leases: Leases,
    stopping: CancellationToken,
}

impl Watermark {
    /// As the settings say; none where they name no limit.
    pub fn new(settings: &WorkSettings, host: &Host, leases: &Leases) -> Self {
        Self((settings.max_memory_mb > 0).then(|| {
            let part = host.part("memory", "not looked at yet");
            part.ready();
            Inner { most_mb: settings.max_memory_mb, part, leases: leases.clone(), stopping: host.stopping() }
        }))
    }

    /// No limit.
    pub fn none() -> Self {
        Self(None)
    }

    /// Above the limit, the worker takes no more work, finishes what it has in hand and ends.
    pub(crate) fn look(&self) {
        let Some(inner) = self.0.as_ref().filter(|inner| !inner.stopping.is_cancelled()) else { return };
        let megabytes = memory::resident() / 1_000_000;
        if megabytes <= inner.most_mb {
            return;
        }
        let why = format!("{megabytes} MB are in use, work.max_memory_mb is {}", inner.most_mb);
        tracing::warn!(megabytes, limit = inner.most_mb, "leaving for a fresh process: too much memory is in use");
        inner.leases.leaving(format!("memory: {why}"));
        inner.part.down(why);
        inner.stopping.cancel();
    }
}
