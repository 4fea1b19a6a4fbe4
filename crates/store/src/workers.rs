//! Worker processes, as the leader saw them last.

use std::time::Duration;

use serde_json::json;
use warren_clock::UnixMillis;
use warren_jobs::TaskKind;

use crate::{Reads, StoreError, Tx, entity::worker, sql};

/// A worker process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Its stable name, e.g. `transcription-1`.
    pub id: String,
    /// New for each process.
    pub boot: String,
    /// `transcription` or `batch-embedding`.
    pub service: String,
    /// What it takes, and how many tasks of each kind it can run at once.
    pub takes: Vec<(TaskKind, i64)>,
    /// Its build.
    pub version: String,
    /// False: lost.
    pub live: bool,
    /// When it was last heard of.
    pub heartbeat: UnixMillis,
    /// What it runs, as JSON.
    pub running: String,
    /// Why it takes no work, by its own words; empty when it does.
    pub trouble: String,
    /// The last time that something went wrong in its hands; kept by [`Tx::worker_error`] alone.
    pub last_error: Option<LastError>,
}

/// What went wrong last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// For people, with the code and the task.
    pub message: String,
    /// When.
    pub at: UnixMillis,
}

impl Tx {
    /// Records what a group of workers said of themselves, each by its name; the last of a name counts.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn upsert_workers(&self, workers: &[Worker]) -> Result<(), StoreError> {
        use sql::Column::{Int, Text};
        let newest: std::collections::BTreeMap<&str, &Worker> =
            workers.iter().map(|worker| (worker.id.as_str(), worker)).collect();
        let columns = [
            Text("id"),
            Text("boot"),
            Text("service"),
            Text("kinds"),
            Int("slots"),
            Text("version"),
            Text("state"),
            Int("heartbeat_ms"),
            Text("running"),
            Text("trouble"),
        ];
        let text = format!(
            "INSERT INTO worker (id, boot, service, kinds, slots, version, state, heartbeat_ms, running,
                 trouble)
             SELECT v.id, v.boot, v.service, v.kinds, v.slots, v.version, v.state, v.heartbeat_ms, v.running, v.trouble
             FROM {}
             WHERE true ON CONFLICT (id) DO UPDATE SET boot = excluded.boot, service = excluded.service,
                 kinds = excluded.kinds, slots = excluded.slots, version = excluded.version, state = excluded.state,
                 heartbeat_ms = excluded.heartbeat_ms, running = excluded.running,
                 trouble = excluded.trouble",
            sql::table(self.backend, 1, &columns)
        );
        let list = sql::list(newest.values().map(|worker| {
            let kinds: Vec<_> = worker.takes.iter().map(|(kind, slots)| format!("{kind}:{slots}")).collect();
            let slots: i64 = worker.takes.iter().map(|(_, slots)| slots).sum();
            json!({
                "id": sql::text(&worker.id), "boot": sql::text(&worker.boot), "service": sql::text(&worker.service),
                "kinds": kinds.join(" "), "slots": slots, "version": sql::text(&worker.version),
                "state": if worker.live { "live" } else { "lost" },
                "heartbeat_ms": worker.heartbeat.0, "running": sql::text(&worker.running),
                "trouble": sql::text(&worker.trouble),
            })
        }));
        self.execute(text, [list]).await?;
        Ok(())
    }

    /// Notes that something went wrong in a worker's hands. Unknown workers are ignored.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn worker_error(&self, id: &str, message: &str) -> Result<(), StoreError> {
        let text = "UPDATE worker SET last_error = $2, last_error_ms = $3 WHERE id = $1";
        self.execute(text, [sql::text(id).into(), sql::text(message).into(), self.now().0.into()]).await?;
        Ok(())
    }

    /// Marks the workers lost that were last heard of longer than `age` ago, and returns them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn mark_silent_workers_lost(&self, age: Duration) -> Result<Vec<Worker>, StoreError> {
        let before = self.now().0.saturating_sub(age.as_millis() as i64);
        let text = "UPDATE worker SET state = 'lost' WHERE state = 'live' AND heartbeat_ms < $1 RETURNING *";
        read(self.read().all(text, [before.into()]).await?)
    }

    /// Marks one process of a worker lost. False: it is not the current one, or was lost before.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn mark_worker_lost(&self, id: &str, boot: &str) -> Result<bool, StoreError> {
        let text = "UPDATE worker SET state = 'lost' WHERE state = 'live' AND id = $1 AND boot = $2";
        Ok(self.execute(text, [id.into(), boot.into()]).await? == 1)
    }

    /// Forgets one process of a worker.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn forget_worker(&self, id: &str, boot: &str) -> Result<(), StoreError> {
        self.execute("DELETE FROM worker WHERE id = $1 AND boot = $2", [id.into(), boot.into()]).await?;
        Ok(())
    }

    /// Forgets lost workers last heard of longer than `age` ago. Returns how many.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn purge_workers(&self, age: Duration) -> Result<u64, StoreError> {
        let before = self.now().0.saturating_sub(age.as_millis() as i64);
        self.execute("DELETE FROM worker WHERE state = 'lost' AND heartbeat_ms < $1", [before.into()]).await
    }
}

impl Reads<'_> {
    /// All workers, by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn workers(&self) -> Result<Vec<Worker>, StoreError> {
        read(self.all("SELECT * FROM worker ORDER BY id", []).await?)
    }
}

fn read(rows: Vec<worker::Model>) -> Result<Vec<Worker>, StoreError> {
    rows.into_iter()
        .map(|row| {
            let takes = row.kinds.split_whitespace().map(|takes| {
                // Rows of earlier builds name only the kind.
                let (kind, slots) = takes.split_once(':').unwrap_or((takes, ""));
                Ok((sql::word("worker.kinds", kind)?, slots.parse().unwrap_or(row.slots)))
            });
            Ok(Worker {
                takes: takes.collect::<Result<_, StoreError>>()?,
                id: row.id,
                boot: row.boot,
                service: row.service,
                version: row.version,
                live: row.state == "live",
                heartbeat: UnixMillis(row.heartbeat_ms),
                running: row.running,
                trouble: row.trouble,
                last_error: row
                    .last_error
                    .zip(row.last_error_ms)
                    .map(|(message, at)| LastError { message, at: UnixMillis(at) }),
            })
        })
        .collect()
}
