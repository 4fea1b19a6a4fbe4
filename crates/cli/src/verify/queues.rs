//! What the broker has, against what the database says it should have.

use warren_broker::{management::QueueState, topology};
use warren_jobs::TaskKind;
use warren_messages::routes;
use warren_store::{Discrepancy, Ledger};

/// Messages by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Messages {
    /// In the work queues, in a worker's hands, or on their way to the dead letters.
    pub work: u64,
    /// On the retry ladder.
    pub later: u64,
    /// Reports that are still to be recorded.
    pub results: u64,
    /// Commands that are still to be obeyed.
    pub commands: u64,
    /// Dead letters.
    pub dead: u64,
    /// Dead letters that are still to be indexed.
    pub unindexed: u64,
}

impl Messages {
    pub(super) fn count(queues: &[QueueState]) -> Self {
        let of = |name: &str| waiting(queues, name);
        Self {
            work: TaskKind::ALL.iter().map(|kind| of(routes::tasks(*kind).queue)).sum(),
            later: routes::RETRY_RUNGS.iter().map(|rung| of(&routes::retry_rung(*rung))).sum(),
            results: of(routes::REPORTS.queue),
            commands: of(routes::COMMANDS.queue),
            dead: of(routes::DEAD_QUEUE),
            unindexed: of(routes::DEAD_INDEX_QUEUE),
        }
    }
}

/// What does not fit together.
pub(super) fn discrepancies(ledger: &Ledger, queues: &[QueueState]) -> Vec<Discrepancy> {
    let mut found: Vec<Discrepancy> = topology::differences(queues)
        .into_iter()
        .map(|why| difference("queues are as declared", "RabbitMQ", why))
        .collect();
    let messages = Messages::count(queues);
    let indexed = ledger.letters_in_queue + messages.unindexed;
    if messages.dead != indexed {
        let why = format!("{} messages are there, the index knows {indexed}", messages.dead);
        found.push(difference("dead letters are indexed", routes::DEAD_QUEUE, why));
    }
    found.extend(without_message(ledger, queues, messages));
    if ledger.unplanned > messages.commands + (ledger.outbox - ledger.outbox_tasks) + messages.unindexed {
        let why = format!("{} jobs wait for a plan, and {} commands are there", ledger.unplanned, messages.commands);
        found.push(difference("each job without a plan has a command", routes::COMMANDS.queue, why));
    }
    if ledger.tasks.open() == 0 && ledger.unplanned == 0 && ledger.outbox == 0 {
        // Copies of tasks that have ended may still wait on the ladder, or where nobody works; they are dropped later.
        let worked = |name: &str| queues.iter().any(|queue| queue.name == name && queue.consumers > 0);
        let work = TaskKind::ALL.iter().map(|kind| routes::tasks(*kind).queue);
        for name in work.chain([routes::REPORTS.queue, routes::DEAD_INDEX_QUEUE]) {
            let left = queues.iter().find(|queue| queue.name == name).map_or(0, |queue| queue.messages);
            if left > 0 && worked(name) {
                found.push(difference("nothing is left over", name, format!("{left} messages, and nothing is open")));
            }
        }
    }
    found
}

/// Released tasks of a kind, or of all kinds together, for which there are too few messages.
fn without_message(ledger: &Ledger, queues: &[QueueState], messages: Messages) -> Vec<Discrepancy> {
    // A task that is being recorded, or that died and is not indexed yet, is still released. These places hold tasks of
    // all kinds: any of them may be the one that is looked for.
    let shared = messages.later + messages.results + messages.unindexed + ledger.outbox_tasks;
    let lack = |subject: &str, released: u64, seen: u64| {
        let why = format!(
            "{released} tasks are released, and only {seen} messages are there for them; the coordinator sends lost ones \
             again within two minutes"
        );
        (seen < released).then(|| difference("each released task has a message", subject, why))
    };
    let of_kind = |(kind, released): &(TaskKind, u64)| {
        let queue = routes::tasks(*kind).queue;
        lack(queue, *released, waiting(queues, queue) + shared)
    };
    let lacking: Vec<_> = ledger.released.iter().filter_map(of_kind).collect();
    if !lacking.is_empty() {
        return lacking;
    }
    let released = ledger.released.iter().map(|(_, released)| released).sum();
    lack("tasks", released, messages.work + shared).into_iter().collect()
}

fn waiting(queues: &[QueueState], name: &str) -> u64 {
    queues.iter().filter(|queue| queue.name == name).map(|queue| queue.messages).sum()
}

fn difference(check: &'static str, subject: &str, why: String) -> Discrepancy {
    Discrepancy { check, subject: subject.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All queues, declared as they should be, with these numbers of messages, each with a consumer.
    fn queues(messages: &[(&str, u64)]) -> Vec<QueueState> {
        let states = topology::expected().queues.into_iter().map(|queue| QueueState {
            messages: messages.iter().find(|(name, _)| *name == queue.name).map_or(0, |(_, messages)| *messages),
            consumers: 1,
            arguments: queue.arguments.iter().map(|(name, value)| ((*name).to_owned(), value.to_json())).collect(),
            name: queue.name,
            ..QueueState::default()
        });
        states.collect()
    }

    fn checks(ledger: &Ledger, messages: &[(&str, u64)]) -> Vec<&'static str> {
        discrepancies(ledger, &queues(messages)).into_iter().map(|found| found.check).collect()
    }

    #[test]
    fn a_quiet_broker_balances_only_with_an_empty_ledger() {
        let mut ledger = Ledger::default();
        assert!(checks(&ledger, &[]).is_empty());
        assert_eq!(checks(&ledger, &[("warren.result", 1)]), ["nothing is left over"]);
        assert!(checks(&ledger, &[("warren.retry.600s", 1)]).is_empty(), "an old copy goes by itself");
        (ledger.tasks.released, ledger.released) = (2, vec![(TaskKind::Embed, 2)]);
        assert_eq!(checks(&ledger, &[("warren.task.embed", 1)]), ["each released task has a message"]);
        assert!(checks(&ledger, &[("warren.task.embed", 1), ("warren.retry.005s", 1)]).is_empty());
        let other = [("warren.task.embed", 1), ("warren.task.transcribe", 7)];
        assert_eq!(checks(&ledger, &other), ["each released task has a message"], "of its own kind");
        ledger.released.push((TaskKind::Transcribe, 1));
        let both = [("warren.task.embed", 1), ("warren.retry.005s", 1)];
        assert_eq!(checks(&ledger, &both), ["each released task has a message"], "one cannot stand for two");
        ledger.released.pop();
        ledger.unplanned = 1;
        assert_eq!(checks(&ledger, &[("warren.result", 2)]), ["each job without a plan has a command"]);
        ledger.outbox = 1;
        assert!(checks(&ledger, &[("warren.result", 2)]).is_empty(), "it is in the outbox");
    }

    #[test]
    fn every_letter_is_in_the_queue_and_in_the_index() {
        let ledger = Ledger { letters_in_queue: 2, ..Ledger::default() };
        assert!(checks(&ledger, &[("warren.dead", 2)]).is_empty());
        assert_eq!(checks(&ledger, &[("warren.dead", 1)]), ["dead letters are indexed"]);
        assert_eq!(checks(&ledger, &[("warren.dead", 3)]), ["dead letters are indexed"]);
    }

    #[test]
    fn a_missing_queue_is_named() {
        let found = discrepancies(&Ledger::default(), &[]);
        assert!(found.iter().any(|found| found.why.contains("warren.job is missing")), "{found:?}");
    }
}
