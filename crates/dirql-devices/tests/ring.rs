//! ring: its queues as a driver uses them, and each of its freedoms.

mod common;

use common::{Always, GSI, add, counter, dispatch, get, line, machine, msix, put, text};
use dirql_devices::PropValue;
use dirql_machine::{DeviceId, Machine};
use dirql_mem::Pa;
use proptest::prelude::*;

const NOP: u16 = 0;
const COPY: u16 = 1;
const FILL: u16 = 2;
const SUM: u16 = 3;
const QUIET: u16 = 1;
const SIZE: u32 = 8;

/// A driver of one queue.
struct Queue {
    at: u64,
    sq: u64,
    cq: u64,
    tail: u32,
    head: u32,
    phase: u32,
}

impl Queue {
    fn new(m: &mut Machine, base: u64, i: u64) -> Queue {
        let pa = m.mem.alloc_frames(2).unwrap().0;
        let q = Queue { at: base + 0x1000 + 0x100 * i, sq: pa, cq: pa + 4096, tail: 0, head: 0, phase: 1 };
        put(m, q.at, q.sq as u32);
        put(m, q.at + 8, q.cq as u32);
        put(m, q.at + 0x10, SIZE);
        put(m, q.at + 0x14, 1);
        q
    }

    fn submit(&mut self, m: &mut Machine, operation: u16, flags: u16, from: u64, to: u64, length: u32) {
        let mut d = vec![];
        d.extend(from.to_le_bytes());
        d.extend(to.to_le_bytes());
        d.extend(length.to_le_bytes());
        d.extend(operation.to_le_bytes());
        d.extend(flags.to_le_bytes());
        d.extend((100 + self.tail).to_le_bytes());
        d.extend([0; 4]);
        m.mem.write_phys(Pa(self.sq + 32 * u64::from(self.tail)), &d).unwrap();
        self.tail = (self.tail + 1) % SIZE;
    }

    fn ring(&self, m: &mut Machine) {
        put(m, self.at + 0x20, self.tail);
    }

    /// The next completion: cookie, result, status.
    fn take(&mut self, m: &mut Machine) -> Option<(u32, u32, u32)> {
        let mut b = [0; 16];
        m.mem.read_phys(Pa(self.cq + 16 * u64::from(self.head)), &mut b).unwrap();
        let word = |i: usize| u32::from_le_bytes(b[4 * i..4 * i + 4].try_into().unwrap());
        if word(3) & 1 != self.phase {
            return None;
        }
        self.head = (self.head + 1) % SIZE;
        if self.head == 0 {
            self.phase ^= 1;
        }
        put(m, self.at + 0x28, self.head);
        Some((word(0), word(1), word(3) >> 1))
    }
}

fn ready(m: &mut Machine, props: &[(&str, PropValue)]) -> (DeviceId, u64, Queue) {
    let (id, base) = add(m, "ring", props);
    put(m, base + 8, 1);
    let queue = Queue::new(m, base, 0);
    assert_eq!(get(m, queue.at + 0x18), 1, "it runs");
    put(m, base + 0x18, u32::MAX);
    (id, base, queue)
}

fn settle(m: &mut Machine) {
    for _ in 0..1000 {
        if !m.advance_to_next_event() {
            return;
        }
    }
    panic!("the device never comes to rest");
}

#[test]
fn its_registers_are_as_its_data_sheet_says() {
    let mut m = machine(1);
    let (id, base) = add(&mut m, "ring", &[]);
    assert_eq!(m.config_read(m.bdf(id).unwrap(), 0, 4), 0xd1a2_1234);
    assert_eq!((get(&mut m, base), get(&mut m, base + 4)), (0x5249_4E47, 16 << 16 | 8 << 8 | 4));
    assert_eq!(get(&mut m, base + 0x14), u32::MAX, "all masked");
    put(&mut m, base + 0x18, 2);
    assert_eq!(get(&mut m, base + 0x14), !2);
    assert_eq!(get(&mut m, base + 0x1400), 0, "there are four queues");
    put(&mut m, base + 0x1010, 3);
    put(&mut m, base + 8, 1);
    put(&mut m, base + 0x1014, 1);
    assert_eq!(get(&mut m, base + 0x1018), 3 << 8 | 2, "3 is no size of a ring");
    assert_eq!((get(&mut m, base + 0xc), get(&mut m, base + 0x10)), (3, 1));
    put(&mut m, base + 0x1014, 0);
    assert_eq!(get(&mut m, base + 0x1018), 0);
    put(&mut m, base + 8, 2);
    assert_eq!((get(&mut m, base + 8), get(&mut m, base + 0x10), get(&mut m, base + 0x1010)), (0, 0, 0));
}

