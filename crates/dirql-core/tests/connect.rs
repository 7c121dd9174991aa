//! Every row of the error matrix (spec 3.8), and what a successful connect leaves behind.

mod common;
use common::*;
use dirql_core::{
    Affinity, Arch, Config, ConnectError, ConnectFailure, ConnectRequest, ConnectedKind, Device, Irql,
    LegacyRequest, Locks, Mode, Note, Source, Windows, status,
};

fn started(config: Config) -> (C, TestPorts) {
    let mut core = core_with(config);
    core.assign(PDO, vec![line(16, 0x61, Mode::Level)]);
    (core, TestPorts::default())
}

fn check(
    config: Config,
    r: &ConnectRequest<u64, u64>,
    error: ConnectError,
    status: u32,
    version: u32,
    null: bool,
) {
    let (mut core, mut ports) = started(config);
    let got = refused(&mut core, &mut ports, r);
    assert_eq!((got.error, got.status), (error, status));
    assert_eq!((got.version_out, got.null_out_pointer), (version, null));
}

#[test]
fn e1_irql() {
    let (mut core, mut ports) = started(Config::default());
    let Err(ConnectFailure::BugCheck(stop)) = core.connect(&request(1), Irql::DISPATCH, &mut ports) else {
        panic!()
    };
    assert_eq!(stop.code, 0x121);
    assert!(core.connect(&request(1), Irql::PASSIVE, &mut ports).is_ok());
}

#[test]
fn e2_and_e3_versions() {
    let on = |windows| Config { windows, ..Config::default() };
    let alternative = Config { alternative_status: true, ..Config::default() };
    for (config, bad) in
        [(on(Windows::Vista), 4), (on(Windows::W8_1), 5), (on(Windows::W11), 6), (on(Windows::W11), 0)]
    {
        check(config, &request(bad), ConnectError::UnknownVersion, status::INVALID_PARAMETER_1, bad, false);
    }
    check(alternative, &request(9), ConnectError::UnknownVersion, status::NOT_SUPPORTED, 3, false);
    check(on(Windows::Xp), &request(2), ConnectError::OnlyFullySpecified, status::NOT_SUPPORTED, 1, false);
    for (windows, good) in [(Windows::Xp, 1), (Windows::Vista, 2), (Windows::W7, 4)] {
        let (mut core, mut ports) = started(on(windows));
        assert_eq!(connect(&mut core, &mut ports, &request(good)).version_out, good);
    }
}

#[test]
fn e4_device() {
    let null = ConnectRequest { pdo: Device::Null, ..request(1) };
    let functional = ConnectRequest { pdo: Device::NotPhysical(7), ..request(1) };
    check(Config::default(), &null, ConnectError::NoDevice, status::INVALID_PARAMETER, 1, false);
    check(Config::default(), &functional, ConnectError::NotAPdo, status::INVALID_PARAMETER, 1, false);
    let (mut core, mut ports) = started(Config { pdo_bugcheck: true, ..Config::default() });
    let Err(ConnectFailure::BugCheck(stop)) = core.connect(&functional, Irql::PASSIVE, &mut ports) else {
        panic!()
    };
    assert_eq!(stop.code, 0xCA);
}

#[test]
fn e5_arguments() {
    let passive = ConnectRequest { irql: Irql(0), sync_irql: Irql(0), ..request(1) };
    for (r, error) in [
        (ConnectRequest { isr: None, ..request(2) }, ConnectError::NoServiceRoutine),
        (ConnectRequest { has_out_pointer: false, ..request(3) }, ConnectError::NoOutPointer),
        (ConnectRequest { sync_irql: Irql(5), ..request(4) }, ConnectError::SyncIrqlTooLow),
        (ConnectRequest { irql: Irql(16), sync_irql: Irql(16), ..request(1) }, ConnectError::IrqlTooHigh),
        (ConnectRequest { sync_irql: Irql(16), ..request(2) }, ConnectError::IrqlTooHigh),
        (ConnectRequest { lock: Some(9), ..passive }, ConnectError::PassiveWithSpinLock),
        (ConnectRequest { lock: Some(9), ..request(5) }, ConnectError::PassiveWithSpinLock),
    ] {
        check(Config::default(), &r, error, status::INVALID_PARAMETER, r.version, false);
    }
    let (mut core, mut ports) = started(Config::default());
    connect(&mut core, &mut ports, &passive);
}

#[test]
fn e14_passive_before_windows_8() {
    let passive = ConnectRequest { irql: Irql(0), sync_irql: Irql(0), ..request(1) };
    let seven = Config { windows: Windows::W7, ..Config::default() };
    check(seven, &passive, ConnectError::PassiveUnsupported, status::NOT_SUPPORTED, 1, false);
}

#[test]
fn e6_processors() {
    let alternative = Config { alternative_status: true, ..Config::default() };
    let none = ConnectRequest { mask: 4, ..request(1) };
    let group = ConnectRequest { group: 1, ..request(4) };
    check(Config::default(), &none, ConnectError::NoProcessor, status::INVALID_PARAMETER_10, 1, true);
    check(Config::default(), &group, ConnectError::NoProcessor, status::INVALID_PARAMETER_10, 4, true);
    check(alternative, &none, ConnectError::NoProcessor, status::INVALID_PARAMETER, 1, true);
    // Version 1 has no group: the member is not looked at.
    let (mut core, mut ports) = started(Config::default());
    connect(&mut core, &mut ports, &ConnectRequest { group: 1, ..request(1) });
}

