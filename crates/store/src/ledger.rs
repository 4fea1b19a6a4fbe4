//! The ledger: whether everything that was accepted is accounted for, as far as the database can tell.
//!
//! Every sum and every check is one statement, so each sees one moment, also while work goes on.

use sea_orm::DbBackend;
use uuid::Uuid;
use warren_clock::UnixMillis;
use warren_jobs::{JobState, TaskKind, TaskState, state::TaskCounts};

use crate::{Reads, StoreError, sql};

/// Jobs named for one check; how many there are is told besides.
const EXAMPLES: u64 = 10;
/// Milliseconds that a due step may be late, before it counts as forgotten: the reaper's two rounds and some more.
const LATE_MS: i64 = 150_000;
/// Milliseconds that an expired lease or an unsent message may wait for the next leader: the grace of a lease, and the
/// longest hand-over.
const HAND_OVER_MS: i64 = 60_000;

/// The sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Jobs by state, in the order of [`JobState::ALL`]. Searches are jobs, too, until they are forgotten.
    pub jobs: Vec<(JobState, u64)>,
    /// Open jobs that have no plan yet.
    pub unplanned: u64,
    /// Tasks by state.
    pub tasks: TaskCounts,
    /// The released tasks of each kind, those that wait for a later retry included.
    pub released: Vec<(TaskKind, u64)>,
    /// Of the released tasks: those that wait for a later retry.
    pub retry_later: u64,
    /// Dead letters by state, each with the word of the state.
    pub letters: Vec<(String, u64)>,
    /// Letters that are in `warren.dead`.
    pub letters_in_queue: u64,
    /// Messages still to be sent.
    pub outbox: u64,
    /// When the oldest of them was written.
    pub outbox_oldest: Option<UnixMillis>,
    /// Of the messages still to be sent: tasks.
    pub outbox_tasks: u64,
    /// Device leases that are held or drain.
    pub leases: u64,
}

/// Something that does not add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discrepancy {
    /// What was checked.
    pub check: &'static str,
    /// Whose, e.g. `job_…`.
    pub subject: String,
    /// What should hold, and what does.
    pub why: String,
}

/// One check: a query of (`id`, `name`, `want`, `have`) that finds nothing when all is well.
struct Check {
    name: &'static str,
    /// What is wrong; `{want}` and `{have}` are replaced.
    why: &'static str,
    query: &'static str,
}

