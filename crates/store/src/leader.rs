//! Who leads. The row's term decides: every write of a leader checks it in its own transaction.

use std::time::Duration;

use sea_orm::DbBackend;
use warren_clock::UnixMillis;

use crate::{Reads, Store, StoreError, Tx, sql};

/// Number of a leadership. A later leader has a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub i64);

/// The leader's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// 0: nobody has ever led.
    pub term: Term,
    /// Name of the process.
    pub holder: String,
    /// Where workers find it.
    pub address: String,
    /// When its term ends unless it is renewed.
    pub expires: UnixMillis,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct Row {
    term: i64,
    holder: String,
    address: String,
    expires_ms: i64,
}

impl Store {
    /// Takes the lead if the present term has expired or is `holder`'s own. `None`: another one leads.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Busy`].
    pub async fn try_lead(&self, holder: &str, address: &str, ttl: Duration) -> Result<Option<Term>, StoreError> {
        // Standbys ask every second; they need not take the write lock to hear that somebody leads.
        let now = self.read().database_now().await?;
        if let Some(leader) = self.read().leader().await?
            && leader.expires > now
            && leader.holder != holder
        {
            return Ok(None);
        }
        self.write(async |tx| tx.take_lead(holder, address, ttl).await).await
    }

    /// Keeps the lead for another `ttl`. False: the term is over.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Busy`].
    pub async fn renew(&self, term: Term, ttl: Duration) -> Result<bool, StoreError> {
        self.write(async |tx| {
            // A plain update does not disturb the transactions that hold the row's key (see `hold_term`).
            let (now, mut values) = tx.clock(3);
            let text = format!(
                "UPDATE leader SET expires_ms = {now} + $2 WHERE singleton = 1 AND term = $1 AND expires_ms > {now}"
            );
            values.splice(0..0, [term.0.into(), millis(ttl).into()]);
            Ok(tx.execute(text, values).await? == 1)
        })
        .await
    }

    /// Gives the lead up, so that another one may take it at once. False: the term was over.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Busy`].
    pub async fn resign(&self, term: Term) -> Result<bool, StoreError> {
        self.write(async |tx| {
            let text = "UPDATE leader SET expires_ms = 0 WHERE singleton = 1 AND term = $1 AND expires_ms > 0";
            Ok(tx.execute(text, [term.0.into()]).await? == 1)
        })
        .await
    }
}

impl Reads<'_> {
    /// The leader's row; expired or not.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn leader(&self) -> Result<Option<Leader>, StoreError> {
        let text = "SELECT term, holder, address, expires_ms FROM leader WHERE term > 0";
        let row: Option<Row> = self.one(text, []).await?;
        Ok(row.map(|row| Leader {
            term: Term(row.term),
            holder: row.holder,
            address: row.address,
            expires: UnixMillis(row.expires_ms),
        }))
    }

    /// Now, by the clock that terms are measured with: the server's on PostgreSQL, so that hosts need not agree; this
    /// process's on SQLite, which one host uses.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn database_now(&self) -> Result<UnixMillis, StoreError> {
        if self.backend == DbBackend::Sqlite {
            return Ok(self.clock.now());
        }
        let found: Option<sql::Number> = self.one(format!("SELECT {SERVER_NOW} AS n"), []).await?;
        Ok(UnixMillis(found.map_or(0, |found| found.n)))
    }
}

const SERVER_NOW: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

impl Tx {
    /// An expression for now, and the value that it needs as parameter number `parameter`.
    fn clock(&self, parameter: u32) -> (String, Vec<sea_orm::Value>) {
        match self.backend {
            DbBackend::Sqlite => (format!("${parameter}"), vec![self.now().0.into()]),
            _ => (SERVER_NOW.to_owned(), Vec::new()),
        }
    }

    async fn take_lead(&self, holder: &str, address: &str, ttl: Duration) -> Result<Option<Term>, StoreError> {
        if self.backend != DbBackend::Sqlite {
            // Waits for the transactions of the old term that are under way, and holds up those to come.
            let text = "SELECT term AS n FROM leader WHERE singleton = 1 FOR UPDATE";
            let _: Option<sql::Number> = self.read().one(text, []).await?;
        }
        let (now, mut values) = self.clock(4);
        let text = format!(
            "UPDATE leader SET term = term + 1, holder = $1, address = $2, expires_ms = {now} + $3
             WHERE singleton = 1 AND (expires_ms <= {now} OR holder = $1) RETURNING term AS n"
        );
        values.splice(0..0, [holder.into(), address.into(), millis(ttl).into()]);
        let found: Option<sql::Number> = self.read().one(text, values).await?;
        Ok(found.map(|found| Term(found.n)))
    }

    /// Makes sure that no other term begins before this transaction ends.
    ///
    /// PostgreSQL: `FOR KEY SHARE` is shared by all writes of the leader and left alone by [`Store::renew`], but
    /// `FOR UPDATE` in `take_lead` waits for it. SQLite: the write lock is held already.
    pub(crate) async fn hold_term(&self, term: Term) -> Result<(), StoreError> {
        let (now, mut values) = self.clock(2);
        let lock = if self.backend == DbBackend::Sqlite { "" } else { " FOR KEY SHARE" };
        let text =
            format!("SELECT term AS n FROM leader WHERE singleton = 1 AND term = $1 AND expires_ms > {now}{lock}");
        values.insert(0, term.0.into());
        let found: Option<sql::Number> = self.read().one(text, values).await?;
        found.map(|_| ()).ok_or(StoreError::TermLost)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
