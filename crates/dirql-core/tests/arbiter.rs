//! Vector assignment (spec 6.3).

use std::collections::BTreeSet;

use dirql_core::{
    Affinity, Arbiter, ArbiterError, ArbiterKind, ArbiterRequest, CpuId, Delivery, GroupPolicy, Irql, Mode,
    Polarity, Policy, Priority, Topology, Windows,
};

fn ask(kind: ArbiterKind) -> ArbiterRequest {
    ArbiterRequest { kind, priority: Priority::Normal, policy: Policy::AllProcessors, irqls: vec![] }
}

fn line(gsi: u32, mode: Mode) -> ArbiterRequest {
    ask(ArbiterKind::Line { gsi, mode, polarity: Polarity::ActiveLow })
}

fn arbiter() -> Arbiter {
    Arbiter::new(Topology::single_group(2))
}

#[test]
fn a_gsi_has_one_vector() {
    let mut a = arbiter();
    let first = a.assign(&line(16, Mode::Level)).unwrap();
    assert_eq!((first[0].vector, first[0].irql), (0x90, Irql(9)));
    assert_eq!(a.assign(&line(16, Mode::Level)).unwrap(), first);
    assert_ne!(a.assign(&line(17, Mode::Level)).unwrap()[0].vector, 0x90);
    assert_eq!(a.assign(&line(16, Mode::Latched)), Err(ArbiterError::LineConflict));
    let at = |irql| ArbiterRequest { irqls: vec![Irql(irql)], ..line(16, Mode::Level) };
    assert_eq!(a.assign(&at(4)), Err(ArbiterError::LevelConflict));
    a.release(&first);
    assert_eq!(a.assign(&line(16, Mode::Level)).unwrap(), first, "one user is left");
    a.release(&first);
    a.release(&first);
    assert_eq!(a.assign(&at(4)).unwrap()[0].vector, 0x40);
}

#[test]
fn msi_is_an_aligned_block_in_one_level() {
    for (asked, given) in [(1, 1), (3, 2), (8, 8), (32, 16), (u32::MAX, 16)] {
        let got = arbiter().assign(&ask(ArbiterKind::Msi { count: asked })).unwrap();
        assert_eq!(got.len(), given);
        assert_eq!(usize::from(got[0].vector) % given, 0);
        assert!(got.iter().enumerate().all(|(i, m)| usize::from(m.vector) == usize::from(got[0].vector) + i));
        assert!(got.iter().all(|m| m.irql == got[0].irql));
    }
    // No block of 16 is left: exactly one.
    let mut a = arbiter();
    for irql in 3..=12 {
        a.assign(&ArbiterRequest { irqls: vec![Irql(irql)], ..line(irql.into(), Mode::Level) }).unwrap();
    }
    assert_eq!(a.assign(&ask(ArbiterKind::Msi { count: 16 })).unwrap().len(), 1);
}

#[test]
fn msix_takes_what_there_is() {
    let mut a = arbiter();
    let got = a.assign(&ask(ArbiterKind::Msix { count: u32::MAX })).unwrap();
    let vectors: BTreeSet<u8> = got.iter().map(|m| m.vector).collect();
    assert_eq!(vectors.len(), 159);
    assert!(vectors.iter().all(|v| (0x30..=0xCF).contains(v) && *v != 0x35));
    assert_ne!(got[0].irql, got[1].irql);
    assert_eq!(a.assign(&line(1, Mode::Level)), Err(ArbiterError::NoVector));
    a.release(&got);
    assert!(a.assign(&line(1, Mode::Level)).is_ok());
}

#[test]
fn wanted_levels() {
    let levels = |irqls: &[u8], count| ArbiterRequest {
        irqls: irqls.iter().map(|&i| Irql(i)).collect(),
        ..ask(ArbiterKind::Msix { count })
    };
    let got = arbiter().assign(&levels(&[4, 6, 8, 9], 4)).unwrap();
    assert_eq!(got.iter().map(|m| m.irql.0).collect::<Vec<_>>(), [4, 6, 8, 9]);
    assert_eq!(arbiter().assign(&levels(&[7], 3)).unwrap()[2].irql, Irql(7));
    assert_eq!(arbiter().assign(&levels(&[4, 6], 3)), Err(ArbiterError::LevelCount));
    assert_eq!(arbiter().assign(&levels(&[13], 1)), Err(ArbiterError::NotADeviceIrql(Irql(13))));
    assert_eq!(arbiter().assign(&levels(&[], 0)), Err(ArbiterError::NoMessages));
    let high = ArbiterRequest { priority: Priority::High, ..line(1, Mode::Level) };
    assert_eq!(arbiter().assign(&high).unwrap()[0].irql, Irql(11));
}

