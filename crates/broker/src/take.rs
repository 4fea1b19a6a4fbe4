//! Taking messages out of a queue that somebody purges.

use std::collections::BTreeSet;

use lapin::{Channel, message::Delivery as Raw, options::BasicGetOptions};
use uuid::Uuid;
use warren_fault::{Code, Fault};

use crate::{Broker, Letter, dead, link::Link};

impl Broker {
    /// Looks at up to `most` messages that wait on `queue`, shows them to `choose` as letters, and removes those that it
    /// names; they must be durable elsewhere by then. All others are given back, in their places. Returns how many were
    /// removed.
    ///
    /// # Errors
    /// What `choose` said; [`Code::BrokerUnavailable`] when the broker is away. Then some of them may be removed.
    pub async fn take_out<F>(
        &self,
        queue: &str,
        most: usize,
        choose: impl FnOnce(Vec<Letter>) -> F + Send,
    ) -> Result<usize, Fault>
    where
        F: Future<Output = Result<BTreeSet<Uuid>, Fault>> + Send,
    {
        self.using(async {
            let link = self.link_within(self.settings().confirm_timeout()).await;
            let link = link.ok_or_else(|| away("no connection to the broker"))?;
            let lost = || away("the connection was lost");
            let channel = link.unless_lost(link.consuming.create_channel()).await;
            let channel = channel.ok_or_else(lost)?.map_err(away)?;
            let taken = link.unless_lost(take(&link, &channel, queue, most, choose)).await;
            // Gives the rest back. A failure means that the connection is gone, which gives it back as well.
            let _ = tokio::time::timeout(self.settings().confirm_timeout(), channel.close(200, "OK".into())).await;
            taken.unwrap_or_else(|| Err(lost()))
        })
        .await
    }
}

async fn take<F>(
    link: &Link,
    channel: &Channel,
    queue: &str,
    most: usize,
    choose: impl FnOnce(Vec<Letter>) -> F + Send,
) -> Result<usize, Fault>
where
    F: Future<Output = Result<BTreeSet<Uuid>, Fault>> + Send,
{
    let mut held: Vec<Raw> = Vec::new();
    while held.len() < most {
        match channel.basic_get(queue.into(), BasicGetOptions::default()).await.map_err(away)? {
            Some(got) => held.push(got.delivery),
            None => break,
        }
    }
    let letters: Vec<Letter> = held.iter().map(Letter::read).collect();
    let ids: Vec<Uuid> = letters.iter().map(|letter| letter.id).collect();
    let chosen = choose(letters).await?;
    let mut taken = 0;
    for (raw, _) in held.iter().zip(ids).filter(|(_, id)| chosen.contains(id)) {
        dead::ack(link, raw).await.map_err(away)?;
        taken += 1;
    }
    Ok(taken)
}

fn away(why: impl std::fmt::Display) -> Fault {
    Fault::retryable(Code::BrokerUnavailable, why.to_string())
}
