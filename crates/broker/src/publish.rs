//! Publishing: a message counts as sent when the broker confirmed that a quorum has it, and not before.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join_all;
use lapin::{BasicProperties, ErrorKind, options::BasicPublishOptions, types::ShortString};
use tokio::{sync::oneshot, time::timeout};
use uuid::Uuid;
use warren_fault::{Code, Fault};
use warren_messages::{
    envelope::{self, CONTENT_TYPE, Envelope, Message as _},
    routes::{self, Route},
    wire::Notice,
};
use warren_telemetry::{metrics, trace};

use crate::{
    Broker, headers,
    link::Link,
    post::{Posting, Receipt},
};

/// A hint that cannot be handed over at once is dropped; readers look at the store every second anyway.
const NOTICE_TIMEOUT: Duration = Duration::from_millis(500);

/// The message is not known to be on its queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No queue is bound: somebody deleted it. It is declared again with the next connection.
    #[error("no queue takes {exchange} `{key}`; was one deleted by hand?")]
    Unroutable {
        /// Exchange it was published to.
        exchange: String,
        /// Routing key.
        key: String,
    },
    /// It has room later.
    #[error("the queue is full")]
    Full,
    /// The broker refuses the message itself, and always will: it is too large, say.
    #[error("the broker refused the message: {0}")]
    Rejected(String),
    /// No confirm within the time. Publish again with the same message id; consumers know duplicates.
    #[error("the broker did not confirm within {0:?}; the message may or may not have arrived")]
    Unknown(Duration),
    /// No connection, or it was lost before the confirm. Publish again with the same message id.
    #[error("no connection to the broker")]
    Disconnected,
}

impl PublishError {
    /// The error as the fault of the work that wanted to publish: never its own fault, so no attempt is spent.
    pub fn fault(&self) -> Fault {
        Fault::retry_later(Code::BrokerUnavailable, self.to_string())
    }

    fn outcome(&self) -> &'static str {
        match self {
            Self::Unroutable { .. } => "returned",
            Self::Full | Self::Rejected(_) => "nack",
            Self::Unknown(_) | Self::Disconnected => "lost",
        }
    }
}

/// An envelope and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Exchange.
    pub exchange: String,
    /// Routing key.
    pub key: String,
    /// The message.
    pub envelope: Envelope,
}

/// A message with all that travels: what an envelope becomes, and what a received message is passed on as.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) message_id: String,
    pub(crate) kind: String,
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
    pub(crate) headers: BTreeMap<String, String>,
}

impl From<&Envelope> for Parcel {
    fn from(envelope: &Envelope) -> Self {
        Self {
            message_id: envelope.message_id.to_string(),
            kind: envelope.kind.clone(),
            content_type: CONTENT_TYPE.to_owned(),
            body: envelope.body.clone(),
            headers: envelope.headers.clone(),
        }
    }
}

impl Broker {
    /// Publishes and waits for the confirm; waits for a connection first, each at most the confirm time. Many calls
    /// may be under way at once. Adds the trace context of the current span unless the envelope carries one.
    ///
    /// # Errors
    /// [`PublishError`]: publish again with the same message id. It may have arrived.
    pub async fn publish(&self, exchange: &str, key: &str, envelope: &Envelope) -> Result<(), PublishError> {
        let mut parcel = Parcel::from(envelope);
        if !parcel.headers.contains_key(envelope::headers::TRACEPARENT) {
            trace::inject(&mut parcel.headers);
        }
        let link = self.link_within(self.settings().confirm_timeout()).await;
        let link = link.ok_or(PublishError::Disconnected)?;
        self.publish_on(&link, exchange, key, parcel).await
    }

    /// [`Broker::publish`] to the queue of a route.
    ///
    /// # Errors
    /// As [`Broker::publish`].
    pub async fn send<M>(&self, route: Route<M>, envelope: &Envelope) -> Result<(), PublishError> {
        self.publish(route.exchange, route.key, envelope).await
    }

    /// Publishes all at once and tells for each, in the same order, what became of it.
    pub async fn publish_many(&self, messages: &[Outgoing]) -> Vec<Result<(), PublishError>> {
        join_all(messages.iter().map(|message| self.publish(&message.exchange, &message.key, &message.envelope))).await
    }

    /// Sends a hint, if that is possible at once. It may be lost.
    pub async fn notice(&self, notice: &Notice) {
        let Some(link) = self.shared.link.borrow().clone() else { return };
        if !matches!(*self.shared.health.borrow(), crate::Health::Ready) {
            return;
        }
        let Ok(key) = ShortString::try_new(format!("job.{}", notice.job)) else { return };
        let body = serde_json::to_vec(notice).unwrap_or_default();
        let properties = BasicProperties::default()
            .with_type(Notice::TYPE.into())
            .with_content_type(CONTENT_TYPE.into())
            .with_delivery_mode(1);
        let exchange = routes::NOTICE_EXCHANGE.into();
        let publish = link.hints.basic_publish(exchange, key, BasicPublishOptions::default(), &body, properties);
        let _ = timeout(NOTICE_TIMEOUT, publish).await;
    }

