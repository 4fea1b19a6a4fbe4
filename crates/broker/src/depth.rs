//! How many messages lie ready on a queue.

use std::time::Duration;

use lapin::{options::QueueDeclareOptions, types::FieldTable};

use crate::Broker;

/// Longest that a broker may take to say.
const PATIENCE: Duration = Duration::from_secs(5);

impl Broker {
    /// Messages on `queue` that no consumer has been given. `None`: nobody can say now, or there is no such queue.
    pub async fn ready_messages(&self, queue: &str) -> Option<u32> {
        let asked = async {
            let link = self.link().await?;
            let channel = link.consuming.create_channel().await.ok()?;
            let passive = QueueDeclareOptions::durable().passive();
            let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
            // A failure means that it is closed already.
            let _ = channel.close(200, "OK".into()).await;
            Some(declared.ok()?.message_count())
        };
        tokio::time::timeout(PATIENCE, self.using(asked)).await.ok().flatten()
    }
}
