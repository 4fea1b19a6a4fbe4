//! Keeps the stream to whichever coordinator leads.

use std::{sync::Arc, time::Instant};

use tokio::{
    sync::mpsc,
    time::{sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use warren_clock::Reconnect;
use warren_messages::wire::{self, coordinator_order::Order, leases_client::LeasesClient};

use crate::{
    leases::{Connection, Shared},
    report::Unanswered,
    roster::Roster,
    settings::address_of,
};

/// Metadata key with the leader's address in a refusal.
const LEADER: &str = "leader";

/// How a session ended.
#[derive(Debug)]
enum End {
    /// Another coordinator leads, perhaps this one.
    NotLeader(Option<String>),
    /// It leads, and does not take this worker as it is configured.
    Refused(String),
    /// Out of reach or silent; `worked` if it had answered before.
    Lost {
        reason: String,
        worked: bool,
    },
    Closed,
}

/// Runs until nobody needs the session any more.
pub(crate) async fn keep(shared: Arc<Shared>, coordinators: Vec<String>) {
    let mut roster = Roster::new(coordinators);
    let mut reconnect = Reconnect::new();
    let mut reason = "no coordinator leads".to_owned();
    let mut refused = None;
    loop {
        let Some(address) = roster.next() else {
            let why = refused.take().map_or_else(|| Connection::Searching(reason.clone()), Connection::Refused);
            stands(&shared, why);
            let mut delay = reconnect.next_delay();
            if !shared.held().is_empty() {
                delay = delay.min(shared.timing.search);
            }
            tokio::select! {
                () = sleep(delay) => continue,
                () = shared.closed.cancelled() => return,
            }
        };
        let end = tokio::select! {
            end = converse(&shared, &address) => end,
            () = shared.closed.cancelled() => End::Closed,
        };
        shared.leader.send_if_modified(|leader| leader.take().is_some());
        match end {
            End::NotLeader(hint) => {
                reason = format!("{address} does not lead");
                if let Some(leader) = hint {
                    roster.hint(&address, leader);
                }
            }
            End::Refused(why) => {
                if stands(&shared, Connection::Refused(why.clone())) {
                    tracing::error!(coordinator = address, reason = why, "the coordinator refuses this worker");
                }
                refused = Some(why);
            }
            End::Lost { reason: why, worked } => {
                reason = format!("{address}: {why}");
                if worked {
                    tracing::warn!(coordinator = address, reason = why, "session lost");
                    reconnect.reset();
                    roster.lost(&address);
                }
            }
            End::Closed => return,
        }
    }
}

/// Tells how the session stands. True when that is news.
fn stands(shared: &Shared, connection: Connection) -> bool {
    shared.connection.send_if_modified(|now| std::mem::replace(now, connection.clone()) != connection)
}

/// One session with one coordinator, from connecting to its end.
async fn converse(shared: &Arc<Shared>, address: &str) -> End {
    let timing = shared.timing;
    let lost = |reason: String| End::Lost { reason, worked: false };
    let endpoint = match address_of(address) {
        Ok(endpoint) => endpoint.connect_timeout(timing.first_answer).tcp_nodelay(true),
        Err(reason) => return lost(reason),
    };
    let mut client = match timeout(timing.first_answer, endpoint.connect()).await {
        Ok(Ok(channel)) => LeasesClient::new(channel),
        Ok(Err(error)) => return lost(chain(&error)),
        Err(_) => return lost("no answer".to_owned()),
    };

    let (reports, outgoing) = mpsc::channel(16);
    let mut unanswered = Unanswered::default();
    let mut number = 0;
    let mut send = |unanswered: &mut Unanswered| {
        number += 1;
        // The time before it is made: the lease must not seem younger than it is, and what was taken in hand before is
        // in the report.
        unanswered.sent(number, Instant::now());
        let report = shared.report(number);
        // A full channel means that the coordinator does not read; the missing answers will tell.
        let _ = reports.try_send(report);
    };
    send(&mut unanswered);
    let mut orders = match timeout(timing.first_answer, client.session(ReceiverStream::new(outgoing))).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return ended(&status, false),
        Err(_) => return lost("no answer".to_owned()),
    };

    let mut worked = false;
    let mut last = tokio::time::Instant::now();
    let mut changed = false;
    loop {
        let regular = if shared.held().is_empty() { timing.report } else { timing.renew };
        let due = last + if changed { timing.change.min(regular) } else { regular };
        let limit = if worked { timing.answer } else { timing.first_answer };
        let order = tokio::select! {
            order = orders.message() => order,
            () = sleep_until(due) => {
                if unanswered.too_long(Instant::now(), limit) {
                    return End::Lost { reason: "reports are not answered".to_owned(), worked };
                }
                send(&mut unanswered);
                (last, changed) = (tokio::time::Instant::now(), false);
                continue;
            }
            () = shared.report_now.notified() => {
                send(&mut unanswered);
                (last, changed) = (tokio::time::Instant::now(), false);
                continue;
            }
            () = shared.tasks.changed.notified(), if !changed => {
                changed = true;
                continue;
            }
        };
        match order {
            Ok(Some(wire::CoordinatorOrder { order: Some(order) })) => {
                let mut sent = None;
                if let Order::Renewed(renewed) = &order {
                    sent = unanswered.answered(renewed.report);
                    if !worked {
                        worked = true;
                        tracing::info!(coordinator = address, worker = shared.worker, "session with the leader");
                        shared.connection.send_replace(Connection::Connected(address.to_owned()));
                        shared.leader.send_replace(Some(client.clone()));
                    }
                }
                shared.obey(order, sent);
            }
            // An order of a later version.
            Ok(Some(_)) => {}
            Ok(None) => return End::Lost { reason: "the coordinator ended the session".to_owned(), worked },
            Err(status) => return ended(&status, worked),
        }
    }
}

fn ended(status: &Status, worked: bool) -> End {
    if status.code() == Code::InvalidArgument {
        return End::Refused(status.message().to_owned());
    }
    match leader_hint(status) {
        Some(hint) => End::NotLeader(hint),
        None => End::Lost { reason: chain(status), worked },
    }
}

/// The error with its causes: tonic's own text is often only `transport error`.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// `Some` when the coordinator does not lead, with the leader's address if it knows one.
pub(crate) fn leader_hint(status: &Status) -> Option<Option<String>> {
    let refused = status.code() == Code::FailedPrecondition;
    refused.then(|| {
        let hint = status.metadata().get(LEADER).and_then(|value| value.to_str().ok());
        hint.filter(|hint| !hint.is_empty()).map(str::to_owned)
    })
}
