//! Chain walks, passive-level workers, storms (spec 5.3 to 5.6).

mod common;
use common::*;
use dirql_core::{Config, ConnectRequest, Input, Irql, Mode, Source, Step};

fn chain(mode: Mode, n: u64) -> (C, TestPorts, Vec<u64>) {
    let (mut core, mut ports) = (core(), TestPorts::default());
    core.assign(PDO, vec![line(16, 0x61, mode)]);
    let made = (1..=n).map(|isr| add(&mut core, &mut ports, isr, mode)).collect();
    (core, ports, made)
}

const GSI: Source<u64> = Source::Line { gsi: 16 };

#[test]
fn level_stops_at_the_first_claim() {
    let (mut core, mut ports, _) = chain(Mode::Level, 3);
    let log = take(&mut core, &mut ports, |_, _, call| u8::from(call.routine == 2));
    assert_eq!((log.called, log.claimed), (vec![1, 2], true));
    let log = take(&mut core, &mut ports, |_, _, _| 0);
    assert_eq!((log.called, log.claimed), (vec![1, 2, 3], false));
    let stats = core.vector_stats(0x61);
    assert_eq!((stats.delivered, stats.claimed, stats.unclaimed), (2, 1, 1));
}

#[test]
fn latched_walks_again_until_a_pass_without_claim() {
    let (mut core, mut ports, _) = chain(Mode::Latched, 3);
    let mut left = 2;
    let log = take(&mut core, &mut ports, |_, _, call| {
        let claim = call.routine == 1 && left > 0;
        left -= i32::from(claim);
        u8::from(claim)
    });
    assert_eq!(log.called, [1, 2, 3, 1, 2, 3, 1, 2, 3]);
    assert!(log.claimed && !log.pass_cap);
    // Alone, no second pass.
    let (mut core, mut ports, _) = chain(Mode::Latched, 1);
    assert_eq!(take(&mut core, &mut ports, |_, _, _| 1).called, [1]);
}

#[test]
fn a_latched_routine_made_active_behind_the_walk_is_called() {
    let (mut core, mut ports, made) = chain(Mode::Latched, 2);
    core.report_inactive(1, Some(made[0]), &mut ports).unwrap();
    let first = made[0];
    let mut left = 1;
    let log = take(&mut core, &mut ports, |core, ports, _| {
        core.report_active(1, Some(first), ports).unwrap();
        let claim = left;
        left = 0;
        claim
    });
    assert_eq!(log.called, [2, 1, 2]);
}

#[test]
fn a_latched_routine_that_always_claims_meets_the_cap() {
    let (mut core, mut ports, _) = chain(Mode::Latched, 2);
    let log = take(&mut core, &mut ports, |_, _, _| 1);
    assert_eq!((log.called.len(), log.pass_cap), (2000, true));
    assert_eq!(core.vector_stats(0x61).pass_cap, 1);
}

#[test]
fn removed_and_inactive_objects_are_skipped_mid_walk() {
    let (mut core, mut ports, made) = chain(Mode::Level, 4);
    core.report_inactive(1, Some(made[3]), &mut ports).unwrap();
    let second = made[1];
    let log = take(&mut core, &mut ports, |core, ports, call| {
        if call.routine == 1 {
            core.disconnect(1, Some(second), Irql(0), None, ports).unwrap();
        }
        0
    });
    assert_eq!(log.called, [1, 3]);
    core.report_active(4, Some(made[3]), &mut ports).unwrap();
    assert_eq!(take(&mut core, &mut ports, |_, _, _| 0).called, [1, 3, 4]);
}

#[test]
fn the_head_may_leave_while_it_runs() {
    let (mut core, mut ports, made) = chain(Mode::Level, 2);
    let head = made[0];
    let mut set = None;
    let log = take(&mut core, &mut ports, |core, ports, call| {
        if call.routine == 1 {
            // Another processor disconnects it: it has to wait.
            let outcome = core.disconnect(1, Some(head), Irql(0), None, ports).unwrap();
            assert!(outcome.must_wait && outcome.freed.is_empty());
            set = outcome.set;
            assert_eq!(core.finish_disconnect(outcome.set.unwrap()), None);
        }
        0
    });
    assert_eq!(log.called, [1, 2]);
    assert_eq!(core.finish_disconnect(set.unwrap()).unwrap().len(), 2);
}

#[test]
fn each_routine_runs_at_its_own_level() {
    let (mut core, mut ports, _) = chain(Mode::Level, 1);
    let high = ConnectRequest { isr: Some(2), sync_irql: Irql(9), ..request(1) };
    connect(&mut core, &mut ports, &high);
    add(&mut core, &mut ports, 3, Mode::Level);
    assert_eq!(take(&mut core, &mut ports, |_, _, _| 0).levels, [6, 9, 6]);
    let (mut core, mut ports, _) = chain(Mode::Level, 0);
    connect(&mut core, &mut ports, &high);
    let begun = core.begin(CPU0, 0x61, Irql(0), &mut ports);
    assert_eq!(begun.1, Step::SetIrql(Irql(9)), "a single object is dispatched at its own level at once");
}

