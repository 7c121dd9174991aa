//! uart16550: registers, timing, interrupts, on PCI and at ISA ports.

mod common;

use std::collections::BTreeMap;

use common::{Always, counter, dispatch, machine, text};
use dirql_devices::{PropValue, build};
use dirql_machine::{AddDeviceError, BarKind, Dest, DeviceId, IsaSlotConfig, Machine, PciSlotConfig, Wiring};

const PORT: u16 = 0x3f8;
const IRQ: u32 = 4;
/// A character of 8N1 at 115200 baud, in ns.
const CHARACTER: u64 = 86_805;
/// A bit.
const BIT: u64 = 8_680;

fn isa(m: &mut Machine, props: &[(&str, PropValue)]) -> Result<DeviceId, AddDeviceError> {
    let props: BTreeMap<_, _> = props.iter().map(|(k, v)| ((*k).to_string(), v.clone())).collect();
    let dev = build("uart16550", &props).map_err(|e| e.to_string()).unwrap();
    let regions = vec![BarKind::Io { port: u32::from(PORT), len: 8 }];
    m.add_isa_device(IsaSlotConfig { regions, irq: Some(IRQ) }, dev)
}

fn get(m: &mut Machine, at: u16) -> u32 {
    m.port_in(0, PORT + at, 1)
}

fn put(m: &mut Machine, at: u16, value: u32) {
    m.port_out(0, PORT + at, 1, value);
}

/// 115200 8N1, FIFOs with this trigger, all modem outputs, these interrupts.
fn open(m: &mut Machine, fcr: u32, ier: u32) {
    put(m, 3, 0x80);
    put(m, 0, 1);
    put(m, 1, 0);
    put(m, 3, 3);
    put(m, 2, fcr);
    put(m, 1, ier);
    put(m, 4, 0xb);
}

fn route(m: &mut Machine) {
    assert_eq!(m.wiring(IRQ), Some(Wiring { level: false, active_low: false }));
    m.ioapic_route(IRQ, 0x61, false, false, Dest::Cpu(0));
    m.ioapic_mask(IRQ, false);
}

#[test]
fn an_isa_device_has_its_place_and_no_configuration() {
    let mut m = machine(1);
    let id = isa(&mut m, &[]).unwrap();
    assert_eq!((m.bdf(id), m.pci(id).unwrap().is_pci()), (None, false));
    assert_eq!(m.bars(id)[0].kind, BarKind::Io { port: 0x3f8, len: 8 });
    assert!(matches!(isa(&mut m, &[]), Err(AddDeviceError::Region(_))), "the ports are taken");
    put(&mut m, 7, 0x5a);
    assert_eq!(get(&mut m, 7), 0x5a);
    assert_eq!(m.port_in(0, PORT + 8, 1), 0xff);
    let card = build("uart16550", &BTreeMap::new()).map_err(|e| e.to_string()).unwrap();
    let card = m.add_device(PciSlotConfig::default(), card).unwrap();
    assert_eq!(m.bdf(card).unwrap().device, 1, "the first slot: the other is not on PCI");
    assert_eq!(m.config_read(m.bdf(card).unwrap(), 8, 4), 0x0700_0201);
    m.detach(id);
    assert_eq!(get(&mut m, 7), 0xff);
}

#[test]
fn it_sends_with_the_line_s_timing() {
    let mut m = machine(1);
    let id = isa(&mut m, &[]).unwrap();
    route(&mut m);
    open(&mut m, 0, 2);
    assert_eq!(dispatch(&mut m), Some(0x61), "THR is empty");
    assert_eq!((get(&mut m, 2), get(&mut m, 2)), (2, 1), "reading IIR takes it back");
    assert_eq!(get(&mut m, 5), 0x60);
    put(&mut m, 0, u32::from(b'h'));
    assert_eq!((get(&mut m, 5), dispatch(&mut m)), (0, None));
    m.advance_to_next_event();
    assert_eq!((m.now(), dispatch(&mut m)), (BIT, Some(0x61)), "it went to the shift register");
    get(&mut m, 2);
    put(&mut m, 0, u32::from(b'i'));
    assert_eq!(get(&mut m, 5), 0, "both are full");
    while get(&mut m, 5) & 0x40 == 0 {
        assert!(m.advance_to_next_event());
    }
    assert_eq!(m.now(), BIT + 2 * CHARACTER);
    assert_eq!((counter(&m, id, "out0"), counter(&m, id, "tx_count")), (0x6869, 2));
}

