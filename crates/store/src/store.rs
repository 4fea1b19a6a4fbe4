//! The handle, its transactions, and the leader's check inside them.

use std::{sync::Arc, time::Duration};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseExecutor, DatabaseTransaction, DbBackend, FromQueryResult,
    SqliteTransactionMode, TransactionOptions, TransactionTrait, Value,
};
use tokio::sync::{Mutex, OwnedMutexGuard};
use warren_clock::{Clock, UnixMillis};

use crate::{
    OutboxRow, SearchIndex, StoreError, StoreSettings, Term,
    connect::{Purpose, backend, connect},
    error::is_transient,
    migrate, sql,
};

/// How often a transaction that lost against another one is run.
const TRIES: u32 = 6;

/// The database. Cheap to clone; all clones share their connections.
#[derive(Clone, Debug)]
pub struct Store {
    /// PostgreSQL: the same pool as `writer`.
    readers: DatabaseConnection,
    writer: DatabaseConnection,
    backend: DbBackend,
    clock: Clock,
    archive: Arc<SearchIndex>,
    /// Held by the one transaction that writes as the leader.
    leading: Arc<Mutex<()>>,
}

/// One write transaction. Dropped without a commit, it changes nothing.
#[derive(Debug)]
pub struct Tx {
    pub(crate) inner: Arc<DatabaseTransaction>,
    pub(crate) backend: DbBackend,
    pub(crate) clock: Clock,
    /// What it wrote for the broker.
    pub(crate) outbox: std::sync::Mutex<Vec<OutboxRow>>,
    /// Let go of when it has ended.
    leading: Option<OwnedMutexGuard<()>>,
}

/// A transaction that was committed, before the leader's next one.
#[derive(Debug)]
pub struct Committed {
    /// Messages that are to be published now, in this order.
    pub outbox: Vec<OutboxRow>,
    _leading: Option<OwnedMutexGuard<()>>,
}

/// The reading methods, on the reader pool or inside a transaction.
#[derive(Debug)]
pub struct Reads<'c> {
    pub(crate) inner: DatabaseExecutor<'c>,
    pub(crate) backend: DbBackend,
    pub(crate) clock: Clock,
}

impl Store {
    /// Opens the database and checks that its schema is this build's.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it cannot be reached or its folder is missing, [`StoreError::Revision`] when
    /// `warren migrate` has to run first.
    pub async fn open(settings: &StoreSettings, clock: Clock) -> Result<Self, StoreError> {
        let url = settings.url.expose();
        let backend = backend(url)?;
        let readers = connect(url, Purpose::Shared { connections: settings.max_connections }).await?;
        migrate::check(&readers).await?;
        let writer = match backend {
            DbBackend::Sqlite => connect(url, Purpose::Writer).await?,
            _ => readers.clone(),
        };
        let archive = Arc::new(SearchIndex::new(readers.clone(), backend, clock.clone()));
        Ok(Self { readers, writer, backend, clock, archive, leading: Arc::default() })
    }

