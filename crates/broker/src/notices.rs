//! Hints that something changed. They may be lost; whoever needs certainty reads the store.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Stream, StreamExt as _};
use lapin::{
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::sync::mpsc;
use warren_messages::{envelope, routes, wire::Notice};

use crate::{Broker, link::Link};

/// Hints that may wait to be read; more are dropped.
const WAITING: usize = 1024;

/// Hints as they arrive, across lost connections. Ends when the broker handle is stopped.
#[derive(Debug)]
pub struct Notices(mpsc::Receiver<Notice>);

impl Notices {
    /// The next hint.
    pub async fn next(&mut self) -> Option<Notice> {
        self.0.recv().await
    }
}

impl Stream for Notices {
    type Item = Notice;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Notice>> {
        self.0.poll_recv(context)
    }
}

impl Broker {
    /// Subscribes to all hints, on a queue that lives as long as the connection.
    pub fn subscribe_notices(&self) -> Notices {
        let (sender, receiver) = mpsc::channel(WAITING);
        let broker = self.clone();
        tokio::spawn(async move {
            while let Some(link) = tokio::select! {
                () = sender.closed() => None,
                () = broker.shared.stopping.cancelled() => None,
                link = broker.link() => link,
            } {
                if let Some(Err(error)) = link.unless_lost(forward(&broker, &link, &sender)).await {
                    link.lose(format!("hints: {error}"));
                }
            }
        });
        Notices(receiver)
    }
}

/// Returns when the reader is gone, the generation is lost, or the process stops.
async fn forward(broker: &Broker, link: &Arc<Link>, sender: &mpsc::Sender<Notice>) -> lapin::Result<()> {
    let channel = link.consuming.create_channel().await?;
    let queue = channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default()).await?;
    let name = queue.name().clone();
    let (exchange, options) = (routes::NOTICE_EXCHANGE.into(), QueueBindOptions::default());
    channel.queue_bind(name.clone(), exchange, "job.*".into(), options, FieldTable::default()).await?;
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let mut hints = channel.basic_consume(name, "".into(), options, FieldTable::default()).await?;
    loop {
        let hint = tokio::select! {
            () = sender.closed() => break,
            () = broker.shared.stopping.cancelled() => break,
            () = link.lost().cancelled() => break,
            hint = hints.next() => hint,
        };
        match hint {
            Some(Ok(hint)) => {
                let kind = hint.properties.kind().as_ref().map(|kind| kind.as_str());
                if let Ok(notice) = envelope::decode::<Notice>(kind, &hint.data) {
                    // A slow reader misses hints and reads the store by itself.
                    let _ = sender.try_send(notice);
                }
            }
            Some(Err(error)) => return Err(error),
            None => {
                link.lose("the broker ended the subscription to hints");
                break;
            }
        }
    }
    Ok(())
}
