//! The session against a coordinator in this process.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use warren_clock::Clock;
use warren_fault::{Code, Fault};
use warren_jobs::{
    TaskKind,
    lease::{Breach, Standing},
};
use warren_messages::wire::{self, acquire_response::Outcome, coordinator_order::Order};

use crate::{
    Connection, Dropped, Interrupted, LeaseSettings, Leases, NotGranted, Takes, Timing, WorkerIdentity,
    fake::{Coordinator, Refused, Table},
    slots::Slot,
};

const TASK: &str = "task_1";
const JOB: &str = "job_1";

struct Worker {
    leases: Leases,
    stopping: CancellationToken,
    breaches: watch::Receiver<Vec<Breach>>,
}

fn quick() -> Timing {
    Timing {
        report: Duration::from_millis(100),
        renew: Duration::from_millis(50),
        change: Duration::from_millis(10),
        first_answer: Duration::from_secs(1),
        // Patient, also on a machine that has much to do.
        answer: Duration::from_secs(20),
        search: Duration::from_millis(50),
        idle: Duration::from_secs(600),
        watch: Duration::from_millis(10),
        ..Timing::default()
    }
}

/// Gives a silent coordinator up soon.
fn impatient() -> Timing {
    Timing { answer: Duration::from_millis(1500), ..quick() }
}

fn worker_with(settings: &LeaseSettings, timing: Timing) -> Worker {
    let kinds = vec![Takes::fixed(TaskKind::Transcribe, 1)];
    let identity = WorkerIdentity { service: "transcription", kinds, slots: 1, version: "0.0.0" };
    let (sender, breaches) = watch::channel(Vec::new());
    let stopping = CancellationToken::new();
    let on_breach = Box::new(move |breach: &Breach| sender.send_modify(|all| all.push(breach.clone())));
    let leases = Leases::start_with(settings, identity, &Clock::system(), stopping.clone(), timing, on_breach);
    Worker { leases: leases.expect("started"), stopping, breaches }
}

fn worker(coordinators: &[&Coordinator], timing: Timing) -> Worker {
    let coordinators = coordinators.iter().map(|coordinator| coordinator.address.clone()).collect();
    worker_with(&LeaseSettings { coordinators, worker: "w".to_owned(), ..Default::default() }, timing)
}

