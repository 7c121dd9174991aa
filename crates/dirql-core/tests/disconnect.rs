//! Disconnecting, and active state (spec 4.2, 4.3).

mod common;
use common::*;
use dirql_core::{Confusion, ConnectRequest, Irql, LegacyRequest, Mode, Note, Source};

fn started() -> (C, TestPorts) {
    let mut core = core();
    core.assign(PDO, vec![line(16, 0x61, Mode::Level)]);
    (core, TestPorts::default())
}

const GSI: Source<u64> = Source::Line { gsi: 16 };

#[test]
fn the_version_must_be_the_returned_one() {
    let (mut core, mut ports) = started();
    core.assign(2, vec![message(0, 0x71)]);
    let fully = connect(&mut core, &mut ports, &request(1)).out();
    let lines = connect(&mut core, &mut ports, &request(2)).out();
    let fell = connect(&mut core, &mut ports, &ConnectRequest { fallback: Some(5), ..request(3) }).out();
    let on_two = ConnectRequest { pdo: dirql_core::Device::Physical(2), ..request(3) };
    let table = connect(&mut core, &mut ports, &on_two).out();
    for (context, good) in [(fully, [1, 4].as_slice()), (lines, &[2]), (fell, &[2]), (table, &[3])] {
        for version in 0..=7 {
            let mut copy = (core.clone(), ports.clone());
            let got = copy.0.disconnect(version, Some(context), Irql(0), None, &mut copy.1);
            match got {
                Ok(outcome) => {
                    assert!(good.contains(&version) && !outcome.must_wait);
                    for what in outcome.freed {
                        assert!(copy.1.live.remove(&what));
                    }
                    let again =
                        copy.0.disconnect(version, Some(context), Irql(0), None, &mut copy.1).unwrap_err();
                    assert_eq!(again.confusion, Confusion::NotConnected);
                }
                Err(fault) => {
                    assert!(!good.contains(&version));
                    let known = (1..=5).contains(&version);
                    let expected = if known { Confusion::WrongVersion } else { Confusion::UnknownVersion };
                    assert_eq!((fault.confusion, fault.bug_check.code), (expected, 0xCA));
                }
            }
        }
    }
}

#[test]
fn level_and_null() {
    let (mut core, mut ports) = started();
    let object = connect(&mut core, &mut ports, &request(1)).out();
    let fault = core.disconnect(1, Some(object), Irql::DISPATCH, None, &mut ports).unwrap_err();
    assert_eq!((fault.confusion, fault.bug_check.code), (Confusion::WrongIrql, 0x121));
    let outcome = core.disconnect(1, None, Irql(0), None, &mut ports).unwrap();
    assert_eq!((outcome.set, outcome.notes), (None, vec![Note::NullContext]));
    assert_eq!(core.objects().count(), 1);
}

#[test]
fn legacy_pairs_with_legacy() {
    let (mut core, mut ports) = started();
    let legacy = LegacyRequest {
        has_out_pointer: true,
        isr: Some(ISR),
        context: 0,
        lock: None,
        vector: 0x61,
        irql: Irql(6),
        sync_irql: Irql(6),
        mode: 0,
        share_vector: true,
        mask: 1,
        floating_save: false,
    };
    let old = core.connect_legacy(&legacy, Irql(0), &mut ports).unwrap().out();
    let new = connect(&mut core, &mut ports, &request(1)).out();
    let mixed = core.disconnect(1, Some(old), Irql(0), None, &mut ports).unwrap_err();
    assert_eq!(mixed.confusion, Confusion::LegacyMixed);
    let mixed = core.disconnect_legacy(Some(new), Irql(0), None, &mut ports).unwrap_err();
    assert_eq!(mixed.confusion, Confusion::LegacyMixed);
    assert_eq!(core.disconnect_legacy(Some(old), Irql(0), None, &mut ports).unwrap().freed.len(), 2);
}

#[test]
fn the_line_closes_with_the_last_sharer() {
    let (mut core, mut ports) = started();
    let made: Vec<u64> = (1..=3).map(|isr| add(&mut core, &mut ports, isr, Mode::Level)).collect();
    core.disconnect(1, Some(made[0]), Irql(0), None, &mut ports).unwrap();
    assert!(ports.open.contains(&GSI));
    assert_eq!(take(&mut core, &mut ports, |_, _, _| 0).called, [2, 3], "order kept");
    core.report_inactive(1, Some(made[1]), &mut ports).unwrap();
    core.report_inactive(1, Some(made[1]), &mut ports).unwrap();
    assert!(ports.open.contains(&GSI));
    core.report_inactive(1, Some(made[2]), &mut ports).unwrap();
    assert!(!ports.open.contains(&GSI), "all inactive");
    core.report_active(1, Some(made[2]), &mut ports).unwrap();
    assert!(ports.open.contains(&GSI));
    core.report_inactive(1, Some(made[2]), &mut ports).unwrap();
    core.disconnect(1, Some(made[2]), Irql(0), None, &mut ports).unwrap();
    core.disconnect(1, Some(made[1]), Irql(0), None, &mut ports).unwrap();
    assert!(ports.open.is_empty());
    assert!(take(&mut core, &mut ports, |_, _, _| 0).unexpected, "a late interrupt is counted, not crashed");
    assert!(core.report_active(2, Some(made[2]), &mut ports).is_err());
}

#[test]
fn a_passive_routine_may_disconnect_itself() {
    for own in [true, false] {
        let (mut core, mut ports) = started();
        let passive = ConnectRequest { irql: Irql(0), sync_irql: Irql(0), ..request(1) };
        let made = connect(&mut core, &mut ports, &passive);
        take(&mut core, &mut ports, |_, _, _| 0);
        let begun = core.begin_passive(CPU0, 0x61, &mut ports);
        drive(&mut core, &mut ports, begun, Irql(0), |core, ports, _| {
            let inside = own.then_some(made.set);
            let outcome = core.disconnect(1, Some(made.out()), Irql(0), inside, ports).unwrap();
            assert_eq!(outcome.must_wait, !own);
            assert!(outcome.freed.is_empty() && core.take_reaped().is_empty());
            1
        });
        let freed = if own { core.take_reaped() } else { core.finish_disconnect(made.set).unwrap() };
        assert_eq!(freed.len(), 2);
        assert!(ports.open.is_empty() && core.objects().count() == 0);
    }
}