/// `{now}` is the present in milliseconds, `{late}` and `{hand_over}` the limits above.
const CHECKS: &[Check] = &[
    Check {
        name: "accepted jobs are there",
        why: "{want} jobs were accepted (audit), {have} are there",
        query: "SELECT NULL AS id, 'all jobs' AS name, CAST(sums.want AS DOUBLE PRECISION) AS want,
             CAST(sums.have AS DOUBLE PRECISION) AS have FROM (SELECT
                 (SELECT COUNT(*) FROM audit WHERE verb = 'submit')
                 - (SELECT COUNT(*) FROM audit WHERE verb = 'delete') AS want,
                 (SELECT COUNT(*) FROM job WHERE kind <> 'query') AS have) AS sums
             WHERE sums.want <> sums.have",
    },
    Check {
        name: "nothing outlives its job",
        why: "{have} tasks and vectors are of a job that is not there",
        query: "SELECT left_over.job_id AS id, NULL AS name, 0.0 AS want, CAST(COUNT(*) AS DOUBLE PRECISION) AS have
             FROM (SELECT job_id FROM task UNION ALL SELECT job_id FROM embedding) AS left_over
             WHERE NOT EXISTS (SELECT 1 FROM job WHERE job.id = left_over.job_id) GROUP BY left_over.job_id",
    },
    Check {
        name: "ended jobs have no open task",
        why: "the job has ended, and {have} of its tasks are open",
        query: "SELECT job.id AS id, NULL AS name, 0.0 AS want, CAST(COUNT(*) AS DOUBLE PRECISION) AS have
             FROM job JOIN task ON task.job_id = job.id
             WHERE job.state IN ('succeeded', 'failed', 'cancelled') AND task.state IN ('unreleased', 'released')
             GROUP BY job.id",
    },
    Check {
        name: "open jobs have open work",
        why: "the job is open, and all of its {have} tasks have ended: nothing will end it",
        query: "SELECT job.id AS id, NULL AS name, 0.0 AS want, CAST(COUNT(*) AS DOUBLE PRECISION) AS have
             FROM job JOIN task ON task.job_id = job.id WHERE job.state IN ('queued', 'running')
             GROUP BY job.id HAVING SUM(CASE WHEN task.state IN ('unreleased', 'released') THEN 1 ELSE 0 END) = 0",
    },
    Check {
        name: "succeeded jobs are complete",
        why: "the job succeeded, and {have} of its tasks are not done",
        query: "SELECT job.id AS id, NULL AS name, 0.0 AS want, CAST(COUNT(*) AS DOUBLE PRECISION) AS have
             FROM job JOIN task ON task.job_id = job.id WHERE job.state = 'succeeded' AND task.state <> 'done'
             GROUP BY job.id",
    },
    Check {
        name: "progress is the sum of its tasks",
        why: "the tasks that are done make {want} units, and progress says {have}",
        query: "SELECT id, name, want, have FROM (SELECT job.id AS id, NULL AS name, job.progress_done AS have,
                 (SELECT COALESCE(SUM(task.units), 0.0) FROM task
                     WHERE task.job_id = job.id AND task.state = 'done') AS want
                 FROM job WHERE job.state = 'succeeded') AS sums
             WHERE ABS(want - have) > 0.01 + 0.001 * ABS(want)",
    },
    Check {
        name: "failed jobs say why",
        why: "the job failed without an error code",
        query: "SELECT id, NULL AS name, 0.0 AS want, 0.0 AS have FROM job
             WHERE state = 'failed' AND COALESCE(error_code, '') = ''",
    },
    Check {
        name: "no job is past its deadline",
        why: "the job is open {have} s after its deadline",
        query: "SELECT id, NULL AS name, 0.0 AS want, ({now} - deadline_ms) / 1000.0 AS have FROM job
             WHERE state IN ('queued', 'running') AND deadline_ms < {now} - {late}",
    },
    Check {
        name: "events have no gaps",
        why: "the job counts {want} events, {have} are there",
        query: "SELECT id, name, want, have FROM (SELECT job.id AS id, NULL AS name,
                 CAST(job.sequence AS DOUBLE PRECISION) AS want,
                 CAST((SELECT COUNT(*) FROM job_event WHERE job_event.job_id = job.id) AS DOUBLE PRECISION) AS have
                 FROM job) AS sums WHERE want <> have",
    },
    Check {
        name: "each text has one vector",
        why: "the tasks that are done made {want} vectors, {have} are there",
        query: "SELECT id, name, want, have FROM (SELECT job.id AS id, NULL AS name,
                 (SELECT COALESCE(SUM(task.units), 0.0) FROM task
                     WHERE task.job_id = job.id AND task.kind = 'embed' AND task.state = 'done') AS want,
                 CAST((SELECT COUNT(*) FROM embedding
                     WHERE embedding.job_id = job.id) AS DOUBLE PRECISION) AS have
                 FROM job WHERE job.kind = 'embed') AS sums WHERE want <> have",
    },
    Check {
        name: "dead tasks have a letter",
        why: "{have} tasks are dead and have no letter",
        query: "SELECT task.job_id AS id, NULL AS name, 0.0 AS want, CAST(COUNT(*) AS DOUBLE PRECISION) AS have
             FROM task WHERE task.state = 'dead'
                 AND NOT EXISTS (SELECT 1 FROM dead_letter WHERE dead_letter.task_id = task.id)
             GROUP BY task.job_id",
    },
    Check {
        name: "fences grow",
        why: "a lease has fence {have}, beyond the device's last, {want}",
        query: "SELECT NULL AS id, lease.device AS name, CAST(device.last_fence AS DOUBLE PRECISION) AS want,
             CAST(lease.fence AS DOUBLE PRECISION) AS have
             FROM lease JOIN device ON device.name = lease.device WHERE lease.fence > device.last_fence",
    },
    Check {
        name: "devices are not overbooked",
        why: "{have} leases, of {want} at a time",
        query: "SELECT NULL AS id, device.name AS name, CAST(device.max_concurrent AS DOUBLE PRECISION) AS want,
             CAST(COUNT(*) AS DOUBLE PRECISION) AS have
             FROM device JOIN lease ON lease.device = device.name
             GROUP BY device.name, device.max_concurrent HAVING COUNT(*) > device.max_concurrent",
    },
    Check {
        name: "silent workers count as lost",
        why: "it counts as live, and was heard of {have} s ago",
        query: "SELECT NULL AS id, id AS name, 0.0 AS want, ({now} - heartbeat_ms) / 1000.0 AS have FROM worker
             WHERE state = 'live' AND heartbeat_ms < {now} - {late}",
    },
    Check {
        name: "the outbox is sent",
        why: "{have} messages wait to be sent for more than a minute",
        query: "SELECT NULL AS id, 'outbox' AS name, 0.0 AS want, CAST(COUNT(*) AS DOUBLE PRECISION) AS have
             FROM outbox WHERE created_ms < {now} - {hand_over} HAVING COUNT(*) > 0",
    },
];

