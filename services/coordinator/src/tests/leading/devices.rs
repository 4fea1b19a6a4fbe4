use std::{pin::pin, time::Duration};

use futures::poll;
use warren_jobs::{
    JobClass,
    lease::{Holder, Lease, Request},
};
use warren_messages::wire::{LeaseRenewal, WorkerReport};

use crate::{
    devices::{Answer, Usage},
    lead::Lead,
    service::renewed,
    tests::world::{PATIENCE, World, eventually, within},
};

fn request(lead: &Lead, worker: &str) -> Request {
    Request {
        lease: lead.parts.clock.new_id().to_string(),
        device: "cpu".to_owned(),
        holder: Holder { worker: worker.to_owned(), boot: "b".to_owned(), slot: 0 },
        wait: 1,
        model: "tiny.en".to_owned(),
        memory_bytes: 1,
        class: JobClass::Default,
        task: "t".to_owned(),
    }
}

async fn granted(lead: &Lead, worker: &str) -> Lease {
    match within("it is granted", lead.devices.acquire(request(lead, worker), PATIENCE)).await.expect("written") {
        Answer::Granted(lease) => lease,
        other => panic!("not granted: {other:?}"),
    }
}

fn usage(lead: &Lead) -> (usize, usize) {
    let [Usage { held, waiting, .. }] = lead.devices.usage()[..] else { panic!("one device") };
    (held, waiting)
}

#[tokio::test]
async fn an_abandoned_request_is_withdrawn_and_one_that_waited_for_nothing_stays() {
    let world = World::leading().await;
    let lead = &world.lead;
    let held = granted(lead, "a").await;

    let answer = lead.devices.acquire(request(lead, "b"), Duration::from_millis(1)).await.expect("asked");
    assert_eq!(answer, Answer::Waiting { position: 0, held_by: "a".to_owned() });
    assert_eq!(usage(lead), (1, 1), "its worker asks again");

    {
        let mut abandoned = pin!(lead.devices.acquire(request(lead, "c"), PATIENCE));
        assert!(poll!(&mut abandoned).is_pending());
        assert_eq!(usage(lead), (1, 2));
    }
    assert_eq!(usage(lead), (1, 1));

    lead.devices.release(&held.id, held.fence).await.expect("released");
    assert_eq!(granted(lead, "b").await.holder.worker, "b");
    world.stop().await;
}

#[tokio::test]
async fn a_grant_that_nobody_heard_of_is_free_at_once() {
    let world = World::leading().await;
    let lead = &world.lead;
    let held = granted(lead, "a").await;
    {
        let mut abandoned = pin!(lead.devices.acquire(request(lead, "b"), PATIENCE));
        assert!(poll!(&mut abandoned).is_pending());
        lead.devices.release(&held.id, held.fence).await.expect("released");
        // Granted in the table, perhaps written and sent; and then the caller is gone.
        assert_eq!(usage(lead), (1, 0));
    }
    assert_eq!(usage(lead), (0, 0));
    let next = granted(lead, "c").await;
    eventually("only its row is left", async || {
        let rows = world.store().read().leases().await.expect("read");
        rows.iter().map(|row| row.id.to_string()).eq([next.id.clone()])
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn a_grant_whose_answer_was_lost_is_free_when_its_worker_does_not_report_it() {
    let world = World::new().await;
    let lead = &world.lead;
    let report = |renewals: Vec<LeaseRenewal>| WorkerReport {
        worker: "a".to_owned(),
        boot: "b".to_owned(),
        renewals,
        ..WorkerReport::default()
    };
    let known = |lease: &Lease| LeaseRenewal { lease: lease.id.clone(), fence: lease.fence };
    {
        let mut asked = pin!(lead.devices.acquire(request(lead, "a"), PATIENCE));
        assert!(poll!(&mut asked).is_pending(), "it is being written");
        world.clock().advance(Duration::from_secs(2));
        renewed(lead, &report(vec![]));
        assert_eq!(usage(lead), (1, 0), "it is not answered yet");
        within("it is granted", asked).await.expect("written");
    }
    renewed(lead, &report(vec![]));
    assert_eq!(usage(lead), (0, 0));

    let next = granted(lead, "c").await;
    let of_c = WorkerReport { worker: "c".to_owned(), ..report(vec![known(&next)]) };
    world.clock().advance(Duration::from_secs(2));
    renewed(lead, &of_c);
    renewed(lead, &WorkerReport { renewals: vec![], ..of_c });
    assert_eq!(usage(lead), (1, 0), "it was renewed once, and may be in use");

    let only_its_row = eventually("only its row is left", async || {
        let rows = world.store().read().leases().await.expect("read");
        rows.iter().map(|row| row.id.to_string()).eq([next.id.clone()])
    });
    tokio::select! {
        ended = lead.devices.run(lead.sessions_mutex(), &world.stopping) => panic!("{ended:?}"),
        () = only_its_row => {}
    }
}
