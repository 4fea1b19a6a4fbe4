use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};
use uuid::Uuid;
use warren_messages::{
    ids::TaskId,
    wire::{
        AcquireRequest, CoordinatorOrder, KindSlots, Stale, StaleOrder, TaskInHand, WorkerReport,
        acquire_response::Outcome, coordinator_order::Order, leases_server::Leases,
    },
};

use crate::tests::world::{World, within};

pub(super) fn report(device: &str) -> WorkerReport {
    WorkerReport {
        worker: "w".to_owned(),
        boot: "b".to_owned(),
        service: "transcription".to_owned(),
        takes: vec![KindSlots { kind: "transcribe".to_owned(), slots: 2, holds: 2 }],
        device: device.to_owned(),
        report: 1,
        ..WorkerReport::default()
    }
}

/// A session that has reported once: what it hears, and what keeps it open.
async fn session(world: &World, device: &str) -> (tonic::Streaming<CoordinatorOrder>, mpsc::Sender<WorkerReport>) {
    let (reports, outgoing) = mpsc::channel(4);
    reports.send(report(device)).await.expect("room");
    let mut client = world.client().await;
    let orders = within("the session opens", client.session(ReceiverStream::new(outgoing))).await.expect("it leads");
    (orders.into_inner(), reports)
}

async fn refusal(orders: &mut tonic::Streaming<CoordinatorOrder>) -> Status {
    within("it is refused", async {
        loop {
            if let Err(status) = orders.message().await {
                return status;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_an_unknown_device_is_refused_as_its_session_opens() {
    let world = World::leading().await;
    let (mut orders, _open) = session(&world, "cuda:0").await;
    let status = refusal(&mut orders).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "device: the coordinator has no `cuda:0`; add it to its `devices`");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_hand_over_it_does_not_name_itself() {
    let world = World::leading().await;
    let (mut orders, _open) = session(&world, "cpu").await;
    let first = within("an answer", orders.message()).await.expect("it leads").expect("one").order;
    assert!(matches!(first, Some(Order::Renewed(_))), "{first:?}");
    world.stopping.cancel();
    let status = refusal(&mut orders).await;
    assert_eq!((status.code(), status.metadata().get("leader")), (Code::FailedPrecondition, None));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_has_its_answer_knows_which_of_its_tasks_are_wanted() {
    let world = World::leading().await;
    let (mut orders, reports) = session(&world, "cpu").await;
    let mut next = async || within("an order", orders.message()).await.expect("it leads").expect("one").order;
    assert!(matches!(next().await, Some(Order::Renewed(_))));
    let task = TaskId(Uuid::from_u128(7)).to_string();
    let running = vec![TaskInHand { task: task.clone(), dispatch: 3, ..TaskInHand::default() }];
    reports.send(WorkerReport { report: 2, running, ..report("cpu") }).await.expect("room");
    assert_eq!(next().await, Some(Order::Stale(StaleOrder { task, dispatch: 3 })));
    assert!(matches!(next().await, Some(Order::Renewed(renewed)) if renewed.report == 2));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_row_counts_whatever_the_board_says() {
    let world = World::leading().await;
    let task = world.running(&["a"]).await.id;
    assert_eq!(world.lead.board().out(task), None);
    let door = world.door();
    let asked = async |task: Uuid, dispatch| {
        let request = AcquireRequest {
            worker: "w".to_owned(),
            boot: "b".to_owned(),
            device: "cpu".to_owned(),
            model: "tiny.en".to_owned(),
            memory_bytes: 1,
            task: TaskId(task).to_string(),
            dispatch,
            wait_ms: 20_000,
            ..AcquireRequest::default()
        };
        let answer = within("an answer", Leases::acquire(&door, Request::new(request))).await.expect("it leads");
        answer.into_inner().outcome.expect("an outcome")
    };
    assert!(matches!(asked(task, 1).await, Outcome::Granted(_)));
    assert_eq!(asked(task, 2).await, Outcome::Stale(Stale {}));
    assert_eq!(asked(Uuid::from_u128(7), 1).await, Outcome::Stale(Stale {}));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_goes_on_with_a_released_row_and_stops_what_is_stale() {
    let world = World::leading().await;
    let task = world.running(&["a"]).await.id;
    let (mut orders, reports) = session(&world, "cpu").await;
    let in_hand = |dispatch| TaskInHand { task: TaskId(task).to_string(), dispatch, ..TaskInHand::default() };
    let running = WorkerReport { running: vec![in_hand(1), in_hand(7)], ..report("cpu") };
    reports.send(running).await.expect("the session stands");
    let stale = within("it is told", async {
        loop {
            let order = orders.message().await.expect("it leads").expect("the session stands");
            if let Some(Order::Stale(stale)) = order.order {
                return stale.dispatch;
            }
        }
    });
    assert_eq!(stale.await, 7, "the board does not know the task, but its row does");
    world.stop().await;
}
