//! What happened to a job. Sequence numbers have no gaps: they are the resume token of everybody who watches.

use sea_orm::{ActiveValue, EntityTrait};
use serde_json::Value as Json;
use uuid::Uuid;
use warren_clock::UnixMillis;

use crate::{Reads, StoreError, Tx, entity::job_event, sql};

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventLevel {
    /// As expected.
    Info,
    /// Trouble that mends itself.
    Warning,
    /// Trouble that the job's result shows.
    Error,
}

impl EventLevel {
    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl std::str::FromStr for EventLevel {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        [Self::Info, Self::Warning, Self::Error].into_iter().find(|level| level.as_str() == word).ok_or(())
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// How much it matters.
    pub level: EventLevel,
    /// Dotted name, e.g. `task.retry_later`.
    pub event: String,
    /// For people.
    pub message: String,
    /// For programs: a JSON object.
    pub fields: Json,
}

impl NewEvent {
    /// An event without fields.
    pub fn new(level: EventLevel, event: impl Into<String>, message: impl Into<String>) -> Self {
        Self { level, event: event.into(), message: message.into(), fields: Json::Object(serde_json::Map::new()) }
    }

    /// The same event with `fields`.
    #[must_use]
    pub fn with(mut self, fields: Json) -> Self {
        self.fields = fields;
        self
    }
}

/// Something that happened, as recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct JobEvent {
    /// To which job.
    pub job_id: Uuid,
    /// 1, 2, 3, … within the job.
    pub sequence: i64,
    /// What.
    pub event: NewEvent,
    /// When.
    pub at: UnixMillis,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct Sequence {
    id: Uuid,
    sequence: i64,
}

impl Tx {
    /// Adds an event and returns its sequence number.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when there is no such job.
    pub async fn event(&self, job: Uuid, event: &NewEvent) -> Result<i64, StoreError> {
        let text = "UPDATE job SET sequence = sequence + 1 WHERE id = $1 RETURNING id, sequence";
        let found: Option<Sequence> = self.read().one(text, [job.into()]).await?;
        let found = found.ok_or_else(|| StoreError::Conflict { reason: format!("event: there is no job {job}") })?;
        self.record(&[(found.id, found.sequence, event)]).await?;
        Ok(found.sequence)
    }

    pub(super) async fn record(&self, events: &[(Uuid, i64, &NewEvent)]) -> Result<(), StoreError> {
        let at = self.now().0;
        for group in events.chunks(500) {
            let rows = group.iter().map(|(job, sequence, event)| job_event::ActiveModel {
                job_id: ActiveValue::Set(*job),
                sequence: ActiveValue::Set(*sequence),
                level: ActiveValue::Set(event.level.as_str().to_owned()),
                event: ActiveValue::Set(event.event.clone()),
                message: ActiveValue::Set(sql::text(&event.message)),
                fields: ActiveValue::Set(event.fields.to_string()),
                at_ms: ActiveValue::Set(at),
            });
            job_event::Entity::insert_many(rows).exec_without_returning(&*self.inner).await?;
        }
        Ok(())
    }
}

impl Reads<'_> {
    /// Events after sequence number `after`, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn events_after(&self, job: Uuid, after: i64, limit: u64) -> Result<Vec<JobEvent>, StoreError> {
        let text = "SELECT * FROM job_event WHERE job_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3";
        read(self.all(text, [job.into(), after.into(), (limit as i64).into()]).await?)
    }

    /// The newest events, newest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn newest_events(&self, job: Uuid, limit: u64) -> Result<Vec<JobEvent>, StoreError> {
        let text = "SELECT * FROM job_event WHERE job_id = $1 ORDER BY sequence DESC LIMIT $2";
        read(self.all(text, [job.into(), (limit as i64).into()]).await?)
    }
}

fn read(rows: Vec<job_event::Model>) -> Result<Vec<JobEvent>, StoreError> {
    rows.into_iter()
        .map(|row| {
            let fields = serde_json::from_str(&row.fields)
                .map_err(|error| StoreError::corrupt(format!("job_event.fields: {error}")))?;
            let level = sql::word("job_event.level", &row.level)?;
            let event = NewEvent { level, event: row.event, message: row.message, fields };
            Ok(JobEvent { job_id: row.job_id, sequence: row.sequence, event, at: UnixMillis(row.at_ms) })
        })
        .collect()
}
