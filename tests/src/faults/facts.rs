//! What the database says, past all services.

use std::{collections::BTreeMap, time::Duration};

use sea_orm::{
    ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    Statement, TransactionTrait as _,
};

/// The rows of a stack's PostgreSQL database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Facts(DatabaseConnection);

/// Counts of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Jobs that were ever made.
    pub jobs: u64,
    /// Those that succeeded.
    pub succeeded: u64,
    /// All tasks.
    pub tasks: u64,
    /// Those that are done.
    pub done: u64,
    /// Those that are with the broker or a worker.
    pub released: u64,
    /// Vectors.
    pub vectors: u64,
    /// Outbox rows that were not published.
    pub unsent: u64,
    /// Dead letters that wait for a decision.
    pub letters: u64,
    /// Leases that somebody has.
    pub leases: u64,
    /// Jobs that were said to have succeeded more or less than once.
    pub told_twice: u64,
}

impl Counts {
    /// True when nothing is on its way and nobody holds anything.
    pub fn rest(&self) -> bool {
        self.unsent == 0 && self.leases == 0 && self.released == 0
    }
}

impl Facts {
    /// Connects.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn connect(url: &str) -> Result<Self, DbErr> {
        let mut options = ConnectOptions::new(url);
        options.max_connections(2).acquire_timeout(Duration::from_secs(2)).sqlx_logging(false);
        Database::connect(options).await.map(Self)
    }

    /// Keeps everybody else from the table `job` until the returned transaction is dropped.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn hold_jobs(&self) -> Result<DatabaseTransaction, DbErr> {
        let tx = self.0.begin().await?;
        tx.execute_unprepared("LOCK TABLE job IN ACCESS EXCLUSIVE MODE").await?;
        Ok(tx)
    }

    /// All counts.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn counts(&self) -> Result<Counts, DbErr> {
        let row = self
            .one(
                "SELECT (SELECT count(*) FROM job) AS jobs,
                    (SELECT count(*) FROM job WHERE state = 'succeeded') AS succeeded,
                    (SELECT count(*) FROM task) AS tasks,
                    (SELECT count(*) FROM task WHERE state = 'done') AS done,
                    (SELECT count(*) FROM task WHERE state = 'released') AS released,
                    (SELECT count(*) FROM embedding) AS vectors,
                    (SELECT count(*) FROM outbox) AS unsent,
                    (SELECT count(*) FROM dead_letter WHERE state = 'dead') AS letters,
                    (SELECT count(*) FROM lease) AS leases,
                    (SELECT count(*) FROM (
                        SELECT job_id FROM job_event WHERE event = 'job.succeeded' GROUP BY job_id HAVING count(*) > 1
                    ) AS twice) AS told_twice",
            )
            .await?;
        let count = |name: &str| row.try_get::<i64>("", name).map(|count| u64::try_from(count).unwrap_or(0));
        Ok(Counts {
            jobs: count("jobs")?,
            succeeded: count("succeeded")?,
            tasks: count("tasks")?,
            done: count("done")?,
            released: count("released")?,
            vectors: count("vectors")?,
            unsent: count("unsent")?,
            letters: count("letters")?,
            leases: count("leases")?,
            told_twice: count("told_twice")?,
        })
    }

    /// Texts' tasks that are done, and tasks of all kinds that are released.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn progress(&self) -> Result<(u64, u64), DbErr> {
        let row = self
            .one(
                "SELECT count(*) FILTER (WHERE state = 'done' AND kind = 'embed') AS done,
                    count(*) FILTER (WHERE state = 'released') AS released FROM task",
            )
            .await?;
        let count = |name: &str| row.try_get::<i64>("", name).map(|count| u64::try_from(count).unwrap_or(0));
        Ok((count("done")?, count("released")?))
    }

    /// Tasks that were done in each second of the clock.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn done_by_second(&self) -> Result<BTreeMap<i64, u64>, DbErr> {
        let sql = "SELECT finished_ms / 1000 AS second, count(*) AS n FROM task WHERE state = 'done' GROUP BY 1";
        let rows = self.0.query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
        let pair = |row: &sea_orm::QueryResult| -> Result<(i64, u64), DbErr> {
            Ok((row.try_get("", "second")?, u64::try_from(row.try_get::<i64>("", "n")?).unwrap_or(0)))
        };
        rows.iter().map(pair).collect()
    }

    /// Which PostgreSQL this is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn version(&self) -> Result<String, DbErr> {
        self.one("SHOW server_version").await?.try_get("", "server_version")
    }

    /// Who leads, and in which term.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn leader(&self) -> Result<(String, i64), DbErr> {
        let row = self.one("SELECT holder, term FROM leader").await?;
        Ok((row.try_get("", "holder")?, row.try_get("", "term")?))
    }

    /// Tasks that a worker was last known to run.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn running(&self, worker: &str) -> Result<u64, DbErr> {
        let sql =
            format!("SELECT coalesce(sum(json_array_length(running::json)), 0) AS n FROM worker WHERE id = '{worker}'");
        let row = self.one(&sql).await?;
        row.try_get::<i64>("", "n").map(|count| u64::try_from(count).unwrap_or(0))
    }

    /// Device leases that the worker's present process holds.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn leases_of(&self, worker: &str) -> Result<i64, DbErr> {
        let own = "lease.worker = worker.id AND lease.boot = worker.boot AND lease.state = 'granted'";
        self.number(&format!("SELECT count(*) AS n FROM lease JOIN worker ON {own} WHERE worker.id = '{worker}'")).await
    }

    /// The number that a query finds as `n`.
    ///
    /// # Errors
    /// When the database does not answer, or the query does not find one.
    pub async fn number(&self, sql: &str) -> Result<i64, DbErr> {
        self.one(sql).await?.try_get("", "n")
    }

    async fn one(&self, sql: &str) -> Result<sea_orm::QueryResult, DbErr> {
        let found = self.0.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
        found.ok_or_else(|| DbErr::RecordNotFound(sql.to_owned()))
    }
}
