use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

fn card(name: &str, max_concurrent: u32) -> DeviceSpec {
    DeviceSpec { name: name.into(), max_concurrent, memory_bytes: 10 * GIB, reserve_bytes: 2 * GIB }
}

fn table(max_concurrent: u32) -> LeaseTable {
    let mut table = LeaseTable::new(LeaseTiming::default());
    table.set_device(card("cuda:0", max_concurrent));
    table
}

fn holder(worker: u32) -> Holder {
    Holder { worker: format!("w{worker}"), boot: "b".into(), slot: 0 }
}

fn request(id: u32, worker: u32, model: &str, gib: u64) -> Request {
    Request {
        lease: format!("lease-{id}"),
        device: "cuda:0".into(),
        holder: holder(worker),
        wait: 1,
        model: model.into(),
        memory_bytes: gib * GIB,
        class: JobClass::Default,
        task: "t".into(),
    }
}

fn granted(acquired: Acquired) -> Lease {
    match acquired {
        Acquired::Granted(lease) => lease,
        other => panic!("not granted: {other:?}"),
    }
}

fn ids(leases: &[Lease]) -> Vec<&str> {
    leases.iter().map(|lease| lease.id.as_str()).collect()
}

#[test]
fn one_holds_and_the_others_wait_in_order() {
    let mut table = table(1);
    let first = granted(table.acquire(request(1, 1, "whisper", 4), 0));
    assert_eq!(table.acquire(request(2, 2, "minilm", 1), 0), Acquired::Queued { position: 0 });
    assert_eq!(table.acquire(request(3, 3, "minilm", 1), 0), Acquired::Queued { position: 1 });
    assert_eq!(table.acquire(request(4, 2, "minilm", 1), 10), Acquired::Queued { position: 0 }, "asking again");
    assert!(table.release(&first.id, first.fence, 20));
    assert_eq!(ids(&table.tick(20).granted), ["lease-4"]);
    let again = granted(table.acquire(request(5, 2, "minilm", 1), 30));
    assert_eq!((again.id.as_str(), again.fence), ("lease-4", 2), "the same lease");
    assert_eq!(table.acquire(request(6, 3, "minilm", 1), 30), Acquired::Queued { position: 0 });
}

#[test]
fn a_higher_class_is_served_first() {
    let mut table = table(1);
    let held = granted(table.acquire(request(1, 1, "m", 1), 0));
    table.acquire(request(2, 2, "m", 1), 0);
    table.acquire(Request { class: JobClass::Interactive, ..request(3, 3, "m", 1) }, 0);
    table.release(&held.id, held.fence, 1);
    assert_eq!(ids(&table.tick(1).granted), ["lease-3"]);
}

#[test]
fn what_can_never_fit_is_refused_with_the_arithmetic() {
    let Acquired::TooLarge { arithmetic } = table(1).acquire(request(1, 1, "large", 9), 0) else { panic!("fits") };
    assert_eq!(arithmetic, "`large` needs 9216 MiB, but cuda:0 has 10240 MiB less 2048 MiB in reserve");
    let elsewhere = Request { device: "cuda:7".into(), ..request(1, 1, "m", 1) };
    assert_eq!(table(1).acquire(elsewhere, 0), Acquired::UnknownDevice);
}

#[test]
fn slots_of_one_process_share_a_resident_model() {
    let mut table = table(8);
    let slot = |id, worker, slot| {
        let mut request = request(id, worker, "whisper", 5);
        request.holder.slot = slot;
        request
    };
    granted(table.acquire(slot(1, 1, 0), 0));
    granted(table.acquire(slot(2, 1, 1), 0));
    assert_eq!(table.used_bytes("cuda:0"), 5 * GIB);
    assert_eq!(table.acquire(slot(3, 2, 0), 0), Acquired::Queued { position: 0 }, "another process has its own copy");
}

