use tokio::sync::mpsc;
use warren_messages::wire::WorkerReport;
use warren_store::StoreError;

use crate::{
    doubt::Doubt,
    tests::world::{World, eventually},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_unknown_outcome_ends_the_term_and_the_next_starts_from_the_rows() {
    let world = World::leading().await;
    let first = &world.lead;
    // As after a commit whose answer was lost: the row says released, the board knows nothing of it.
    let task = world.running(&["a"]).await.id;
    assert_eq!(first.board().out(task), None);
    first.doubt.judge(&StoreError::Unavailable { reason: "the connection was lost".to_owned() });
    let next = world.lead_after(first.term).await;
    assert_eq!(next.board().out(task).map(|out| out.dispatch), Some(1));
    world.stop().await;
}

#[tokio::test]
async fn what_the_database_refused_leaves_no_doubt() {
    let reason = String::new;
    let raised = async |error| {
        let doubt = Doubt::default();
        doubt.judge(&error);
        tokio::select! {
            biased;
            () = doubt.raised() => true,
            () = std::future::ready(()) => false,
        }
    };
    for refused in
        [StoreError::TermLost, StoreError::Busy { reason: reason() }, StoreError::Conflict { reason: reason() }]
    {
        assert!(!raised(refused).await);
    }
    assert!(raised(StoreError::Unavailable { reason: reason() }).await);
    assert!(raised(StoreError::Internal { reason: reason() }).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_stepped_down_shows_nothing() {
    let shown = |line: &str| warren_telemetry::metrics::render().lines().any(|found| found == line);
    let world = World::leading().await;
    let report = WorkerReport { service: "gauged".to_owned(), ..super::door::report("cpu") };
    let (orders, _keep) = mpsc::channel(8);
    world.lead.sessions().report(&report, &orders).expect("the only process");
    eventually("its worker is counted", async || shown(r#"warren_workers{service="gauged"} 1"#)).await;
    world.stop().await;
    assert!(shown(r#"warren_workers{service="gauged"} 0"#));
}