impl Worker {
    async fn connected(&self) -> String {
        let mut connection = self.leases.connection();
        let connected = connection.wait_for(|now| matches!(now, Connection::Connected(_)));
        let Connection::Connected(address) = within(connected).await.expect("the session lives").clone() else {
            unreachable!("just matched")
        };
        address
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.expect("within 60 s")
}

/// Handlers run on any thread.
fn sent<T: Send>(future: T) -> T {
    future
}

async fn until(slot: &Slot, lease: &str, wanted: Standing) {
    loop {
        let changed = slot.shared.leases_changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if slot.shared.held().standing(lease) == wanted {
            return;
        }
        changed.await;
    }
}

fn table() -> Arc<Mutex<Table>> {
    Arc::default()
}

#[tokio::test]
async fn a_worker_reports_what_it_has_in_hand() {
    let coordinator = Coordinator::start(&table(), true).await;
    let worker = worker(&[&coordinator], quick());
    let task = worker.leases.in_hand(TASK, 3, JOB);
    task.step("decode", 7.5);
    let report = within(coordinator.reported(|report| report.running.iter().any(|t| t.step == "decode"))).await;
    assert_eq!(
        (report.worker.as_str(), report.service.as_str(), report.device.as_str()),
        ("w", "transcription", "cpu")
    );
    assert_eq!(report.takes, [wire::KindSlots { kind: "transcribe".to_owned(), slots: 1, holds: 1 }]);
    assert_eq!((report.running[0].dispatch, report.running[0].done_units), (3, 7.5));
    drop(task);
    within(coordinator.reports_next(|report| report.running.is_empty() && report.trouble.is_empty())).await;
    worker.leases.set_trouble("rabbitmq: ACCESS_REFUSED".to_owned());
    within(coordinator.reports_next(|report| report.trouble.starts_with("rabbitmq"))).await;
    worker.stopping.cancel();
    within(coordinator.reports_next(|report| report.draining)).await;
}

#[tokio::test]
async fn cancel_and_stale_stop_the_task() {
    let coordinator = Coordinator::start(&table(), true).await;
    let worker = worker(&[&coordinator], quick());
    let (cancelled, stale) = (worker.leases.in_hand("a", 1, JOB), worker.leases.in_hand("b", 2, JOB));
    within(coordinator.reported(|report| report.running.len() == 2)).await;
    coordinator.order(Order::Cancel(wire::CancelOrder { task: "a".to_owned() })).await;
    within(cancelled.cancelled()).await;
    coordinator.order(Order::Stale(wire::StaleOrder { task: "b".to_owned(), dispatch: 2 })).await;
    within(stale.cancelled()).await;
    assert_eq!((cancelled.dropped(), stale.dropped()), (Some(Dropped::Cancelled), Some(Dropped::Stale)));
}

#[tokio::test]
async fn an_answer_counts_for_the_tasks_that_its_report_names() {
    let coordinator = Coordinator::start(&table(), true).await;
    // Only what is asked for is reported in time.
    let slow = Duration::from_secs(3_600);
    let worker = worker(&[&coordinator], Timing { report: slow, change: slow, ..quick() });
    worker.connected().await;
    let first = worker.leases.in_hand("a", 1, JOB);
    within(worker.leases.answered(&first)).await;
    let reported = within(coordinator.reported(|report| report.running.iter().any(|task| task.task == "a"))).await;
    within(worker.leases.answered(&first)).await;
    coordinator.fall_silent();
    let second = worker.leases.in_hand("b", 1, JOB);
    let answered = worker.leases.answered(&second);
    tokio::pin!(answered);
    assert!(timeout(Duration::from_millis(100), &mut answered).await.is_err(), "after {}", reported.report);
    second.drop_as(Dropped::Cancelled);
    within(answered).await;
}

#[tokio::test]
async fn a_hint_leads_to_the_leader() {
    let table = table();
    let (standby, leader) = (Coordinator::start(&table, false).await, Coordinator::start(&table, true).await);
    standby.hint(&leader.address);
    let worker = worker(&[&standby], quick());
    assert_eq!(worker.connected().await, leader.address);
}

#[tokio::test]
async fn without_a_leader_the_worker_says_why() {
    let standby = Coordinator::start(&table(), false).await;
    let worker = worker(&[&standby], quick());
    let mut connection = worker.leases.connection();
    within(connection.wait_for(|now| matches!(now, Connection::Searching(why) if why.contains("does not lead"))))
        .await
        .expect("the session lives");
    standby.lead(true);
    assert_eq!(worker.connected().await, standby.address);
}

#[tokio::test]
async fn a_slot_keeps_its_lease_from_task_to_task() {
    let coordinator = Coordinator::start(&table(), true).await;
    let worker = worker(&[&coordinator], quick());
    let mut fences = Vec::new();
    for dispatch in 1..=3 {
        let task = worker.leases.in_hand(TASK, dispatch, JOB);
        let mut slot = within(worker.leases.slot("tiny.en")).await;
        let lease = within(slot.acquire("tiny.en", 1, &task)).await.expect("granted");
        lease.enter().expect("renewed");
        lease.leave();
        fences.push(lease.fence());
    }
    assert_eq!(fences, [1, 1, 1]);
    assert!(worker.breaches.borrow().is_empty());
}

#[tokio::test]
async fn a_slot_without_work_gives_its_lease_back() {
    let table = table();
    let coordinator = Coordinator::start(&table, true).await;
    let worker = worker(&[&coordinator], Timing { idle: Duration::from_millis(50), ..quick() });
    let task = worker.leases.in_hand(TASK, 1, JOB);
    let mut slot = within(worker.leases.slot("tiny.en")).await;
    within(slot.acquire("tiny.en", 1, &task)).await.expect("granted");
    drop(slot);
    within(coordinator.reports_next(|report| report.renewals.is_empty())).await;
    // The place is free again only after the lease was given back.
    within(worker.leases.slot("tiny.en")).await;
    assert_eq!(table.lock().unwrap().released, ["lease-1"]);
    assert!(worker.breaches.borrow().is_empty());
}

#[tokio::test]
async fn what_no_task_uses_is_given_back_at_the_end() {
    let table = table();
    let coordinator = Coordinator::start(&table, true).await;
    let worker = worker(&[&coordinator], quick());
    let task = worker.leases.in_hand(TASK, 1, JOB);
    let mut slot = within(worker.leases.slot("tiny.en")).await;
    within(slot.acquire("tiny.en", 1, &task)).await.expect("granted");
    drop(slot);
    // The place is free a moment later.
    within(async {
        while !table.lock().unwrap().granted.is_empty() {
            worker.leases.clone().close().await;
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn another_model_needs_another_lease() {
    let table = table();
    let coordinator = Coordinator::start(&table, true).await;
    let worker = worker(&[&coordinator], quick());
    let task = worker.leases.in_hand(TASK, 1, JOB);
    let mut slot = within(worker.leases.slot("tiny.en")).await;
    let first = within(sent(slot.acquire("tiny.en", 1, &task))).await.expect("granted");
    let second = within(slot.acquire("base", 1, &task)).await.expect("granted");
    assert!(second.fence() > first.fence());
    assert_eq!(first.enter(), Err(Interrupted::LeaseLost), "given back");
    assert_eq!(table.lock().unwrap().released, ["lease-1"]);
}

#[tokio::test]
async fn a_yield_takes_the_lease_at_the_task_boundary() {
    let table = table();
    let coordinator = Coordinator::start(&table, true).await;
    let worker = worker(&[&coordinator], quick());
    let task = worker.leases.in_hand(TASK, 1, JOB);
    let mut slot = within(worker.leases.slot("tiny.en")).await;
    let lease = within(slot.acquire("tiny.en", 1, &task)).await.expect("granted");
    let wanted = |urgent| Order::Yield(wire::YieldOrder { lease: "lease-1".to_owned(), urgent });
    coordinator.order(wanted(false)).await;
    within(until(&slot, "lease-1", Standing::Wanted)).await;
    lease.enter().expect("the task goes on");
    lease.leave();
    drop(slot);
    // The place is free again only after the lease was given back.
    let mut slot = within(worker.leases.slot("tiny.en")).await;
    assert_eq!(table.lock().unwrap().released, ["lease-1"]);
    let lease = within(slot.acquire("tiny.en", 1, &task)).await.expect("granted");
    assert_eq!(lease.fence(), 2);

    coordinator.order(Order::Yield(wire::YieldOrder { lease: "lease-2".to_owned(), urgent: true })).await;
    within(until(&slot, "lease-2", Standing::WantedNow)).await;
    assert_eq!(lease.enter(), Err(Interrupted::Yield));
    within(slot.give_back()).await;
    assert_eq!(table.lock().unwrap().released, ["lease-1", "lease-2"]);
}

#[tokio::test]
async fn a_yield_takes_an_idle_lease_at_once() {
    let table = table();
    let coordinator = Coordinator::start(&table, true).await;
    let worker = worker(&[&coordinator], quick());
    let task = worker.leases.in_hand(TASK, 1, JOB);
    let mut slot = within(worker.leases.slot("tiny.en")).await;
    within(slot.acquire("tiny.en", 1, &task)).await.expect("granted");
    drop(slot);
    coordinator.order(Order::Yield(wire::YieldOrder { lease: "lease-1".to_owned(), urgent: false })).await;
    within(coordinator.reports_next(|report| report.renewals.is_empty())).await;
}

#[tokio::test]
async fn a_hand_over_keeps_the_lease() {
    let table = table();
    let (first, second) = (Coordinator::start(&table, true).await, Coordinator::start(&table, false).await);
    let worker = worker(&[&first, &second], impatient());
    let task = worker.leases.in_hand(TASK, 1, JOB);
    let mut slot = within(worker.leases.slot("tiny.en")).await;
    let lease = within(slot.acquire("tiny.en", 1, &task)).await.expect("granted");
    lease.enter().expect("renewed");

    // The leader freezes during a forward pass; the standby takes over.
    first.fall_silent();
    second.lead(true);
    let report = within(second.reported(|report| !report.renewals.is_empty())).await;
    assert_eq!((report.renewals[0].fence, report.running.len()), (1, 1));
    let moved = Connection::Connected(second.address.clone());
    within(worker.leases.connection().wait_for(|now| *now == moved)).await.expect("the session lives");
    lease.leave();
    lease.enter().expect("still held");
    lease.leave();
    assert!(worker.breaches.borrow().is_empty(), "a healthy worker must not abort");
}

#[tokio::test]
async fn a_lost_lease_stops_the_work() {
    let coordinator = Coordinator::start(&table(), true).await;
    let worker = worker(&[&coordinator], quick());
    let task = worker.leases.in_hand(TASK, 1, JOB);
    let mut slot = within(worker.leases.slot("tiny.en")).await;
    let lease = within(slot.acquire("tiny.en", 1, &task)).await.expect("granted");
    coordinator.forget("lease-1");
    within(coordinator.reports_next(|report| report.renewals.is_empty())).await;
    assert_eq!(lease.enter(), Err(Interrupted::LeaseLost));
    assert!(worker.breaches.borrow().is_empty(), "no pass was running");
}

#[tokio::test]
async fn a_lease_lost_during_a_pass_aborts() {
    let coordinator = Coordinator::start(&table(), true).await;
    let mut worker = worker(&[&coordinator], quick());
    let task = worker.leases.in_hand(TASK, 1, JOB);
    let mut slot = within(worker.leases.slot("tiny.en")).await;
    let lease = within(slot.acquire("tiny.en", 1, &task)).await.expect("granted");
    lease.enter().expect("renewed");
    coordinator.forget("lease-1");
    within(worker.breaches.wait_for(|breaches| !breaches.is_empty())).await.expect("the watchdog lives");
}

#[tokio::test]
async fn a_pass_that_runs_on_without_renewal_aborts() {
    let coordinator = Coordinator::start(&table(), true).await;
    let mut worker = worker(&[&coordinator], Timing { self_fence: Duration::from_secs(2), ..quick() });
    let task = worker.leases.in_hand(TASK, 1, JOB);
    let mut slot = within(worker.leases.slot("tiny.en")).await;
    let lease = within(slot.acquire("tiny.en", 1, &task)).await.expect("granted");
    lease.enter().expect("renewed");
    coordinator.fall_silent();
    within(worker.breaches.wait_for(|breaches| !breaches.is_empty())).await.expect("the watchdog lives");
    assert_eq!(worker.breaches.borrow()[0].lease, "lease-1");
}

#[tokio::test]
async fn a_worker_that_cannot_renew_between_passes_loses_the_lease_and_lives() {
    let table = table();
    let (first, second) = (Coordinator::start(&table, true).await, Coordinator::start(&table, false).await);
    let worker = worker(&[&first, &second], Timing { self_fence: Duration::from_millis(300), ..impatient() });
    let task = worker.leases.in_hand(TASK, 1, JOB);
    let mut slot = within(worker.leases.slot("tiny.en")).await;
    let lease = within(slot.acquire("tiny.en", 1, &task)).await.expect("granted");
    first.fall_silent();
    // No pass is tried until then: one that is under way when the lease runs out is a breach.
    within(until(&slot, "lease-1", Standing::Lost)).await;
    assert_eq!(lease.enter(), Err(Interrupted::LeaseLost));

    // The coordinator still keeps the device for it, so it is given back before the next one is asked for.
    second.lead(true);
    let lease = within(slot.acquire("tiny.en", 1, &task)).await.expect("granted anew");
    assert_eq!((lease.fence(), table.lock().unwrap().released.as_slice()), (2, ["lease-1".to_owned()].as_slice()));
    assert!(worker.breaches.borrow().is_empty(), "no pass was running");
}

#[tokio::test]
async fn a_worker_on_a_card_that_cannot_renew_aborts_between_passes_too() {
    let coordinator = Coordinator::start(&table(), true).await;
    let settings = LeaseSettings {
        coordinators: vec![coordinator.address.clone()],
        device: "cuda:0".to_owned(),
        ..Default::default()
    };
    let mut worker = worker_with(&settings, Timing { self_fence: Duration::from_millis(300), ..quick() });
    let task = worker.leases.in_hand(TASK, 1, JOB);
    let mut slot = within(worker.leases.slot("tiny.en")).await;
    within(slot.acquire("tiny.en", 1, &task)).await.expect("granted");
    coordinator.fall_silent();
    within(worker.breaches.wait_for(|breaches| !breaches.is_empty())).await.expect("the watchdog lives");
}

#[tokio::test]
async fn what_the_coordinator_answers_decides() {
    let coordinator = Coordinator::start(&table(), true).await;
    let worker = worker(&[&coordinator], Timing { wait: Duration::from_millis(1500), ..quick() });
    let mut slot = within(worker.leases.slot("tiny.en")).await;

    coordinator.answer_acquire(Outcome::TooLarge(wire::TooLarge { arithmetic: "3 + 2 > 4 GiB".to_owned() }));
    let task = worker.leases.in_hand(TASK, 1, JOB);
    let too_large = within(slot.acquire("tiny.en", 1, &task)).await.expect_err("refused");
    assert_eq!(too_large, NotGranted::Fault(Fault::permanent(Code::OutOfMemory, "3 + 2 > 4 GiB")));

    coordinator.answer_acquire(Outcome::Waiting(wire::Waiting { position: 4, held_by: "w2".to_owned() }));
    let NotGranted::Fault(Fault::RetryLater { cause, .. }) =
        within(slot.acquire("tiny.en", 1, &task)).await.expect_err("busy")
    else {
        panic!("busy is for later")
    };
    assert_eq!(cause.code, Code::LeaseNotGranted);

    coordinator.answer_acquire(Outcome::Stale(wire::Stale {}));
    let stale = within(slot.acquire("tiny.en", 1, &task)).await.expect_err("stale");
    assert_eq!((stale, task.is_stale()), (NotGranted::Dropped(Dropped::Stale), true));

    coordinator.answer_acquire(Outcome::Cancelled(wire::Cancelled {}));
    let task = worker.leases.in_hand("task_2", 1, JOB);
    let cancelled = within(slot.acquire("tiny.en", 1, &task)).await.expect_err("cancelled");
    assert_eq!(cancelled, NotGranted::Dropped(Dropped::Cancelled));
}

#[tokio::test]
async fn a_device_that_the_coordinator_does_not_know_is_said_at_once() {
    let reason = "device: the coordinator has no `cpu`; add it to its `devices`";
    for what in [Refused::Session, Refused::Acquire] {
        let (leader, standby) = (Coordinator::start(&table(), true).await, Coordinator::start(&table(), false).await);
        leader.refuse_device(what, reason);
        let worker = worker(&[&leader, &standby], Timing { wait: Duration::from_secs(600), ..quick() });
        let task = worker.leases.in_hand(TASK, 1, JOB);
        let mut slot = within(worker.leases.slot("tiny.en")).await;
        let refused = within(slot.acquire("tiny.en", 1, &task)).await.expect_err("refused");
        assert_eq!(refused, NotGranted::Fault(Fault::retry_later(Code::LeaseNotGranted, reason)), "{what:?}");
        if what == Refused::Session {
            assert_eq!(*worker.leases.connection().borrow(), Connection::Refused(reason.to_owned()));
        }
    }
}

#[tokio::test]
async fn no_coordinator_is_for_later() {
    let standby = Coordinator::start(&table(), false).await;
    let worker = worker(&[&standby], Timing { wait: Duration::from_millis(100), ..quick() });
    let task = worker.leases.in_hand(TASK, 1, JOB);
    let mut slot = within(worker.leases.slot("tiny.en")).await;
    let NotGranted::Fault(fault) = within(slot.acquire("tiny.en", 1, &task)).await.expect_err("nobody leads") else {
        panic!("a fault")
    };
    assert_eq!(fault.cause().code, Code::CoordinatorUnavailable);
}

#[tokio::test]
async fn each_pass_leaves_a_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("passes.jsonl");
    let coordinator = Coordinator::start(&table(), true).await;
    let settings = LeaseSettings {
        coordinators: vec![coordinator.address.clone()],
        worker: "w".to_owned(),
        record: Some(record.clone()),
        ..Default::default()
    };
    let worker = worker_with(&settings, quick());
    let task = worker.leases.in_hand(TASK, 1, JOB);
    let mut slot = within(worker.leases.slot("tiny.en")).await;
    let lease = within(slot.acquire("tiny.en", 1, &task)).await.expect("granted");
    for _ in 0..2 {
        lease.enter().expect("renewed");
        lease.leave();
    }
    let lines: Vec<serde_json::Value> = std::fs::read_to_string(record)
        .expect("written")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["worker"], &lines[0]["device"], &lines[0]["model"]),
        (&"w".into(), &"cpu".into(), &"tiny.en".into())
    );
    assert!(lines[0]["end_ns"].as_u64() <= lines[1]["start_ns"].as_u64());
}
