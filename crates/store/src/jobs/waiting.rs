//! What the open tasks of one job wait for.

use uuid::Uuid;
use warren_clock::UnixMillis;
use warren_jobs::TaskKind;

use crate::{Reads, StoreError, sql};

/// Open tasks of one kind of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which kind.
    pub kind: TaskKind,
    /// Rows only.
    pub unreleased: u64,
    /// On their way to a worker, or in its hands.
    pub released: u64,
    /// Of the released ones: waiting for a later try.
    pub retry_later: u64,
    /// When the first of those is tried again.
    pub next_try: Option<UnixMillis>,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct Row {
    kind: String,
    unreleased: i64,
    released: i64,
    later: i64,
    next_ms: Option<i64>,
}

impl Reads<'_> {
    /// The open tasks of a job, by kind; a kind without any is left out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn waiting_of(&self, job: Uuid, now: UnixMillis) -> Result<Vec<Waiting>, StoreError> {
        let text = "SELECT kind, COUNT(CASE WHEN state = 'unreleased' THEN 1 END) AS unreleased,
                 COUNT(CASE WHEN state = 'released' THEN 1 END) AS released,
                 COUNT(CASE WHEN retry_until_ms > $2 THEN 1 END) AS later,
                 MIN(CASE WHEN retry_until_ms > $2 THEN retry_until_ms END) AS next_ms
             FROM task WHERE job_id = $1 AND state IN ('unreleased', 'released') GROUP BY kind ORDER BY kind";
        let rows: Vec<Row> = self.all(text, [job.into(), now.0.into()]).await?;
        let waiting = |row: Row| {
            Ok(Waiting {
                kind: sql::word("task.kind", &row.kind)?,
                unreleased: row.unreleased as u64,
                released: row.released as u64,
                retry_later: row.later as u64,
                next_try: row.next_ms.map(UnixMillis),
            })
        };
        rows.into_iter().map(waiting).collect()
    }
}
