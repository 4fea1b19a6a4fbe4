//! What every call has at hand.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;
use warren_blob::Blobs;
use warren_broker::Broker;
use warren_clock::Clock;
use warren_fault::Code;
use warren_host::Readiness;
use warren_messages::ids::JobId;
use warren_models::Catalogue;
use warren_relay::Relay;
use warren_store::{Job, Store};

use crate::{
    auth::Caller,
    hints::Hints,
    settings::Settings,
    status::{busy, invalid, not_found, of_store},
    uploads::Uploads,
    vectors::Vectors,
};

/// The parts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Parts {
    /// The database.
    pub(crate) store: Store,
    /// RabbitMQ.
    pub(crate) broker: Broker,
    /// Object storage.
    pub(crate) blobs: Blobs,
    /// Time and ids.
    pub(crate) clock: Clock,
    /// The outbox's way out.
    pub(crate) relay: Relay,
    /// Which jobs have just changed.
    pub(crate) hints: Hints,
    /// Which parts are there.
    pub(crate) readiness: Readiness,
    /// As read at the start.
    pub(crate) settings: Arc<Settings>,
    /// The models that may be asked for.
    pub(crate) catalogue: Arc<Catalogue>,
    /// Vectors of recent searches.
    pub(crate) vectors: Vectors,
    /// Uploads that run.
    pub(crate) uploads: Uploads,
    /// The process is to end: open streams are to end too.
    pub(crate) stopping: CancellationToken,
}

impl Parts {
    /// Puts the parts together.
    #[allow(clippy::too_many_arguments, reason = "it is the list of the parts")]
    pub(crate) fn new(
        store: Store,
        broker: Broker,
        blobs: Blobs,
        clock: Clock,
        relay: Relay,
        hints: Hints,
        readiness: Readiness,
        settings: Arc<Settings>,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            uploads: Uploads::new(&settings.limits),
            catalogue: Arc::new(Catalogue::builtin()),
            vectors: Vectors::default(),
            store,
            broker,
            blobs,
            clock,
            relay,
            hints,
            readiness,
            settings,
            stopping,
        }
    }

    /// The caller's job of this id.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when `field` holds no job id; `NOT_FOUND` when there is no such job, or it is somebody else's.
    pub(crate) async fn job(&self, caller: &Caller, field: &str, id: &str) -> Result<Job, Status> {
        let JobId(uuid) =
            id.parse().map_err(|error: warren_messages::ids::InvalidId| invalid(field, error.to_string()))?;
        self.job_of(caller, uuid).await
    }

    /// The same, by UUID.
    ///
    /// # Errors
    /// `NOT_FOUND` when there is no such job, or it is somebody else's.
    pub(crate) async fn job_of(&self, caller: &Caller, id: Uuid) -> Result<Job, Status> {
        let job = self.store.read().job(id).await.map_err(|error| of_store(&error))?;
        job.filter(|job| job.caller == caller.name).ok_or_else(|| not_found("job", &JobId(id).to_string()))
    }

    /// Refuses work that needs `part` while it is known to be away.
    ///
    /// # Errors
    /// `UNAVAILABLE` with the reason and when to try again.
    pub(crate) fn need(&self, part: &str, code: Code) -> Result<(), Status> {
        match self.readiness.down().get(part) {
            Some(reason) => Err(busy(code, format!("{part}: {reason}"))),
            None => Ok(()),
        }
    }
}