#[test]
fn an_expired_lease_drains_before_it_is_given_away() {
    let mut table = table(1);
    let lost = granted(table.acquire(request(1, 1, "m", 1), 0));
    table.acquire(request(2, 2, "m", 1), 0);
    assert_eq!(table.renew(&lost.id, lost.fence, 14_999), Renewed::Ok { expires_ms: 29_999 });
    assert_eq!(table.renew(&lost.id, lost.fence + 1, 15_000), Renewed::Lost, "another fence");
    table.acquire(request(3, 2, "m", 1), 20_000);
    assert_eq!(ids(&table.tick(29_999).expired), ["lease-1"]);
    assert_eq!(table.renew(&lost.id, lost.fence, 30_000), Renewed::Lost);
    assert!(!table.release(&lost.id, lost.fence, 30_000));
    assert_eq!(table.tick(34_998), Ticked::default());
    let ticked = table.tick(34_999);
    assert_eq!((ids(&ticked.freed), ids(&ticked.granted)), (vec!["lease-1"], vec!["lease-3"]));
}

#[test]
fn a_request_nobody_stands_behind_is_dropped() {
    let mut table = table(1);
    let held = granted(table.acquire(request(1, 1, "m", 1), 0));
    table.acquire(request(2, 2, "m", 1), 0);
    table.acquire(request(3, 3, "m", 1), 0);
    table.renew(&held.id, held.fence, 14_000);
    table.renew(&held.id, held.fence, 28_000);
    table.acquire(request(4, 3, "m", 1), 20_000);
    table.withdraw(&holder(9));
    table.tick(28_000);
    assert_eq!(table.waiting().map(|(request, _)| &request.holder).collect::<Vec<_>>(), [&holder(3)]);
    table.withdraw(&holder(3));
    assert_eq!(table.waiting().count(), 0);
}

#[test]
fn a_new_leader_honours_leases_until_they_have_drained() {
    let mut old = table(1);
    let held = granted(old.acquire(request(1, 1, "m", 1), 0));
    let rows: Vec<Lease> = old.leases().cloned().collect();
    let fences =
        |table: &LeaseTable| table.devices().map(|(spec, fence)| (spec.name.clone(), fence)).collect::<Vec<_>>();

    let mut new = table(1);
    new.load(fences(&old), rows.clone(), 6_000);
    assert_eq!(new.acquire(request(2, 2, "m", 1), 6_000), Acquired::Queued { position: 0 });
    assert!(matches!(new.renew(&held.id, held.fence, 14_000), Renewed::Ok { .. }), "a healthy worker goes on");

    let mut alone = table(1);
    alone.load(fences(&old), rows, 100_000);
    alone.acquire(request(2, 2, "m", 1), 110_000);
    assert!(alone.tick(119_999).granted.is_empty(), "its holder is unknown, but may live");
    let granted = alone.tick(120_000).granted;
    assert_eq!((ids(&granted), granted[0].fence), (vec!["lease-2"], 2), "fences go on");
}

#[test]
fn a_process_that_was_replaced_holds_nothing() {
    let mut table = table(1);
    let held = granted(table.acquire(request(1, 1, "m", 1), 0));
    table.renew(&held.id, held.fence, 1_000);
    table.acquire(request(2, 2, "m", 1), 1_000);
    let back = |table: &mut LeaseTable, worker, boot, now| table.take_back(worker, boot, |_| true, now).len();
    assert_eq!(back(&mut table, "w1", "b", 1_500), 0, "it is the one that holds it");
    assert_eq!(back(&mut table, "w1", "a", 1_500), 0, "an earlier one's report came late");
    assert_eq!(back(&mut table, "w2", "c", 1_500), 0, "another worker");
    assert_eq!(back(&mut table, "w1", "c", 1_500), 1);
    assert_eq!(ids(&table.tick(1_500).granted), ["lease-2"], "without its time to live, or grace");
    assert_eq!(table.renew(&held.id, held.fence, 1_500), Renewed::Lost);

    let expired = granted(table.acquire(request(2, 2, "m", 1), 1_500));
    assert_eq!(ids(&table.tick(expired.expires_ms).expired), ["lease-2"]);
    assert_eq!(back(&mut table, "w2", "c", expired.expires_ms), 1, "nor does it drain");
    assert_eq!(table.leases().count(), 0);
}