#[test]
fn it_works_and_tells_each_queue_by_its_own_message() {
    let mut m = machine(1);
    let (id, base, mut q) = ready(&mut m, &[]);
    let mut last = Queue::new(&mut m, base, 3);
    msix(&mut m, id, &[0x51, 0x61, 0x71, 0x81]);
    for i in 0..4 {
        m.msix_mask(id, i, false);
    }
    let data = m.mem.alloc_frames(1).unwrap().0;
    q.submit(&mut m, FILL, 0, 0xab, data, 5);
    q.submit(&mut m, SUM, QUIET, data, 0, 6);
    q.ring(&mut m);
    settle(&mut m);
    assert_eq!(m.now(), 2000, "both at once");
    assert_eq!(q.take(&mut m), Some((100, 5, 0)));
    assert_eq!(q.take(&mut m), Some((101, 5 * 0xab, 0)));
    assert_eq!(q.take(&mut m), None);
    assert_eq!((dispatch(&mut m), dispatch(&mut m)), (Some(0x51), None));
    last.submit(&mut m, COPY, 0, data, data + 16, 4);
    last.submit(&mut m, 9, 0, 0, 0, 0);
    last.submit(&mut m, COPY, 0, data, data, 1 << 20);
    last.submit(&mut m, SUM, 0, 0xE000_0000, 0, 4);
    last.ring(&mut m);
    settle(&mut m);
    let statuses: Vec<_> = std::iter::from_fn(|| last.take(&mut m)).map(|c| c.2).collect();
    assert_eq!(statuses, [0, 1, 2, 3]);
    assert_eq!((dispatch(&mut m), dispatch(&mut m)), (Some(0x81), None), "one while the cause stays set");
    put(&mut m, base + 0x10, 8);
    put(&mut m, base + 0x14, 8);
    last.submit(&mut m, NOP, 0, 0, 0, 0);
    last.ring(&mut m);
    settle(&mut m);
    assert_eq!(dispatch(&mut m), None);
    put(&mut m, base + 0x18, 8);
    assert_eq!(dispatch(&mut m), Some(0x81), "unmasked with its cause set");
    assert_eq!(counter(&m, id, "completed3"), 5);
}

#[test]
fn the_phase_flips_and_a_full_ring_waits() {
    let mut m = machine(1);
    let (id, _, mut q) = ready(&mut m, &[]);
    for round in 0..3 {
        for _ in 0..7 {
            q.submit(&mut m, NOP, 0, 0, 0, 0);
        }
        q.ring(&mut m);
        settle(&mut m);
        q.submit(&mut m, NOP, 0, 0, 0, 0);
        q.ring(&mut m);
        settle(&mut m);
        assert_eq!(counter(&m, id, "completed0"), 8 * round + 7, "the eighth waits for room");
        for _ in 0..7 {
            assert!(q.take(&mut m).is_some());
        }
        settle(&mut m);
        assert!(q.take(&mut m).is_some() && q.take(&mut m).is_none());
    }
}

#[test]
fn errors_stop_a_queue() {
    let mut m = machine(1);
    let (_, base, q) = ready(&mut m, &[("interrupts", text("line"))]);
    line(&mut m);
    put(&mut m, q.at + 0x20, SIZE);
    assert_eq!(get(&mut m, q.at + 0x18), 4 << 8 | 2);
    assert!(m.line_asserted(GSI));
    put(&mut m, base + 0x10, 1);
    assert!(!m.line_asserted(GSI));
    put(&mut m, q.at + 0x14, 0);
    put(&mut m, q.at, 0xE000_0000);
    put(&mut m, q.at + 0x14, 1);
    put(&mut m, q.at + 0x20, 1);
    settle(&mut m);
    assert_eq!(get(&mut m, q.at + 0x18), 1 << 8 | 2, "no RAM there");
}

#[test]
fn asleep_work_stands_still_and_goes_on() {
    let mut m = machine(1);
    let (id, _, mut q) = ready(&mut m, &[]);
    let bdf = m.bdf(id).unwrap();
    let pm = m.config_read(bdf, 0x34, 1) as u16;
    q.submit(&mut m, NOP, 0, 0, 0, 0);
    q.ring(&mut m);
    m.advance_to(500);
    m.config_write(bdf, pm + 4, 2, 3);
    settle(&mut m);
    assert_eq!(q.take(&mut m), None);
    let woken = m.now();
    m.config_write(bdf, pm + 4, 2, 0);
    settle(&mut m);
    assert_eq!((q.take(&mut m), m.now()), (Some((100, 0, 0)), woken + 2000));
}

#[test]
fn order_and_delay_are_choices() {
    for (name, option, cookies, end) in
        [("order", 0, [100, 101], 2000), ("order", 1, [101, 100], 2000), ("delay", 2, [100, 101], 8000)]
    {
        let mut m = machine(1);
        let (_, _, mut q) = ready(&mut m, &[]);
        m.set_chooser(Box::new(Always(name, option)));
        for _ in 0..2 {
            q.submit(&mut m, NOP, 0, 0, 0, 0);
        }
        q.ring(&mut m);
        settle(&mut m);
        let got = [q.take(&mut m).unwrap().0, q.take(&mut m).unwrap().0];
        assert_eq!((got, m.now()), (cookies, end), "{name} {option}");
    }
}