    /// Publishes on this generation only: what was received on a lost one must not be settled by the next.
    pub(crate) async fn publish_on(
        &self,
        link: &Arc<Link>,
        exchange: &str,
        key: &str,
        parcel: Parcel,
    ) -> Result<(), PublishError> {
        let result = self.try_publish(link, exchange, key, parcel).await;
        let outcome = result.as_ref().err().map_or("ack", PublishError::outcome);
        metrics::PUBLISHES.one(&[("exchange", exchange), ("outcome", outcome)]);
        result
    }

    async fn try_publish(
        &self,
        link: &Arc<Link>,
        exchange: &str,
        key: &str,
        parcel: Parcel,
    ) -> Result<(), PublishError> {
        let parcel = Arc::new(parcel);
        let mut alone = false;
        loop {
            match self.hand_over(link, exchange, key, &parcel, alone).await? {
                Receipt::Stored => return Ok(()),
                Receipt::Returned => return Err(self.unroutable(link, exchange, key)),
                Receipt::Full => return Err(PublishError::Full),
                Receipt::Unknown => return Err(PublishError::Unknown(self.settings().confirm_timeout())),
                // The broker closes a channel because of one message. Which one it was shows when each has its own.
                receipt if receipt.blames_the_channel() && !alone => alone = true,
                Receipt::Failed(error) => return Err(self.failed(link, exchange, key, &error)),
            }
        }
    }

    async fn hand_over(
        &self,
        link: &Arc<Link>,
        exchange: &str,
        key: &str,
        parcel: &Arc<Parcel>,
        alone: bool,
    ) -> Result<Receipt, PublishError> {
        let properties = self.properties(parcel, exchange)?;
        let (exchange, key) = (short("exchange", exchange)?, short("routing key", key)?);
        let patience = self.settings().confirm_timeout();
        let permit = match link.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            // When there is none in time, the broker is blocked or slow, and nothing was sent.
            Err(_) => match timeout(patience, link.unless_lost(link.permits.clone().acquire_owned())).await {
                Ok(Some(Ok(permit))) => permit,
                Ok(Some(Err(_)) | None) | Err(_) => return Err(PublishError::Disconnected),
            },
        };
        let (receipt, settled) = oneshot::channel();
        // It goes its way even if its caller does not wait: a channel must not be left with a confirm under way.
        link.post(Posting { exchange, key, properties, parcel: parcel.clone(), alone, permit, receipt }, patience);
        settled.await.map_err(|_| PublishError::Disconnected)
    }

    fn failed(&self, link: &Link, exchange: &str, key: &str, error: &lapin::Error) -> PublishError {
        match error.kind() {
            ErrorKind::ProtocolError(broker) if broker.get_id() == 404 => self.unroutable(link, exchange, key),
            // The broker closed only this channel, because of this message.
            ErrorKind::ProtocolError(broker) if error.is_amqp_soft_error() => {
                PublishError::Rejected(broker.get_message().to_string())
            }
            _ => {
                link.lose(error.to_string());
                PublishError::Disconnected
            }
        }
    }

    fn unroutable(&self, link: &Link, exchange: &str, key: &str) -> PublishError {
        let expected = crate::topology::expected();
        let ours = |queue: &crate::topology::Queue| queue.bindings.iter().any(|to| to.0 == exchange && to.1 == key);
        if expected.queues.iter().any(ours) {
            // One of our own queues is gone; connecting again declares it again.
            link.lose(format!("no queue takes {exchange} `{key}`"));
        }
        PublishError::Unroutable { exchange: exchange.to_owned(), key: key.to_owned() }
    }

    fn properties(&self, parcel: &Parcel, exchange: &str) -> Result<BasicProperties, PublishError> {
        let now = self.clock().now();
        let mut texts = headers::kept(parcel.headers.clone(), exchange);
        texts.entry(envelope::headers::FIRST_TS.to_owned()).or_insert_with(|| now.0.to_string());
        Ok(BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type(short("content type", &parcel.content_type)?)
            .with_type(short("type", &parcel.kind)?)
            .with_message_id(short("message id", &parcel.message_id)?)
            .with_timestamp(u64::try_from(now.0 / 1000).unwrap_or(0))
            .with_app_id(short("app id", &self.shared.name)?)
            .with_headers(headers::table(&texts)))
    }

    pub(crate) fn new_id(&self) -> Uuid {
        self.clock().new_id()
    }
}

fn short(what: &str, text: &str) -> Result<ShortString, PublishError> {
    ShortString::try_new(text).map_err(|_| PublishError::Rejected(format!("{what} is longer than 255 bytes")))
}