#[test]
fn a_grant_that_never_arrived_is_free_before_it_expires() {
    let mut table = table(1);
    let nothing = |_: &Lease| false;
    let lost = granted(table.acquire(request(1, 1, "m", 1), 0));
    table.acquire(request(2, 2, "m", 1), 0);
    assert_eq!(table.take_back("w1", "b", nothing, 1_999), [], "the answer may be on its way");
    granted(table.acquire(request(3, 1, "m", 1), 1_500));
    assert_eq!(table.take_back("w1", "b", nothing, 3_499), [], "answered again");
    assert_eq!(table.take_back("w1", "b", |lease| lease.id == lost.id, 3_500), [], "its worker knows it");
    assert_eq!(table.take_back("w1", "an earlier process", nothing, 3_500), []);
    assert_eq!(table.take_back("w2", "b", nothing, 3_500), []);
    assert_eq!(ids(&table.take_back("w1", "b", nothing, 3_500)), ["lease-1"]);
    assert_eq!(table.renew(&lost.id, lost.fence, 3_500), Renewed::Lost, "should the answer come after all");
    assert_eq!(ids(&table.tick(3_500).granted), ["lease-2"]);

    // Once renewed, it may be in use whatever a report says.
    let used = granted(table.acquire(request(4, 2, "m", 1), 3_500));
    table.renew(&used.id, used.fence, 4_000);
    assert_eq!(table.take_back("w2", "b", nothing, 10_000), []);
    let rows: Vec<Lease> = table.leases().map(|lease| Lease { confirmed: false, ..lease.clone() }).collect();
    table.load([], rows, 10_000);
    assert_eq!(table.take_back("w2", "b", nothing, 20_000), [], "an earlier coordinator may have renewed it");
}

#[test]
fn a_later_wait_frees_what_an_earlier_one_ended_with_and_an_earlier_one_is_late() {
    let mut table = table(1);
    let wait = |id, wait| Request { wait, ..request(id, 1, "m", 1) };
    let first = granted(table.acquire(wait(1, 1), 0));
    table.renew(&first.id, first.fence, 0);
    // Its release was not heard yet.
    let second = granted(table.acquire(wait(2, 2), 10));
    assert_eq!((second.id.as_str(), second.fence), ("lease-2", 2), "nothing of the first wait is in use");
    assert!(!table.release(&first.id, first.fence, 20), "the release that comes late frees nothing");
    assert_eq!(ids(&table.tick(20).freed), ["lease-1"], "its row has to go");
    assert_eq!(table.acquire(wait(3, 1), 30), Acquired::Late);
    assert_eq!(granted(table.acquire(wait(4, 2), 30)).id, "lease-2", "the same wait goes on");
    table.acquire(request(5, 2, "m", 1), 40);
    assert_eq!(
        table.acquire(Request { wait: 0, ..request(6, 2, "m", 1) }, 40),
        Acquired::Late,
        "it waits in a later one"
    );
}

#[test]
fn a_call_that_nobody_hears_takes_back_only_what_was_never_used() {
    let mut table = table(1);
    let lease = granted(table.acquire(request(1, 1, "m", 1), 0));
    table.acquire(request(2, 2, "m", 1), 0);
    assert_eq!(table.abandon(&holder(2), 0), None, "it only waited");
    assert_eq!(table.waiting().count(), 0);
    table.renew(&lease.id, lease.fence, 0);
    assert_eq!(table.abandon(&holder(1), 0), None, "an earlier call was heard");
    assert_eq!(table.leases().count(), 1);
    table.release(&lease.id, lease.fence, 0);
    granted(table.acquire(request(3, 1, "m", 1), 0));
    assert_eq!(table.abandon(&holder(1), 0).map(|lease| lease.id).as_deref(), Some("lease-3"));
    assert_eq!(table.leases().count(), 0);
}