#[test]
fn a_changed_irql_stops_the_system() {
    let (mut core, mut ports, _) = chain(Mode::Level, 1);
    let (mut dispatch, mut step) = core.begin(CPU0, 0x61, Irql(0), &mut ports);
    while !matches!(step, Step::CallIsr(_)) {
        step = core.step(&mut dispatch, Input::Continue, &mut ports);
    }
    let mut same = (core.clone(), dispatch);
    let changed = Input::IsrReturned { al: 1, irql: Irql(2) };
    let Step::BugCheck(stop) = core.step(&mut dispatch, changed, &mut ports) else { panic!() };
    assert_eq!(stop.code, 0xC8);
    let kept = Input::IsrReturned { al: 1, irql: Irql(6) };
    assert!(matches!(same.0.step(&mut same.1, kept, &mut ports), Step::ReleaseLock { .. }));
}

#[test]
fn nobody_connected() {
    let (mut core, mut ports, _) = chain(Mode::Level, 0);
    assert!(take(&mut core, &mut ports, |_, _, _| 0).unexpected);
    assert_eq!(core.vector_stats(0x61).unexpected, 1);
    let one_cpu = ConnectRequest { mask: 1, ..request(1) };
    connect(&mut core, &mut ports, &one_cpu);
    assert!(matches!(core.begin(CPU1, 0x61, Irql(0), &mut ports).1, Step::Unexpected { .. }));
    assert!(matches!(core.begin(CPU0, 0x61, Irql(0), &mut ports).1, Step::SetIrql(_)));
}

fn passive(isr: u64, mode: Mode) -> ConnectRequest<u64, u64> {
    ConnectRequest { isr: Some(isr), irql: Irql(0), sync_irql: Irql(0), mode: mode.raw(), ..request(1) }
}

#[test]
fn a_passive_level_line_is_masked_until_the_worker_ends() {
    let (mut core, mut ports, _) = chain(Mode::Level, 1);
    connect(&mut core, &mut ports, &passive(2, Mode::Level));
    add(&mut core, &mut ports, 3, Mode::Level);
    let log = take(&mut core, &mut ports, |_, _, _| 0);
    assert_eq!((log.called, log.queued), (vec![1], Some(true)));
    assert!(!ports.open.contains(&GSI));
    // Another sharer does not open a line the worker holds.
    add(&mut core, &mut ports, 4, Mode::Level);
    assert!(!ports.open.contains(&GSI));
    let begun = core.begin_passive(CPU1, 0x61, &mut ports);
    let log = drive(&mut core, &mut ports, begun, Irql(0), |_, _, call| u8::from(call.routine == 3));
    assert_eq!((log.called, log.levels), (vec![2, 3], vec![0, 6]));
    assert!(ports.open.contains(&GSI));
}

#[test]
fn a_passive_edge_during_the_worker_makes_one_more_pass() {
    let (mut core, mut ports, _) = chain(Mode::Latched, 0);
    connect(&mut core, &mut ports, &passive(2, Mode::Latched));
    assert_eq!(take(&mut core, &mut ports, |_, _, _| 0).queued, Some(true));
    assert!(ports.open.contains(&GSI), "an edge is not masked");
    let begun = core.begin_passive(CPU1, 0x61, &mut ports);
    let mut again = true;
    let log = drive(&mut core, &mut ports, begun, Irql(0), |core, ports, _| {
        if std::mem::take(&mut again) {
            assert_eq!(take(core, ports, |_, _, _| 0).queued, Some(false));
            assert_eq!(take(core, ports, |_, _, _| 0).queued, Some(false));
        }
        1
    });
    assert_eq!(log.called, [2, 2]);
    assert_eq!(take(&mut core, &mut ports, |_, _, _| 0).queued, Some(true));
}

#[test]
fn storms() {
    let mut core = core_with(Config { storm_threshold: 3, ..Config::default() });
    let mut ports = TestPorts::default();
    core.assign(PDO, vec![line(16, 0x61, Mode::Level)]);
    add(&mut core, &mut ports, 1, Mode::Level);
    for quiet in [false, true, false] {
        assert_eq!(core.after_eoi(CPU0, 0x61, true), None);
        assert_eq!(core.after_eoi(CPU0, 0x61, true), None);
        assert_eq!(core.after_eoi(CPU1, 0x61, true), None);
        if quiet {
            assert_eq!(core.after_eoi(CPU0, 0x61, false), None)
        } else {
            core.note_progress(CPU0)
        }
        core.note_progress(CPU1);
    }
    core.after_eoi(CPU0, 0x61, true);
    core.after_eoi(CPU0, 0x61, true);
    assert_eq!(core.after_eoi(CPU0, 0x61, true).unwrap().code, 0xF2);
}
