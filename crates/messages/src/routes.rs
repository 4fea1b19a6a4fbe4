//! Which message type travels on which queue. The only string literals that name a queue or an exchange.

use std::marker::PhantomData;

use warren_jobs::TaskKind;

use crate::wire::{Command, Task, TaskReport};

/// Direct exchange for commands and results.
pub const EVENT_EXCHANGE: &str = "warren.event";
/// Direct exchange for tasks; the routing key is the task kind.
pub const TASK_EXCHANGE: &str = "warren.task";
/// Direct exchange for dead letters; the routing key is that of the dead message.
pub const DEAD_EXCHANGE: &str = "warren.dlx";
/// Topic exchange for transient hints; routing keys are `job.<id>`.
pub const NOTICE_EXCHANGE: &str = "warren.notice";
/// Where dead letters lie until somebody replays or discards them.
pub const DEAD_QUEUE: &str = "warren.dead";
/// A copy of each dead letter, drained into the index by the coordinator.
pub const DEAD_INDEX_QUEUE: &str = "warren.dead.index";
/// Seconds that each rung of the retry ladder holds a message.
pub const RETRY_RUNGS: [u32; 8] = warren_jobs::retry::RUNGS;

/// Name of the exchange and of the queue of one rung, e.g. `warren.retry.005s`.
pub fn retry_rung(seconds: u32) -> String {
    format!("warren.retry.{seconds:03}s")
}

/// The route of this kind's tasks.
pub const fn tasks(kind: TaskKind) -> Route<Task> {
    match kind {
        TaskKind::Prepare => Route::new("warren.task.prepare", TASK_EXCHANGE, "prepare"),
        TaskKind::Transcribe => Route::new("warren.task.transcribe", TASK_EXCHANGE, "transcribe"),
        TaskKind::Embed => Route::new("warren.task.embed", TASK_EXCHANGE, "embed"),
    }
}

/// A queue, how to reach it, and the one message type it carries.
#[derive(Debug)]
pub struct Route<M> {
    /// Name of the queue.
    pub queue: &'static str,
    /// Exchange to publish to.
    pub exchange: &'static str,
    /// Routing key to publish with.
    pub key: &'static str,
    carries: PhantomData<fn() -> M>,
}

impl<M> Clone for Route<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Route<M> {}

impl<M> Route<M> {
    const fn new(queue: &'static str, exchange: &'static str, key: &'static str) -> Self {
        Self { queue, exchange, key, carries: PhantomData }
    }
}

/// Commands to the leading coordinator.
pub const COMMANDS: Route<Command> = Route::new("warren.job", EVENT_EXCHANGE, "warren.job");
/// What became of tasks.
pub const REPORTS: Route<TaskReport> = Route::new("warren.result", EVENT_EXCHANGE, "warren.result");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_their_queues_agree() {
        for &kind in TaskKind::ALL {
            assert_eq!(tasks(kind).queue, format!("{TASK_EXCHANGE}.{kind}"));
            assert_eq!(tasks(kind).key, kind.as_str());
        }
    }

    #[test]
    fn rungs_have_three_digits() {
        assert_eq!(retry_rung(5), "warren.retry.005s");
        assert_eq!(retry_rung(600), "warren.retry.600s");
    }
}