#[test]
fn old_slices_yield_when_others_wait_and_young_ones_do_not() {
    let mut table = table(2);
    let first = granted(table.acquire(request(1, 1, "m", 1), 0));
    granted(table.acquire(request(2, 2, "m", 1), 500));
    assert_eq!(table.wants_yield(5_000), []);
    table.acquire(Request { class: JobClass::Interactive, ..request(3, 3, "n", 1) }, 1_000);
    assert_eq!(table.wants_yield(1_999), []);
    let asked = table.wants_yield(5_000);
    assert_eq!(asked, [Yield { lease: first.id.clone(), holder: holder(1), urgent: true }], "one is enough");
    table.acquire(request(4, 4, "n", 1), 1_000);
    assert_eq!(table.wants_yield(5_000).len(), 2);
    table.release(&first.id, first.fence, 5_000);
    assert_eq!(table.wants_yield(5_000).len(), 1, "the interactive one has it now");
}

#[test]
fn a_big_request_is_passed_by_eight_times_at_most() {
    let mut table = table(8);
    let mut small = granted(table.acquire(request(1, 1, "small", 1), 0));
    granted(table.acquire(request(2, 2, "small", 1), 0));
    assert_eq!(table.acquire(request(3, 3, "big", 8), 0), Acquired::Queued { position: 0 });
    let mut passed = 0;
    for id in 10..30 {
        match table.acquire(request(id, id, "small", 1), 0) {
            Acquired::Granted(next) => {
                table.release(&small.id, small.fence, 0);
                small = next;
                passed += 1;
            }
            other => assert_eq!(other, Acquired::Queued { position: (id - 10 - passed + 1) as usize }),
        }
    }
    assert_eq!(passed, 8);
    let held: Vec<_> = table.leases().map(|lease| (lease.id.clone(), lease.fence)).collect();
    for (id, fence) in held {
        table.release(&id, fence, 1);
    }
    assert_eq!(ids(&table.tick(1).granted)[0], "lease-3");
}

#[derive(Clone, Debug)]
enum Op {
    Acquire { worker: u32, slot: u32, device: usize, model: usize, gib: u64, class: usize },
    AcquireAgain { pick: usize },
    Renew { pick: usize, fence_off: bool },
    Release { pick: usize, fence_off: bool },
    Withdraw { worker: u32 },
    TakeBack { worker: u32 },
    Tick { ms: u64 },
    HandOver,
}

fn histories() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (0_u32..5, 0_u32..2, 0_usize..2, 0_usize..2, 0_u64..10, 0_usize..3)
            .prop_map(|(worker, slot, device, model, gib, class)| Op::Acquire { worker, slot, device, model, gib, class }),
        2 => any::<usize>().prop_map(|pick| Op::AcquireAgain { pick }),
        6 => (any::<usize>(), prop::bool::weighted(0.1)).prop_map(|(pick, fence_off)| Op::Renew { pick, fence_off }),
        5 => (any::<usize>(), prop::bool::weighted(0.2)).prop_map(|(pick, fence_off)| Op::Release { pick, fence_off }),
        1 => (0_u32..5).prop_map(|worker| Op::Withdraw { worker }),
        2 => (0_u32..5).prop_map(|worker| Op::TakeBack { worker }),
        8 => (0_u64..8_000).prop_map(|ms| Op::Tick { ms }),
        1 => Just(Op::HandOver),
    ];
    prop::collection::vec(op, 0..200)
}

const DEVICES: [&str; 2] = ["cpu", "cuda:0"];

fn specs() -> [DeviceSpec; 2] {
    [card("cpu", 3), card("cuda:0", 1)]
}

fn two_devices() -> LeaseTable {
    let mut table = LeaseTable::new(LeaseTiming::default());
    specs().into_iter().for_each(|spec| table.set_device(spec));
    table
}

/// Leases as the holders may believe in them: from the grant until released, or life and grace after the last renewal.
#[derive(Default)]
struct World {
    blocks: BTreeMap<String, (Lease, u64)>,
    seen: Vec<Lease>,
    /// Leases that were renewed, and so may be used.
    renewed: BTreeSet<String>,
    last_fence: BTreeMap<String, u64>,
}