#[test]
fn characters_arrive_at_the_trigger_and_by_timeout() {
    let mut m = machine(1);
    let id = isa(&mut m, &[("input", text("hello"))]).unwrap();
    route(&mut m);
    open(&mut m, 0x41, 1);
    while m.pending_vector(0).is_none() {
        assert!(m.advance_to_next_event());
    }
    assert_eq!((m.now(), get(&mut m, 2)), (4 * CHARACTER, 0xc4));
    m.accept(0, 0x61);
    for c in b"hell" {
        assert_eq!(get(&mut m, 0), u32::from(*c));
    }
    m.eoi(0);
    assert_eq!(get(&mut m, 2), 0xc1);
    while m.pending_vector(0).is_none() {
        assert!(m.advance_to_next_event());
    }
    assert_eq!((m.now(), get(&mut m, 2)), (9 * CHARACTER, 0xcc), "four characters of silence");
    assert_eq!((get(&mut m, 0), get(&mut m, 5)), (u32::from(b'o'), 0x60));
    for _ in 0..17 {
        m.device_raise(id, 0x55).unwrap();
    }
    while m.advance_to_next_event() {}
    assert_eq!((get(&mut m, 5), get(&mut m, 5)), (0x63, 0x61), "an overrun, told once");
    assert_eq!(counter(&m, id, "rx_waiting"), 16);
}

#[test]
fn an_edge_counts_once_while_a_cause_stays() {
    let mut m = machine(1);
    let id = isa(&mut m, &[]).unwrap();
    route(&mut m);
    open(&mut m, 0, 1);
    m.device_raise(id, 1).unwrap();
    m.advance_to_next_event();
    assert_eq!((dispatch(&mut m), dispatch(&mut m)), (Some(0x61), None));
    m.device_raise(id, 2).unwrap();
    m.advance_to_next_event();
    assert_eq!(dispatch(&mut m), None, "the pin never fell");
    assert_eq!(get(&mut m, 0), 2, "and the first is overrun");
    m.device_raise(id, 3).unwrap();
    m.advance_to_next_event();
    assert_eq!(dispatch(&mut m), Some(0x61));
}

#[test]
fn loopback_returns_what_is_sent_and_the_modem_lines() {
    let mut m = machine(1);
    let id = isa(&mut m, &[("input", text("x"))]).unwrap();
    route(&mut m);
    open(&mut m, 1, 1);
    put(&mut m, 4, 0x1a);
    assert_eq!(get(&mut m, 6) >> 4, 0b1001, "RTS comes back as CTS, OUT2 as DCD");
    put(&mut m, 0, 0x41);
    while m.now() < BIT + CHARACTER {
        assert!(m.advance_to_next_event());
    }
    assert_eq!((get(&mut m, 5) & 1, get(&mut m, 0)), (1, 0x41));
    assert_eq!(dispatch(&mut m), None, "OUT2's pin is off");
    assert_eq!((counter(&m, id, "tx_count"), counter(&m, id, "rx_count")), (0, 1));
}

#[test]
fn without_a_rate_or_rts_nothing_moves() {
    let mut m = machine(1);
    let id = isa(&mut m, &[("input", text("x"))]).unwrap();
    put(&mut m, 4, 0xb);
    put(&mut m, 0, 0x41);
    assert!(!m.advance_to_next_event());
    open(&mut m, 0, 0);
    put(&mut m, 4, 8);
    while m.advance_to_next_event() {}
    assert_eq!(counter(&m, id, "input_left"), 0, "a character under way still comes");
    m.device_raise(id, 7).unwrap();
    assert!(!m.advance_to_next_event());
    assert!(m.device_raise(id, 257).is_err());
}

#[test]
fn a_character_may_come_right_after_iir_was_read() {
    let mut m = machine(1);
    isa(&mut m, &[("input", text("x"))]).unwrap();
    m.set_chooser(Box::new(Always("rise", 1)));
    open(&mut m, 0, 1);
    assert_eq!(get(&mut m, 2), 1);
    m.run_due_events();
    assert_eq!((get(&mut m, 2), m.now()), (4, 0));
}
