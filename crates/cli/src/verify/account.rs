//! One look at everything.

use serde_json::{Value, json};
use warren_blob::Blobs;
use warren_broker::{BrokerSettings, management};
use warren_jobs::JobState;
use warren_store::{Discrepancy, Ledger, Store};

use super::{
    away,
    objects::{self, Objects},
    queues::{self, Messages},
};
use crate::{error::CliError, output};

/// What is where, and what does not add up.
#[derive(Debug)]
pub(super) struct Account {
    ledger: Ledger,
    messages: Messages,
    objects: Objects,
    discrepancies: Vec<Discrepancy>,
}

impl Account {
    /// Looks once.
    ///
    /// # Errors
    /// [`CliError::OutOfReach`] when a part cannot be asked.
    pub(super) async fn of(store: &Store, broker: &BrokerSettings, blobs: &Blobs) -> Result<Self, CliError> {
        let read = store.read();
        let mut discrepancies = read.discrepancies().await.map_err(away("the database"))?;
        let ledger = read.ledger().await.map_err(away("the database"))?;
        let found = management::queues(broker).await.map_err(away("the broker"))?;
        discrepancies.extend(queues::discrepancies(&ledger, &found));
        let (objects, missing) = objects::look(store, blobs).await?;
        discrepancies.extend(missing);
        Ok(Self { ledger, messages: Messages::count(&found), objects, discrepancies })
    }

    pub(super) fn balances(&self) -> bool {
        self.discrepancies.is_empty()
    }

    fn jobs(&self) -> u64 {
        self.ledger.jobs.iter().map(|(_, jobs)| jobs).sum()
    }

    pub(super) fn json(&self) -> Value {
        let Self { ledger, messages, objects, discrepancies } = self;
        let tasks = &ledger.tasks;
        let jobs: serde_json::Map<String, Value> =
            ledger.jobs.iter().map(|(state, jobs)| (state.as_str().to_owned(), (*jobs).into())).collect();
        let letters: serde_json::Map<String, Value> =
            ledger.letters.iter().map(|(state, letters)| (state.clone(), (*letters).into())).collect();
        json!({
            "balances": self.balances(),
            "differences": discrepancies.iter().map(|found| json!({
                "check": found.check, "subject": found.subject, "why": found.why,
            })).collect::<Vec<_>>(),
            "jobs": { "submitted": self.jobs(), "by_state": jobs, "unplanned": ledger.unplanned },
            "tasks": {
                "planned": tasks.total(), "unreleased": tasks.unreleased, "released": tasks.released,
                "retry_later": ledger.retry_later, "done": tasks.done, "failed": tasks.failed, "dead": tasks.dead,
                "cancelled": tasks.cancelled,
            },
            "letters": { "by_state": letters, "in_queue": ledger.letters_in_queue },
            "outbox": { "unsent": ledger.outbox, "oldest_ms": ledger.outbox_oldest.map(|at| at.0) },
            "messages": {
                "work": messages.work, "later": messages.later, "results": messages.results,
                "commands": messages.commands, "dead": messages.dead, "unindexed": messages.unindexed,
            },
            "objects": { "count": objects.count, "bytes": objects.bytes, "orphans": objects.orphans },
            "leases": ledger.leases,
        })
    }

    pub(super) fn show(&self) -> Result<(), CliError> {
        let Self { ledger, messages, objects, discrepancies } = self;
        let of = |state: JobState| ledger.jobs.iter().find(|(each, _)| *each == state).map_or(0, |(_, jobs)| *jobs);
        let tasks = &ledger.tasks;
        let mut table = output::table(&["", "", "of which"]);
        table.add_row([
            "jobs".to_owned(),
            self.jobs().to_string(),
            format!(
                "{} succeeded + {} failed + {} cancelled + {} open",
                of(JobState::Succeeded),
                of(JobState::Failed),
                of(JobState::Cancelled),
                of(JobState::Queued) + of(JobState::Running)
            ),
        ]);
        table.add_row([
            "tasks".to_owned(),
            tasks.total().to_string(),
            format!(
                "{} done + {} failed + {} dead + {} cancelled + {} open ({} released)",
                tasks.done,
                tasks.failed,
                tasks.dead,
                tasks.cancelled,
                tasks.open(),
                tasks.released
            ),
        ]);
        table.add_row([
            "messages".to_owned(),
            (messages.work + messages.later + messages.results + messages.commands).to_string(),
            format!(
                "{} tasks + {} retried later + {} results + {} commands",
                messages.work, messages.later, messages.results, messages.commands
            ),
        ]);
        let letters: Vec<_> = ledger.letters.iter().map(|(state, letters)| format!("{letters} {state}")).collect();
        table.add_row(["dead letters".to_owned(), messages.dead.to_string(), letters.join(" + ")]);
        let unsent = format!("{} to be sent", ledger.outbox);
        table.add_row(["outbox".to_owned(), ledger.outbox.to_string(), unsent]);
        table.add_row([
            "objects".to_owned(),
            objects.count.to_string(),
            format!("{:.1} MB; {} that nobody needs any more", objects.bytes as f64 / 1e6, objects.orphans),
        ]);
        table.add_row(["leases".to_owned(), ledger.leases.to_string(), String::new()]);
        output::line(table)?;
        if self.balances() {
            return output::line("✓ everything is accounted for");
        }
        let mut table = output::table(&["what should hold", "where", "what is wrong"]);
        for found in discrepancies {
            table.add_row([found.check, &found.subject, &found.why]);
        }
        output::line(table)?;
        match discrepancies.len() {
            1 => output::line("✗ 1 difference"),
            many => output::line(format_args!("✗ {many} differences")),
        }
    }
}