impl World {
    /// Notes the leases that came into being, in the order of their fences.
    fn observe(&mut self, table: &LeaseTable, now: u64) -> Result<(), TestCaseError> {
        let mut fresh: Vec<&Lease> =
            table.leases().filter(|lease| self.seen.iter().all(|seen| seen.id != lease.id)).collect();
        fresh.sort_by_key(|lease| lease.fence);
        for lease in fresh {
            let last = self.last_fence.entry(lease.device.clone()).or_default();
            prop_assert!(lease.fence > *last, "I2: fences increase");
            *last = lease.fence;
            self.blocks.insert(lease.id.clone(), (lease.clone(), now + 20_000));
            self.seen.push(lease.clone());
        }
        Ok(())
    }

    /// I1 and I6, from the holders' side: whatever may still be used fits the device.
    fn fits(&self, now: u64) -> Result<(), TestCaseError> {
        for spec in specs() {
            let used = self.blocks.values().filter(|(lease, until)| lease.device == spec.name && *until > now);
            let used: Vec<&Lease> = used.map(|(lease, _)| lease).collect();
            prop_assert!(used.len() <= spec.max_concurrent as usize, "I1: {} leases on {}", used.len(), spec.name);
            prop_assert!(resident(&used) <= spec.budget_bytes(), "I6: memory given away too early");
        }
        Ok(())
    }
}

fn resident(leases: &[&Lease]) -> u64 {
    let mut models = BTreeMap::new();
    for lease in leases {
        let bytes = models.entry((&lease.holder.worker, &lease.holder.boot, &lease.model)).or_insert(0);
        *bytes = lease.memory_bytes.max(*bytes);
    }
    models.values().sum()
}