#[test]
fn e7_not_assigned() {
    let alternative = Config { alternative_status: true, ..Config::default() };
    for r in [
        ConnectRequest { vector: 0x62, ..request(1) },
        ConnectRequest { vector: 0x161, ..request(1) },
        ConnectRequest { mode: 1, ..request(1) },
        ConnectRequest { mode: 7, ..request(1) },
        ConnectRequest { irql: Irql(5), ..request(1) },
    ] {
        check(Config::default(), &r, ConnectError::NotAssigned, status::NOT_FOUND, 1, true);
        check(alternative, &r, ConnectError::NotAssigned, status::NOT_SUPPORTED, 1, true);
    }
    let (mut core, mut ports) = started(Config::default());
    core.assign(PDO, vec![]);
    assert_eq!(refused(&mut core, &mut ports, &request(1)).error, ConnectError::NotAssigned);
    // No resource record at all: as specified.
    core.unassign(PDO);
    connect(&mut core, &mut ports, &request(1));
    assert!(ports.open.contains(&Source::Vector(0x61)));
}

#[test]
fn affinity_matches_as_a_subset() {
    let (mut core, mut ports) = started(Config::default());
    let narrow = connect(&mut core, &mut ports, &ConnectRequest { mask: 2, ..request(1) });
    assert_eq!(narrow.notes, [Note::AffinityNarrowed]);
    assert_eq!(core.get_affinity(narrow.out()), Some(Affinity { group: 0, mask: 2 }));
    assert_eq!(core.get_affinity(1), None);
    let mut one = line(16, 0x61, Mode::Level);
    one.affinity.mask = 1;
    core.assign(PDO, vec![one]);
    assert_eq!(refused(&mut core, &mut ports, &request(1)).error, ConnectError::NotAssigned);
}

#[test]
fn e8_to_e11_lines_and_messages() {
    let (mut core, mut ports) = started(Config::default());
    core.assign(PDO, vec![message(0, 0x61)]);
    let got = refused(&mut core, &mut ports, &request(2));
    assert_eq!((got.error, got.status), (ConnectError::MessagesNotLines, status::INVALID_DEVICE_REQUEST)); // E8
    let fallback = |version| ConnectRequest { fallback: Some(0x2000), ..request(version) };
    core.assign(PDO, vec![]);
    for r in [request(2), request(3), fallback(3)] {
        let got = refused(&mut core, &mut ports, &r);
        assert_eq!((got.status, got.version_out, got.null_out_pointer), (status::NOT_FOUND, r.version, true)); // E9
    }
    core.assign(PDO, vec![line(16, 0x61, Mode::Level)]);
    let got = refused(&mut core, &mut ports, &request(3));
    assert_eq!((got.status, got.version_out), (status::NOT_FOUND, 3)); // E10
    let made = connect(&mut core, &mut ports, &fallback(3)); // E11
    assert_eq!(made.version_out, 2);
    assert!(matches!(made.kind, ConnectedKind::Line { .. }));
    assert_eq!(core.object(made.objects[0]).unwrap().routine, 0x2000);
    // A fallback that fails leaves the version alone.
    ports.left = Some(0);
    let got = refused(&mut core, &mut ports, &fallback(3));
    assert_eq!((got.error, got.version_out), (ConnectError::NoMemory, 3));
}

#[test]
fn e12_sharing() {
    let alone = ConnectRequest { share_vector: false, ..request(1) };
    for (first, second) in [(alone, request(1)), (request(1), alone)] {
        let (mut core, mut ports) = started(Config::default());
        connect(&mut core, &mut ports, &first);
        let got = refused(&mut core, &mut ports, &second);
        assert_eq!((got.error, got.status), (ConnectError::VectorBusy, status::INVALID_PARAMETER));
    }
    let (mut core, mut ports) = started(Config::default());
    connect(&mut core, &mut ports, &request(1));
    connect(&mut core, &mut ports, &request(1));
    core.assign(PDO, vec![line(16, 0x61, Mode::Latched)]);
    let latched = ConnectRequest { mode: 1, ..request(1) };
    assert_eq!(refused(&mut core, &mut ports, &latched).error, ConnectError::ModeConflict);
}

#[test]
fn e13_floating_save() {
    let float = ConnectRequest { floating_save: true, ..request(1) };
    let x86 = Config { arch: Arch::X86, ..Config::default() };
    check(x86, &float, ConnectError::FloatingSave, status::INVALID_PARAMETER, 1, true);
    let (mut core, mut ports) = started(Config::default());
    connect(&mut core, &mut ports, &float);
}

