//! Messages that wait for object storage go to the end of their queue, so that nobody waits behind them.

use std::time::Duration;

use warren_broker::{Broker, Received};
use warren_fault::{Code, Fault};
use warren_messages::{
    envelope::{Envelope, Message},
    routes::Route,
};

/// Between two looks at messages that all wait.
const PAUSE: Duration = Duration::from_secs(1);

/// True when only the message itself has to wait: without the store or the lead, nothing goes on.
pub(crate) fn waits_alone(fault: &Fault) -> bool {
    let away = matches!(fault.cause().code, Code::StoreUnavailable | Code::CoordinatorUnavailable);
    !away && !matches!(fault, Fault::Permanent(_))
}

/// Publishes these messages of a group of `of` again. The caller then acks the originals; a crash in between makes
/// duplicates under the same message ids.
///
/// # Errors
/// When the broker is away.
pub(crate) async fn put_aside<M: Message>(
    broker: &Broker,
    route: Route<M>,
    waiting: &[&Received<M>],
    of: usize,
) -> Result<(), Fault> {
    if !waiting.is_empty() && waiting.len() == of {
        tokio::time::sleep(PAUSE).await;
    }
    for received in waiting {
        let headers = received.delivery.headers.clone();
        let envelope = Envelope { headers, ..Envelope::new(received.delivery.message_id, &received.message) };
        broker.send(route, &envelope).await.map_err(|error| error.fault())?;
    }
    Ok(())
}
