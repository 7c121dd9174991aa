//! DPC queues (spec 4.7).

use dirql_core::{CpuId, DpcInsert, DpcQueues, Drain, Importance, InsertOutcome};

const CPU: CpuId = CpuId(0);
const OTHER: CpuId = CpuId(1);

fn insert(dpc: u32) -> DpcInsert<u32, u32> {
    DpcInsert { dpc, args: dpc, target: None, current: CPU, importance: Importance::Medium, threaded: false }
}

fn queues() -> DpcQueues<u32, u32> {
    DpcQueues::new(2, true)
}

fn order(q: &mut DpcQueues<u32, u32>) -> Vec<u32> {
    std::iter::from_fn(|| q.pop(CPU).map(|r| r.dpc)).collect()
}

#[test]
fn a_queued_dpc_does_not_change() {
    let mut q = queues();
    assert!(q.insert(insert(1)).inserted);
    assert_eq!(
        q.insert(DpcInsert { args: 9, ..insert(1) }),
        InsertOutcome { inserted: false, drain: Drain::None }
    );
    assert_eq!(q.pop(CPU).unwrap().args, 1);
    assert!(q.insert(DpcInsert { args: 9, ..insert(1) }).inserted, "queued again while it runs");
}

#[test]
fn high_goes_first_the_rest_in_order() {
    let mut q = queues();
    for (dpc, importance) in [
        (1, Importance::Medium),
        (2, Importance::MediumHigh),
        (3, Importance::High),
        (4, Importance::Low),
        (5, Importance::High),
    ] {
        q.insert(DpcInsert { importance, ..insert(dpc) });
    }
    assert_eq!(order(&mut q), [5, 3, 1, 2, 4]);
}

#[test]
fn who_is_told() {
    let far = |dpc, importance| DpcInsert { target: Some(OTHER), importance, ..insert(dpc) };
    for importance in [Importance::Medium, Importance::MediumHigh, Importance::High] {
        assert_eq!(queues().insert(DpcInsert { importance, ..insert(1) }).drain, Drain::Local);
    }
    for importance in [Importance::MediumHigh, Importance::High] {
        assert_eq!(queues().insert(far(1, importance)).drain, Drain::Ipi(OTHER));
    }
    for importance in [Importance::Medium, Importance::Low] {
        let mut q = queues();
        for dpc in 1..=3 {
            assert_eq!(q.insert(far(dpc, importance)).drain, Drain::None);
        }
        assert!(!q.requested(OTHER));
        assert_eq!(q.insert(far(4, importance)).drain, Drain::Ipi(OTHER), "the fourth makes it deep");
    }
}

#[test]
fn a_low_one_waits_when_there_is_much_to_do() {
    let low = |dpc| DpcInsert { importance: Importance::Low, ..insert(dpc) };
    assert_eq!(queues().insert(low(1)).drain, Drain::Local, "rate below the minimum");
    let mut q = queues();
    for dpc in 1..=3 {
        q.insert(insert(dpc));
        q.pop(CPU);
    }
    assert!(!q.tick(CPU));
    assert_eq!(q.insert(low(4)).drain, Drain::None);
    assert!(!q.requested(CPU));
    assert!(q.tick(CPU) && q.requested(CPU), "the tick drains it");
}

#[test]
fn removing_and_flushing() {
    let mut q = queues();
    q.insert(insert(1));
    q.insert(insert(2));
    assert!(q.remove(2) && !q.remove(2));
    let first = q.pop(CPU).unwrap();
    assert!(!q.remove(1), "it runs");
    q.insert(DpcInsert { threaded: true, ..insert(3) });
    let ticket = q.flush();
    q.insert(insert(4));
    assert!(!q.flushed(ticket));
    q.finish(first.sequence);
    assert!(!q.flushed(ticket), "the threaded one counts");
    let third = q.pop_threaded(CPU).unwrap();
    assert!(!q.flushed(ticket));
    q.finish(third.sequence);
    assert!(q.flushed(ticket), "what was queued after does not count");
}

#[test]
fn one_dpc_on_two_processors() {
    let mut q = queues();
    q.insert(insert(1));
    let a = q.pop(CPU).unwrap();
    q.insert(DpcInsert { target: Some(OTHER), ..insert(1) });
    let b = q.pop(OTHER).unwrap();
    assert_eq!(q.running_on(1), [CPU, OTHER]);
    q.finish(a.sequence);
    assert_eq!(q.running_on(1), [OTHER]);
    q.finish(b.sequence);
    assert!(q.running_on(1).is_empty());
}

#[test]
fn threaded_ones_go_to_their_thread_unless_disabled() {
    let threaded = DpcInsert { threaded: true, ..insert(1) };
    let mut q = queues();
    assert_eq!(q.insert(threaded).drain, Drain::Thread(CPU));
    assert!(q.pop(CPU).is_none() && q.pop_threaded(CPU).is_some());
    let mut q = DpcQueues::new(2, false);
    assert_eq!(q.insert(threaded).drain, Drain::Local);
    assert!(q.pop(CPU).is_some());
}

#[test]
fn an_invalid_target_is_the_current_processor() {
    let mut q = queues();
    q.insert(DpcInsert { target: Some(CpuId(u32::MAX)), ..insert(1) });
    assert_eq!(q.depth(CPU), 1);
}