#[test]
fn e15_every_allocation_may_fail() {
    for (version, needs) in [(1, 2), (3, 7)] {
        for left in 0..=needs {
            let (mut core, mut ports) = started(Config::default());
            if version == 3 {
                core.assign(PDO, (0..3).map(|i| message(i, 0x61 + i as u8)).collect());
            }
            ports.left = Some(left);
            if left == needs {
                connect(&mut core, &mut ports, &request(version));
            } else {
                let got = refused(&mut core, &mut ports, &request(version));
                assert_eq!((got.status, got.null_out_pointer), (status::INSUFFICIENT_RESOURCES, true));
            }
        }
    }
}

#[test]
fn messages_make_a_table() {
    for (locks, distinct) in [(Locks::PerMessage, true), (Locks::PerSet, false)] {
        let (mut core, mut ports) = started(Config { locks, ..Config::default() });
        core.assign(PDO, vec![message(0, 0x61), message(1, 0x92)]);
        let made = connect(&mut core, &mut ports, &request(3));
        let ConnectedKind::Table { unified_irql, entries, .. } = &made.kind else { panic!() };
        assert_eq!((made.version_out, *unified_irql, entries.len()), (3, Irql(9), 2));
        assert_ne!(entries[0].object, entries[1].object);
        let lock = |i: usize| core.object(made.objects[i]).unwrap().lock;
        assert_eq!(lock(0) != lock(1), distinct);
        assert_eq!(core.object(made.objects[1]).unwrap().message, Some(1));
        assert_eq!(core.object(made.objects[0]).unwrap().sync_irql, Irql(9));
        assert_eq!(ports.open.len(), 2);
    }
}

#[test]
fn lines_are_raised_to_the_highest() {
    let (mut core, mut ports) = started(Config::default());
    core.assign(PDO, vec![line(16, 0x61, Mode::Level), line(17, 0xA1, Mode::Level)]);
    let made = connect(&mut core, &mut ports, &request(2));
    assert_eq!(made.notes, [Note::SyncIrqlRaised]);
    let info: Vec<_> = made.objects.iter().map(|&id| *core.object(id).unwrap()).collect();
    assert!(info.iter().all(|o| o.sync_irql == Irql(10) && o.lock == info[0].lock && o.public == made.out()));
    let zero = ConnectRequest { sync_irql: Irql(0), ..request(2) };
    assert_eq!(connect(&mut core, &mut ports, &zero).notes, []);
}

#[test]
fn synchronising() {
    let (mut core, mut ports) = started(Config::default());
    let own = connect(&mut core, &mut ports, &ConnectRequest { lock: Some(0x77), ..request(1) }).out();
    let plan = core.sync_plan(own, Irql(6)).unwrap();
    assert_eq!((plan.lock, plan.sync_irql), (0x77, Irql(6)));
    assert!(core.sync_plan(own, Irql(7)).is_err());
    assert!(core.sync_plan(1, Irql(0)).is_err());
    assert!(core.spin_unlock_plan(own, Irql(6)).is_ok());
    assert!(core.spin_unlock_plan(own, Irql(2)).is_err());
    let passive = ConnectRequest { irql: Irql(0), sync_irql: Irql(0), ..request(1) };
    let passive = connect(&mut core, &mut ports, &passive).out();
    assert!(core.sync_plan(passive, Irql(0)).is_ok());
    let Err(dirql_core::SyncFault::BugCheck(stop)) = core.spin_lock_plan(passive, Irql(0)) else { panic!() };
    assert_eq!(stop.code, 0x13B);
}

#[test]
fn legacy() {
    let good = LegacyRequest {
        has_out_pointer: true,
        isr: Some(ISR),
        context: 0,
        lock: None,
        vector: 0x61,
        irql: Irql(6),
        sync_irql: Irql(6),
        mode: 0,
        share_vector: true,
        mask: u64::MAX,
        floating_save: false,
    };
    let (mut core, mut ports) = started(Config::default());
    let made = core.connect_legacy(&good, Irql(0), &mut ports).unwrap();
    assert_eq!(made.notes, []);
    assert!(ports.open.contains(&Source::Line { gsi: 16 }));
    for bad in [
        LegacyRequest { mask: 4, ..good },
        LegacyRequest { sync_irql: Irql(5), ..good },
        LegacyRequest { share_vector: false, ..good },
        LegacyRequest { mode: 1, ..good },
        LegacyRequest { mode: 2, ..good },
        LegacyRequest { vector: 0x21, irql: Irql(2), ..good },
        LegacyRequest { vector: 0x10000, ..good },
        LegacyRequest { irql: Irql(5), ..good },
    ] {
        let Err(ConnectFailure::Refused(got)) = core.connect_legacy(&bad, Irql(0), &mut ports) else {
            panic!("{bad:?}")
        };
        assert_eq!((got.status, got.null_out_pointer), (status::INVALID_PARAMETER, true));
    }
    assert!(matches!(core.connect_legacy(&good, Irql(1), &mut ports), Err(ConnectFailure::BugCheck(_))));
    let unknown = LegacyRequest { vector: 0x71, irql: Irql(7), sync_irql: Irql(7), ..good };
    assert_eq!(core.connect_legacy(&unknown, Irql(0), &mut ports).unwrap().notes, [Note::VectorNotAssigned]);
}