    /// Reads, each statement for itself.
    pub fn read(&self) -> Reads<'_> {
        Reads { inner: (&self.readers).into(), backend: self.backend, clock: self.clock.clone() }
    }

    /// The searchable archive.
    pub fn archive(&self) -> &SearchIndex {
        &self.archive
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        self.backend == DbBackend::Sqlite
    }

    /// The clock that the store was opened with.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// True when the database answers, to a reader and to a writer.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Busy`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.readers.ping().await?;
        if self.backend == DbBackend::Sqlite {
            self.writer.ping().await?;
        }
        Ok(())
    }

    /// Waits for the running statements and closes all connections.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when a connection was already gone.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.writer.close_by_ref().await?;
        self.readers.close_by_ref().await?;
        Ok(())
    }

    /// Runs `work` in one transaction and commits it, unless it returns an error. After a deadlock or a serialisation
    /// failure a clone of it is run again, so it must do nothing but talk to `Tx`, and keep no state.
    ///
    /// `Tx` is passed by value so that the future is `Send` whatever the closure borrows.
    ///
    /// # Errors
    /// What `work` returned, or why the transaction could not be begun or committed.
    pub async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        F: AsyncFnOnce(Tx) -> Result<T, StoreError> + Clone,
    {
        let mut tried = 0;
        loop {
            tried += 1;
            match self.attempt(work.clone()).await {
                Err(error) if tried < TRIES && is_transient(&error, self.backend == DbBackend::Sqlite) => {
                    let most = 10_u64 << tried;
                    let wait = Duration::from_millis(most / 2).mul_f64(1.0 + self.clock.jitter());
                    tracing::debug!(%error, tried, wait_ms = wait.as_millis(), "transaction lost a race; again");
                    tokio::time::sleep(wait).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Like [`Store::begin`], for the leader: nobody else can begin a term until the transaction ends.
    ///
    /// The leader's transactions come one after the other. What one of them reads of jobs and tasks, and decides from, no
    /// other changes before it has written: PostgreSQL would let two of them each see the other's task still open, and
    /// neither end the job. Call it only once nothing slow is left to be waited for.
    ///
    /// # Errors
    /// [`StoreError::TermLost`] when another coordinator leads or none does; otherwise as [`Store::begin`].
    pub async fn begin_as_leader(&self, term: Term) -> Result<Tx, StoreError> {
        let leading = self.leading.clone().lock_owned().await;
        let tx = Tx { leading: Some(leading), ..self.begin().await? };
        tx.hold_term(term).await?;
        Ok(tx)
    }

    async fn attempt<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        F: AsyncFnOnce(Tx) -> Result<T, StoreError> + Clone,
    {
        let tx = self.begin().await?;
        let inner = tx.inner.clone();
        let outcome = work(tx).await;
        let inner = Arc::into_inner(inner).ok_or_else(StoreError::kept_transaction)?;
        match outcome {
            Ok(value) => {
                inner.commit().await?;
                Ok(value)
            }
            Err(error) => {
                // The connection may be the reason; dropping the transaction rolls back all the same.
                if let Err(rollback) = inner.rollback().await {
                    tracing::debug!(error = %rollback, "rollback failed");
                }
                Err(error)
            }
        }
    }

    /// Begins a write transaction. Nothing is changed until [`Tx::commit`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], or [`StoreError::Busy`] when another writer would not give way.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        // SQLite: taking the write lock first is what keeps two writers from both reading and then both upgrading,
        // which fails at once, whatever the busy timeout.
        let options = TransactionOptions {
            sqlite_transaction_mode: (self.backend == DbBackend::Sqlite).then_some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        // On a task of its own: a caller that goes away while the database is slow to answer BEGIN would leave a connection
        // to others on which a transaction has begun.
        let writer = self.writer.clone();
        let begun = tokio::spawn(async move { writer.begin_with_options(options).await }).await;
        let inner = begun.map_err(|_| StoreError::Unavailable { reason: "the process is ending".to_owned() })??;
        Ok(Tx {
            inner: Arc::new(inner),
            backend: self.backend,
            clock: self.clock.clone(),
            outbox: std::sync::Mutex::default(),
            leading: None,
        })
    }
}

impl Tx {
    /// Makes the changes durable, all or none.
    ///
    /// # Errors
    /// Why they are not; after a lost connection it is not known whether they are.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.commit_in_order().await.map(drop)
    }

    /// The same, and says what is to be published. The leader's next transaction begins when what this returns is dropped,
    /// so that what is kept in memory of the rows can follow commits in their order.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub async fn commit_in_order(self) -> Result<Committed, StoreError> {
        let inner = Arc::into_inner(self.inner).ok_or_else(StoreError::kept_transaction)?;
        inner.commit().await?;
        let outbox = self.outbox.into_inner().unwrap_or_default();
        Ok(Committed { outbox, _leading: self.leading })
    }

    /// The reading methods, seeing what this transaction changed.
    pub fn read(&self) -> Reads<'_> {
        Reads { inner: (&*self.inner).into(), backend: self.backend, clock: self.clock.clone() }
    }

    /// Now, by the store's clock.
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Rows affected.
    pub(crate) async fn execute(
        &self,
        text: impl Into<String> + Send,
        values: impl IntoIterator<Item = Value> + Send,
    ) -> Result<u64, StoreError> {
        let statement = sql::statement(self.backend, text, values);
        Ok(self.inner.execute_raw(statement).await?.rows_affected())
    }
}

impl Reads<'_> {
    /// A statement that has neither values nor rows.
    pub(crate) async fn run(&self, text: String) -> Result<(), StoreError> {
        self.inner.execute_raw(sql::statement(self.backend, text, [])).await?;
        Ok(())
    }

    pub(crate) async fn all<M: FromQueryResult>(
        &self,
        text: impl Into<String> + Send,
        values: impl IntoIterator<Item = Value> + Send,
    ) -> Result<Vec<M>, StoreError> {
        let statement = sql::statement(self.backend, text, values);
        let rows = self.inner.query_all_raw(statement).await?;
        rows.iter().map(|row| M::from_query_result(row, "").map_err(StoreError::from)).collect()
    }

    pub(crate) async fn one<M: FromQueryResult>(
        &self,
        text: impl Into<String> + Send,
        values: impl IntoIterator<Item = Value> + Send,
    ) -> Result<Option<M>, StoreError> {
        let statement = sql::statement(self.backend, text, values);
        let row = self.inner.query_one_raw(statement).await?;
        row.map(|row| M::from_query_result(&row, "").map_err(StoreError::from)).transpose()
    }
}
