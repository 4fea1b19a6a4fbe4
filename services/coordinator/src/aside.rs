//! Messages that wait for object storage go to the end of their queue, so that nobody waits behind them.

use std::time::Duration;

use tokio::time::timeout;
use warren_blob::{BlobError, Key};
use warren_broker::{Broker, Received};
use warren_fault::{Code, Fault};
use warren_messages::{
    envelope::{Envelope, Message},
    routes::Route,
};

/// Longest between two looks at messages that all wait: others that could go on may be behind them in the queue.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest that a message waits for object storage while others wait behind it; then it waits alone.
const STORAGE: Duration = Duration::from_secs(5);

/// What storage answers about `key`, if it does so soon.
///
/// # Errors
/// What it says, or that it says nothing.
pub(crate) async fn soon<T>(key: &Key, asked: impl Future<Output = Result<T, BlobError>>) -> Result<T, Fault> {
    let slow = || Fault::retry_later(Code::BlobUnavailable, format!("{key}: no answer within {} s", STORAGE.as_secs()));
    timeout(STORAGE, asked).await.map_err(|_| slow())?.map_err(|error| error.fault())
}

/// True when only the message itself has to wait: without the store or the lead, nothing goes on.
pub(crate) fn waits_alone(fault: &Fault) -> bool {
    let away = matches!(fault.cause().code, Code::StoreUnavailable | Code::CoordinatorUnavailable);
    !away && !matches!(fault, Fault::Permanent(_))
}

/// Publishes these messages of a group of `of` again; where all of them wait, after `retry`, or a second at most. The
/// caller then acks the originals; a crash in between makes duplicates under the same message ids.
///
/// # Errors
/// When the broker is away.
pub(crate) async fn put_aside<M: Message>(
    broker: &Broker,
    route: Route<M>,
    waiting: &[&Received<M>],
    of: usize,
    retry: impl Future<Output = ()>,
) -> Result<(), Fault> {
    if !waiting.is_empty() && waiting.len() == of {
        pause(retry).await;
    }
    for received in waiting {
        let headers = received.delivery.headers.clone();
        let envelope = Envelope { headers, ..Envelope::new(received.delivery.message_id, &received.message) };
        broker.send(route, &envelope).await.map_err(|error| error.fault())?;
    }
    Ok(())
}

async fn pause(retry: impl Future<Output = ()>) {
    // Looked at again either way.
    let _ = timeout(PAUSE, retry).await;
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_pause_ends_at_once_with_a_reason_and_soon_without() {
        let retry = Notify::new();
        let told = retry.notified();
        retry.notify_waiters();
        assert!(poll!(pin!(pause(told))).is_ready(), "told before it began to wait");
        pause(std::future::pending()).await;
    }
}
