//! A fresh database, and rows to begin with.

use tempfile::TempDir;
use uuid::Uuid;
use warren_clock::{Clock, UnixMillis};
use warren_jobs::{JobClass, JobKind, TaskKind};
use warren_store::{JobLimits, NewJob, NewTask, Store, StoreSettings, SubmitRequest, Submitted, Want, migrate};

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) url: String,
    _folder: Option<TempDir>,
}

impl World {
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("warren store.sqlite").display());
        Self::at(url, Some(folder)).await
    }

    pub(crate) async fn postgres() -> Self {
        let url = tokio::task::spawn_blocking(warren_local::postgres::for_tests).await.unwrap();
        Self::at(url, None).await
    }

    async fn at(url: String, folder: Option<TempDir>) -> Self {
        migrate::up(&url).await.unwrap();
        let clock = Clock::manual(UnixMillis(1_700_000_000_000));
        let store = Store::open(&StoreSettings::at(&url), clock.clone()).await.unwrap();
        Self { store, clock, url, _folder: folder }
    }

    /// The same database through other connections, like another process.
    pub(crate) async fn another(&self) -> Store {
        Store::open(&StoreSettings::at(&self.url), self.clock.clone()).await.unwrap()
    }

    pub(crate) fn new_job(&self) -> NewJob {
        NewJob {
            id: self.clock.new_id(),
            caller: "ada".into(),
            kind: JobKind::Embed,
            class: JobClass::Default,
            media_id: None,
            name: "notes".into(),
            spec: "{}".into(),
            model: "all-MiniLM-L6-v2".into(),
            language: None,
            limits: JobLimits { timeout_s: 21_600, ..JobLimits::default() },
            progress_planned: 3.0,
            resubmitted_from: None,
        }
    }

    pub(crate) async fn submit(&self, new: NewJob) -> Uuid {
        let submitted = self.store.write(async |tx| tx.submit(&new, &SubmitRequest::default()).await).await.unwrap();
        assert!(matches!(submitted, Submitted::New(_)));
        new.id
    }

    pub(crate) async fn job(&self) -> Uuid {
        self.submit(self.new_job()).await
    }

    pub(crate) fn task(&self, job: Uuid, ordinal: i64) -> NewTask {
        NewTask {
            id: self.clock.new_id(),
            job_id: job,
            kind: TaskKind::Embed,
            ordinal,
            payload: format!("{{\"n\":{ordinal}}}"),
            cost: 1.5,
            units: 2.0,
        }
    }

    /// Plans `planned` tasks of a new job and releases the first `released`.
    pub(crate) async fn job_with_tasks(&self, planned: i64, released: u64) -> Uuid {
        let job = self.job().await;
        let tasks: Vec<_> = (0..planned).map(|ordinal| self.task(job, ordinal)).collect();
        let want = Want { job, kind: TaskKind::Embed, count: released };
        self.store
            .write(async |tx| {
                tx.insert_tasks(&tasks).await?;
                tx.release_next(&[want]).await
            })
            .await
            .unwrap();
        job
    }
}
