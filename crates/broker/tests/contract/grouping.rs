//! Consuming in groups, as the coordinator does.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use lapin::BasicProperties;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use warren_broker::{GroupHandler, Received};
use warren_fault::{Code, Fault};
use warren_messages::{routes, wire::Command};

use crate::support::{Lab, commanded, next, within};

/// Tells of each group and answers as `verdict` says.
struct Groups<F> {
    groups: mpsc::UnboundedSender<Vec<u32>>,
    verdict: F,
}

impl<F> GroupHandler<Received<Command>> for Groups<F>
where
    F: Fn(&[u32]) -> Result<(), Fault> + Send + Sync + 'static,
{
    async fn handle(&self, group: &[Received<Command>]) -> Result<(), Fault> {
        let numbers: Vec<_> = group.iter().map(|received| commanded(&received.message)).collect();
        let verdict = (self.verdict)(&numbers);
        let _ = self.groups.send(numbers);
        verdict
    }
}

type Consumer = (JoinHandle<()>, mpsc::UnboundedReceiver<Vec<u32>>, CancellationToken);

fn consume(lab: &Lab, verdict: impl Fn(&[u32]) -> Result<(), Fault> + Send + Sync + 'static) -> Consumer {
    let (groups, receiver) = mpsc::unbounded_channel();
    let (broker, term) = (lab.broker.clone(), lab.stopping.child_token());
    let stopping = term.clone();
    let handler = Groups { groups, verdict };
    let consumer = tokio::spawn(async move { broker.consume_group(routes::COMMANDS, 64, handler, stopping).await });
    (consumer, receiver, term)
}

#[tokio::test]
async fn groups_are_bounded_in_order_and_acked_together() {
    let lab = Lab::new().await;
    for number in 0..200 {
        lab.publish_command(number).await;
    }
    let (consumer, mut groups, term) = consume(&lab, |_| Ok(()));
    let (mut seen, mut largest) = (Vec::new(), 0);
    while seen.len() < 200 {
        let group = next("a group", &mut groups).await;
        largest = largest.max(group.len());
        seen.extend(group);
    }
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    assert!((2..=64).contains(&largest), "{largest}");
    term.cancel();
    within("the consumer ends", consumer).await.expect("no panic");
    assert_eq!(lab.raw().await.ready(routes::COMMANDS.queue).await, 0);
}

#[tokio::test]
async fn while_the_store_is_away_the_same_group_waits() {
    let lab = Lab::new().await;
    for number in 0..5 {
        lab.publish_command(number).await;
    }
    let away = Arc::new(AtomicUsize::new(3));
    let left = away.clone();
    let (consumer, mut groups, term) = consume(&lab, move |_| {
        let still = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if still { Err(Fault::retry_later(Code::StoreUnavailable, "connection refused")) } else { Ok(()) }
    });
    let first = next("the first call", &mut groups).await;
    for call in 0..3 {
        assert_eq!(next("a later call", &mut groups).await, first, "call {call}");
    }
    let mut seen = first.len();
    while seen < 5 {
        seen += next("the rest", &mut groups).await.len();
    }
    term.cancel();
    within("the consumer ends", consumer).await.expect("no panic");
    let raw = lab.raw().await;
    assert_eq!((raw.ready(routes::COMMANDS.queue).await, raw.ready(routes::DEAD_QUEUE).await), (0, 0));
}

#[tokio::test]
async fn one_offender_does_not_take_its_neighbours_along() {
    let lab = Lab::new().await;
    let mut letters = lab.letters();
    for number in 0..20 {
        lab.publish_command(number).await;
        if number == 9 {
            lab.raw().await.publish(routes::COMMANDS.queue, b"{", BasicProperties::default()).await;
        }
    }
    let taken = Arc::new(Mutex::new(BTreeSet::new()));
    let takes = taken.clone();
    let (consumer, mut groups, term) = consume(&lab, move |numbers| {
        assert!(!numbers.contains(&15), "fifteen");
        if numbers.contains(&7) {
            return Err(Fault::permanent(Code::Internal, "seven"));
        }
        takes.lock().expect("not poisoned").extend(numbers.iter().copied());
        Ok(())
    });
    let mut causes = BTreeSet::new();
    for _ in 0..3 {
        let letter = next("a letter", &mut letters).await;
        assert_eq!((letter.queue.as_str(), letter.key.as_str()), (routes::COMMANDS.queue, routes::COMMANDS.key));
        causes.insert(format!("{} {}", letter.class, letter.cause));
    }
    let causes: Vec<_> = causes.into_iter().collect();
    assert_eq!(causes[0], "Internal seven");
    assert!(causes[1].contains("panicked") && causes[1].contains("fifteen"), "{causes:?}");
    assert!(causes[2].starts_with("Malformed"), "{causes:?}");
    while taken.lock().expect("not poisoned").len() < 18 {
        next("the others", &mut groups).await;
    }
    term.cancel();
    within("the consumer ends", consumer).await.expect("no panic");
    let raw = lab.raw().await;
    assert_eq!((raw.ready(routes::COMMANDS.queue).await, raw.ready(routes::DEAD_QUEUE).await), (0, 3));
}

#[tokio::test]
async fn stepping_down_hands_everything_to_the_next_leader() {
    let lab = Lab::new().await;
    let leads = Arc::new(AtomicBool::new(false));
    let (consumer, mut groups, term) =
        consume(&lab, |_| Err(Fault::retry_later(Code::StoreUnavailable, "not the leader any more")));
    for number in 0..10 {
        lab.publish_command(number).await;
    }
    next("the old leader sees some", &mut groups).await;
    let now = leads.clone();
    let (_, mut next_groups, _) = consume(&lab, move |_| {
        assert!(now.load(Ordering::SeqCst), "two at once");
        Ok(())
    });
    leads.store(true, Ordering::SeqCst);
    term.cancel();
    within("the old consumer ends", consumer).await.expect("no panic");
    let mut seen = BTreeSet::new();
    while seen.len() < 10 {
        seen.extend(next("the new leader sees all", &mut next_groups).await);
    }
}
