//! One generation of the two connections. When either is in doubt, both are given up and a new generation is made.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lapin::{Channel, Connection, ConnectionProperties, types::LongString};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    BrokerSettings,
    post::{CARRIERS, Post},
    topology,
};

/// A handshake that takes longer is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A farewell that takes longer is skipped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Link {
    pub(crate) publishing: Connection,
    pub(crate) consuming: Connection,
    /// Not in confirm mode: for hints.
    pub(crate) hints: Channel,
    /// Channels in confirm mode without a publish in flight.
    pub(crate) idle: Mutex<Vec<Channel>>,
    /// Channels that may be on their way to being opened.
    pub(crate) openings: Arc<Semaphore>,
    pub(crate) post: Mutex<Post>,
    pub(crate) permits: Arc<Semaphore>,
    lost: CancellationToken,
    why: Mutex<Option<String>>,
}

impl Link {
    pub(crate) async fn open(settings: &BrokerSettings, name: &str) -> Result<Self, String> {
        let uri = settings.uri()?;
        let connect = async |role: &str| {
            let name = LongString::from(format!("warren {name} {role}"));
            let properties = ConnectionProperties::default().with_connection_name(name);
            tokio::time::timeout(CONNECT_TIMEOUT, Connection::connect_uri(uri.clone(), properties))
                .await
                .map_err(|_| "the broker did not finish the handshake".to_owned())?
                .map_err(|error| error.to_string())
        };
        let publishing = connect("publish").await?;
        let consuming = connect("consume").await?;
        let declare = async {
            let channel = publishing.create_channel().await.map_err(|error| error.to_string())?;
            topology::declare(&channel, &topology::expected()).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(channel)
        };
        let hints = tokio::time::timeout(CONNECT_TIMEOUT * 3, declare)
            .await
            .map_err(|_| "the broker did not finish declaring the queues".to_owned())??;
        Ok(Self {
            publishing,
            consuming,
            hints,
            idle: Mutex::default(),
            openings: Arc::new(Semaphore::new(CARRIERS)),
            post: Mutex::default(),
            permits: Arc::new(Semaphore::new(settings.publishes_in_flight)),
            lost: CancellationToken::new(),
            why: Mutex::new(None),
        })
    }

    /// Gives this generation up. Only the first reason is kept.
    pub(crate) fn lose(&self, why: impl Into<String>) {
        let mut known = lock(&self.why);
        if known.is_none() {
            *known = Some(why.into());
        }
        drop(known);
        self.lost.cancel();
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    pub(crate) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// What comes of `call`; `None` when this generation is lost first. Not every call that is under way then gets an
    /// answer from the client library, and nobody may wait for one for ever.
    pub(crate) async fn unless_lost<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = call => Some(done),
            () = self.lost.cancelled() => None,
        }
    }

    pub(crate) fn why_lost(&self) -> Option<String> {
        lock(&self.why).clone()
    }

    /// Closes both connections, so that the broker gives unacked messages to others at once.
    pub(crate) async fn close(&self) {
        lock(&self.idle).clear();
        let bye = async |connection: &Connection| {
            // It may be gone already; then there is nobody to say goodbye to.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close(200, "OK".into())).await;
        };
        tokio::join!(bye(&self.consuming), bye(&self.publishing));
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