#[derive(Debug, sea_orm::FromQueryResult)]
struct Found {
    id: Option<Uuid>,
    name: Option<String>,
    want: f64,
    have: f64,
    total: i64,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct Count {
    word: String,
    n: i64,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct Sums {
    unplanned: i64,
    retry_later: i64,
    letters_in_queue: i64,
    outbox: i64,
    outbox_tasks: i64,
    outbox_oldest: Option<i64>,
    leases: i64,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct Payload {
    payload: String,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct MediaObject {
    blob_key: String,
    size_bytes: i64,
}

impl Reads<'_> {
    /// The sums.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn ledger(&self) -> Result<Ledger, StoreError> {
        let jobs = self.count("SELECT state AS word, COUNT(*) AS n FROM job GROUP BY state").await?;
        let tasks = self.count("SELECT state AS word, COUNT(*) AS n FROM task GROUP BY state").await?;
        let released = "SELECT kind AS word, COUNT(*) AS n FROM task WHERE state = 'released' GROUP BY kind";
        let released = self.count(released).await?;
        let letters = self.count("SELECT state AS word, COUNT(*) AS n FROM dead_letter GROUP BY state").await?;
        let text = "SELECT
            (SELECT COUNT(*) FROM job WHERE state IN ('queued', 'running') AND NOT planned_final
                 AND NOT EXISTS (SELECT 1 FROM task WHERE task.job_id = job.id)) AS unplanned,
            (SELECT COUNT(*) FROM task WHERE state = 'released' AND retry_until_ms IS NOT NULL) AS retry_later,
            (SELECT COUNT(*) FROM dead_letter WHERE in_queue) AS letters_in_queue,
            (SELECT COUNT(*) FROM outbox) AS outbox,
            (SELECT COUNT(*) FROM outbox WHERE exchange = 'warren.task') AS outbox_tasks,
            (SELECT MIN(created_ms) FROM outbox) AS outbox_oldest,
            (SELECT COUNT(*) FROM lease) AS leases";
        let sums: Sums = self.one(text, []).await?.ok_or_else(|| StoreError::corrupt("sums without a row"))?;
        let mut ledger = Ledger {
            jobs: JobState::ALL.iter().map(|state| (*state, 0)).collect(),
            unplanned: sums.unplanned as u64,
            tasks: TaskCounts::default(),
            released: Vec::new(),
            retry_later: sums.retry_later as u64,
            letters: letters.into_iter().map(|Count { word, n }| (word, n as u64)).collect(),
            letters_in_queue: sums.letters_in_queue as u64,
            outbox: sums.outbox as u64,
            outbox_oldest: sums.outbox_oldest.map(UnixMillis),
            outbox_tasks: sums.outbox_tasks as u64,
            leases: sums.leases as u64,
        };
        for Count { word, n } in jobs {
            let state: JobState = sql::word("job.state", &word)?;
            ledger.jobs.iter_mut().filter(|(each, _)| *each == state).for_each(|(_, sum)| *sum += n as u64);
        }
        for Count { word, n } in tasks {
            let state: TaskState = sql::word("task.state", &word)?;
            ledger.tasks.add(state, n as u64);
        }
        for Count { word, n } in released {
            ledger.released.push((sql::word("task.kind", &word)?, n as u64));
        }
        ledger.letters.sort();
        Ok(ledger)
    }

    /// What does not add up; nothing, if all is well.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn discrepancies(&self) -> Result<Vec<Discrepancy>, StoreError> {
        let mut discrepancies = Vec::new();
        for check in CHECKS {
            let query = check
                .query
                .replace("{now}", &self.clock.now().0.to_string())
                .replace("{late}", &LATE_MS.to_string())
                .replace("{hand_over}", &HAND_OVER_MS.to_string());
            let text = format!(
                "SELECT id, name, CAST(want AS DOUBLE PRECISION) AS want, CAST(have AS DOUBLE PRECISION) AS have,
                     COUNT(*) OVER () AS total FROM ({query}) AS found LIMIT {EXAMPLES}"
            );
            let text = match self.backend {
                DbBackend::Sqlite => text,
                // A column of nothing but NULL has the type text there.
                _ => text.replace("NULL AS id", "CAST(NULL AS uuid) AS id"),
            };
            let found: Vec<Found> = self.all(text, []).await?;
            let more = found.first().map_or(0, |first| first.total - found.len() as i64);
            for (index, row) in found.iter().enumerate() {
                let subject = match (&row.id, &row.name) {
                    (Some(id), _) => format!("job_{}", id.hyphenated()),
                    (None, name) => name.clone().unwrap_or_default(),
                };
                let mut why = check.why.replace("{want}", &plain(row.want)).replace("{have}", &plain(row.have));
                if index + 1 == found.len() && more > 0 {
                    why = format!("{why}; and {more} others like it");
                }
                discrepancies.push(Discrepancy { check: check.name, subject, why });
            }
        }
        Ok(discrepancies)
    }

    /// Keys and sizes of all recordings.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn media_objects(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let rows: Vec<MediaObject> = self.all("SELECT blob_key, size_bytes FROM media", []).await?;
        Ok(rows.into_iter().map(|row| (row.blob_key, row.size_bytes)).collect())
    }

    /// What the open and the dead tasks are to do: the objects that are named there are still needed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn needed_payloads(&self) -> Result<Vec<String>, StoreError> {
        let text = "SELECT payload FROM task WHERE state IN ('unreleased', 'released', 'dead')";
        let rows: Vec<Payload> = self.all(text, []).await?;
        Ok(rows.into_iter().map(|row| row.payload).collect())
    }

    async fn count(&self, text: &str) -> Result<Vec<Count>, StoreError> {
        self.all(text, []).await
    }
}

fn plain(number: f64) -> String {
    if number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.2}") }
}