#[test]
fn a_posted_write_arrives_with_the_next_read_and_never_after_a_message() {
    for (interrupts, late) in [("line", true), ("msix:1", false)] {
        let mut m = machine(1);
        let (id, base, mut q) = ready(&mut m, &[("interrupts", text(interrupts))]);
        m.set_chooser(Box::new(Always("posted", 1)));
        line(&mut m);
        if !late {
            msix(&mut m, id, &[0x61]);
            m.msix_mask(id, 0, false);
        }
        q.submit(&mut m, NOP, 0, 0, 0, 0);
        q.ring(&mut m);
        while m.pending_vector(0).is_none() {
            assert!(m.advance_to_next_event());
        }
        if late {
            assert_eq!(q.take(&mut m), None, "the pin is ahead of the write");
            assert_eq!(get(&mut m, base + 0x10), 1);
            m.run_due_events();
        }
        assert!(q.take(&mut m).is_some());
    }
}

#[test]
fn a_cause_may_be_held_back_and_rise_after_it_was_read() {
    let mut m = machine(1);
    let (id, base, mut q) = ready(&mut m, &[]);
    m.set_chooser(Box::new(Always("coalesce", 1)));
    q.submit(&mut m, NOP, 0, 0, 0, 0);
    q.submit(&mut m, NOP, 0, 0, 0, 0);
    q.ring(&mut m);
    settle(&mut m);
    assert_eq!((counter(&m, id, "signalled0"), counter(&m, id, "completed0")), (1, 2));
    put(&mut m, base + 0x10, 1);
    q.submit(&mut m, NOP, 0, 0, 0, 0);
    q.ring(&mut m);
    settle(&mut m);
    assert_eq!(get(&mut m, base + 0x10), 1, "alone it comes after a while");

    let mut m = machine(1);
    let (_, base, mut q) = ready(&mut m, &[]);
    m.set_chooser(Box::new(Always("rise", 1)));
    q.submit(&mut m, NOP, 0, 0, 0, 0);
    q.ring(&mut m);
    m.advance_to(10);
    assert_eq!(get(&mut m, base + 0x10), 0);
    m.run_due_events();
    assert_eq!((get(&mut m, base + 0x10), m.now()), (1, 0));
    settle(&mut m);
    assert!(q.take(&mut m).is_some() && q.take(&mut m).is_none(), "once");
}

#[test]
fn spurious_interrupts_have_a_budget() {
    for model in ["ring", "pulse", "edu"] {
        let mut m = machine(1);
        let props = [("interrupts", text("line")), ("spurious", PropValue::Int(2))];
        let (id, base) = add(&mut m, model, &props);
        line(&mut m);
        let source = *m.possible_arrivals().iter().map(|(_, s)| s).max().unwrap();
        assert!(!m.idle_arrival(), "never by default");
        assert!(m.arrive(id, source));
        assert!(m.line_asserted(GSI), "{model}");
        get(&mut m, base);
        assert!(!m.line_asserted(GSI), "an access ends it");
        assert!(m.arrive(id, source));
        settle(&mut m);
        assert!(!m.line_asserted(GSI), "and so does time");
        assert!(!m.arrive(id, source) && m.possible_arrivals().is_empty());
    }
    let mut m = machine(1);
    let props = [("interrupts", text("msi:1")), ("spurious", PropValue::Int(1))];
    let (id, base) = add(&mut m, "pulse", &props);
    m.msi_program(id, 0xFEE0_0000, 0x51, 1, true);
    m.set_chooser(Box::new(Always("again", 1)));
    put(&mut m, base + 8, 1);
    m.take_events();
    for sent in [2, 1] {
        put(&mut m, base + 4, 1);
        put(&mut m, base + 0xc, 1);
        let messages = m.take_events().into_iter();
        let kind = |e: &dirql_machine::MachineEvent| {
            matches!(e.kind, dirql_machine::MachineEventKind::Message { .. })
        };
        assert_eq!(messages.filter(kind).count(), sent);
    }
}

proptest! {
    /// Whatever a driver writes where, the device comes to rest and nothing panics.
    #[test]
    fn no_driver_keeps_it_busy(
        writes in prop::collection::vec((0u64..0x1440, any::<u32>(), 0u32..64), 0..200),
        spurious in 0u64..3,
    ) {
        let mut m = machine(1);
        let (_, base, mut q) = ready(&mut m, &[("interrupts", text("line")), ("spurious", PropValue::Int(spurious))]);
        for _ in 0..5 {
            q.submit(&mut m, COPY, 0, q.sq, q.cq, 64);
        }
        q.ring(&mut m);
        for (at, wide, small) in writes {
            put(&mut m, base + (at & !3), if wide & 1 == 0 { small } else { wide });
            m.advance_to_next_event();
        }
        settle(&mut m);
    }
}
