//! Makes generation after generation of connections, for ever.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use lapin::Event;
use tokio::{sync::watch, time::Instant};
use warren_clock::Reconnect;
use warren_telemetry::metrics;

use crate::{
    broker::{Health, Shared},
    link::Link,
};

/// A generation that lived as long counts as a success; the next trouble starts with the shortest delay.
const STABLE: Duration = Duration::from_secs(5);
/// How often the state of the connections is looked at beside their events.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) async fn run(shared: Arc<Shared>, links: watch::Sender<Option<Arc<Link>>>, health: watch::Sender<Health>) {
    let supervise = async {
        let mut delays = Reconnect::new();
        loop {
            let began = Instant::now();
            let why = match Link::open(&shared.settings, &shared.name).await {
                Ok(link) => {
                    let link = Arc::new(link);
                    tracing::info!("connected to the broker");
                    links.send_replace(Some(link.clone()));
                    health.send_replace(Health::Ready);
                    let connected = Instant::now();
                    watch_over(&link, &health).await;
                    links.send_replace(None);
                    if connected.elapsed() >= STABLE {
                        delays.reset();
                    }
                    let why = link.why_lost().unwrap_or_else(|| "the connection was lost".to_owned());
                    // In the background: a frozen broker must not hold up the next attempt.
                    tokio::spawn(async move { link.close().await });
                    why
                }
                Err(why) => why,
            };
            metrics::RECONNECTS.one(&[]);
            let delay = delays.next_delay();
            tracing::warn!(error = %why, after_s = began.elapsed().as_secs(), retry_in = ?delay, "no connection to the broker");
            health.send_replace(Health::Connecting { error: Some(why) });
            tokio::time::sleep(delay).await;
        }
    };
    let stopped = async {
        shared.stopping.cancelled().await;
        shared.users.close();
        // Consumers bound themselves by the drain time; what is left after it is stuck.
        let _ = tokio::time::timeout(shared.settings.drain() + STABLE, shared.users.wait()).await;
    };
    tokio::select! {
        () = stopped => {}
        () = supervise => {}
    }
    let last = links.send_replace(None);
    health.send_replace(Health::Connecting { error: Some("stopped".to_owned()) });
    if let Some(link) = last {
        link.lose("stopped");
        link.close().await;
    }
    shared.closed.cancel();
}

/// Returns when the generation is lost.
async fn watch_over(link: &Link, health: &watch::Sender<Health>) {
    enum Seen {
        Publishing(Event),
        Consuming(Event),
    }
    let mut events = pin!(stream::select(
        link.publishing.events_listener().map(Seen::Publishing),
        link.consuming.events_listener().map(Seen::Consuming),
    ));
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            () = link.lost().cancelled() => return,
            Some(event) = events.next() => match event {
                Seen::Publishing(Event::Error(error)) | Seen::Consuming(Event::Error(error)) => {
                    // A channel may fail by itself, e.g. on a message that is too large; whoever uses it decides.
                    if !error.is_amqp_soft_error() {
                        link.lose(error.to_string());
                    }
                }
                Seen::Publishing(Event::ConnectionBlocked(reason)) => {
                    tracing::warn!(%reason, "the broker takes no messages");
                    health.send_replace(Health::Blocked { reason });
                }
                Seen::Publishing(Event::ConnectionUnblocked) => {
                    tracing::info!("the broker takes messages again");
                    health.send_replace(Health::Ready);
                }
                Seen::Publishing(_) | Seen::Consuming(_) => {}
            },
            _ = look.tick() => {
                if !(link.publishing.status().connected() && link.consuming.status().connected()) {
                    link.lose("the connection was lost");
                }
            }
        }
    }
}
