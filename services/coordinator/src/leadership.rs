//! Who leads: one row with a term. Taking it, keeping it, and giving way in time.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use warren_host::Part;
use warren_store::Term;
use warren_telemetry::metrics;

use crate::{
    duties::{Duties, ENDING},
    lead::{Lead, Parts},
};

/// The lead while this coordinator has it.
pub(crate) type Current = watch::Receiver<Option<Arc<Lead>>>;

/// Takes turns at leading until `stopping`.
pub(crate) async fn run(
    parts: Parts,
    current: watch::Sender<Option<Arc<Lead>>>,
    store_health: Part,
    stopping: CancellationToken,
) {
    let timing = &parts.settings.leader;
    let (name, address) = (timing.name.clone(), parts.settings.grpc.address());
    let ttl = Duration::from_millis(timing.ttl_ms);
    metrics::LEADING.set(0.0, &[]);
    while !stopping.is_cancelled() {
        // The term counts from when it was asked for, or its renewal sent: the row may be older than the answer.
        let asked = Instant::now();
        match parts.store.try_lead(&name, &address, ttl).await {
            Ok(Some(term)) => {
                store_health.ready();
                lead(term, asked, &parts, &current, &stopping).await;
            }
            Ok(None) => store_health.ready(),
            Err(error) => store_health.down(error.to_string()),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(timing.poll_ms)) => {}
            () = stopping.cancelled() => {}
        }
    }
}

async fn lead(
    term: Term,
    asked: Instant,
    parts: &Parts,
    current: &watch::Sender<Option<Arc<Lead>>>,
    stopping: &CancellationToken,
) {
    let lead = match Lead::start(term, asked, parts.clone()).await {
        Ok(lead) => Arc::new(lead),
        Err(error) => {
            tracing::warn!(%error, "could not take the lead");
            return;
        }
    };
    tracing::info!(term = term.0, "leading");
    metrics::LEADING.set(1.0, &[]);
    let over = stopping.child_token();
    let mut duties = Duties::start(&lead, &over);
    current.send_replace(Some(Arc::clone(&lead)));

    keep(&lead, &over, &mut duties).await;

    current.send_replace(None);
    metrics::LEADING.set(0.0, &[]);
    over.cancel();
    duties.end(ENDING).await;
    if let Err(error) = parts.store.resign(term).await {
        tracing::debug!(%error, "term not given back; it runs out by itself");
    }
    tracing::info!(term = term.0, "no longer leading");
}

/// Renews the term until it is lost, a duty ends, or the process stops.
async fn keep(lead: &Lead, over: &CancellationToken, duties: &mut Duties) {
    let timing = &lead.parts.settings.leader;
    let mut every = tokio::time::interval(Duration::from_millis(timing.renew_ms));
    let ttl = Duration::from_millis(timing.ttl_ms);
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            () = lead.doubt.raised() => {
                tracing::warn!(term = lead.term.0, "a commit of unknown outcome; stepping down to start from the rows");
                return;
            }
            (duty, ended) = duties.one_ended() => {
                match ended {
                    Ok(Ok(())) => tracing::error!(duty, "a duty of the leader ended by itself"),
                    Ok(Err(error)) => tracing::warn!(duty, %error, "stepping down"),
                    Err(error) => tracing::error!(duty, %error, "a duty of the leader panicked"),
                }
                return;
            }
            _ = every.tick() => {
                let asked = Instant::now();
                let patience = lead.tenure().left(asked.into_std());
                match tokio::time::timeout(patience, lead.parts.store.renew(lead.term, ttl)).await {
                    Ok(Ok(true)) => lead.tenure().renewed(asked.into_std()),
                    Ok(Ok(false)) => {
                        tracing::warn!(term = lead.term.0, "another coordinator took the lead");
                        return;
                    }
                    Ok(Err(error)) => tracing::warn!(%error, "term not renewed"),
                    Err(_) => {}
                }
                if !lead.leads() {
                    tracing::warn!(term = lead.term.0, "term not renewed in time; stepping down");
                    return;
                }
            }
        }
    }
}