/// I7: after a tick, the head of each queue does not fit.
fn no_lost_wake_up(table: &LeaseTable) -> Result<(), TestCaseError> {
    for spec in specs() {
        let held: Vec<&Lease> = table.leases().filter(|lease| lease.device == spec.name).collect();
        let Some((head, _)) = table.waiting().find(|(request, _)| request.device == spec.name) else { continue };
        let imagined = Lease {
            id: head.lease.clone(),
            device: head.device.clone(),
            holder: head.holder.clone(),
            wait: head.wait,
            model: head.model.clone(),
            memory_bytes: head.memory_bytes,
            class: head.class,
            fence: 0,
            granted_ms: 0,
            expires_ms: 0,
            confirmed: false,
            draining_until_ms: None,
        };
        let with_head: Vec<&Lease> = held.iter().copied().chain([&imagined]).collect();
        let fits = with_head.len() <= spec.max_concurrent as usize && resident(&with_head) <= spec.budget_bytes();
        prop_assert!(!fits, "I7: {} waits although it fits", head.lease);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_invariants_hold_in_every_history(history in histories()) {
        let mut table = two_devices();
        let mut world = World::default();
        let mut now = 1_000_000;
        let mut asked: Vec<Request> = Vec::new();
        for (serial, op) in history.into_iter().enumerate() {
            match op {
                Op::Acquire { worker, slot, device, model, gib, class } => {
                    let holder = Holder { worker: format!("w{worker}"), boot: format!("b{}", worker % 2), slot };
                    let request = Request {
                        lease: format!("lease-{serial}"),
                        device: DEVICES[device].into(),
                        holder: holder.clone(),
                        wait: serial as u64,
                        model: ["whisper", "minilm"][model].into(),
                        memory_bytes: gib * GIB,
                        class: JobClass::ALL[class],
                        task: String::new(),
                    };
                    asked.push(request.clone());
                    let answer = table.acquire(request, now);
                    // A holder that asks for something else has stopped using what it had.
                    if !matches!(answer, Acquired::TooLarge { .. }) {
                        world.blocks.retain(|id, (lease, _)| {
                            let kept = table.get(id).is_some();
                            kept || lease.holder != holder
                        });
                    }
                    match answer {
                        Acquired::Granted(lease) => {
                            world.observe(&table, now)?;
                            world.blocks.get_mut(&lease.id).expect("granted now or before").1 = now + 20_000;
                        }
                        Acquired::TooLarge { .. } => prop_assert!(gib > 8),
                        Acquired::Queued { .. } => {}
                        Acquired::Late | Acquired::UnknownDevice => {
                            prop_assert!(false, "waits grow, and both devices are known");
                        }
                    }
                }
                Op::AcquireAgain { pick } => {
                    let live: Vec<Lease> =
                        table.leases().filter(|lease| lease.is_live() && lease.expires_ms > now).cloned().collect();
                    if let Some(lease) = live.get(pick % live.len().max(1)) {
                        let again = Request {
                            lease: format!("lease-{serial}"),
                            device: lease.device.clone(),
                            holder: lease.holder.clone(),
                            wait: lease.wait,
                            model: lease.model.clone(),
                            memory_bytes: lease.memory_bytes,
                            class: lease.class,
                            task: String::new(),
                        };
                        let same = granted(table.acquire(again, now));
                        prop_assert_eq!((&same.id, same.fence), (&lease.id, lease.fence), "I9");
                        world.blocks.get_mut(&same.id).expect("granted before").1 = now + 20_000;
                    }
                }
                Op::Renew { pick, fence_off } => {
                    if let Some(lease) = world.seen.get(pick % world.seen.len().max(1)) {
                        let renewed = table.renew(&lease.id, lease.fence + u64::from(fence_off), now);
                        if let Renewed::Ok { expires_ms } = renewed {
                            prop_assert!(!fence_off);
                            world.renewed.insert(lease.id.clone());
                            prop_assert_eq!(table.renew(&lease.id, lease.fence, now), Renewed::Ok { expires_ms }, "I9");
                            let block = world.blocks.get_mut(&lease.id).expect("a released lease cannot be renewed");
                            block.1 = now + 20_000;
                        }
                    }
                }
                Op::Release { pick, fence_off } => {
                    if let Some(lease) = world.seen.get(pick % world.seen.len().max(1)) {
                        let released = table.release(&lease.id, lease.fence + u64::from(fence_off), now);
                        prop_assert!(!(released && fence_off));
                        if released {
                            world.blocks.remove(&lease.id).expect("released once only");
                            prop_assert!(!table.release(&lease.id, lease.fence, now), "I9");
                        }
                    }
                }
                Op::Withdraw { worker } => {
                    for request in asked.iter().filter(|request| request.holder.worker == format!("w{worker}")) {
                        table.withdraw(&request.holder);
                    }
                }
                Op::TakeBack { worker } => {
                    let (worker, boot) = (format!("w{worker}"), format!("b{}", worker % 2));
                    for lease in table.take_back(&worker, &boot, |_| false, now) {
                        prop_assert!(!world.renewed.contains(&lease.id), "I1: {} may be in use", lease.id);
                        world.blocks.remove(&lease.id).expect("it was granted");
                        prop_assert_eq!(table.renew(&lease.id, lease.fence, now), Renewed::Lost);
                    }
                }
                Op::Tick { ms } => {
                    now += ms;
                    let granted = table.tick(now).granted;
                    world.observe(&table, now)?;
                    prop_assert!(granted.iter().all(|lease| world.blocks.contains_key(&lease.id)));
                    no_lost_wake_up(&table)?;
                    prop_assert_eq!(table.tick(now), Ticked::default(), "a second tick finds nothing to do");
                    for asked in table.wants_yield(now) {
                        let lease = table.get(&asked.lease).expect("only known leases");
                        prop_assert!(lease.is_live() && now - lease.granted_ms >= 2_000);
                    }
                }
                Op::HandOver => {
                    let fences: Vec<_> = table.devices().map(|(spec, fence)| (spec.name.clone(), fence)).collect();
                    let rows: Vec<Lease> = table.leases().cloned().collect();
                    table = two_devices();
                    table.load(fences, rows, now);
                }
            }
            world.observe(&table, now)?;
            world.fits(now)?;
            for spec in specs() {
                let held: Vec<&Lease> = table.leases().filter(|lease| lease.device == spec.name).collect();
                prop_assert!(held.len() <= spec.max_concurrent as usize, "I1");
                prop_assert!(resident(&held) <= spec.budget_bytes(), "I1");
                prop_assert_eq!(table.used_bytes(&spec.name), resident(&held));
            }
        }
    }
}