#[test]
fn policies() {
    let with = |policy| {
        let request = ArbiterRequest { policy, ..ask(ArbiterKind::Msix { count: 3 }) };
        arbiter().assign(&request).unwrap().iter().map(|m| m.affinity.mask).collect::<Vec<_>>()
    };
    let only = |mask| Policy::Specified(Affinity { group: 0, mask });
    assert_eq!(with(Policy::AllProcessors), [3, 3, 3]);
    assert_eq!(with(Policy::OneClose), [1, 1, 1]);
    assert_eq!(with(Policy::SpreadMessages), [1, 2, 1]);
    assert_eq!(with(only(6)), [2, 2, 2]);
    assert_eq!(with(only(8)), [3, 3, 3], "nobody there: anybody");
}

#[test]
fn processors_and_groups() {
    let topology = Topology::new(vec![0b1011, 0b100]);
    assert_eq!(topology.cpus(), 4);
    for cpu in (0..4).map(CpuId) {
        let (group, number) = topology.locate(cpu).unwrap();
        assert_eq!(topology.index(group, number), Some(cpu));
    }
    assert_eq!(topology.locate(CpuId(3)), Some((1, 2)));
    assert_eq!((topology.locate(CpuId(4)), topology.index(0, 2), topology.index(9, 0)), (None, None, None));
}

#[test]
fn the_registrys_limit_and_the_systems() {
    let msix = |count| ArbiterKind::Msix { count };
    assert_eq!(msix(8).limited(None, Windows::W11), msix(8));
    assert_eq!(msix(8).limited(Some(0), Windows::W11), msix(8));
    assert_eq!(msix(8).limited(Some(3), Windows::W11), msix(3));
    assert_eq!(msix(4000).limited(None, Windows::W8), msix(2048));
    assert_eq!(msix(4000).limited(Some(3000), Windows::W7), msix(910));
    // A limit that is no power of two is rounded down (spec 6.3).
    let msi = ArbiterKind::Msi { count: 8 }.limited(Some(3), Windows::W11);
    assert_eq!(arbiter().assign(&ask(msi)).unwrap().len(), 2);
    let line = line(16, Mode::Level).kind;
    assert_eq!(line.limited(Some(1), Windows::Vista), line);
}

#[test]
fn fixed_delivery_gives_each_interrupt_one_processor_in_turn() {
    let mut a = arbiter().with_delivery(Delivery::Fixed);
    let got = a.assign(&ask(ArbiterKind::Msix { count: 4 })).unwrap();
    assert_eq!(got.iter().map(|m| m.affinity.mask).collect::<Vec<_>>(), [1, 2, 1, 2]);
    let one =
        ArbiterRequest { policy: Policy::Specified(Affinity { group: 0, mask: 2 }), ..line(16, Mode::Level) };
    assert_eq!(a.assign(&one).unwrap()[0].affinity.mask, 2);
}

#[test]
fn more_than_64_processors() {
    let many = || Arbiter::new(Topology::new(vec![u64::MAX, 0xF]));
    let request = ask(ArbiterKind::Msix { count: 6 });
    let mut a = many();
    assert!(a.assign(&request).unwrap().iter().all(|m| m.affinity == Affinity { group: 0, mask: u64::MAX }));
    // Group 0 has 6 interrupts for 64 processors, group 1 none.
    let spread = ArbiterRequest { policy: Policy::SpreadMessages, ..request.clone() };
    let got = a.assign_by_group(&spread, GroupPolicy::DontCare).unwrap();
    assert!(got.iter().all(|m| m.affinity.group == 1));
    assert_eq!(got.iter().map(|m| m.affinity.mask).collect::<Vec<_>>(), [1, 2, 4, 8, 1, 2]);
    // Now group 1 has more for each of its processors.
    assert_eq!(a.assign_by_group(&request, GroupPolicy::DontCare).unwrap()[0].affinity.group, 0);
    assert_eq!(many().assign_by_group(&request, GroupPolicy::DontCare).unwrap()[0].affinity.group, 0);
}

#[test]
fn a_rebalance_may_give_other_vectors() {
    let mut a = arbiter();
    let low = a.assign(&line(16, Mode::Level)).unwrap();
    let high = a.assign(&ArbiterRequest { priority: Priority::High, ..line(17, Mode::Level) }).unwrap();
    assert_eq!((low[0].vector, high[0].vector), (0x90, 0xB0));
    a.release(&low);
    a.release(&high);
    let moved = a.assign(&line(17, Mode::Level)).unwrap();
    assert_eq!(moved[0].vector, 0x90);
    assert_eq!(a.assign(&line(16, Mode::Level)).unwrap()[0].vector, 0x80);
}
